"""From file to file: the pixels of the way through memory, in the same place, whatever the image."""

import numpy as np
import pytest

from modalign.errors import InvalidInputError, UnreadableFileError
from modalign.geometry import Affine, Grid, Rigid, as_rows, resample_labels, rotation_matrix
from modalign.image import Image
from modalign.io import open_tiled, pyramid, read_image, tiled, write_image
from modalign.warping import InMemory, background, background_of, border, warp, warp_to_file

tifffile = pytest.importorskip("tifffile")


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(pyramid, "TILE", 32)
    monkeypatch.setattr(pyramid, "SMALLEST", 64)
    monkeypatch.setattr(tiled, "KEPT_BYTES", 1 << 13)


def turned(fixed, moving, degrees=20.0, shear=0.1):
    ndim = fixed.ndim
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = rotation_matrix(ndim, degrees) @ (np.eye(ndim) + shear * np.eye(ndim, k=1))
    matrix[:-1, -1] = moving.center - matrix[:-1, :-1] @ fixed.center + 0.37
    return Affine.from_matrix(matrix)


def textured(shape, channels, dtype, bright=False):
    rng = np.random.default_rng(0)
    grid = Grid(shape, (2.0, 0.5, 0.4)[-len(shape) :], (4.0, -3.0, 1.0)[-len(shape) :], unit="micrometer")
    values = rng.random((len(channels), *shape)) * 200 + (50 if bright else 0)
    scale = 200 if dtype == "uint16" else 1
    return Image((values * scale).astype(dtype), grid, channels)


RGB = ("red", "green", "blue")
CASES = {
    "gray 8": ((150, 131), ("signal",), "uint8"),
    "gray 16": ((150, 131), ("signal",), "uint16"),
    "float": ((150, 131), ("a", "b"), "float32"),
    "colour": ((150, 131), RGB, "uint8"),
    "bright colour": ((150, 131), RGB, "uint8"),
    "stack": ((6, 70, 81), ("a", "b"), "uint16"),
    "colour stack": ((6, 70, 81), RGB, "uint8"),
}


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("case", CASES)
def test_tile_by_tile_equals_in_memory(tmp_path, case, interpolation):
    shape, channels, dtype = CASES[case]
    moving = textured(shape, channels, dtype, bright=case.startswith("bright"))
    write_image(tmp_path / "m.ome.tif", moving)
    fixed = Grid(
        tuple(n + 11 for n in shape), (1.7, 0.45, 0.5)[-len(shape) :], (1.0, 9.0, 0.0)[-len(shape) :], unit="micrometer"
    )
    transform = turned(fixed, moving.grid)
    expected = warp(moving, fixed, transform, interpolation=interpolation)
    with open_tiled(tmp_path / "m.ome.tif") as reader:
        warp_to_file(tmp_path / "o.ome.tif", reader, fixed, transform, interpolation=interpolation)
    result = read_image(tmp_path / "o.ome.tif")
    assert (result.grid, result.channels, result.data.dtype) == (fixed, channels, moving.data.dtype)
    assert expected.mask is not None  # some of it lies outside
    if interpolation == "cubic" and dtype == "float32":
        np.testing.assert_allclose(result.data, expected.data, rtol=1e-6)
    else:
        np.testing.assert_array_equal(result.data, expected.data)
    outside = result.data[:, ~expected.mask]
    assert (outside == (255 if case.startswith("bright") else 0)).all()


def test_a_given_fill_and_a_space_of_the_transform(tmp_path):
    moving = textured((90, 80), RGB, "uint8")
    transform = turned(moving.grid, moving.grid)
    told = Grid((90, 80), (7.0, 7.0), unit="millimeter")
    expected = warp(moving, moving.grid, transform, fill=(1, 2, 3))
    source = InMemory(moving)
    warp_to_file(tmp_path / "o.tif", source, told, transform, space=(moving.grid, moving.grid), fill=(1, 2, 3))
    result = read_image(tmp_path / "o.tif")
    assert result.grid == told
    np.testing.assert_array_equal(result.data, expected.data)
    with pytest.raises(InvalidInputError, match="0 to 255"):
        warp_to_file(tmp_path / "p.tif", source, told, transform, space=(moving.grid, moving.grid), fill=(1, 2, 300))
    assert [path.name for path in tmp_path.iterdir()] == ["o.tif"]


