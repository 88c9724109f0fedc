"""Deformable registration from the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from modalign.geometry import Chain, DisplacementField, Grid
from modalign.image import Image
from modalign.io import read_image, read_transform, write_image, write_transform
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
