"""Reading and writing images of any known format."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from modalign.errors import InvalidInputError, UnreadableFileError, UnsupportedFormatError
from modalign.geometry import Grid
from modalign.geometry.grid import Unit
from modalign.image import Image, Labels
from modalign.io import dicom, medical, numpy_file, ome_zarr, ome_zarr_writing, raster, tiff, tiff_writing, tiled
from modalign.io.decoded import Decoded
from modalign.io.files import require_file
from modalign.io.names import SUFFIXES, suffix
from modalign.io.pyramid import Compression, Render, write_pyramid

Array = np.ndarray
PIXEL_SIZES = (1e-12, 1e12)
"""Smaller and larger ones are slips of the pen in any unit, and overflow where they are squared."""
LARGEST_EXACT = {np.dtype(np.float16): 2**11, np.dtype(np.float32): 2**24, np.dtype(np.float64): 2**53}
"""Up to here a floating-point type holds every whole number."""


@dataclass(frozen=True)
class Format:
    """A file format: its name, how its files end and begin, and who reads and writes it."""

    name: str
    suffixes: tuple[str, ...]
    beginnings: tuple[bytes, ...]
    read: Callable[[Path, int | None], Decoded]
    write: Callable[[Path, Image], None]


Reader = tiled.TiledReader | ome_zarr.ZarrReader
"""An image of which windows are read."""
_TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
FORMATS = (
    Format("PNG", (".png",), (b"\x89PNG\r\n\x1a\n",), raster.read_png, raster.write_png),
    Format("JPEG", (".jpg", ".jpeg"), (b"\xff\xd8\xff",), raster.read_jpeg, raster.write_jpeg),
    Format("TIFF", (".tif", ".tiff"), _TIFF_BEGINNINGS, tiff.read_tiff, tiff_writing.write_tiff),
    Format("OME-TIFF", (".ome.tif", ".ome.tiff"), _TIFF_BEGINNINGS, tiff.read_tiff, tiff_writing.write_tiff),
    Format("NIfTI", (".nii", ".nii.gz"), (), medical.read_medical, medical.write_medical),
    Format("MetaImage", (".mha", ".mhd"), (), medical.read_medical, medical.write_medical),
    Format("NRRD", (".nrrd",), (b"NRRD",), medical.read_medical, medical.write_medical),
    Format("NumPy", (".npy",), (b"\x93NUMPY",), numpy_file.read_npy, numpy_file.write_npy),
    Format("DICOM", (".dcm",), (), dicom.read_dicom, dicom.refuse_writing),
    Format("OME-Zarr", (".zarr", ".ome.zarr"), (), ome_zarr.read_ome_zarr, ome_zarr_writing.write_ome_zarr),
)
_DICOM, _ZARR = FORMATS[-2:]
_PICTURES = FORMATS[:2]


def read_image(path: str | Path, *, ndim: int | None = None) -> Image:
    """Read an image with its channels and its place in space; pixels keep the type that the file stores.

    Booleans and 1 bit become 0 and 255. Colours are the channels red, green, blue, and alpha where there is one;
    palettes are expanded and EXIF orientation is applied. Pixel size, origin and direction come from the file: NIfTI,
    NRRD and MetaImage in millimetres on ITK's axes (LPS), TIFF from its metadata, with the origin at the centre of the
    first pixel, OME-Zarr from its coordinate transformations. PNG, JPEG and NPY have no pixel size: their unit is
    ``"pixel"``. A file whose content is another known format than its name says is read by its content.

    Args:
        path: A file with one of :data:`SUFFIXES`, a folder with one DICOM series, or an OME-Zarr folder.
        ndim: Number of spatial axes that is needed. A volume of one slice can serve as a 2D image.

    Raises:
        UnreadableFileError: The file is missing, empty, truncated, or not what its name says.
        UnsupportedFormatError: An unknown format, a time series, complex pixels, or another number of axes than asked.
    """
    return _image(_decode(Path(path), ndim))


def open_tiled(path: str | Path, *, ndim: int | None = None) -> Reader | None:
    """Open an image of which windows can be read without reading all of it; ``None`` where that cannot be.

    It can for OME-Zarr, and for TIFF and OME-TIFF, in tiles or strips, compressed or not, of one page or many, whose
    samples are integers or floating-point numbers of 8 to 64 bits in gray, RGB or YCbCr. It cannot for other formats,
    palettes, white as zero, 1 bit, turned pictures, and images whose pages are in several files: use :func:`read_image`
    for these. Grid, channels and pixels are those of :func:`read_image`, and so are arguments and errors.
    """
    path = Path(path)
    openers: dict[object, Callable[..., Reader | None]] = {
        tiff.read_tiff: tiled.open_reader,
        ome_zarr.read_ome_zarr: ome_zarr.open_ome_zarr,
    }
    opener = openers.get(_format(path).read)
    try:
        reader = opener(path, lambda decoded: _checked(path, decoded, ndim)) if opener else None
    except InvalidInputError as error:
        raise _senseless(path, error) from error
    return reader if reader is not None and reader.dtype.kind in "uif" else None


def read_grid(path: str | Path, *, ndim: int | None = None) -> Grid:
    """The grid of an image, where possible without reading its pixels; arguments and errors as :func:`read_image`."""
    reader = open_tiled(path, ndim=ndim)
    if reader is None:
        return read_image(path, ndim=ndim).grid
    with reader:
        return reader.grid


def write_image(path: str | Path, image: Image) -> None:
    """Write an image in the format that the name asks for; pixels are never converted, rescaled or lost.

    TIFF and OME-TIFF keep the grid, of which other programs understand the pixel size; NIfTI, NRRD and MetaImage keep
    it in millimetres; PNG, JPEG and NPY keep only the pixels. The mask of the image is not written. Nothing
    half-written is left behind.

    Raises:
        UnsupportedFormatError: An unknown format, or one that cannot hold these pixels; the message names one that can.
        OutputError: The place cannot be written to.
    """
    path = Path(path)
    _by_suffix(path).write(path, image)


def is_image_folder(path: Path) -> bool:
    """Whether a folder is an OME-Zarr image, by its name or content, or holds DICOM files."""
    return path.is_dir() and (_format(path) is _ZARR or dicom.holds_series(path))


def check_writable(path: Path, ndim: int) -> None:
    """Make sure, before work is spent on it, that an image of so many dimensions can be written under a name.

    Raises:
        UnsupportedFormatError: An unknown format, one that is not written, or one of pictures where a volume is.
    """
    form = _by_suffix(path)
    if form.write is dicom.refuse_writing or (form in _PICTURES and ndim > len("yx")):
        form.write(path, Image(np.zeros((1,) * (ndim + 1), np.uint8), Grid((1,) * ndim)))


def can_be_tiled(path: str | Path) -> bool:
    """Whether :func:`write_tiled` writes the format that a name asks for."""
    return suffix(path).endswith((".tif", ".tiff", ".zarr"))


def write_tiled(
    path: str | Path,
    render: Render,
    description: Image,
    *,
    compression: Compression = "zlib",
    nearest: bool = False,
    advance: Callable[[float], None] = lambda _: None,
) -> None:
    """Write an image while it is computed, with levels of lower resolution, and without ever holding it.

    Args:
        path: Ends in a suffix of TIFF, OME-TIFF or OME-Zarr, see :func:`can_be_tiled`.
        render: Gives some channels of a window; each is asked for once.
        description: Grid, channel names and type of the image; its pixels are not looked at and may be a broadcast 0.
        compression: Of a TIFF.
        nearest: Reduce by picking pixels, as is right for labels, and not by their mean.
        advance: Told the finished fraction of the work.

    Raises:
        UnsupportedFormatError: Another format, or one that does not hold such pixels.
        OutputError: The place cannot be written to.
    """
    if not can_be_tiled(path):
        raise UnsupportedFormatError(path, "cannot be written in tiles; name a .tif, .ome.tif or .ome.zarr")
    if suffix(path).endswith(".zarr"):
        ome_zarr_writing.write_zarr_pyramid(path, render, description, nearest=nearest, advance=advance)
    else:
        write_pyramid(path, render, description, compression=compression, nearest=nearest, advance=advance)


def read_with_pixel_size(
    path: Path, pixel_size: float | Sequence[float] | None, unit: Unit, *, ndim: int | None = None
) -> Image:
    """An image from a file; a given pixel size replaces the one in the file.

    Args:
        path: The file.
        pixel_size: One number for all axes, or one an axis in array order; ``None`` leaves what the file says.
        unit: The unit of ``pixel_size``.
        ndim: Number of spatial axes that is needed.

    Raises:
        InvalidInputError: The pixel size is not positive, absurd, or has not one number an axis.
        FileError: The file cannot be read as an image.
    """
    image = read_image(path, ndim=ndim)
    if pixel_size is None:
        return image
    given = tuple(pixel_size) if isinstance(pixel_size, Sequence) else (pixel_size,)
    sizes = given * image.ndim if len(given) == 1 else given
    if len(sizes) != image.ndim:
        axes = ", ".join("zyx"[-image.ndim :])
        raise InvalidInputError(
            f"{path}: {len(given)} pixel sizes are given; one for all axes is needed, or {image.ndim} ({axes})"
        )
    _check_sizes(sizes)
    grid: Grid = replace(image.grid, spacing=sizes, unit=unit)
    return image.with_grid(grid)


def _check_sizes(sizes: Sequence[float]) -> None:
    least, most = PIXEL_SIZES
    wrong = next((size for size in sizes if not least <= size <= most), None)
    if wrong is not None:
        raise InvalidInputError(f"a pixel size must be a positive number from {least:g} to {most:g}, not {wrong:g}")


def read_labels(path: str | Path, *, ndim: int | None = None) -> Labels:
    """Read a label map: one channel of integers of any size.

    Whole numbers that are stored as floating-point numbers, as some programs do, become int64.

    Raises:
        UnsupportedFormatError: The file has colours or fractions. Otherwise as :func:`read_image`.
    """
    path = Path(path)
    image = read_image(path, ndim=ndim)
    if len(image.data) != 1:
        raise UnsupportedFormatError(
            path, f"has channels {', '.join(image.channels)}, where labels need one channel of integers"
        )
    data = image.data[0]
    if data.dtype.kind == "f":
        if not np.all(np.abs(data) < LARGEST_EXACT.get(data.dtype, 2**11)) or np.any(data != np.rint(data)):
            raise UnsupportedFormatError(path, "holds fractions, where labels are whole numbers")
        data = data.astype(np.int64)
    return Labels(data, image.grid)


def write_labels(path: str | Path, labels: Labels) -> None:
    """Write a label map without changing its type; errors as :func:`write_image`.

    JPEG is refused, because it changes values.
    """
    if suffix(path) in (".jpg", ".jpeg"):
        raise UnsupportedFormatError(path, "JPEG changes labels; write .png or .tif")
    write_image(path, Image(labels.data[None], labels.grid, ("labels",)))


def read_mask(path: str | Path, grid: Grid) -> Bool[Array, "*spatial"]:
    """Read which pixels of a grid are valid: those where a channel is not zero; where there is alpha, that one too.

    Raises:
        UnsupportedFormatError: The mask has another shape than the grid. Otherwise as :func:`read_image`.
    """
    path = Path(path)
    image = read_image(path, ndim=grid.ndim).without_alpha()
    if image.grid.shape != grid.shape:
        raise UnsupportedFormatError(
            path, f"a mask of {_size(image.grid)} pixels does not fit an image of {_size(grid)}"
        )
    return np.asarray((image.data != 0).any(axis=0) & image.valid)


def describe_image(path: str | Path, *, ndim: int | None = None) -> dict[str, Any]:
    """Facts about an image file, ready for JSON; vectors in array order.

    ``range`` is the smallest and largest finite value (``None`` where there is none), ``not_finite`` the number of
    pixels that are not. Arguments and errors as :func:`read_image`.
    """
    path = Path(path)
    reader = open_tiled(path, ndim=ndim)
    if reader is None:
        decoded = _decode(path, ndim)
        return {**_facts(path, _image(decoded), decoded.data.dtype, decoded), **_extremes([decoded.data])}
    with reader:
        return {**_facts(path, reader, reader.dtype, reader), **_extremes(map(reader.read, reader.blocks()))}


def _facts(path: Path, image: Image | Reader, dtype: np.dtype[Any], found: Decoded | Reader) -> dict[str, Any]:
    return {
        "path": str(path),
        "format": _format(path).name,
        "shape": list(image.grid.shape),
        "dtype": dtype.name,
        "channels": list(image.channels),
        "spacing": list(image.grid.spacing),
        "unit": image.grid.unit,
        "origin": list(image.grid.origin),
        "direction": [list(row) for row in image.grid.direction],
        "pixel_size_from": found.pixel_size_from,
    }


def _extremes(parts: Iterable[Array]) -> dict[str, Any]:
    """The range of the finite values, and how many are not."""
    lowest, highest, not_finite = [], [], 0
    for values in parts:
        finite = np.isfinite(values)
        not_finite += int(finite.size - np.count_nonzero(finite))
        values = values if finite.all() else values[finite]
        if values.size:
            lowest.append(values.min())
            highest.append(values.max())
    return {"range": [min(lowest).item(), max(highest).item()] if lowest else None, "not_finite": not_finite}


def _decode(path: Path, ndim: int | None) -> Decoded:
    form = _format(path)
    try:
        return _checked(path, _with_plain_type(path, form.read(path, ndim)), ndim)
    except InvalidInputError as error:  # such as a pixel size of zero, found by Grid
        raise _senseless(path, error) from error


def _checked(path: Path, decoded: Decoded, ndim: int | None) -> Decoded:
    _check_sizes(decoded.grid.spacing)
    return _with_ndim(path, decoded, ndim)


def _senseless(path: Path, error: InvalidInputError) -> UnreadableFileError:
    return UnreadableFileError(path, f"has a header that makes no sense: {error}")


def _image(decoded: Decoded) -> Image:
    return Image(decoded.data, decoded.grid, decoded.channels)


def _format(path: Path) -> Format:
    """The format of a file by its content, or of a folder."""
    if path.is_dir():
        return _ZARR if ome_zarr.is_zarr(path) or suffix(path).endswith(".zarr") else _DICOM
    return _by_content(require_file(path), _by_suffix(path))


def _by_suffix(path: Path) -> Format:
    for form in FORMATS:
        if suffix(path) in form.suffixes:
            return form
    raise UnsupportedFormatError(path, f"unknown image format; known are {', '.join(SUFFIXES)}")


def _by_content(path: Path, named: Format) -> Format:
    """The format that the first bytes tell, which may be another one than the name tells."""
    with path.open("rb") as file:
        start = file.read(16)
    for form in (named, *FORMATS):
        if start.startswith(form.beginnings):
            return form
    if not named.beginnings:  # formats that do not begin alike say themselves what is wrong
        return named
    raise UnreadableFileError(path, f"the content is not {named.name}, although the name says so")


def _with_plain_type(path: Path, decoded: Decoded) -> Decoded:
    """Pixels in the byte order of this machine, as real numbers."""
    data = decoded.data
    if data.dtype.kind == "c":
        raise UnsupportedFormatError(path, "has complex pixels; save magnitude or phase instead")
    if data.dtype.kind == "b":
        return replace(decoded, data=data.astype(np.uint8) * 255)
    native = np.dtype(f"{data.dtype.kind}{data.dtype.itemsize}")
    data = np.ascontiguousarray(data, dtype=native).view(native)  # the view turns C's long long into int64
    return replace(decoded, data=data)


def _with_ndim(path: Path, decoded: Decoded, ndim: int | None) -> Decoded:
    grid = decoded.grid
    if ndim is None or grid.ndim == ndim:
        return decoded
    flat = grid.shape[: grid.ndim - ndim] == (1,) * max(0, grid.ndim - ndim) and grid.ndim > ndim
    if flat and (inner := _inner_grid(grid, ndim)):
        return replace(decoded, data=decoded.data.reshape(len(decoded.data), *inner.shape), grid=inner)
    raise UnsupportedFormatError(path, f"holds a {grid.ndim}D image of {_size(grid)}, where a {ndim}D image is needed")


def _inner_grid(grid: Grid, ndim: int) -> Grid | None:
    """The grid of the last axes alone; ``None`` where these are tilted against the axes of the world."""
    inner = tuple(row[-ndim:] for row in grid.direction[-ndim:])
    try:
        return Grid(grid.shape[-ndim:], grid.spacing[-ndim:], grid.origin[-ndim:], inner, grid.unit)
    except InvalidInputError:
        return None


def _size(grid: Grid) -> str:
    return " × ".join(map(str, grid.shape))