@pytest.mark.parametrize("shape", [(150, 131), (5, 60, 70)])
@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
def test_labels_are_copied(tmp_path, shape, dtype):
    values = np.array([0, 1, np.iinfo(dtype).max - 1, np.iinfo(dtype).max], dtype)
    labels = values[np.random.default_rng(0).integers(0, 4, (1, *shape))]
    grid = Grid(shape, (2.0, 0.5, 0.4)[-len(shape) :])
    transform = turned(grid, grid)
    write_image(tmp_path / "m.tif", Image(labels, grid, ("labels",)))
    with open_tiled(tmp_path / "m.tif") as reader:
        warp_to_file(tmp_path / "o.tif", reader, grid, transform, labels=True)
    np.testing.assert_array_equal(
        read_image(tmp_path / "o.tif").data[0], resample_labels(labels[0], grid, grid, transform)
    )
    with tifffile.TiffFile(tmp_path / "o.tif") as tiff:
        for level in tiff.series[0].levels:
            assert set(np.unique(level.asarray())) <= set(values)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 2), (8, 9), (1, 8, 9), (4, 3, 5), (2, 2, 2)])
def test_the_border_is_read_once(shape):
    seen = np.zeros(shape, int)
    for window in border(shape):
        seen[window] += 1
    expected = np.ones(shape, int)
    expected[tuple(slice(1, -1) for _ in shape)] = 0
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("shape", [(30, 40), (4, 9, 11)])
@pytest.mark.parametrize("level", [0.2, 0.499, 0.501, 0.9])
def test_background_is_the_median_of_the_border(tmp_path, dtype, shape, level):
    """Against the literal rule, with a middle that says the opposite."""
    white = np.iinfo(dtype).max
    rng = np.random.default_rng(0)
    data = (white * np.clip(level + 0.05 * rng.standard_normal((4, *shape)), 0, 1)).astype(dtype)
    data[(slice(None), *(slice(1, -1) for _ in shape))] = white - int(white * level)
    image = Image(data, Grid(shape), (*RGB, "alpha"))
    mask = np.ones(shape, bool)
    mask[tuple(slice(1, -1) for _ in shape)] = False
    expected = [white * float(np.median(data[:3, mask]) > white / 2)] * 3 + [0]
    write_image(tmp_path / "a.tif", image)
    with open_tiled(tmp_path / "a.tif") as reader:
        np.testing.assert_array_equal(background_of(reader), expected)
    np.testing.assert_array_equal(background(image), expected)


def test_a_file_that_is_damaged_leaves_nothing(tmp_path):
    moving = textured((150, 131), RGB, "uint8")
    tifffile.imwrite(
        tmp_path / "m.tif", np.moveaxis(moving.data, 0, -1), tile=(32, 32), compression="zlib", photometric="rgb"
    )
    with tifffile.TiffFile(tmp_path / "m.tif") as tiff:
        offset, count = tiff.pages[0].dataoffsets[12], tiff.pages[0].databytecounts[12]
    content = bytearray((tmp_path / "m.tif").read_bytes())
    content[offset : offset + count] = b"\xee" * count
    (tmp_path / "m.tif").write_bytes(content)
    grid = Grid((150, 131))
    with open_tiled(tmp_path / "m.tif") as reader, pytest.raises(UnreadableFileError, match=r"m\.tif: is a damaged"):
        warp_to_file(tmp_path / "o.tif", reader, grid, Rigid(as_rows(np.eye(2)), (0.2, 0.0)))
    assert [path.name for path in tmp_path.iterdir()] == ["m.tif"]


def test_cubic_refuses_what_is_not_finite(tmp_path):
    data = np.random.default_rng(0).random((1, 100, 90)).astype(np.float32)
    data[0, 70, 70] = np.nan
    image = Image(data, Grid((100, 90)))
    still = Rigid(as_rows(np.eye(2)), (0.2, 0.0))
    with pytest.raises(InvalidInputError, match="use linear"):
        warp_to_file(tmp_path / "o.tif", InMemory(image), image.grid, still, interpolation="cubic")
    assert not list(tmp_path.iterdir())
