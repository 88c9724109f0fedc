"""What is written is read again: pixels, types, channels and places in space, in every format that holds them."""

import numpy as np
import pytest

from modalign.errors import InvalidInputError, UnreadableFileError, UnsupportedFormatError
from modalign.geometry import Grid, as_rows, rotation_matrix
from modalign.image import Image, Labels
from modalign.io import (
    describe_image,
    read_image,
    read_labels,
    read_mask,
    read_with_pixel_size,
    write_image,
    write_labels,
)

INTEGERS = ("uint8", "uint16", "int16", "int32", "uint32", "int64", "uint64", "int8")
FLOATS = ("float32", "float64")
SHAPES = {2: (17, 23), 3: (5, 17, 23)}
SPACING = {2: (0.5, 0.25), 3: (2.0, 0.5, 0.25)}
PIXEL_TYPES = {
    ".png": ("uint8", "uint16"),
    ".tif": (*INTEGERS, *FLOATS, "float16"),
    ".ome.tif": ("int8", "int16", "int32", "uint8", "uint16", "uint32", *FLOATS),
    ".nii": (*INTEGERS, *FLOATS),
    ".nii.gz": (*INTEGERS, *FLOATS),
    ".mha": (*INTEGERS, *FLOATS),
    ".nrrd": (*INTEGERS, *FLOATS),
    ".npy": (*INTEGERS, *FLOATS, "float16"),
}
NDIMS = {".png": (2,)}
SIZED = (".tif", ".ome.tif", ".nii", ".nii.gz", ".mha", ".nrrd")
ORIENTED = (".nii", ".nii.gz", ".mha", ".nrrd")
CHANNELS = {1: (), 3: ("red", "green", "blue"), 4: ("red", "green", "blue", "alpha"), 5: ()}


def picture(shape, dtype, channels=1, seed=0, **space):
    """Noise over the whole range of the type, so that a conversion on the way cannot go unseen."""
    rng = np.random.default_rng(seed)
    data = rng.random((channels, *shape)).astype(dtype)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        data = rng.integers(limits.min, limits.max, (channels, *shape), dtype=dtype, endpoint=True)
    return Image(data, Grid(shape, **space), CHANNELS[channels])


CASES = [
    pytest.param(suffix, ndim, dtype, channels, id=f"{suffix}-{ndim}D-{dtype}-{channels}")
    for suffix, dtypes in PIXEL_TYPES.items()
    for ndim in NDIMS.get(suffix, (2, 3))
    for dtype in dtypes
    for channels in CHANNELS
    if channels in {1: (1, 3, 4, 5), 0: (1, 3)}[dtype == "uint8"] and not (suffix == ".png" and channels > 4)
]


@pytest.mark.parametrize(("suffix", "ndim", "dtype", "channels"), CASES)
def test_pixels_types_and_sizes_survive(tmp_path, suffix, ndim, dtype, channels):
    unit = "millimeter" if suffix in ORIENTED else "micrometer"
    image = picture(SHAPES[ndim], np.dtype(dtype), channels, spacing=SPACING[ndim], unit=unit)
    path = tmp_path / f"image{suffix}"
    write_image(path, image)
    again = read_image(path, ndim=ndim)
    assert again.data.dtype == image.data.dtype
    np.testing.assert_array_equal(again.data, image.data)
    if suffix in SIZED:
        assert again.grid.unit == unit
        np.testing.assert_allclose(again.grid.spacing, image.grid.spacing, rtol=1e-6)
    else:
        assert again.grid == Grid(image.grid.shape)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ome.tif", ".mha", ".nrrd"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_keep_their_names(tmp_path, suffix, channels):
    image = picture((17, 23), np.uint8, channels)
    write_image(tmp_path / f"a{suffix}", image)
    assert read_image(tmp_path / f"a{suffix}").channels == image.channels


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".mha", ".nrrd"])
def test_stain_names_survive(tmp_path, suffix):
    image = Image(np.zeros((2, 8, 9), np.float32), Grid((8, 9)), ("DAPI, nuclei", "β-actin"))
    write_image(tmp_path / f"a{suffix}", image)
    assert read_image(tmp_path / f"a{suffix}").channels == image.channels


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif"])
@pytest.mark.parametrize(("ndim", "channels"), [(2, 1), (2, 3), (3, 5)])
@pytest.mark.parametrize("unit", ["micrometer", "pixel"])
def test_the_whole_grid_survives_in_tiff(tmp_path, suffix, ndim, channels, unit):
    direction = as_rows(rotation_matrix(ndim, 25) @ rotation_matrix(ndim, 15, (0, 1)))
    grid = Grid(SHAPES[ndim], SPACING[ndim], (3.0, -4.0, 70.0)[-ndim:], direction, unit)
    image = picture(SHAPES[ndim], np.uint8, channels).with_grid(grid)
    write_image(tmp_path / f"a{suffix}", image)
    again = read_image(tmp_path / f"a{suffix}")
    assert again.grid == grid
    np.testing.assert_array_equal(again.data, image.data)


