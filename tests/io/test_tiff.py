"""TIFF as other programs write it: axes, colours and pixel sizes."""

import numpy as np
import pytest

from modalign.errors import UnsupportedFormatError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.io import describe_image, read_image, write_image

tifffile = pytest.importorskip("tifffile")


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "axes", "to_channels_first"),
    [
        ((20, 30), "YX", lambda a: a[None]),
        ((2, 20, 30), "CYX", lambda a: a),
        ((4, 20, 30), "ZYX", lambda a: a[None]),
        ((2, 4, 20, 30), "CZYX", lambda a: a),
        ((4, 2, 20, 30), "ZCYX", lambda a: a.swapaxes(0, 1)),
        ((1, 4, 20, 30), "TZYX", lambda a: a),
    ],
)
@pytest.mark.parametrize("kind", ["ome", "shaped"])
def test_axes_are_those_of_the_metadata(tmp_path, shape, axes, to_channels_first, kind):
    pixels = noise(*shape)
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    tifffile.imwrite(path, pixels, metadata={"axes": axes}, photometric="minisblack")
    np.testing.assert_array_equal(read_image(path).data, to_channels_first(pixels))


def test_a_stack_without_metadata_is_a_volume(tmp_path):
    pixels = noise(3, 20, 30)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", metadata=None)
    image = read_image(tmp_path / "a.tif")
    assert image.grid.shape == (3, 20, 30)
    np.testing.assert_array_equal(image.data[0], pixels)


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
def test_colours_interleaved_or_in_planes(tmp_path, planarconfig):
    pixels = noise(20, 30, 3)
    stored = pixels if planarconfig == "contig" else np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planarconfig)
    image = read_image(tmp_path / "a.tif")
    assert image.channels == ("red", "green", "blue")
    np.testing.assert_array_equal(image.data, np.moveaxis(pixels, -1, 0))


def test_a_palette_is_expanded_and_white_is_zero_is_inverted(tmp_path):
    indices = noise(20, 30)
    palette = noise(3, 256).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", indices, photometric="palette", colormap=palette)
    expected = (palette // 257).astype(np.uint8)[:, indices]
    image = read_image(tmp_path / "a.tif")
    assert image.channels == ("red", "green", "blue")
    np.testing.assert_array_equal(image.data, expected)
    tifffile.imwrite(tmp_path / "b.tif", indices, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif").data[0], 255 - indices)


def test_one_bit_becomes_black_and_white(tmp_path):
    mask = noise(20, 30) > 100
    tifffile.imwrite(tmp_path / "a.tif", mask, photometric="minisblack")
    image = read_image(tmp_path / "a.tif")
    assert image.data.dtype == np.uint8
    np.testing.assert_array_equal(image.data[0], 255 * mask)


def test_big_endian_pixels_become_native(tmp_path):
    pixels = noise(20, 30, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=">")
    image = read_image(tmp_path / "a.tif")
    assert image.data.dtype.isnative
    np.testing.assert_array_equal(image.data[0], pixels)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: tifffile.imwrite(p, noise(3, 20, 30), metadata={"axes": "TYX"}, photometric="minisblack"), "time"),
        (lambda p: tifffile.imwrite(p, noise(2, 20, 30, 3), metadata={"axes": "CYXS"}, photometric="rgb"), "colour"),
        (lambda p: tifffile.imwrite(p, noise(20, 30, 4), photometric="separated"), "SEPARATED"),
    ],
)
def test_what_would_have_to_be_guessed_is_refused(tmp_path, write, message):
    write(tmp_path / "a.tif")
    with pytest.raises(UnsupportedFormatError, match=message):
        read_image(tmp_path / "a.tif")


def test_several_images_in_one_file_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(noise(20, 30))
        writer.write(noise(10, 15))
    with pytest.raises(UnsupportedFormatError, match="holds 2 images"):
        read_image(tmp_path / "a.tif")


