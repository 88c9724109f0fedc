"""Deformable registration from the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from modalign.geometry import Chain, DisplacementField, Grid
from modalign.image import Image, Labels
from modalign.io import read_image, read_transform, write_image, write_labels, write_transform
from modalign.testing.registration import textured_scene

Run = Callable[..., Any]


@pytest.fixture
def bent(tmp_path: Path) -> tuple[Path, Path, DisplacementField]:
    """Files of an image and of its bent version, with pixel sizes, and the true displacement."""
    grid = Grid((96, 104), (0.5, 0.5), unit="micrometer")
    rng = np.random.default_rng(0)
    noise = np.stack([ndimage.gaussian_filter(rng.standard_normal(grid.shape), 14) for _ in range(2)])
    truth = DisplacementField((2.0 * noise / np.abs(noise).max()).astype(np.float32), grid)
    scene = textured_scene(2, feature=3.0).data[0, 100:196, 100:204]
    moving = Image(scene[None].astype(np.float32), grid)
    write_image(tmp_path / "moving.tif", moving)
    write_image(tmp_path / "fixed.tif", moving.resampled(grid, truth, order=3))
    return tmp_path / "fixed.tif", tmp_path / "moving.tif", truth


def test_a_bent_image_comes_back_straight(run: Run, bent: tuple[Path, Path, DisplacementField], tmp_path: Path) -> None:
    fixed, moving, truth = bent
    out = tmp_path / "out"
    ran = run("register", fixed, moving, "--engine", "deform", "--start", "none", "--out", out, "--json")
    assert ran.status in (0, 3), ran.err
    result = json.loads(ran.out)
    assert result["status"] in ("accepted", "unsure"), result
    assert result["fixed_to_moving"]["type"] == "chain"
    assert {"transform", "displacement", "report", "aligned"} <= set(result["files"])
    assert "itk_transform" not in result["files"]
    inner = truth.grid.points[12:-12, 12:-12]
    wanted = truth.map_points(inner)
    before = np.linalg.norm(wanted - inner, axis=-1).mean()
    for name, factor in (("transform", 1.0), ("displacement", 1e-3)):
        found = read_transform(result["files"][name]).transform
        off = np.linalg.norm(found.map_points(inner * factor) / factor - wanted, axis=-1).mean()
        assert off < 0.3 * before
    record = json.loads((out / "result.json").read_text())
    assert record["stats"]["jacobian_folded"] == 0
    assert "bent, by up to" in (out / "report.html").read_text()


def test_what_was_found_is_applied_to_images_labels_and_points(
    run: Run, bent: tuple[Path, Path, DisplacementField], tmp_path: Path
) -> None:
    _, moving, truth = bent
    grid = truth.grid
    write_transform(tmp_path / "t.json", Chain((truth,)), fixed=grid, moving=grid)
    write_transform(tmp_path / "t.nii.gz", truth, fixed=grid, moving=grid)
    for name in ("t.json", "t.nii.gz"):
        assert run("apply", moving, tmp_path / name, "--out", tmp_path / "a.tif").status == 0
        inner = (0, slice(10, -10), slice(10, -10))
        expected = read_image(moving).resampled(grid, truth)
        np.testing.assert_allclose(read_image(tmp_path / "a.tif").data[inner], expected.data[inner], atol=0.05)
    (tmp_path / "points.csv").write_text("x,y\n20,15\n30,35\n")
    assert run("apply", tmp_path / "points.csv", tmp_path / "t.json", "--out", tmp_path / "p.csv").status == 0
    rows = np.genfromtxt(tmp_path / "p.csv", delimiter=",", names=True)
    there = truth.map_points(np.column_stack([rows["y"], rows["x"]]))
    np.testing.assert_allclose(there, [[15, 20], [35, 30]], atol=0.01)
    assert "displacement" in run("info", tmp_path / "t.json").out or "chain" in run("info", tmp_path / "t.json").out


def test_a_field_and_an_image_without_pixel_size_are_told_apart(
    run: Run, bent: tuple[Path, Path, DisplacementField], tmp_path: Path
) -> None:
    _, moving, truth = bent
    write_transform(tmp_path / "t.nii.gz", truth, fixed=truth.grid, moving=truth.grid)
    plain = read_image(moving)
    write_image(tmp_path / "plain.tif", plain.with_grid(plain.grid.without_unit()))
    ran = run("apply", tmp_path / "plain.tif", tmp_path / "t.nii.gz", "--out", tmp_path / "a.tif")
    assert ran.status == 2
    assert "displacement field is in millimeter" in ran.err


@pytest.mark.parametrize(
    ("options", "word"),
    [(("--weight", "-1"), "weight"), (("--finest-side", "3"), "finest"), (("--steps", "0"), "step")],
)
def test_options_without_sense_are_one_line(
    run: Run, bent: tuple[Path, Path, DisplacementField], tmp_path: Path, options: tuple[str, ...], word: str
) -> None:
    fixed, moving, _ = bent
    ran = run("register", fixed, moving, "--engine", "deform", *options, "--out", tmp_path / "out")
    assert ran.status == 2
    assert word in ran.err
    assert "Traceback" not in ran.err


class TestLabels:
    def written(self, folder: Path, seed_shift: int = 0) -> tuple[Path, Path]:
        """Label maps of the fixed and of the moving image: bright against dark."""
        paths = []
        for role in ("fixed", "moving"):
            image = read_image(folder / f"{role}.tif")
            labels = (image.data[0] > np.median(image.data[0])).astype(np.uint8)
            paths.append(folder / f"{role}_labels.tif")
            write_labels(paths[-1], Labels(labels[seed_shift:], Grid(labels[seed_shift:].shape)))
        return paths[0], paths[1]

    def test_the_report_tells_how_well_they_agree(
        self, run: Run, bent: tuple[Path, Path, DisplacementField], tmp_path: Path
    ) -> None:
        fixed, moving, _ = bent
        one, other = self.written(tmp_path)
        labels = ("--fixed-labels", one, "--moving-labels", other)
        ran = run("register", fixed, moving, *labels, "--engine", "deform", "--start", "none", "--out", tmp_path / "o")
        assert ran.status == 0, ran.err
        told = json.loads((tmp_path / "o" / "result.json").read_text())["labels"]
        assert told["dice"] > 0.9 > told["dice_before"]
        assert told["hausdorff95"] < told["hausdorff95_before"]
        assert f"{told['dice']:.3f}" in (tmp_path / "o" / "report.html").read_text()
        assert f"labels: mean Dice {told['dice_before']:.3f} before, {told['dice']:.3f} after" in ran.out

    def test_of_a_refused_result_they_tell_how_the_images_lie(
        self, run: Run, bent: tuple[Path, Path, DisplacementField], tmp_path: Path
    ) -> None:
        _, moving, _ = bent
        noise = np.random.default_rng(0).random((1, 96, 104)).astype(np.float32)
        write_image(tmp_path / "noise.tif", Image(noise, Grid((96, 104), (0.5, 0.5), unit="micrometer")))
        one, other = self.written(tmp_path)
        labels = ("--fixed-labels", one, "--moving-labels", other)
        ran = run("register", tmp_path / "noise.tif", moving, *labels, "--out", tmp_path / "o")
        assert ran.status == 3, ran.out
        told = json.loads((tmp_path / "o" / "result.json").read_text())["labels"]
        assert told["dice"] is None
        assert f"labels: mean Dice {told['dice_before']:.3f} before, no transform" in ran.out
        assert "no transform" in (tmp_path / "o" / "report.html").read_text()

    def test_labels_that_do_not_fit_or_are_empty_are_refused(
        self, run: Run, bent: tuple[Path, Path, DisplacementField], tmp_path: Path
    ) -> None:
        fixed, moving, _ = bent
        one, other = self.written(tmp_path, 5)
        ran = run("register", fixed, moving, "--fixed-labels", one, "--moving-labels", other, "--out", tmp_path / "o")
        assert ran.status == 2
        assert "labels of 91 × 104 pixels do not fit an image of 96 × 104" in ran.err
        ran = run("register", fixed, moving, "--fixed-labels", one, "--out", tmp_path / "o")
        assert ran.status == 2
        assert "modalign: --fixed-labels and --moving-labels are compared: give both, or none" in ran.err
        grid = Grid((96, 104))
        write_labels(tmp_path / "empty.tif", Labels(np.zeros(grid.shape, np.uint8), grid))
        empty = tmp_path / "empty.tif"
        ran = run("register", fixed, moving, "--fixed-labels", empty, "--moving-labels", empty, "--out", tmp_path / "o")
        assert ran.status == 2
        assert "nothing but 0" in ran.err


@pytest.fixture
def stack(tmp_path: Path) -> tuple[Path, Path]:
    """Folders with four images of bent tissue and with their label maps."""
    grid, rng = Grid((72, 64)), np.random.default_rng(0)
    scene = ndimage.gaussian_filter(rng.standard_normal(grid.shape), 5)
    for number in range(4):
        noise = np.stack([ndimage.gaussian_filter(rng.standard_normal(grid.shape), 9) for _ in range(2)])
        field = DisplacementField((3 * noise / np.abs(noise).max()).astype(np.float32), grid)
        image = Image(scene[None].astype(np.float32), grid).resampled(grid, field, order=3).data[0]
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
        write_labels(tmp_path / "labels" / f"{number}.png", Labels((image > 0.01).astype(np.uint8), grid))
        gray = 100 + 80 * image / np.abs(image).max() + 8 * rng.standard_normal(grid.shape)
        write_image(tmp_path / "images" / f"{number}.png", Image(gray[None].astype(np.uint8), grid))
    return tmp_path / "images", tmp_path / "labels"


class TestTraining:
    def test_features_are_learnt_and_looked_through(self, run: Run, stack: tuple[Path, Path], tmp_path: Path) -> None:
        images, labels = stack
        quick = ("--steps", 12, "--patch", 24, "--batch", 4, "--learning-rate", "0.01")
        ran = run("train", "features", images, labels, "--out", tmp_path / "feat", *quick)
        assert ran.status == 0, ran.err
        assert "--similarity deepsim --features" in ran.out
        told = run("info", tmp_path / "feat").out
        assert "kind: model" in told
        assert "task: segmentation" in told
        assert "step 12, seconds" in told
        how = ("--engine", "deform", "--start", "none", "--similarity", "deepsim", "--features", tmp_path / "feat")
        ran = run("register", images / "0.png", images / "1.png", *how, "--steps", 20, "--out", tmp_path / "out")
        assert ran.status == 0, ran.err
        stats = json.loads((tmp_path / "out" / "result.json").read_text())["stats"]
        assert stats["unlike_after"] < stats["unlike_before"]
        assert stats["jacobian_folded"] == 0

    def test_a_network_learns_to_deform_and_is_applied(
        self, run: Run, stack: tuple[Path, Path], tmp_path: Path
    ) -> None:
        images, labels = stack
        ran = run("train", "deform", images, labels, "--out", tmp_path / "net", "--steps", 40, "--reach", 3)
        assert ran.status in (0, 3), ran.err
        how = ("--engine", "deform", "--start", "none", "--network", tmp_path / "net", "--steps", 0)
        ran = run("register", images / "0.png", images / "1.png", *how, "--out", tmp_path / "out")
        assert ran.status in (0, 3), ran.err
        stats = json.loads((tmp_path / "out" / "result.json").read_text())["stats"]
        assert stats["steps"] == 0

    def test_a_finished_model_is_not_replaced_unasked(self, run: Run, stack: tuple[Path, Path], tmp_path: Path) -> None:
        again = ("train", "features", stack[0], "--out", tmp_path / "feat", "--steps", 1, "--patch", 16)
        assert run(*again).status in (0, 3)
        ran = run(*again)
        assert ran.status == 2
        assert "already holds a model" in ran.err
        assert run(*again, "--overwrite").status in (0, 3)

    def test_an_interrupted_training_is_not_given_up_unasked(
        self, run: Run, stack: tuple[Path, Path], tmp_path: Path
    ) -> None:
        begin = ("train", "features", stack[0], "--out", tmp_path / "feat", "--steps", 1, "--patch", 16)
        (tmp_path / "feat.training").mkdir()
        assert "is in the way" in run(*begin, "--overwrite").err
        (tmp_path / "feat.training" / "progress.json").write_text("{}")
        ran = run(*begin)
        assert ran.status == 2
        assert "holds a training that was interrupted: go on with it (--resume)" in ran.err
        assert run(*begin, "--overwrite").status in (0, 3)
        assert not (tmp_path / "feat.training").exists()
        ran = run(*begin[:4], tmp_path / "other", *begin[5:], "--resume")
        assert ran.status in (0, 3)
        assert "no interrupted training" in ran.err

    def test_an_extractor_that_learnt_nothing_is_told_of(
        self, run: Run, stack: tuple[Path, Path], tmp_path: Path
    ) -> None:
        ran = run("train", "features", *stack, "--out", tmp_path / "feat", "--steps", 1, "--patch", 16, "--batch", 1)
        assert ran.status == 3
        how = ("--engine", "deform", "--start", "none", "--similarity", "deepsim", "--features", tmp_path / "feat")
        ran = run("register", stack[0] / "0.png", stack[0] / "1.png", *how, "--steps", 2, "--out", tmp_path / "out")
        assert "note: the network in" in ran.out
        assert "learnt next to nothing" in ran.out

    def test_maps_that_there_are_not(self, run: Run, stack: tuple[Path, Path], tmp_path: Path) -> None:
        run("train", "features", stack[0], "--out", tmp_path / "feat", "--steps", 1, "--patch", 16)
        how = ("--engine", "deform", "--similarity", "deepsim", "--features", tmp_path / "feat", "--maps", "1", "9")
        ran = run("register", stack[0] / "0.png", stack[0] / "1.png", *how, "--out", tmp_path / "out")
        assert ran.status == 2
        assert "has 3 maps, counted from 0, and the maps 1 9 were asked for" in ran.err

    def test_pixels_that_are_left_out_are_told(self, run: Run, stack: tuple[Path, Path], tmp_path: Path) -> None:
        data = read_image(stack[0] / "0.png").data.astype(np.float32)
        data[:, :9] = np.nan
        write_image(stack[0] / "9.tif", Image(data, Grid(data.shape[1:])))
        ran = run("train", "features", stack[0], "--out", tmp_path / "feat", "--steps", 1, "--patch", 16)
        assert ran.status in (0, 3)
        assert "left out, in 9" in ran.err

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (("--validation", 4), "leaves nothing of 4 images"),
            (("--atlas", "nobody", "--pairing", "atlas"), "no image in"),
            (("--similarity", "deepsim"), "train features"),
            (("--pairing", "atlas"), "give both"),
            (("--supervision", 1), "give their folder"),
            (("--validation", 1), "no pair to validate on"),
            (("--weight", -1), "weight must be a number from 0 on, not -1"),
            (("--learning-rate", -1), "learning_rate must be more than 0"),
        ],
    )
    def test_wrong_arguments(
        self, run: Run, stack: tuple[Path, Path], tmp_path: Path, arguments: tuple[Any, ...], complaint: str
    ) -> None:
        ran = run("train", "deform", stack[0], "--out", tmp_path / "net", "--steps", 1, *arguments)
        assert ran.status == 2
        assert complaint in ran.err
        assert not (tmp_path / "net").exists()


class TestModelsOfOtherKinds:
    def test_each_is_sent_where_it_belongs(self, run: Run, stack: tuple[Path, Path], tmp_path: Path) -> None:
        pair = (stack[0] / "0.png", stack[0] / "1.png")
        quick = ("--steps", 1, "--patch", 16)
        run("train", "features", stack[0], "--out", tmp_path / "feat", *quick)
        ran = run("register", *pair, "--model", tmp_path / "feat", "--out", tmp_path / "out")
        assert ran.status == 2
        assert "it is a feature extractor: name it with --features" in ran.err
        ran = run("register", *pair, "--engine", "deform", "--network", tmp_path / "feat", "--out", tmp_path / "out")
        assert ran.status == 2
        assert "is of the kind 'features'" in ran.err

    def test_an_extractor_for_other_images_is_refused(self, run: Run, stack: tuple[Path, Path], tmp_path: Path) -> None:
        run("train", "features", stack[0], "--out", tmp_path / "feat", "--steps", 1, "--patch", 16)
        rng = np.random.default_rng(0)
        for name in ("a", "b"):
            volume = ndimage.gaussian_filter(rng.standard_normal((20, 22, 24)), 2).astype(np.float32)
            write_image(tmp_path / f"{name}.nii.gz", Image(volume[None], Grid(volume.shape, unit="millimeter")))
        how = ("--engine", "deform", "--start", "none", "--similarity", "deepsim", "--features", tmp_path / "feat")
        ran = run("register", tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", *how, "--out", tmp_path / "out")
        assert ran.status == 2
        assert "for 2D images with 1 channel; what is compared is 3D with 1" in ran.err
        ran = run("register", tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", *how[:-2], "--out", tmp_path / "out")
        assert ran.status == 2
        assert "an image of one channel has none" in ran.err
