"""PNG and JPEG as other programs write them."""

import io

import numpy as np
import pytest

from modalign.errors import OutputError, UnreadableFileError, UnsupportedFormatError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.io import describe_image, read_image, write_image

cv2 = pytest.importorskip("cv2")
PIL = pytest.importorskip("PIL.Image")

RED_LEFT_GREEN_RIGHT = np.zeros((24, 40, 3), np.uint8)
RED_LEFT_GREEN_RIGHT[:, :20, 0] = 250
RED_LEFT_GREEN_RIGHT[:, 20:, 1] = 250
RED_LEFT_GREEN_RIGHT[:12] //= 2  # dark above, so that every turn and mirror image differs


def saved(path, pixels, **options):
    PIL.fromarray(pixels).save(path, **options)
    return path


def test_sixteen_bit_colours_keep_their_bits_and_their_order(tmp_path):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 65536, (15, 20, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), rgb[..., ::-1])  # OpenCV takes blue first
    image = read_image(tmp_path / "a.png")
    assert image.channels == ("red", "green", "blue")
    np.testing.assert_array_equal(image.data, np.moveaxis(rgb, -1, 0))
    write_image(tmp_path / "b.png", image)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED)[..., ::-1], rgb)


def test_a_palette_is_expanded(tmp_path):
    quantized = PIL.fromarray(RED_LEFT_GREEN_RIGHT).quantize(8)
    quantized.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.channels == ("red", "green", "blue")
    np.testing.assert_array_equal(image.data, np.moveaxis(np.array(quantized.convert("RGB")), -1, 0))


def test_one_bit_becomes_black_and_white(tmp_path):
    mask = RED_LEFT_GREEN_RIGHT[..., 0] > 0
    image = read_image(saved(tmp_path / "a.png", mask))
    assert image.data.dtype == np.uint8
    np.testing.assert_array_equal(image.data[0], mask * 255)


def test_gray_with_alpha(tmp_path):
    pixels = np.dstack([RED_LEFT_GREEN_RIGHT[..., 0], RED_LEFT_GREEN_RIGHT[..., 1]])
    image = read_image(saved(tmp_path / "a.png", pixels))
    assert image.channels == ("gray", "alpha")
    np.testing.assert_array_equal(image.data, np.moveaxis(pixels, -1, 0))
    np.testing.assert_array_equal(image.without_alpha().valid, pixels[..., 1] > 0)
    write_image(tmp_path / "b.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "b.png").data, image.data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(tmp_path, orientation):
    """What is stored turned, with the tag that says so, is read as Pillow shows it."""
    ImageOps = pytest.importorskip("PIL.ImageOps")
    exif = PIL.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.jpg", RED_LEFT_GREEN_RIGHT, exif=exif, quality=95, subsampling=0)
    with PIL.open(path) as stored:
        expected = np.array(ImageOps.exif_transpose(stored))
    image = read_image(path)
    assert image.grid == Grid(expected.shape[:2])
    assert np.abs(image.data.astype(int) - np.moveaxis(expected, -1, 0)).max() <= 4  # decoders round differently


def test_a_progressive_jpeg_with_a_thumbnail_inside(tmp_path):
    buffer = io.BytesIO()
    PIL.fromarray(RED_LEFT_GREEN_RIGHT[::4, ::4]).save(buffer, "JPEG")
    path = tmp_path / "a.jpg"
    saved(path, RED_LEFT_GREEN_RIGHT, progressive=True, comment=buffer.getvalue(), quality=95)
    assert read_image(path).data.shape == (3, 24, 40)


def test_a_jpeg_that_is_cut_anywhere_is_refused(tmp_path):
    whole = saved(tmp_path / "a.jpg", RED_LEFT_GREEN_RIGHT).read_bytes()
    for end in range(4, len(whole) - 1, 37):
        (tmp_path / "a.jpg").write_bytes(whole[:end])
        with pytest.raises(UnreadableFileError):
            read_image(tmp_path / "a.jpg")


def test_colours_for_print_are_refused(tmp_path):
    PIL.fromarray(RED_LEFT_GREEN_RIGHT).convert("CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(UnsupportedFormatError, match="CMYK"):
        read_image(tmp_path / "a.jpg")


def test_written_pictures_are_what_other_programs_read(tmp_path):
    image = Image(np.moveaxis(RED_LEFT_GREEN_RIGHT, -1, 0), Grid((24, 40)), ("red", "green", "blue"))
    for name in ("a.png", "a.tif"):
        write_image(tmp_path / name, image)
        with PIL.open(tmp_path / name) as opened:
            np.testing.assert_array_equal(np.array(opened), RED_LEFT_GREEN_RIGHT)


def test_a_picture_too_wide_for_jpeg_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"write \.tif"):
        write_image(tmp_path / "a.jpg", Image(np.zeros((1, 1, 70_000), np.uint8), Grid((1, 70_000))))


def test_a_resolution_for_printing_is_no_pixel_size(tmp_path):
    path = saved(tmp_path / "a.png", RED_LEFT_GREEN_RIGHT, dpi=(300, 300))
    assert describe_image(path)["unit"] == "pixel"