def test_of_a_pyramid_the_full_size_is_read(tmp_path):
    full = noise(64, 96)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
        writer.write(full, subifds=1, tile=(16, 16), metadata={"axes": "YX"})
        writer.write(full[::2, ::2], subfiletype=1, tile=(16, 16))
    np.testing.assert_array_equal(read_image(tmp_path / "a.ome.tif").data[0], full)


@pytest.mark.parametrize(
    ("size", "unit", "spacing", "grid_unit"),
    [
        (0.5, "µm", 0.5, "micrometer"),
        (0.5, "um", 0.5, "micrometer"),
        (250.0, "nm", 250.0, "nanometer"),
        (0.002, "mm", 0.002, "millimeter"),
        (0.1, "cm", 1.0, "millimeter"),
        (2500.0, "Å", 250.0, "nanometer"),
    ],
)
def test_pixel_sizes_of_ome(tmp_path, size, unit, spacing, grid_unit):
    metadata = {"axes": "YX", "PhysicalSizeX": size, "PhysicalSizeXUnit": unit}
    metadata |= {"PhysicalSizeY": 2 * size, "PhysicalSizeYUnit": unit}
    tifffile.imwrite(tmp_path / "a.ome.tif", noise(20, 30), metadata=metadata, resolution=(300, 300), resolutionunit=2)
    grid = read_image(tmp_path / "a.ome.tif").grid
    assert grid.unit == grid_unit
    np.testing.assert_allclose(grid.spacing, (2 * spacing, spacing))
    assert grid.origin == (0.0, 0.0)


def test_ome_sizes_in_different_units_are_brought_to_one(tmp_path):
    metadata = {"axes": "ZYX", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm"}
    metadata |= {"PhysicalSizeY": 0.25, "PhysicalSizeZ": 2.0}  # without a unit OME means micrometres
    tifffile.imwrite(tmp_path / "a.ome.tif", noise(3, 20, 30), metadata=metadata, photometric="minisblack")
    grid = read_image(tmp_path / "a.ome.tif").grid
    assert grid.unit == "nanometer"
    np.testing.assert_allclose(grid.spacing, (2000.0, 250.0, 250.0))


def test_a_volume_without_slice_distance_has_no_pixel_size(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        noise(3, 20, 30),
        metadata={"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
        photometric="minisblack",
    )
    assert read_image(tmp_path / "a.ome.tif").grid == Grid((3, 20, 30))
    assert "only in part" in describe_image(tmp_path / "a.ome.tif")["pixel_size_from"]


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m", "microns"])
def test_pixel_sizes_of_imagej(tmp_path, unit):
    metadata = {"axes": "ZCYX", "spacing": 2.0, "unit": unit}
    pixels = noise(5, 2, 20, 30)
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata=metadata, resolution=(4.0, 2.0))
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.data, pixels.swapaxes(0, 1))
    assert image.grid.unit == "micrometer"
    np.testing.assert_allclose(image.grid.spacing, (2.0, 0.5, 0.25))
    assert describe_image(tmp_path / "a.tif")["pixel_size_from"] == "ImageJ metadata"


@pytest.mark.parametrize("dpi", [72, 96, 300])
def test_print_resolutions_are_no_pixel_sizes(tmp_path, dpi):
    tifffile.imwrite(tmp_path / "a.tif", noise(20, 30), resolution=(dpi, dpi), resolutionunit="INCH", metadata=None)
    assert read_image(tmp_path / "a.tif").grid == Grid((20, 30))
    assert "print resolution" in describe_image(tmp_path / "a.tif")["pixel_size_from"]


