"""PNG and JPEG: pictures of 8 or 16 bits without a pixel size."""

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from modalign.errors import OutputError, UnreadableFileError, UnsupportedFormatError
from modalign.geometry import Grid
from modalign.image import ALPHA, Image
from modalign.io.decoded import NAMES, Decoded, upright
from modalign.io.files import atomic_path, one_line, quiet_stderr

Array = np.ndarray
JPEG_QUALITY = 95
PICTURE_NDIMS = frozenset({2})
_START_OF_SCAN, _END_OF_IMAGE, _EXIF = 0xDA, 0xD9, 0xE1
_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""Ends compressed data: 0xFF, unless a zero (a literal 0xFF) or a restart marker follows."""


def read_png(path: Path, ndim: int | None = None) -> Decoded:  # noqa: ARG001 - one signature for all readers
    """Read a PNG of 1 to 16 bits; palettes are expanded, fewer than 8 bits are spread over 0-255."""
    import imagecodecs

    try:
        with quiet_stderr():
            pixels = imagecodecs.png_decode(path.read_bytes())
    except (RuntimeError, ValueError) as error:
        raise UnreadableFileError(path, f"is a damaged or incomplete PNG ({one_line(error)})") from error
    return _decoded(pixels)


def read_jpeg(path: Path, ndim: int | None = None) -> Decoded:  # noqa: ARG001 - one signature for all readers
    """Read a JPEG, turned upright as its EXIF orientation says."""
    import imagecodecs

    encoded = path.read_bytes()
    try:
        orientation = _exif_orientation(encoded)
        with quiet_stderr():
            pixels = imagecodecs.jpeg_decode(encoded)
    except (RuntimeError, ValueError, IndexError, struct.error) as error:
        raise UnreadableFileError(path, f"is a damaged or incomplete JPEG ({one_line(error)})") from error
    decoded = _decoded(pixels)
    if len(decoded.data) > 3:
        raise UnsupportedFormatError(path, "is a JPEG in CMYK colours; save it in RGB or gray")
    data = upright(decoded.data, orientation)
    return Decoded(data, Grid(data.shape[1:]), decoded.channels)


def write_png(path: Path, image: Image) -> None:
    """Write 8 or 16 bits in gray or RGB, with or without alpha."""
    import imagecodecs

    _check_picture(path, image, dtypes=("uint8", "uint16"), most=4)
    with atomic_path(path) as temporary:
        temporary.write_bytes(imagecodecs.png_encode(_interleaved(image)))


def write_jpeg(path: Path, image: Image) -> None:
    """Write 8 bits in gray or RGB at quality 95 without chroma subsampling."""
    import imagecodecs

    _check_picture(path, image, dtypes=("uint8",), most=3)
    try:
        encoded = imagecodecs.jpeg8_encode(_interleaved(image), level=JPEG_QUALITY, subsampling="444")
    except (RuntimeError, ValueError) as error:  # such as more than 65,500 pixels along an axis
        raise OutputError(path, f"cannot be written as JPEG ({one_line(error)}); write .tif") from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)


def _decoded(pixels: Array) -> Decoded:
    data = np.moveaxis(np.atleast_3d(pixels), -1, 0)
    return Decoded(data, Grid(data.shape[1:]), NAMES.get(len(data), ()))


def _interleaved(image: Image) -> Array:
    return np.ascontiguousarray(image.data[0] if len(image.data) == 1 else np.moveaxis(image.data, 0, -1))


def _check_picture(path: Path, image: Image, dtypes: tuple[str, ...], most: int) -> None:
    kind, count = path.suffix.lstrip(".").upper(), len(image.data)
    if image.ndim not in PICTURE_NDIMS:
        raise UnsupportedFormatError(path, f"{kind} holds no volumes; write .tif, .nii.gz or .nrrd")
    if image.data.dtype.name not in dtypes:
        holds = " and ".join(dtypes)
        raise UnsupportedFormatError(path, f"{kind} holds {holds}, not {image.data.dtype}; write .tif")
    if count > most or ((ALPHA in image.channels) != (count in (2, 4))):
        raise UnsupportedFormatError(path, f"{kind} holds gray or RGB, not channels {image.channels}; write .tif")


def _exif_orientation(encoded: bytes) -> int:
    """Orientation 1-8 of a JPEG, 1 where it has none; walks the whole file, and so finds out whether it is complete."""
    orientation = 1
    for marker, content in _segments(encoded):
        if marker == _EXIF and content.startswith(b"Exif\0\0"):
            orientation = _orientation_tag(content[6:])
    return orientation


def _segments(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of every segment up to the end of the image (ITU T.81, annex B)."""
    position = 2
    while match := _NEXT_MARKER.search(encoded, position):
        marker, start = encoded[match.end() - 1], match.end()
        if marker == _END_OF_IMAGE:
            return
        length = struct.unpack(">H", encoded[start : start + 2])[0]
        yield marker, encoded[start + 2 : start + length]
        position = start + length
    raise ValueError("it ends before the end of the image")


def _orientation_tag(tiff: bytes) -> int:
    order = "<" if tiff[:2] == b"II" else ">"
    (start,) = struct.unpack(f"{order}I", tiff[4:8])
    (entries,) = struct.unpack(f"{order}H", tiff[start : start + 2])
    for at in range(start + 2, start + 2 + 12 * entries, 12):
        tag, _, _, value = struct.unpack(f"{order}HHIH", tiff[at : at + 10])
        if tag == 0x0112:
            return int(value)
    return 1