@pytest.mark.parametrize("spacing", [1e300, 1e-30])
def test_an_absurd_pixel_size_is_no_pixel_size(tmp_path, spacing):
    write_image(tmp_path / "a.tif", Image(np.zeros((1, 8, 9), np.uint8), Grid((8, 9), (1.0, spacing))))
    with pytest.raises(UnreadableFileError, match=r"a\.tif.* pixel size .*from 1e-12 to 1e\+12"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("given", "expected"), [((0.5,), (0.5, 0.5, 0.5)), ((2.0, 0.5, 0.25), (2.0, 0.5, 0.25)), (0.5, (0.5, 0.5, 0.5))]
)
def test_a_given_pixel_size_is_one_number_or_one_an_axis(tmp_path, given, expected):
    write_image(tmp_path / "a.tif", picture((4, 8, 9), np.uint8))
    grid = read_with_pixel_size(tmp_path / "a.tif", given, "micrometer").grid
    assert (grid.spacing, grid.unit) == (expected, "micrometer")


@pytest.mark.parametrize(
    ("given", "message"), [((1.0, 2.0), "2 pixel sizes .* 3 "), ((1.0, 0.0, 1.0), "not 0"), ((np.nan,), "not nan")]
)
def test_a_given_pixel_size_that_makes_no_sense_is_refused(tmp_path, given, message):
    write_image(tmp_path / "a.tif", picture((4, 8, 9), np.uint8))
    with pytest.raises(InvalidInputError, match=message):
        read_with_pixel_size(tmp_path / "a.tif", given, "micrometer")


@pytest.mark.parametrize("suffix", ORIENTED)
@pytest.mark.parametrize("ndim", [2, 3])
def test_origin_and_direction_survive(tmp_path, suffix, ndim):
    direction = rotation_matrix(ndim, 25) @ rotation_matrix(ndim, 15, (0, 1))
    grid = Grid(SHAPES[ndim], SPACING[ndim], (3.0, -4.0, 70.0)[-ndim:], as_rows(direction), "millimeter")
    write_image(tmp_path / f"a{suffix}", Image(np.ones((1, *grid.shape), np.uint8), grid))
    again = read_image(tmp_path / f"a{suffix}").grid
    np.testing.assert_allclose(again.corners, grid.corners, atol=1e-4)  # NIfTI stores float32


@pytest.mark.parametrize("suffix", ORIENTED)
def test_micrometers_become_the_same_length_in_millimeters(tmp_path, suffix):
    grid = Grid((8, 9), (0.5, 0.25), (100.0, 50.0), unit="micrometer")
    write_image(tmp_path / f"a{suffix}", Image(np.ones((1, 8, 9), np.uint8), grid))
    again = read_image(tmp_path / f"a{suffix}").grid
    assert again.unit == "millimeter"
    np.testing.assert_allclose(again.in_unit("micrometer").corners, grid.corners, rtol=1e-5)


