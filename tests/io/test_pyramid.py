"""Tiled pyramids: the pixels, their place in the world at every level, and nothing left behind."""

import numpy as np
import pytest

from modalign.errors import UnsupportedFormatError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.io import pyramid, read_image, write_image, write_pyramid
from modalign.io.pyramid import halved, header

tifffile = pytest.importorskip("tifffile")


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(pyramid, "TILE", 32)
    monkeypatch.setattr(pyramid, "SMALLEST", 40)


def write(path, image, **options):
    def render(channels, window):
        return image.data[(channels, *window)]

    write_pyramid(path, render, header(image.grid, image.channels, image.data.dtype), **options)


def levels_of(path):
    with tifffile.TiffFile(path) as tiff:
        return [level.asarray() for level in tiff.series[0].levels]


def picture(shape, channels, dtype="uint8", seed=0):
    grid = Grid(shape, (3.0, 0.5, 0.25)[-len(shape) :], (5.0, -7.0, 2.0)[-len(shape) :], unit="micrometer")
    data = np.random.default_rng(seed).integers(0, 250, (len(channels), *shape)).astype(dtype)
    return Image(data, grid, channels)


IMAGES = {
    "gray": ((150, 101), ("signal",)),
    "colour": ((150, 101), ("red", "green", "blue")),
    "alpha": ((97, 64), ("red", "green", "blue", "alpha")),
    "channels": ((64, 97), ("DAPI", "MAP2")),
    "stack": ((3, 70, 81), ("signal",)),
    "stack of channels": ((3, 70, 81), ("a", "b")),
    "colour stack": ((3, 70, 81), ("red", "green", "blue")),
    "small": ((9, 8), ("red", "green", "blue")),
}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("suffix", [".tif", ".ome.tif"])
@pytest.mark.parametrize("compression", ["zstd", "zlib", "none"])
def test_the_file_holds_what_write_image_writes(tmp_path, name, suffix, compression):
    image = picture(*IMAGES[name])
    write(tmp_path / f"tiles{suffix}", image, compression=compression)
    write_image(tmp_path / f"whole{suffix}", image)
    tiles, whole = read_image(tmp_path / f"tiles{suffix}"), read_image(tmp_path / f"whole{suffix}")
    np.testing.assert_array_equal(tiles.data, image.data)
    assert (tiles.grid, tiles.channels, tiles.data.dtype) == (whole.grid, whole.channels, whole.data.dtype)
    assert [p.name for p in sorted(tmp_path.iterdir())] == [f"tiles{suffix}", f"whole{suffix}"]


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64", "int8", "uint32"])
def test_types_are_kept(tmp_path, dtype):
    image = picture((100, 90), ("a", "b"), dtype)
    write(tmp_path / "a.tif", image)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").data, image.data)
    assert read_image(tmp_path / "a.tif").data.dtype == dtype


@pytest.mark.parametrize("name", IMAGES)
def test_each_level_is_the_mean_of_the_one_before(tmp_path, name):
    image = picture(*IMAGES[name])
    write(tmp_path / "a.ome.tif", image)
    levels = levels_of(tmp_path / "a.ome.tif")
    assert (
        max(levels[-1].shape[-3:-1] if name in ("colour", "alpha", "colour stack", "small") else levels[-1].shape[-2:])
        <= 40
    )
    expected = image.data
    for level in levels:
        colours = level.shape[-1] == len(image.data) > 2
        stored = np.moveaxis(level, -1, 0) if colours else level
        np.testing.assert_array_equal(stored.reshape(expected.shape), expected)
        padded = np.pad(
            expected, [(0, 0)] * (expected.ndim - 2) + [(0, n % 2) for n in expected.shape[-2:]], mode="edge"
        )
        quads = [padded[..., dy::2, dx::2].astype(float) for dy in (0, 1) for dx in (0, 1)]
        expected = np.floor(np.mean(quads, axis=0) + 0.5).astype(np.uint8)


