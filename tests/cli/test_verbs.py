"""Every verb does what the contract says, from files to files."""

import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from modalign.cli.console import parse
from modalign.cli.engine_choice import with_engine_options
from modalign.cli.main import VERBS
from modalign.cli.register import Register
from modalign.data.pairs import Pair
from modalign.geometry import Affine, Grid, corner_error
from modalign.image import Image, Points
from modalign.io import read_image, read_points, read_transform, write_image, write_json, write_points, write_transform
from modalign.registration import ENGINES
from modalign.representation import ComirModel
from modalign.testing.registration import known_pair

from .conftest import Displaced

Run = Callable[..., tuple[int, str, str]]
QUICK = (
    "--steps",
    4,
    "--network",
    "unet",
    "--batch",
    4,
    "--patch",
    16,
    "--validation.draws",
    1,
    "--calibration.displaced",
    2,
    "--calibration.unrelated",
    1,
    "--calibration.missed",
    1,
    "--accelerator",
    "cpu",
)


def test_help_is_quick_and_imports_neither_torch_nor_opencv() -> None:
    code = (
        "import sys, resource; from modalign.cli.main import main; status = main(['--help']);"
        "heavy = {'torch', 'cv2', 'SimpleITK', 'scipy', 'matplotlib', 'tyro'} & set(sys.modules);"
        "used = resource.getrusage(resource.RUSAGE_SELF);"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    for verb in VERBS:
        assert verb in ran.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(run: Run, verb: str) -> None:
    ran = run(verb, "--help")
    assert ran.status == 0
    assert f"modalign {verb}" in ran.out


def test_train_writes_a_model_that_registers(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    trained = run("train", *folders, "--out", tmp_path / "m", *QUICK, "--licence", "MIT")
    assert trained.status in (0, 3)  # four steps teach little, and it says so
    assert ("next: modalign register" in trained.out) == (trained.status == 0)
    card = ComirModel.load(tmp_path / "m").card
    assert (card.fixed.name, card.moving.name) == ("colour", "signal")
    assert card.training["licence"] == "MIT"
    assert not (tmp_path / "m.training").exists()
    registered = run(
        "register", folders[0] / "p0.png", folders[1] / "p0.tif", "--model", tmp_path / "m", "--out", tmp_path / "r"
    )
    assert registered.status in (0, 3)
    assert (tmp_path / "r" / "result.json").is_file()
    assert (tmp_path / "r" / "fixed_representation.png").is_file()


def test_train_reads_a_table_of_pairs_with_masks(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    mask = np.full((1, 96, 112), 255, dtype=np.uint8)
    mask[:, :, 90:] = 0
    write_image(tmp_path / "mask.png", Image(mask, Grid((96, 112))))
    (tmp_path / "pairs.csv").write_text(
        "name,fixed,moving,mask\none,colour/p0.png,signal/p0.tif,mask.png\ntwo,colour/p1.png,signal/p1.tif,\n"
    )
    ran = run("train", tmp_path / "pairs.csv", "--out", tmp_path / "m", *QUICK)
    assert ran.status in (0, 3), ran.err
    assert ComirModel.load(tmp_path / "m").card.training["pairs"] in (["one"], ["two"])


def test_encode_keeps_size_and_pixel_size(run: Run, model: Path, pairs: list[Pair], tmp_path: Path) -> None:
    image = pairs[0].moving.with_grid(Grid(pairs[0].moving.grid.shape, (0.5, 0.5), unit="micrometer"))
    write_image(tmp_path / "in.ome.tif", image)
    out = tmp_path / "latents.ome.tif"
    ran = run(
        "encode",
        tmp_path / "in.ome.tif",
        "--model",
        model,
        "--side",
        "moving",
        "--out",
        out,
        "--picture",
        tmp_path / "p.png",
    )
    assert ran.status == 0, ran.err
    latents = read_image(out)
    assert latents.data.dtype == np.float32
    assert latents.grid == image.grid
    assert read_image(tmp_path / "p.png").data.shape == (3, *image.grid.shape)


@pytest.mark.parametrize("engine", ["auto", "fft-search", "sift"])
def test_register_finds_the_truth_and_writes_everything(
    run: Run, displaced: Displaced, tmp_path: Path, engine: str
) -> None:
    ran = run("register", displaced.fixed, displaced.moving, "--engine", engine, "--out", tmp_path / "r", "--json")
    assert ran.status == 0, ran.err
    result = json.loads(ran.out)
    assert result["status"] == "accepted"
    assert result["engine"] == ENGINES[engine].name
    assert 0.9 <= result["confidence"] <= 1
    matrix = np.array(result["fixed_to_moving"]["matrix_zyx"])
    assert np.allclose(np.array(result["fixed_to_moving"]["matrix_xy"])[[1, 0, 2]][:, [1, 0, 2]], matrix)
    grid = read_image(displaced.fixed).grid
    truth, found = read_transform(displaced.truth).transform, read_transform(result["files"]["transform"]).transform
    np.testing.assert_allclose(found.map_points(grid.corners), truth.map_points(grid.corners), atol=0.7)
    for name in ("report", "aligned", "checkerboard", "overlay", "itk_transform", "result"):
        assert Path(result["files"][name]).is_file()
    assert sitk.ReadTransform(result["files"]["itk_transform"]).GetDimension() == 2
    aligned, fixed = read_image(result["files"]["aligned"]), read_image(displaced.fixed)
    assert aligned.data.dtype == np.uint8
    assert aligned.channels == fixed.channels
    inner = (slice(None), slice(40, 80), slice(40, 90))
    assert np.abs(aligned.data[inner].astype(float) - fixed.data[inner]).mean() < 6


def test_refused_registration_leaves_no_transform(run: Run, tmp_path: Path, make_pair: Callable[..., Pair]) -> None:
    write_image(tmp_path / "a.png", make_pair(1).fixed)
    write_image(tmp_path / "b.png", make_pair(77).fixed)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "transform.json").write_text("left over from yesterday")
    ran = run("register", tmp_path / "a.png", tmp_path / "b.png", "--engine", "sift", "--out", tmp_path / "r", "--json")
    assert ran.status == 3
    result = json.loads(ran.out)
    assert result["status"] == "refused"
    assert result["fixed_to_moving"] is None
    assert not (tmp_path / "r" / "transform.json").exists()
    assert json.loads((tmp_path / "r" / "result.json").read_text())["status"] == "refused"
    assert "refused" in (tmp_path / "r" / "report.html").read_text(encoding="utf-8").lower()


def test_a_refused_result_is_written_where_it_is_forced(
    run: Run, tmp_path: Path, make_pair: Callable[..., Pair]
) -> None:
    """The status stays what it is, and the transform file says so."""
    write_image(tmp_path / "a.png", make_pair(1).fixed)
    write_image(tmp_path / "b.png", make_pair(77).fixed)
    arguments = ("register", tmp_path / "a.png", tmp_path / "b.png", "--engine", "fft-search", "--out", tmp_path / "r")
    assert run(*arguments).status == 3
    assert not (tmp_path / "r" / "aligned.tif").exists()
    ran = run(*arguments, "--force", "--json")
    assert ran.status == 3
    result = json.loads(ran.out)
    assert result["status"] == "refused"
    assert (tmp_path / "r" / "aligned.tif").is_file()
    assert read_transform(tmp_path / "r" / "transform.json").info["status"] == "refused"


def test_volumes_are_registered_with_all_files(run: Run, tmp_path: Path) -> None:
    """Pictures of volumes show their middle section."""
    fixed, moving, truth = known_pair(3)
    for name, image in (("f", fixed), ("m", moving)):
        write_image(tmp_path / f"{name}.nii.gz", image.with_grid(replace(image.grid, unit="millimeter")))
    out = tmp_path / "r"
    ran = run("register", tmp_path / "f.nii.gz", tmp_path / "m.nii.gz", "--engine", "mutual-information", "--out", out)
    assert ran.status == 0
    found = read_transform(out / "transform.json").transform
    assert corner_error(fixed.grid, found, truth) < 0.3
    assert read_image(out / "aligned.nii.gz").grid.shape == fixed.grid.shape
    assert read_image(out / "overlay.png").ndim == 2
    assert (out / "checkerboard.png").is_file()
    assert (out / "report.html").is_file()


def test_strict_exits_with_3_unless_accepted(run: Run, displaced: Displaced, tmp_path: Path) -> None:
    arguments = ("register", displaced.fixed, displaced.moving, "--engine", "fft-search", "--out", tmp_path / "r")
    assert run(*arguments, "--strict").status == 0
    other = ("--engine", "fft-search", "--max-rotation-degrees", "2", "--strict")
    ran = run(*arguments[:3], *other, "--out", tmp_path / "s", "--json")
    assert (ran.status == 0) == (json.loads(ran.out)["status"] == "accepted")


def test_every_engine_is_called_by_its_name_and_shows_its_own_options(run: Run) -> None:
    for name, method in ENGINES.items():
        chosen = with_engine_options(Register, ["a", "b", "--engine", name])
        assert {entry.name: entry for entry in fields(chosen)}["method"].default == method


def test_pixel_sizes_given_by_hand_are_world_units(run: Run, displaced: Displaced, tmp_path: Path) -> None:
    sizes = ("--fixed-pixel-size", 0.25, "--moving-pixel-size", 0.25)
    ran = run("register", displaced.fixed, displaced.moving, *sizes, "--out", tmp_path / "r", "--json")
    result = json.loads(ran.out)
    assert result["fixed_to_moving"]["unit"] == "micrometer"
    found = np.array(result["fixed_to_moving"]["matrix_zyx"])
    truth = read_transform(displaced.truth).transform.matrix  # type: ignore[attr-defined]
    np.testing.assert_allclose(found[:2, 2], 0.25 * truth[:2, 2], atol=0.15)


def test_apply_moves_images_labels_and_points_alike(run: Run, displaced: Displaced, tmp_path: Path) -> None:
    """A dot in the moving image, its label and its coordinate all arrive at the same place."""
    truth = read_transform(displaced.truth).transform
    there = np.array([[60.0, 70.0]])
    here = truth.map_points(there)[0]
    data = np.zeros((1, 120, 130), dtype=np.uint16)
    yy, xx = np.mgrid[:120, :130]
    data[0] = 60000 * np.exp(-((yy - here[0]) ** 2 + (xx - here[1]) ** 2) / 8)
    labels = (data > 30000).astype(np.uint16) * 40000
    write_image(tmp_path / "dot.tif", Image(data, Grid((120, 130))))
    write_image(tmp_path / "labels.tif", Image(labels, Grid((120, 130))))
    write_points(tmp_path / "points.csv", Points(here[None]))
    common = (displaced.truth, "--like", displaced.fixed)
    assert run("apply", tmp_path / "dot.tif", *common, "--out", tmp_path / "dot_out.tif").status == 0
    assert run("apply", tmp_path / "labels.tif", *common, "--labels", "--out", tmp_path / "labels_out.tif").status == 0
    assert run("apply", tmp_path / "points.csv", *common, "--out", tmp_path / "points_out.csv").status == 0
    dot = read_image(tmp_path / "dot_out.tif")
    assert dot.data.dtype == np.uint16
    weights = dot.data[0].astype(float)
    center = [float((axis * weights).sum() / weights.sum()) for axis in (yy, xx)]
    np.testing.assert_allclose(center, there[0], atol=0.05)
    moved = read_image(tmp_path / "labels_out.tif").data[0]
    assert set(np.unique(moved)) == {0, 40000}
    np.testing.assert_allclose(np.argwhere(moved).mean(axis=0), there[0], atol=0.3)
    np.testing.assert_allclose(read_points(tmp_path / "points_out.csv").coordinates, there, atol=1e-6)
    back = run(
        "apply", tmp_path / "points_out.csv", displaced.truth, "--points-of", "fixed", "--out", tmp_path / "b.csv"
    )
    assert back.status == 0
    np.testing.assert_allclose(read_points(tmp_path / "b.csv").coordinates, here[None], atol=1e-6)


def test_what_is_read_is_never_written_over(run: Run, displaced: Displaced, tmp_path: Path) -> None:
    """A second run of the same command would move the image twice."""
    image, transform = tmp_path / "copy.tif", tmp_path / "copy.json"
    shutil.copy(displaced.moving, image)
    shutil.copy(displaced.truth, transform)
    (tmp_path / "link").symlink_to(tmp_path)
    before = image.read_bytes(), transform.read_bytes()
    for out in (image, transform, displaced.fixed, tmp_path / "link" / "copy.tif"):
        ran = run("apply", image, transform, "--like", displaced.fixed, "--out", out)
        assert ran.status == 2
        assert "which is read; give another name to --out" in ran.err
    write_image(tmp_path / "a.ome.zarr", read_image(displaced.moving))
    inside = tmp_path / "a.ome.zarr" / "b.tif"
    assert run("apply", tmp_path / "a.ome.zarr", transform, "--like", displaced.fixed, "--out", inside).status == 2
    assert before == (image.read_bytes(), transform.read_bytes())


def test_evaluate_against_truth_and_landmarks(run: Run, displaced: Displaced, tmp_path: Path) -> None:
    ran = run("evaluate", displaced.truth, "--truth", displaced.truth, "--json")
    assert ran.status == 0
    evaluation = json.loads(ran.out)
    assert evaluation["error"]["mean"]["pixels"] == pytest.approx(0, abs=1e-9)
    assert evaluation["initial_error"]["mean"]["pixels"] > 5
    assert all(success["reached"] for success in evaluation["success"])
    fixed = np.array([[10.0, 20.0], [30.0, 90.0], [80.0, 50.0]])
    moving = read_transform(displaced.truth).transform.map_points(fixed) + np.array([3.0, 4.0])
    write_points(tmp_path / "f.csv", Points(fixed))
    write_points(tmp_path / "m.csv", Points(moving))
    ran = run("evaluate", displaced.truth, "--landmarks", tmp_path / "f.csv", tmp_path / "m.csv", "--json")
    assert json.loads(ran.out)["error"]["median"]["pixels"] == pytest.approx(5.0)
    assert "within 2.0% of the width" in run("evaluate", displaced.truth, "--truth", displaced.truth).out


def test_info_tells_about_everything(run: Run, displaced: Displaced, model: Path) -> None:
    assert json.loads(run("info", displaced.fixed, "--json").out)["kind"] == "image"
    assert json.loads(run("info", displaced.truth, "--json").out)["direction"] == "fixed_to_moving"
    described = json.loads(run("info", model, "--json").out)
    assert described["modalities"]["moving"]["channels"] == ["signal"]


def test_info_tells_about_images_in_folders(run: Run, tmp_path: Path) -> None:
    image = Image(np.arange(9 * 10 * 11, dtype=np.uint16).reshape(1, 9, 10, 11), Grid((9, 10, 11), unit="millimeter"))
    write_image(tmp_path / "a.ome.zarr", image)
    facts = json.loads(run("info", tmp_path / "a.ome.zarr", "--json").out)
    assert (facts["kind"], facts["format"], facts["shape"]) == ("image", "OME-Zarr", [9, 10, 11])
    (tmp_path / "a.ome.zarr" / "zarr.json").unlink()
    assert "no OME-Zarr image" in run("info", tmp_path / "a.ome.zarr").err
    (tmp_path / "nothing").mkdir()
    assert "holds no model, no result" in run("info", tmp_path / "nothing").err


def test_info_tells_about_results(run: Run, displaced: Displaced, tmp_path: Path) -> None:
    assert run("register", displaced.fixed, displaced.moving, "--engine", "sift", "--out", tmp_path / "r").status == 0
    for path in (tmp_path / "r", tmp_path / "r" / "result.json"):
        facts = json.loads(run("info", path, "--json").out)
        assert (facts["kind"], facts["status"], facts["engine"]) == ("result", "accepted", "features")
        assert facts["files"]["transform"] == str(tmp_path / "r" / "transform.json")
        assert facts["reasons"]
        assert 0.9 < facts["confidence"] <= 1
    assert f"reasons: {'; '.join(facts['reasons'])}" in run("info", tmp_path / "r").out
    write_json(tmp_path / "b" / "batch.json", {"kind": "batch"})
    for name, status in (("one", "refused"), ("two", "accepted"), ("three", "accepted")):
        write_json(tmp_path / "b" / "pairs" / name / "result.json", {"status": status, "reasons": []})
    facts = json.loads(run("info", tmp_path / "b", "--json").out)
    assert facts == {"kind": "batch", "pairs": 3, "status": {"accepted": 2, "refused": 1}}


def test_a_table_of_points_keeps_its_other_columns(run: Run, displaced: Displaced, tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text("id,X,Y,class,area\n7,10,20,tumour,0.50\n9,30,40,stroma,2\n")
    ran = run("apply", tmp_path / "cells.csv", displaced.truth, "--out", tmp_path / "o.csv")
    assert ran.status == 0
    assert "coordinates are taken to be in pixels" in ran.err
    header, *lines = (tmp_path / "o.csv").read_text().splitlines()
    assert header == "id,X,Y,class,area"
    rows = [line.split(",") for line in lines]
    assert [(row[0], row[3], row[4]) for row in rows] == [("7", "tumour", "0.50"), ("9", "stroma", "2")]
    there = read_transform(displaced.truth).transform.map_points(np.array([[float(r[2]), float(r[1])] for r in rows]))
    np.testing.assert_allclose(there, [[20, 10], [40, 30]], atol=1e-9)


def test_points_in_other_units_are_mentioned(run: Run, tmp_path: Path) -> None:
    moving, fixed = Grid((9, 9), (2.0, 2.0), unit="nanometer"), Grid((9, 9), (0.5, 0.5), unit="micrometer")
    write_transform(tmp_path / "t.json", Affine.from_matrix(np.diag([1e3, 1e3, 1.0])), fixed=fixed, moving=moving)
    write_points(tmp_path / "p.csv", Points(np.array([[2000.0, 1000.0]])))
    ran = run("apply", tmp_path / "p.csv", tmp_path / "t.json", "--out", tmp_path / "o.csv")
    assert "in nanometers, the unit of the moving image; written in micrometers" in ran.err
    np.testing.assert_allclose(read_points(tmp_path / "o.csv").coordinates, [[2.0, 1.0]])


def test_an_image_lands_on_the_stored_grid_unless_another_is_given(
    run: Run, displaced: Displaced, tmp_path: Path
) -> None:
    ran = run("apply", displaced.moving, displaced.truth, "--out", tmp_path / "stored.tif")
    assert ran.status == 0
    liked = run("apply", displaced.moving, displaced.truth, "--like", displaced.fixed, "--out", tmp_path / "liked.tif")
    assert liked.status == 0
    stored = read_image(tmp_path / "stored.tif")
    assert stored.grid == read_transform(displaced.truth).fixed
    np.testing.assert_array_equal(stored.data, read_image(tmp_path / "liked.tif").data)


@pytest.mark.parametrize("status", ["accepted", "unsure", "refused"])
def test_a_transform_that_was_not_accepted_is_warned_of(
    run: Run, displaced: Displaced, tmp_path: Path, status: str
) -> None:
    stored = read_transform(displaced.truth)
    path = tmp_path / "t.json"
    write_transform(path, stored.transform, fixed=stored.fixed, moving=stored.moving, info={"status": status})
    for arguments in (
        ("apply", displaced.moving, path, "--out", tmp_path / "o.png"),
        ("evaluate", path, "--truth", displaced.truth),
    ):
        ran = run(*arguments)
        assert ran.status == 0
        warnings = [line for line in ran.err.splitlines() if line.startswith("warning: ")]
        assert len(warnings) == (status != "accepted")
        assert all(status in line and str(path) in line for line in warnings)


def test_pixel_sizes_may_differ_between_axes(run: Run, displaced: Displaced, tmp_path: Path) -> None:
    sizes = ("--fixed-pixel-size", 0.25, 0.5, "--moving-pixel-size", 0.25)
    ran = run("register", displaced.fixed, displaced.moving, *sizes, "--out", tmp_path / "r", "--force", "--json")
    assert ran.status in (0, 3)
    stored = read_transform(tmp_path / "r" / "transform.json")
    assert (stored.fixed.spacing, stored.moving.spacing) == ((0.25, 0.5), (0.25, 0.25))
    words = json.loads((tmp_path / "r" / "result.json").read_text())["provenance"]["command"]
    assert words[words.index("--fixed-pixel-size") + 1 :][:2] == ["0.25", "0.5"]
    again = parse(with_engine_options(Register, words[2:]), "register", words[2:])
    assert (again.fixed_pixel_size, again.moving_pixel_size) == ((0.25, 0.5), (0.25,))


def test_what_is_not_trusted_comes_with_commands_to_try(
    run: Run, tmp_path: Path, make_pair: Callable[..., Pair]
) -> None:
    """The first of those in the report; and a forced transform is not offered without a warning."""
    write_image(tmp_path / "a.png", make_pair(1).fixed)
    write_image(tmp_path / "b.png", make_pair(77).fixed)
    out = ("--out", tmp_path / "r", "--force")
    ran = run("register", tmp_path / "a.png", tmp_path / "b.png", "--engine", "fft-search", *out)
    assert ran.status == 3
    lines = ran.out.splitlines()
    tries = [number for number, line in enumerate(lines) if line.startswith("try: ")]
    assert len(tries) == 2
    report = re.sub("<[^>]*>", "", (tmp_path / "r" / "report.html").read_text(encoding="utf-8"))
    for number in tries:
        assert lines[number + 1].startswith("  modalign register ")
        assert lines[number + 1].strip() in html.unescape(report)
    assert lines[-1].startswith("next (not to be trusted: it was refused): modalign apply IMAGE")


def test_a_missing_pixel_size_is_mentioned(run: Run, displaced: Displaced, tmp_path: Path) -> None:
    ran = run(
        "register", displaced.fixed, displaced.moving, "--fixed-pixel-size", 0.5, "--out", tmp_path / "r", "--json"
    )
    assert any("moving image has no pixel size" in reason for reason in json.loads(ran.out)["notes"])


def test_result_of_apply_has_the_pixel_size_of_like(run: Run, displaced: Displaced, tmp_path: Path) -> None:
    sized = read_image(displaced.fixed).with_grid(Grid((120, 130), (0.5, 0.5), unit="micrometer"))
    write_image(tmp_path / "sized.ome.tif", sized)
    like = ("--like", tmp_path / "sized.ome.tif", "--out", tmp_path / "o.ome.tif")
    assert run("apply", displaced.moving, displaced.truth, *like).status == 0
    assert read_image(tmp_path / "o.ome.tif").grid == sized.grid


def test_images_of_another_size_than_the_transform_was_found_for_are_mentioned(
    run: Run, displaced: Displaced, tmp_path: Path
) -> None:
    write_image(tmp_path / "larger.png", Image(np.zeros((1, 200, 220), dtype=np.uint8), Grid((200, 220))))
    like = ("--like", tmp_path / "larger.png", "--out", tmp_path / "o.png")
    ran = run("apply", displaced.moving, displaced.truth, *like)
    assert ran.status == 0
    assert "200 × 220" in ran.err


def test_a_large_image_is_represented_in_windows(
    run: Run, model: Path, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "i.tif", pairs[0].fixed)
    encode = ("encode", tmp_path / "i.tif", "--model", model, "--side", "fixed", "--tile", 32)
    assert run(*encode, "--out", tmp_path / "whole.tif").status == 0
    monkeypatch.setattr("modalign.cli.encode.LARGE", 0)
    ran = run(*encode, "--out", tmp_path / "windows.ome.zarr")
    assert (ran.status, "encode" in ran.err) == (0, True)
    whole, windows = (read_image(tmp_path / name).data for name in ("whole.tif", "windows.ome.zarr"))
    np.testing.assert_allclose(windows, whole, atol=1e-5)