@pytest.mark.parametrize("suffix", [*ORIENTED, ".tif", ".ome.tif"])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.0, 3.0)])
def test_an_unknown_pixel_size_stays_unknown(tmp_path, suffix, spacing):
    grid = Grid((8, 9), spacing)
    write_image(tmp_path / f"a{suffix}", Image(np.ones((1, 8, 9), np.uint8), grid))
    assert read_image(tmp_path / f"a{suffix}").grid == grid


@pytest.mark.parametrize("suffix", [".tif", ".nii.gz", ".mha", ".nrrd"])
def test_a_volume_of_one_slice_stays_a_volume_or_serves_as_an_image(tmp_path, suffix):
    grid = Grid((1, 8, 9), (3.0, 2.0, 1.5), (5.0, 6.0, 7.0) if suffix != ".tif" else (), unit="millimeter")
    write_image(tmp_path / f"a{suffix}", Image(np.ones((1, *grid.shape), np.uint8), grid))
    assert read_image(tmp_path / f"a{suffix}").grid.shape == (1, 8, 9)
    flat = read_image(tmp_path / f"a{suffix}", ndim=2)
    assert flat.grid == Grid((8, 9), (2.0, 1.5), grid.origin[1:], unit="millimeter")


def test_a_tilted_slice_does_not_serve_as_an_image(tmp_path):
    grid = Grid((1, 8, 9), direction=as_rows(rotation_matrix(3, 30, (0, 1))), unit="millimeter")
    write_image(tmp_path / "a.mha", Image(np.ones((1, 1, 8, 9), np.uint8), grid))
    with pytest.raises(UnsupportedFormatError, match="where a 2D image is needed"):
        read_image(tmp_path / "a.mha", ndim=2)


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".nii.gz", ".mha", ".nrrd", ".npy"])
def test_a_volume_is_refused_where_an_image_is_needed_and_the_other_way_round(tmp_path, suffix):
    for ndim, wanted in ((3, 2), (2, 3)):
        write_image(tmp_path / f"{ndim}{suffix}", picture(SHAPES[ndim], np.uint8))
        with pytest.raises(UnsupportedFormatError, match=f"{wanted}D image"):
            read_image(tmp_path / f"{ndim}{suffix}", ndim=wanted)


def test_jpeg_is_close(tmp_path):
    y, x = np.mgrid[:40, :50]
    colours = np.stack([120 + 80 * np.sin(x / 9), 100 + 60 * np.cos(y / 7), 2 * x + y]).astype(np.uint8)
    for data in (colours, colours[:1]):
        write_image(tmp_path / "a.jpg", Image(data, Grid((40, 50))))
        again = read_image(tmp_path / "a.jpg")
        assert again.data.dtype == np.uint8
        assert np.abs(again.data.astype(int) - data).mean() < 2  # grey levels, at quality 95