def test_tiles_and_levels_are_where_viewers_look_for_them(tmp_path):
    write(tmp_path / "a.ome.tif", picture((150, 101), ("red", "green", "blue")))
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        assert tiff.is_ome
        assert len(tiff.pages) == 1
        page = tiff.pages[0]
        assert (page.tilelength, page.tilewidth, page.photometric.name) == (32, 32, "RGB")
        assert page.compression.name == "ADOBE_DEFLATE"
        assert [sub.shape for sub in page.pages] == [(75, 51, 3), (38, 26, 3)]
        assert all(sub.is_reduced and sub.is_tiled for sub in page.pages)
        assert [round(sub.resolution[0]) for sub in page.pages] == [20000, 10000]
        assert 'PhysicalSizeX="0.25"' in tiff.ome_metadata


def centroid(pixels):
    weights = pixels.astype(float) - pixels.min()
    return np.array([(axis * weights).sum() / weights.sum() for axis in np.indices(pixels.shape)])


@pytest.mark.parametrize("nearest", [False, True])
def test_a_blob_is_at_one_place_of_the_world_at_every_level(tmp_path, nearest):
    """Pixel x of level L lies at (x + 0.5)·2^L − 0.5 of the full image."""
    grid = Grid((203, 241), (0.5, 0.25), unit="micrometer")
    yy, xx = np.indices(grid.shape)
    blob = 60000 * np.exp(-((yy - 90.3) ** 2 + (xx - 131.7) ** 2) / (2 * 18.0**2))
    data = (40 * (blob > 20000)).astype(np.uint16) if nearest else blob.astype(np.uint16)
    write(tmp_path / "a.ome.tif", Image(data[None], grid), nearest=nearest)
    levels = levels_of(tmp_path / "a.ome.tif")
    assert len(levels) == 4
    truth = grid.index_to_world(centroid(data))
    for level, pixels in enumerate(levels):
        index = (centroid(pixels) + 0.5) * 2**level - 0.5
        within = 0.3 * 2**level if nearest else 0.05
        np.testing.assert_allclose(grid.index_to_world(index), truth, atol=within * 0.5)
        if nearest:
            assert set(np.unique(pixels)) == {0, 40}


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float32", "float64"]
)
def test_a_constant_stays_a_constant_when_halved(dtype):
    for value in (0, 1, np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) and dtype != "int64" else 99):
        tile = np.full((2, 5, 6), value, dtype)
        half = halved(tile)
        assert half.shape == (2, 3, 3)
        assert half.dtype == tile.dtype
        assert (half == value).all()


def test_work_is_told_of_as_it_goes_on(tmp_path):
    told = []
    write(tmp_path / "a.tif", picture((150, 101), ("a", "b")), advance=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)
    assert 0 < told[0] < 0.1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
@pytest.mark.parametrize("after", [1, 7, 18])
def test_an_interrupted_file_leaves_nothing_and_the_old_one(tmp_path, error, after):
    image, count = picture((150, 101), ("red", "green", "blue")), 0
    (tmp_path / "a.ome.tif").write_bytes(b"older")

    def render(channels, window):
        nonlocal count
        count += 1
        if count > after:
            raise error
        return image.data[(channels, *window)]

    with pytest.raises((error, Exception)):
        write_pyramid(tmp_path / "a.ome.tif", render, header(image.grid, image.channels, image.data.dtype))
    assert [path.name for path in tmp_path.iterdir()] == ["a.ome.tif"]
    assert (tmp_path / "a.ome.tif").read_bytes() == b"older"


def test_pixels_that_ome_cannot_hold_are_refused(tmp_path):
    with pytest.raises(UnsupportedFormatError, match=r"write \.tif"):
        write(tmp_path / "a.ome.tif", picture((50, 50), ("a",), "int64"))
    assert not list(tmp_path.iterdir())