def test_resolution_tags_of_a_microscope(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", noise(20, 30), resolution=(40000, 20000), resolutionunit="CENTIMETER", metadata=None
    )
    grid = read_image(tmp_path / "a.tif").grid.in_unit("micrometer")
    np.testing.assert_allclose(grid.spacing, (0.5, 0.25))


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [(1e4 / 0.325, "CENTIMETER", 0.325), (25.4e3 / 2.0, "INCH", 2.0), (1e4 / 49.0, "CENTIMETER", 49.0)],
)
def test_pixel_sizes_in_centimetres_and_inches_are_told_in_micrometers(tmp_path, resolution, unit, expected):
    tags = {"resolution": (resolution, 2 * resolution), "resolutionunit": unit}
    tifffile.imwrite(tmp_path / "a.tif", noise(20, 30), metadata=None, **tags)
    grid = read_image(tmp_path / "a.tif").grid
    assert grid.unit == "micrometer"
    np.testing.assert_allclose(grid.spacing, (expected / 2, expected), rtol=1e-6)


def test_the_position_of_a_stage_is_not_taken_for_an_origin(tmp_path):
    metadata = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    metadata |= {"Plane": {"PositionX": [1234.0], "PositionY": [-77.0]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", noise(20, 30), metadata=metadata)
    assert read_image(tmp_path / "a.ome.tif").grid.origin == (0.0, 0.0)


def test_planes_of_a_written_ome_have_positions_for_others(tmp_path):
    grid = Grid((3, 20, 30), (2.0, 0.5, 0.25), (7.0, -3.0, 11.0), unit="micrometer")
    write_image(tmp_path / "a.ome.tif", Image(noise(2, 3, 20, 30), grid, ("DAPI", "MAP2")))
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        planes = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]["Plane"]
    assert [plane["PositionZ"] for plane in planes] == [7.0, 9.0, 11.0] * 2
    assert [plane["TheZ"] for plane in planes] == [0, 1, 2] * 2
    assert {(plane["PositionY"], plane["PositionX"], plane["PositionXUnit"]) for plane in planes} == {
        (-3.0, 11.0, "µm")
    }


@pytest.mark.parametrize("spoilt", ["[1.0]", "null", "[[1.0, 0.0], [1.0, 0.0]]"])
@pytest.mark.parametrize("suffix", [".tif", ".ome.tif"])
def test_a_place_that_makes_no_sense_is_left_out(tmp_path, suffix, spoilt):
    placed = Grid((20, 30), (0.5, 0.25), (3.0, 4.0), unit="micrometer")
    write_image(tmp_path / f"a{suffix}", Image(noise(1, 20, 30), placed))
    whole = (tmp_path / f"a{suffix}").read_bytes()
    old = b"[[1.0, 0.0], [0.0, 1.0]]"
    assert whole.count(old) == 1
    (tmp_path / f"b{suffix}").write_bytes(whole.replace(old, spoilt.encode().ljust(len(old))))
    assert read_image(tmp_path / f"b{suffix}").grid.origin == (0.0, 0.0)


def test_written_ome_is_what_others_read(tmp_path):
    grid = Grid((4, 20, 30), (2.0, 0.5, 0.25), unit="micrometer")
    pixels = noise(2, 4, 20, 30, dtype=np.uint16)
    write_image(tmp_path / "a.ome.tif", Image(pixels, grid, ("DAPI", "MAP2")))
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        assert tiff.is_ome
        assert tiff.series[0].axes == "CZYX"
        np.testing.assert_array_equal(tiff.asarray(), pixels)
        assert tiff.pages[0].compression.name == "ADOBE_DEFLATE"
        for fact in ('PhysicalSizeX="0.25"', 'PhysicalSizeZ="2.0"', 'Name="MAP2"'):
            assert fact in tiff.ome_metadata


def test_written_tiff_has_resolution_tags(tmp_path):
    write_image(tmp_path / "a.tif", Image(noise(1, 20, 30), Grid((20, 30), (0.5, 0.25), unit="micrometer")))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages[0].resolutionunit.name == "CENTIMETER"
        np.testing.assert_allclose(tiff.pages[0].resolution, (40000, 20000))