@pytest.mark.parametrize(
    ("name", "dtype", "channels", "shape", "better"),
    [
        ("a.png", "float32", 1, (8, 9), ".tif"),
        ("a.png", "int32", 1, (8, 9), ".tif"),
        ("a.png", "uint8", 5, (8, 9), ".tif"),
        ("a.png", "uint8", 1, (4, 8, 9), ".nii.gz"),
        ("a.jpg", "uint16", 1, (8, 9), ".tif"),
        ("a.jpg", "uint8", 5, (8, 9), ".tif"),
        ("a.jpeg", "uint8", 4, (8, 9), ".tif"),
        ("a.ome.tif", "int64", 1, (8, 9), ".tif"),
        ("a.nii", "float16", 1, (8, 9), ".tif"),
        ("a.mhd", "uint8", 1, (8, 9), ".mha"),
        ("a.bmp", "uint8", 1, (8, 9), ".png"),
        ("a", "uint8", 1, (8, 9), ".png"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_one_that_can(tmp_path, name, dtype, channels, shape, better):
    with pytest.raises(UnsupportedFormatError, match=better):
        write_image(tmp_path / name, picture(shape, np.dtype(dtype), channels))
    assert not list(tmp_path.iterdir())


def test_four_stains_are_not_written_as_transparent_colours(tmp_path):
    image = Image(np.zeros((4, 8, 9), np.uint8), Grid((8, 9)))
    with pytest.raises(UnsupportedFormatError, match=r"\.tif"):
        write_image(tmp_path / "a.png", image)
    write_image(tmp_path / "a.tif", image)
    assert read_image(tmp_path / "a.tif").channels == image.channels


@pytest.mark.parametrize("suffix", [".tif", ".mha", ".nrrd", ".nii.gz", ".npy"])
@pytest.mark.parametrize("dtype", ["uint8", "uint32", "int64", "uint64"])
def test_labels_of_any_size_are_kept(tmp_path, suffix, dtype):
    data = np.zeros((11, 13), dtype)
    data[3:6, 4:9] = min(2**53 + 1, np.iinfo(dtype).max)  # the first whole number that float64 does not hold
    write_labels(tmp_path / f"a{suffix}", Labels(data, Grid((11, 13))))
    again = read_labels(tmp_path / f"a{suffix}")
    assert again.data.dtype == data.dtype
    np.testing.assert_array_equal(again.data, data)


def test_labels_stored_as_floats_become_integers(tmp_path):
    data = np.arange(72, dtype=np.float32).reshape(8, 9)
    write_image(tmp_path / "a.nii.gz", Image(data[None], Grid((8, 9))))
    labels = read_labels(tmp_path / "a.nii.gz")
    assert labels.data.dtype == np.int64
    np.testing.assert_array_equal(labels.data, data)


@pytest.mark.parametrize("data", [np.full((1, 8, 9), 0.5), np.full((1, 8, 9), np.nan), np.full((1, 8, 9), 2.0**60)])
def test_labels_with_fractions_are_refused(tmp_path, data):
    write_image(tmp_path / "a.tif", Image(data, Grid((8, 9))))
    with pytest.raises(UnsupportedFormatError, match="whole numbers"):
        read_labels(tmp_path / "a.tif")


def test_labels_in_colour_are_refused(tmp_path):
    write_image(tmp_path / "a.png", picture((8, 9), np.uint8, 3))
    with pytest.raises(UnsupportedFormatError, match="red, green, blue, where labels need one channel"):
        read_labels(tmp_path / "a.png")
    with pytest.raises(UnsupportedFormatError, match=r"write \.png or \.tif"):
        write_labels(tmp_path / "a.jpg", Labels(np.zeros((8, 9), np.uint8), Grid((8, 9))))


def test_a_mask_is_true_where_it_is_not_zero(tmp_path):
    data = np.zeros((8, 9), np.uint8)
    data[2:4, 3:7] = 1
    data[5, 5] = 255
    write_image(tmp_path / "a.png", Image(data[None], Grid((8, 9))))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", Grid((8, 9), (2.0, 3.0))), data > 0)
    with pytest.raises(UnsupportedFormatError, match="8 × 9 pixels does not fit an image of 9 × 8"):
        read_mask(tmp_path / "a.png", Grid((9, 8)))


def test_facts_about_an_image(tmp_path):
    data = np.array([[[1.0, -3.0], [np.nan, np.inf]]], np.float32)
    write_image(tmp_path / "a.ome.tif", Image(data, Grid((2, 2), (0.5, 0.25), unit="micrometer"), ("DAPI",)))
    facts = describe_image(tmp_path / "a.ome.tif")
    assert facts["format"] == "OME-TIFF"
    assert (facts["shape"], facts["dtype"], facts["channels"]) == ([2, 2], "float32", ["DAPI"])
    assert (facts["spacing"], facts["unit"], facts["pixel_size_from"]) == ([0.5, 0.25], "micrometer", "OME metadata")
    assert (facts["range"], facts["not_finite"]) == ([-3.0, 1.0], 2)
