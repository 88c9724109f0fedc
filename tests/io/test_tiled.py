"""Windows of TIFF files: what they hold is what reading the whole file gives, and little is decoded for it."""

import numpy as np
import pytest

from modalign.errors import UnreadableFileError, UnsupportedFormatError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.io import describe_image, open_tiled, read_grid, read_image, tiled, write_image

tifffile = pytest.importorskip("tifffile")

GRAY = {"photometric": "minisblack"}
LAYOUTS = {
    "tiles": ((75, 131), {"tile": (32, 48), **GRAY}),
    "strips": ((75, 131), {"rowsperstrip": 7, "compression": "zlib", **GRAY}),
    "one piece": ((75, 131), GRAY),
    "RGB tiles": ((75, 131, 3), {"tile": (32, 16), "photometric": "rgb"}),
    "RGB, LZW, predictor": (
        (75, 131, 3),
        {"tile": (32, 16), "photometric": "rgb", "compression": "lzw", "predictor": True},
    ),
    "RGB, zstd strips": ((75, 131, 3), {"rowsperstrip": 10, "photometric": "rgb", "compression": "zstd"}),
    "RGB in planes": ((3, 75, 131), {"tile": (32, 16), "photometric": "rgb", "planarconfig": "separate"}),
    "RGB in planes, raw": ((3, 75, 131), {"photometric": "rgb", "planarconfig": "separate"}),
    "RGBA": ((75, 131, 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "channels": ((2, 75, 131), {"tile": (16, 16), "metadata": {"axes": "CYX"}, **GRAY}),
    "channels of a stack": ((4, 2, 75, 131), {"tile": (64, 64), "metadata": {"axes": "ZCYX"}, **GRAY}),
    "stack": ((5, 75, 131), {"metadata": {"axes": "ZYX"}, **GRAY}),
    "stack, compressed": ((5, 75, 131), {"metadata": {"axes": "ZYX"}, "compression": "zlib", **GRAY}),
    "big-endian": ((75, 131), {"byteorder": ">", "tile": (16, 16), **GRAY}),
    "big-endian rows": ((75, 131), {"byteorder": ">", **GRAY}),
    "BigTIFF": ((75, 131), {"bigtiff": True, "tile": (16, 16), **GRAY}),
}


def noise(shape, dtype, seed=0):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def some_windows(shape):
    """All of an image, single pixels at both ends, and boxes anywhere."""
    rng = np.random.default_rng(1)
    yield tuple(slice(0, n) for n in shape)
    yield tuple(slice(0, 1) for n in shape)
    yield tuple(slice(n - 1, n) for n in shape)
    for _ in range(6):
        ends = [sorted(rng.choice(n + 1, 2, replace=False)) for n in shape]
        yield tuple(slice(int(a), int(b)) for a, b in ends)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("suffix", [".tif", ".ome.tif"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_windows_equal_the_whole(tmp_path, layout, suffix, dtype):
    shape, options = LAYOUTS[layout]
    if suffix == ".ome.tif" and "byteorder" in options:
        options = {**options, "ome": True}
    if dtype == "float32" and "predictor" in options:
        options = {**options, "predictor": 3}
    path = tmp_path / f"a{suffix}"
    tifffile.imwrite(path, noise(shape, dtype), resolution=(4e4, 2e4), resolutionunit="CENTIMETER", **options)
    whole = read_image(path)
    with open_tiled(path) as reader:
        assert (reader.grid, reader.channels, reader.dtype) == (whole.grid, whole.channels, whole.data.dtype)
        assert reader.nbytes == whole.data.nbytes
        for window in some_windows(whole.grid.shape):
            part = reader.read(window)
            assert part.dtype == whole.data.dtype
            np.testing.assert_array_equal(part, whole.data[(slice(None), *window)])
            np.testing.assert_array_equal(reader.read(window, slice(0, 1)), whole.data[(slice(0, 1), *window)])


def test_windows_of_jpeg_tiles(tmp_path):
    yy, xx = np.mgrid[:75, :131]
    smooth = np.stack([yy, xx, yy + xx], axis=-1).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", smooth, tile=(32, 32), compression="jpeg", photometric="rgb")
    whole = read_image(tmp_path / "a.tif")
    with open_tiled(tmp_path / "a.tif") as reader:
        window = (slice(20, 70), slice(3, 131))
        np.testing.assert_array_equal(reader.read(window), whole.data[:, 20:70, 3:131])


def test_of_a_pyramid_the_full_size_is_read(tmp_path):
    full = noise((64, 96), np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
        writer.write(full, subifds=1, tile=(16, 16), metadata={"axes": "YX"})
        writer.write(full[::2, ::2], subfiletype=1, tile=(16, 16))
    with open_tiled(tmp_path / "a.ome.tif") as reader:
        np.testing.assert_array_equal(reader.read((slice(0, 64), slice(0, 96)))[0], full)


def test_what_modalign_wrote_keeps_its_place_and_names(tmp_path):
    grid = Grid((3, 40, 30), (2.0, 0.5, 0.25), (7.0, -3.0, 11.0), unit="micrometer")
    for suffix in (".tif", ".ome.tif"):
        write_image(tmp_path / f"a{suffix}", Image(noise((2, 3, 40, 30), np.uint16), grid, ("DAPI", "MAP2")))
        with open_tiled(tmp_path / f"a{suffix}") as reader:
            assert (reader.grid, reader.channels) == (grid, ("DAPI", "MAP2"))


def test_a_volume_of_one_slice_serves_as_a_picture(tmp_path):
    pixels = noise((1, 40, 30), np.uint8)
    write_image(tmp_path / "a.ome.tif", Image(pixels[None], Grid((1, 40, 30), (2.0, 0.5, 0.5), unit="micrometer")))
    with open_tiled(tmp_path / "a.ome.tif", ndim=2) as reader:
        assert reader.grid == read_image(tmp_path / "a.ome.tif", ndim=2).grid
        np.testing.assert_array_equal(reader.read((slice(5, 9), slice(0, 30))), pixels[:, 5:9])
    write_image(tmp_path / "b.tif", Image(pixels, Grid((40, 30))))
    with pytest.raises(UnsupportedFormatError, match="3D image is needed"):
        open_tiled(tmp_path / "b.tif", ndim=3)


@pytest.mark.parametrize("case", ["palette", "miniswhite", "1 bit", "turned", "png"])
def test_what_cannot_be_read_in_windows_says_so(tmp_path, case):
    path = tmp_path / "a.tif"
    if case == "palette":
        tifffile.imwrite(path, noise((20, 30), np.uint8), photometric="palette", colormap=noise((3, 256), np.uint16))
    elif case == "miniswhite":
        tifffile.imwrite(path, noise((20, 30), np.uint8), photometric="miniswhite")
    elif case == "1 bit":
        tifffile.imwrite(path, noise((20, 30), np.uint8) > 100, photometric="minisblack")
    elif case == "turned":
        tifffile.imwrite(path, noise((20, 30), np.uint8), extratags=[(274, 3, 1, 6, True)], **GRAY)
    else:
        path = tmp_path / "a.png"
        write_image(path, Image(noise((1, 20, 30), np.uint8), Grid((20, 30))))
    assert open_tiled(path) is None
    assert read_grid(path) == read_image(path).grid
    assert describe_image(path)["range"] == [read_image(path).data.min(), read_image(path).data.max()]


def test_only_tiles_that_are_needed_are_decoded_and_few_are_kept(tmp_path, monkeypatch):
    made, tile_bytes = [], 32 * 32
    monkeypatch.setattr(tiled, "KEPT_BYTES", 20 * tile_bytes)

    class Watched(tiled.Tiles):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(tiled, "Tiles", Watched)
    pixels = noise((320, 320), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(32, 32), compression="zlib", **GRAY)
    with open_tiled(tmp_path / "a.tif") as reader:
        (tiles,) = made
        reader.read((slice(30, 34), slice(0, 32)))
        assert (tiles.decoded, tiles.kept_bytes) == (2, 2 * tile_bytes)
        reader.read((slice(0, 64), slice(0, 32)))
        assert tiles.decoded == 2  # both were still there
        for window in tiled.blocks_of((320, 320), 32):
            np.testing.assert_array_equal(reader.read(window)[0], pixels[window])
            assert tiles.kept_bytes <= tiled.KEPT_BYTES
        assert tiles.decoded <= 102
        reader.read((slice(0, 320), slice(0, 320)))
        assert tiles.kept_bytes <= tiled.KEPT_BYTES


@pytest.mark.parametrize(
    "options", [{"tile": (32, 32)}, {"tile": (32, 32), "compression": "zlib"}, {}, {"rowsperstrip": 8}]
)
@pytest.mark.parametrize("part", [0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused_at_once(tmp_path, capfd, options, part):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise((200, 160), np.uint16), **options, **GRAY)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(UnreadableFileError) as caught:
        open_tiled(path)
    assert str(caught.value).startswith(f"{path}: is a damaged or incomplete TIFF")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compression", ["zlib", "lzw", "jpeg", "zstd"])
def test_a_damaged_tile_is_one_error(tmp_path, capfd, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise((128, 128), np.uint8), tile=(64, 64), compression=compression, **GRAY)
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[3], tiff.pages[0].databytecounts[3]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = b"\xee" * count
    path.write_bytes(content)
    with open_tiled(path) as reader:
        reader.read((slice(0, 64), slice(0, 64)))
        with pytest.raises(UnreadableFileError, match="damaged or incomplete"):
            reader.read((slice(60, 70), slice(60, 70)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_a_description_counts_what_is_not_finite(tmp_path, suffix):
    data = np.random.default_rng(0).random((1, 700, 600)).astype(np.float32)
    data[0, 10, 20], data[0, 600, 550], data[0, 300, 300] = np.nan, np.inf, 7.0
    write_image(tmp_path / f"a{suffix}", Image(data, Grid((700, 600))))
    facts = describe_image(tmp_path / f"a{suffix}")
    assert facts["not_finite"] == 2
    assert facts["range"] == [float(data[np.isfinite(data)].min()), 7.0]
    write_image(tmp_path / f"b{suffix}", Image(np.full((1, 5, 6), np.nan), Grid((5, 6))))
    assert describe_image(tmp_path / f"b{suffix}")["range"] is None


def test_the_grid_is_read_without_the_pixels(tmp_path, monkeypatch):
    grid = Grid((40, 30), (0.5, 0.25), unit="micrometer")
    write_image(tmp_path / "a.ome.tif", Image(noise((3, 40, 30), np.uint8), grid, ("red", "green", "blue")))
    monkeypatch.setattr(tiled.Tiles, "_tile", lambda *_: pytest.fail("pixels were read"))
    assert read_grid(tmp_path / "a.ome.tif") == grid
