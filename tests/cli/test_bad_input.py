"""Bad input gives one clear line and exit status 2, and leaves nothing broken."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modalign.data.pairs import Pair
from modalign.geometry import Grid
from modalign.image import Image
from modalign.io import read_image, read_transform, write_image, write_transform
from modalign.representation import ComirModel

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--steps", "4", "--batch", "4", "--patch", "16", "--validation.draws", "1", "--accelerator", "cpu")


def one_line(ran: tuple[int, str, str], *parts: str) -> None:
    status, _, err = ran
    lines = [line for line in err.splitlines() if line.startswith("modalign: ")]
    assert status == 2, err
    assert len(lines) == 1, err
    assert "Traceback" not in err
    for part in parts:
        assert part in lines[0]


def gray(value: np.ndarray) -> Image:
    return Image(value[None], Grid(value.shape))


def test_empty_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one_line(run("train", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "m"), "no image file")


def test_missing_folder(run: Run, tmp_path: Path) -> None:
    one_line(run("train", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "m"), "no such folder")


def test_one_folder_alone(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    one_line(run("train", folders[0], "--out", tmp_path / "m"), "needs a second folder")


def test_an_image_in_place_of_folders(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    one_line(run("train", folders[0] / "p0.png", "--out", tmp_path / "m"), "p0.png")


def test_images_without_partner_are_all_named(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[0] / "p1.png").unlink()
    (folders[1] / "p2.tif").unlink()
    one_line(run("train", *folders, "--out", tmp_path / "m"), "p1.tif has no partner", "p2.png has no partner")


def test_different_sizes_and_unreadable_files_are_all_named(
    run: Run, folders: tuple[Path, Path], tmp_path: Path, make_pair: Callable[..., Pair]
) -> None:
    write_image(folders[0] / "p1.png", make_pair(1, (50, 60)).fixed)
    (folders[1] / "p2.tif").write_bytes(b"")
    one_line(run("train", *folders, "--out", tmp_path / "m"), "'p1'", "same size", "p2.tif")


@pytest.mark.parametrize("spoilt", ["nan", "constant"])
def test_images_to_learn_from_must_hold_something(
    run: Run, folders: tuple[Path, Path], tmp_path: Path, spoilt: str
) -> None:
    data = np.full((96, 112), 3.0, dtype=np.float32)
    if spoilt == "nan":
        data[:50] = np.random.default_rng(0).random((50, 112))
        data[60, 60] = np.nan
    write_image(folders[1] / "p3.tif", gray(data))
    one_line(run("train", *folders, "--out", tmp_path / "m"), "'p3'", "not finite" if spoilt == "nan" else "constant")


def test_other_channels_are_named(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    write_image(folders[0] / "p2.png", gray(np.random.default_rng(0).integers(0, 255, (96, 112)).astype(np.uint8)))
    one_line(run("train", *folders, "--out", tmp_path / "m"), "'p2'", "1 channels")


def test_too_small_images(run: Run, tmp_path: Path, make_pair: Callable[..., Pair]) -> None:
    pair = make_pair(0, (14, 14))
    write_image(tmp_path / "a" / "x.png", pair.fixed)
    write_image(tmp_path / "b" / "x.tif", pair.moving)
    one_line(run("train", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "m"), "'x' is too small")


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "nii.gz", "npy"])
def test_truncated_and_empty_files(run: Run, displaced: tuple[Path, ...], tmp_path: Path, kind: str) -> None:
    whole = tmp_path / f"whole.{kind}"
    write_image(whole, gray(np.random.default_rng(0).integers(0, 255, (60, 70)).astype(np.uint8)))
    for name, content in (("half", whole.read_bytes()[: whole.stat().st_size // 2]), ("empty", b"")):
        path = tmp_path / f"{name}.{kind}"
        path.write_bytes(content)
        one_line(run("register", path, displaced[1], "--out", tmp_path / "r"), path.name)
    assert not (tmp_path / "r").exists()


def test_text_called_tif(run: Run, displaced: tuple[Path, ...], tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_text("hello")
    one_line(run("register", tmp_path / "x.tif", displaced[1], "--out", tmp_path / "r"), "x.tif")


def test_missing_image_and_unknown_suffix(run: Run, displaced: tuple[Path, ...], tmp_path: Path) -> None:
    one_line(run("register", tmp_path / "no.png", displaced[1], "--out", tmp_path / "r"), "no.png")
    (tmp_path / "x.docx").write_text("hello")
    one_line(run("register", tmp_path / "x.docx", displaced[1], "--out", tmp_path / "r"), "x.docx")


@pytest.mark.parametrize("spoilt", ["nan", "constant"])
def test_images_to_register_must_hold_something(
    run: Run, displaced: tuple[Path, ...], tmp_path: Path, spoilt: str
) -> None:
    data = np.full((120, 130), 3.0, dtype=np.float32)
    if spoilt == "nan":
        data[40] = np.nan
    write_image(tmp_path / "x.tif", gray(data))
    for engine in ("auto", "fft-search", "sift", "mutual-information"):
        ran = run("register", tmp_path / "x.tif", displaced[1], "--engine", engine, "--out", tmp_path / "r")
        assert ran[0] == 3
        assert "the fixed image is constant" in ran[1]
        assert (tmp_path / "r" / "report.html").is_file()


def test_transparent_palette_and_one_bit_pictures_are_read(
    run: Run, displaced: tuple[Path, ...], tmp_path: Path
) -> None:
    """These are no errors: they register like the plain picture."""
    import PIL.Image

    picture = PIL.Image.open(displaced[0])
    for name, odd in (("rgba", picture.convert("RGBA")), ("palette", picture.convert("P", palette=1))):
        odd.save(tmp_path / f"{name}.png")
        ran = run("register", displaced[0], tmp_path / f"{name}.png", "--out", tmp_path / name)
        assert ran[0] == 0, ran
    picture.convert("1").save(tmp_path / "bit.png")
    assert run("info", tmp_path / "bit.png")[0] == 0


def test_volume_where_an_image_is_meant(run: Run, model: Path, tmp_path: Path) -> None:
    volume = Image(
        np.random.default_rng(0).random((1, 8, 40, 40)).astype(np.float32), Grid((8, 40, 40), unit="millimeter")
    )
    write_image(tmp_path / "v.nii.gz", volume)
    arguments = ("--model", model, "--side", "moving", "--out", tmp_path / "o.tif")
    one_line(run("encode", tmp_path / "v.nii.gz", *arguments), "v.nii.gz")
    volumes = (tmp_path / "v.nii.gz", tmp_path / "v.nii.gz")
    one_line(run("register", *volumes, "--engine", "sift", "--out", tmp_path / "r"), "3D", "mutual-information")


def test_volumes_without_a_voxel_size_are_not_compared_by_chance(run: Run, tmp_path: Path) -> None:
    volume = Image(np.random.default_rng(0).random((1, 9, 30, 30)).astype(np.float32), Grid((9, 30, 30)))
    write_image(tmp_path / "v.npy", volume)
    pair = (tmp_path / "v.npy", tmp_path / "v.npy", "--engine", "ecc", "--out", tmp_path / "r")
    one_line(run("register", *pair), "v.npy", "no voxel size", "--fixed-pixel-size Z Y X --moving-pixel-size Z Y X")
    one_line(run("register", *pair, "--fixed-pixel-size", 2, 1, 1), "v.npy", "--moving-pixel-size Z Y X")
    given = ("--fixed-pixel-size", 1, "--moving-pixel-size", 1, "--unit", "pixel")
    assert run("register", *pair, *given).status in (0, 3)


def test_sizes_that_cannot_belong_together_are_told_before_work(
    run: Run, displaced: "Displaced", tmp_path: Path
) -> None:
    pair = ("register", displaced[0], displaced[1], "--engine", "fft-search", "--out", tmp_path / "r")
    for size, unit in ((1e6, "micrometer"), (1e-6, "micrometer"), (1e6, "pixel")):
        told = run(*pair, "--fixed-pixel-size", 1, "--moving-pixel-size", size, "--unit", unit)
        one_line(told, "the fields of view are", "check the pixel sizes of both images and their units")


def test_a_size_unlike_that_of_the_model_is_told(
    run: Run, untrained: ComirModel, pairs: list[Pair], tmp_path: Path
) -> None:
    ComirModel(replace(untrained.card, unit="micrometer"), untrained.networks).save(tmp_path / "sized")
    write_image(tmp_path / "i.png", pairs[0].fixed.with_grid(Grid(pairs[0].fixed.grid.shape)))
    encode = (
        "encode",
        tmp_path / "i.png",
        "--model",
        tmp_path / "sized",
        "--side",
        "fixed",
        "--out",
        tmp_path / "o.tif",
    )
    ran = run(*encode)
    assert ran.status == 0
    assert "tells no pixel size; it is taken for that of the model, 1 × 1 micrometer" in ran.err
    for size in (1e-4, 1e4):
        one_line(run(*encode, "--pixel-size", size), "check the pixel size of the image and its unit")
    (tmp_path / "o.tif").unlink()
    one_line(run(*encode, "--picture", tmp_path / "p.abc"), "p.abc", "unknown image format")
    assert not (tmp_path / "o.tif").exists()


def test_no_options_are_advised_where_there_is_nothing_to_align(
    run: Run, displaced: tuple[Path, ...], tmp_path: Path
) -> None:
    flat = read_image(displaced[1])
    write_image(tmp_path / "flat.png", flat.with_data(np.zeros_like(flat.data), flat.channels))
    ran = run("register", displaced[0], tmp_path / "flat.png", "--out", tmp_path / "r")
    assert ran.status == 3
    assert "is constant" in ran.out
    assert "try:" not in ran.out


def test_model_for_other_channels_or_modality(
    run: Run, folders: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    swapped = ("register", folders[1] / "p0.tif", folders[0] / "p0.png", "--model", model, "--out", tmp_path / "r")
    one_line(run(*swapped), "channels", "swapped?")
    foreign = gray(np.random.default_rng(0).random((96, 112)).astype(np.float32))
    write_image(tmp_path / "foreign.tif", foreign)
    ran = run("encode", tmp_path / "foreign.tif", "--model", model, "--side", "moving", "--out", tmp_path / "o.tif")
    one_line(ran, "almost no contrast", "signal images")
    assert not (tmp_path / "o.tif").exists()


def test_missing_model_files(run: Run, displaced: tuple[Path, ...], model: Path, tmp_path: Path) -> None:
    (model / "moving.safetensors").unlink()
    arguments = ("register", *displaced[:2], "--out", tmp_path / "r", "--model")
    one_line(run(*arguments, model), "moving.safetensors")
    one_line(run(*arguments, tmp_path / "nowhere"), "no model.json")


def test_output_that_cannot_be_written(
    run: Run, displaced: tuple[Path, ...], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    one_line(run("register", *displaced[:2], "--out", blocker / "r"), str(blocker))
    one_line(run("register", *displaced[:2], "--out", blocker), str(blocker))
    one_line(run("train", *folders, "--out", blocker / "m", *QUICK), str(blocker))
    one_line(run("train", *folders, "--out", folders[0], *QUICK), "colour")
    assert blocker.read_text() == "in the way"
    assert len(list(folders[0].iterdir())) == 4


def test_evaluate_needs_exactly_one_truth(run: Run, displaced: tuple[Path, ...]) -> None:
    one_line(run("evaluate", displaced[2]), "--truth")


def test_a_transform_that_is_none(run: Run, displaced: tuple[Path, ...], tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"a": 1}')
    ran = run("apply", displaced[1], tmp_path / "t.json", "--like", displaced[0], "--out", tmp_path / "o.png")
    one_line(ran, "t.json")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("regsiter",),
        ("register",),
        ("register", "a.png"),
        ("train", "--out"),
        ("register", "a", "b", "--out", "c", "--enigne", "x"),
    ],
)
def test_usage_errors_exit_with_two(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 2


def test_interrupted_training_leaves_no_model_and_goes_on(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """A real Ctrl-C to a real process."""
    out = tmp_path / "m"
    command = [sys.executable, "-m", "modalign", "train", *map(str, folders), "--out", str(out), *QUICK]
    command[command.index("--steps") + 1] = "100000"
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stderr is not None
    line = ""
    while "step" not in line:
        line = process.stderr.readline()
        assert line, "training ended before it began"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in err
    assert "Traceback" not in err
    assert not out.exists()
    assert (tmp_path / "m.training" / "progress.json").is_file()


def test_interrupted_training_resumes(
    run: Run, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import modalign.cli.train as verb

    plain = verb.TrainingProgress

    def stop(*values: object) -> object:
        progress = plain(*values)  # type: ignore[arg-type]
        if progress.step == 2:
            raise KeyboardInterrupt
        return progress

    monkeypatch.setattr("modalign.training.comir.TrainingProgress", stop)
    assert run("train", *folders, "--out", tmp_path / "m", *QUICK)[0] == 130
    monkeypatch.undo()
    assert run("train", *folders, "--out", tmp_path / "m", *QUICK, "--resume")[0] in (0, 3)
    assert ComirModel.load(tmp_path / "m").card.training["steps"] == 4
    assert not (tmp_path / "m.training").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ("--minutes", "nan"),
        ("--steps", "0"),
        ("--seed", "-1"),
        ("--seed", "99999999999999999999"),
        ("--patch", "0"),
        ("--batch", "1"),
        ("--learning-rate", "nan"),
        ("--activation-decay", "nan", "0"),
        ("--validation.times", "0"),
        ("--augmentation.blur", "-1"),
        ("--augmentation.scale", "5"),
        ("--validation-fraction", "nan"),
        ("--accelerator", "nonsense"),
        ("--network.widths", "0"),
        ("--critic", "foo"),
        ("--stepz", "3"),
    ],
    ids=lambda wrong: " ".join(wrong),
)
def test_absurd_options_of_training(
    run: Run, folders: tuple[Path, Path], tmp_path: Path, wrong: tuple[str, ...]
) -> None:
    one_line(run("train", *folders, "--out", tmp_path / "m", *wrong))
    assert not (tmp_path / "m").exists()


def test_diverged_training_says_so(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    ran = run("train", *folders, "--out", tmp_path / "m", *QUICK, "--learning-rate", "1e30")
    one_line(ran, "no longer")


def test_a_model_is_not_overwritten_unasked(run: Run, folders: tuple[Path, Path], model: Path) -> None:
    before = (model / "fixed.safetensors").read_bytes()
    one_line(run("train", *folders, "--out", model, *QUICK), "--overwrite")
    assert (model / "fixed.safetensors").read_bytes() == before
    assert run("train", *folders, "--out", model, *QUICK, "--overwrite")[0] in (0, 3)
    assert (model / "fixed.safetensors").read_bytes() != before


@pytest.mark.parametrize("wrong", [("--device", "nonsense"), ("--tile", "0"), ("--tile", "-5")])
def test_absurd_options_of_encoding(
    run: Run, folders: tuple[Path, Path], model: Path, tmp_path: Path, wrong: tuple[str, ...]
) -> None:
    arguments = ("--model", model, "--side", "fixed", "--out", tmp_path / "o.tif")
    one_line(run("encode", folders[0] / "p0.png", *arguments, *wrong))


def test_failed_registration_leaves_no_folder(run: Run, displaced: tuple[Path, ...], tmp_path: Path) -> None:
    write_image(tmp_path / "x.tif", gray(np.full((50, 60), 3.0, dtype=np.float32)))
    other = ("--device", "nonsense", "--model", tmp_path / "none")
    one_line(run("register", tmp_path / "x.tif", displaced[1], *other, "--out", tmp_path / "r"), "model")
    assert not (tmp_path / "r").exists()


def test_fill_beyond_the_type(run: Run, displaced: tuple[Path, ...], tmp_path: Path) -> None:
    arguments = (displaced[1], displaced[2], "--like", displaced[0], "--out", tmp_path / "o.png", "--fill", 300)
    one_line(run("apply", *arguments), "0 to 255")


def test_truth_in_another_unit(run: Run, displaced: tuple[Path, ...], tmp_path: Path) -> None:
    stored = read_transform(displaced[2])
    grid = replace(read_image(displaced[0]).grid, spacing=(0.5, 0.5), unit="micrometer")
    write_transform(tmp_path / "t.json", stored.transform, fixed=grid, moving=grid)
    one_line(run("evaluate", displaced[2], "--truth", tmp_path / "t.json"), "different units")


@pytest.mark.parametrize("role", ["fixed", "moving"])
@pytest.mark.parametrize(
    ("change", "named"), [({"origin": (0.0, 5.0)}, "origin"), ({"spacing": (1.0, 2.0)}, "spacing"), ({}, "shape")]
)
def test_truth_of_other_images(
    run: Run, displaced: tuple[Path, ...], tmp_path: Path, role: str, change: dict[str, object], named: str
) -> None:
    stored = read_transform(displaced[2])
    grid = stored.fixed
    assert grid is not None
    other = replace(grid, **change) if change else Grid((grid.shape[0], 7))
    grids = {"fixed": grid, "moving": grid, role: other}
    write_transform(tmp_path / "t.json", stored.transform, **grids)
    one_line(run("evaluate", displaced[2], "--truth", tmp_path / "t.json"), f"the {role} image", named)


def test_points_of_other_dimensions(run: Run, displaced: tuple[Path, ...], tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("x,y,z\n1,2,3\n")
    one_line(run("apply", tmp_path / "p.csv", displaced[2], "--out", tmp_path / "o.csv"), "3 coordinates", "2D")


def test_an_itk_transform_does_not_tell_the_size(run: Run, displaced: tuple[Path, ...], tmp_path: Path) -> None:
    stored = read_transform(displaced[2])
    write_transform(tmp_path / "t.tfm", stored.transform, fixed=stored.fixed, moving=stored.moving)
    one_line(run("apply", displaced[1], tmp_path / "t.tfm", "--out", tmp_path / "o.png"), "add --like FIXED")


@pytest.mark.parametrize("device", ["foo", "cuda"])
def test_a_device_without_a_model(run: Run, displaced: tuple[Path, ...], tmp_path: Path, device: str) -> None:
    ran = run("register", *displaced[:2], "--device", device, "--out", tmp_path / "r")
    one_line(ran, f"--device {device} needs --model")
    assert not (tmp_path / "r").exists()


def test_an_unknown_device(run: Run, folders: tuple[Path, Path], model: Path, tmp_path: Path) -> None:
    images = (folders[0] / "p0.png", folders[1] / "p0.tif")
    one_line(run("register", *images, "--model", model, "--device", "foo", "--out", tmp_path / "r"), "'foo'", "'cpu'")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (("--engine", "mutual-information", "--start-rotations-degrees", "0", "nan"), "--start-rotations-degrees"),
        (("--engine", "fft-search", "--max-scale=inf"), "--max-scale"),
        (("--fixed-pixel-size", "nan"), "--fixed-pixel-size"),
        (("--engine", "mutual-information", "--start_rotations_degrees", "nan"), "--start_rotations_degrees"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_numbers_that_are_not_finite(
    run: Run, displaced: tuple[Path, ...], tmp_path: Path, wrong: tuple[str, ...], named: str
) -> None:
    one_line(run("register", *displaced[:2], "--out", tmp_path / "r", *wrong), named, "finite")


def test_options_in_groups_are_named_in_full(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    one_line(run("train", *folders, "--out", tmp_path / "m", "--augmentation.blur", "nan"), "--augmentation.blur")


def test_an_area_without_data_may_be_filled_with_nan(run: Run, displaced: tuple[Path, ...], tmp_path: Path) -> None:
    write_image(tmp_path / "x.tif", gray(np.ones((120, 130), dtype=np.float32)))
    arguments = (tmp_path / "x.tif", displaced[2], "--out", tmp_path / "o.tif", "--fill", "nan")
    assert run("apply", *arguments)[0] == 0
    assert np.isnan(read_image(tmp_path / "o.tif").data).any()


@pytest.mark.parametrize("sizes", [("1e300",), ("0.5", "0.5", "0.5")])
def test_absurd_pixel_sizes(run: Run, displaced: tuple[Path, ...], tmp_path: Path, sizes: tuple[str, ...]) -> None:
    ran = run("register", *displaced[:2], "--fixed-pixel-size", *sizes, "--out", tmp_path / "r")
    one_line(ran, "pixel size")


def test_a_folder_of_something_else(run: Run, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"a": 1}')
    one_line(run("info", tmp_path), "not the record of a registration")


def test_like_in_another_unit_than_the_transform(run: Run, displaced: tuple[Path, ...], tmp_path: Path) -> None:
    sized = read_image(displaced[0]).with_grid(Grid((120, 130), (0.5, 0.5), unit="micrometer"))
    write_image(tmp_path / "sized.ome.tif", sized)
    ran = run("evaluate", displaced[2], "--truth", displaced[2], "--like", tmp_path / "sized.ome.tif")
    one_line(ran, "micrometer", "leave --like out")
