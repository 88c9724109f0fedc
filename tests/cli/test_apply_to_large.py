"""``modalign apply`` tile by tile: chosen by size alone, with the result of the way through memory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modalign.cli import apply
from modalign.data.pairs import Pair
from modalign.geometry import Grid, Rigid, rotation_matrix
from modalign.image import Image
from modalign.io import pyramid, read_image, write_image, write_transform
from modalign.warping import InMemory

tifffile = pytest.importorskip("tifffile")


@pytest.fixture
def files(tmp_path: Path, make_pair: Callable[..., Pair]) -> tuple[Path, Path]:
    """An image of 200 × 220 pixels and a transform to a grid of its own."""
    grid = Grid((200, 220), (0.5, 0.25), unit="micrometer")
    fixed = Grid((190, 230), (0.5, 0.25), (3.0, -4.0), unit="micrometer")
    image = make_pair(3, (200, 220)).fixed
    write_image(tmp_path / "m.ome.tif", Image(image.data, grid, image.channels))
    turn = Rigid.about(fixed.center, rotation_matrix(2, 15.0), grid.center - fixed.center)
    write_transform(tmp_path / "t.json", turn, fixed=fixed, moving=grid)
    return tmp_path / "m.ome.tif", tmp_path / "t.json"


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "LARGE", 1000)
    monkeypatch.setattr(pyramid, "TILE", 64)
    monkeypatch.setattr(pyramid, "SMALLEST", 64)


def is_tiled(path: Path) -> bool:
    with tifffile.TiffFile(path) as tiff:
        return bool(tiff.pages[0].is_tiled)


@pytest.mark.parametrize("options", [(), ("--fill", "9"), ("--interpolation", "cubic"), ("--compression", "none")])
@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".ome.tiff", ".TIF"])
def test_the_result_does_not_depend_on_the_way(run, files, tmp_path, monkeypatch, suffix, options) -> None:  # type: ignore[no-untyped-def]
    image, transform = files
    ran = run("apply", image, transform, "--out", tmp_path / f"small{suffix}", *options)
    assert (ran.status, ran.err) == (0, "")
    monkeypatch.setattr(apply, "LARGE", 1000)
    monkeypatch.setattr(pyramid, "TILE", 64)
    ran = run("apply", image, transform, "--out", tmp_path / f"large{suffix}", *options)
    assert ran.status == 0
    assert "apply 100%" in ran.err
    small, large = (read_image(tmp_path / f"{size}{suffix}") for size in ("small", "large"))
    assert (small.grid, small.channels) == (large.grid, large.channels)
    np.testing.assert_array_equal(small.data, large.data)
    assert (is_tiled(tmp_path / f"small{suffix}"), is_tiled(tmp_path / f"large{suffix}")) == (False, True)


def test_labels_and_like(run, files, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    image, transform = files
    labels = np.random.default_rng(0).integers(0, 70000, (1, 200, 220), dtype=np.uint32)
    write_image(tmp_path / "l.tif", Image(labels, read_image(image).grid))
    for name, limit in (("small", 1 << 28), ("large", 1000)):
        monkeypatch.setattr(apply, "LARGE", limit)
        out = ("--out", tmp_path / f"{name}.tif")
        assert run("apply", tmp_path / "l.tif", transform, "--labels", "--like", image, *out).status == 0
    small, large = (read_image(tmp_path / f"{name}.tif") for name in ("small", "large"))
    assert large.grid == read_image(image).grid
    np.testing.assert_array_equal(small.data, large.data)
    assert (is_tiled(tmp_path / "small.tif"), is_tiled(tmp_path / "large.tif")) == (False, True)


def test_what_cannot_be_read_in_windows_is_still_written_in_tiles(run, files, tmp_path, everything_is_large) -> None:  # type: ignore[no-untyped-def]
    image, transform = files
    png = read_image(image)
    write_image(tmp_path / "m.png", Image(png.data, png.grid.without_unit(), png.channels))
    assert run("apply", tmp_path / "m.png", transform, "--out", tmp_path / "o.ome.tif").status == 0
    assert is_tiled(tmp_path / "o.ome.tif")
    assert run("apply", image, transform, "--out", tmp_path / "o.png").status == 0
    np.testing.assert_array_equal(read_image(tmp_path / "o.png").data, read_image(tmp_path / "o.ome.tif").data)


def test_errors_are_one_line_and_leave_nothing(run, files, tmp_path, everything_is_large) -> None:  # type: ignore[no-untyped-def]
    image, transform = files
    before = sorted(tmp_path.iterdir())
    for options in (("--fill", "1", "2"), ("--fill", "300")):
        ran = run("apply", image, transform, "--out", tmp_path / "o.ome.tif", *options)
        assert ran.status == 2
        assert [line for line in ran.err.splitlines() if line.startswith("modalign: ")]
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    ran = run("apply", image, transform, "--out", tmp_path / "o.ome.tif")
    assert ran.status == 2
    assert f"modalign: {image}: is a damaged or incomplete TIFF" in ran.err
    assert sorted(tmp_path.iterdir()) == before


def test_an_interruption_leaves_the_old_file(run, files, tmp_path, everything_is_large, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    image, transform = files
    (tmp_path / "o.ome.tif").write_bytes(b"older")
    before, calls = sorted(tmp_path.iterdir()), iter(range(5))

    def halved(tile: np.ndarray) -> np.ndarray:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return tile[:, ::2, ::2]

    monkeypatch.setattr(pyramid, "halved", halved)
    assert run("apply", image, transform, "--out", tmp_path / "o.ome.tif").status == 130
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "o.ome.tif").read_bytes() == b"older"


def test_large_is_what_the_documentation_says() -> None:
    just = Image(np.broadcast_to(np.uint8(0), (1, 1 << 14, 1 << 14)), Grid((1 << 14, 1 << 14)))
    assert apply.LARGE == 256 * 2**20
    assert not apply._is_large(InMemory(just), Grid((5, 5)))
    assert apply._is_large(InMemory(just), Grid((1 << 14, (1 << 14) + 1)))
