"""Every verb does what the contract says, from files to files."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from modalign.cli.main import VERBS
from modalign.data.pairs import Pair
from modalign.geometry import Grid
from modalign.image import Image, Points
from modalign.io import read_image, read_points, read_transform, write_image, write_points
from modalign.registration import ENGINES
from modalign.representation import ComirModel

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


def test_strict_exits_with_3_unless_accepted(run: Run, displaced: Displaced, tmp_path: Path) -> None:
    arguments = ("register", displaced.fixed, displaced.moving, "--engine", "fft-search", "--out", tmp_path / "r")
    assert run(*arguments, "--strict").status == 0
    other = ("--engine", "fft-search", "--max-rotation-degrees", "2", "--strict")
    ran = run(*arguments[:3], *other, "--out", tmp_path / "s", "--json")
    assert (ran.status == 0) == (json.loads(ran.out)["status"] == "accepted")


def test_every_engine_is_called_by_its_name_and_shows_its_own_options(run: Run) -> None:
    from modalign.cli.register import command_class

    for name, method in ENGINES.items():
        chosen = command_class(["a", "b", "--engine", name])
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
