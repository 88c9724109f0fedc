"""Reading TIFF, OME-TIFF and ImageJ TIFF.

Axes come from the metadata (OME, ImageJ, tifffile); a file without any is a picture, or, where it has several equal
pages, a stack along z. Time series and files with several images are refused, because they would have to be guessed at.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from modalign.errors import FileError, UnreadableFileError, UnsupportedFormatError
from modalign.io.decoded import NAMES, Decoded, upright
from modalign.io.files import one_line, quiet_stderr
from modalign.io.tiff_metadata import channel_names, find_grid

Array = np.ndarray
_AXIS_WORDS = {"T": "a time axis", "S": "colour samples beside channels", "R": "several tiles", "M": "a mosaic"}
_PLAIN_COLOURS = frozenset({"MINISBLACK", "MINISWHITE", "RGB", "PALETTE", "YCBCR"})


def read_tiff(path: Path, ndim: int | None = None) -> Decoded:  # noqa: ARG001 - one signature for all readers
    """Read a TIFF of any of these kinds; palettes are expanded, 1 bit becomes 0 and 255.

    The pixel size is taken from OME metadata, ImageJ metadata, or the resolution tags; tags that imply pixels larger
    than 50 micrometres (72, 96, 300 dpi) are a print resolution, and the pixel size is then unknown.

    Raises:
        UnreadableFileError: Damaged, truncated or incomplete.
        UnsupportedFormatError: A time series, several images in one file, or colours other than gray and RGB.
    """
    import tifffile

    with damage_as_unreadable(path), tifffile.TiffFile(path) as tiff:
        return _decode(path, tiff)


@contextmanager
def damage_as_unreadable(path: Path, *, quiet: bool = True) -> Iterator[None]:
    """Turn whatever tifffile and its decoders raise or report into one error about the file.

    Args:
        path: The file.
        quiet: Drop what C libraries write to standard error; takes longer than to copy a tile that is not compressed.

    Raises:
        UnreadableFileError: Something was wrong.
    """
    with _errors_logged() as complaints:
        try:
            with quiet_stderr() if quiet else nullcontext():
                yield
        except FileError:
            raise
        except Exception as error:  # decoders of some thirty compressions raise what they like on damaged data
            raise UnreadableFileError(path, f"is a damaged or incomplete TIFF ({one_line(error)})") from error
    if complaints:
        raise UnreadableFileError(path, f"is a damaged or incomplete TIFF ({complaints[0]})")


def _decode(path: Path, tiff: Any) -> Decoded:
    series = only_series(path, tiff)
    if any(page is None for page in series.pages):
        raise UnreadableFileError(path, "names pixels that are in another file or missing")
    colour = series.keyframe.photometric.name
    if colour not in _PLAIN_COLOURS:
        raise UnsupportedFormatError(path, f"has {colour} colours; save it in gray or RGB")
    data, axes = _expanded(series.asarray(), series.axes, series.keyframe)
    data = channels_first(path, data, axes)
    orientation = series.keyframe.tags.valueof("Orientation", default=1)
    return named(tiff, upright(data, int(orientation)), "S" in axes)


def named(tiff: Any, data: Array, colours: bool) -> Decoded:
    """Pixels ``(channels, *spatial)`` with the grid and the channel names of the file; colours have their own names."""
    grid, origin = find_grid(tiff, data.shape[1:])
    names = NAMES.get(len(data), ()) if colours else channel_names(tiff)
    return Decoded(data, grid, names if len(names) == len(data) else (), origin)


def only_series(path: Path, tiff: Any) -> Any:
    """The image in a file.

    Raises:
        UnsupportedFormatError: There are several.
    """
    first, *others = tiff.series
    extra = [s for s in others if not s.keyframe.is_reduced]
    if extra:
        raise UnsupportedFormatError(path, f"holds {1 + len(extra)} images; save the one to be used as its own file")
    return first


def _expanded(data: Array, axes: str, page: Any) -> tuple[Array, str]:
    """Pixels as they look: palettes as RGB, white-is-zero inverted."""
    colour = page.photometric.name
    if colour == "PALETTE" and page.colormap is not None:
        palette = np.asarray(page.colormap)
        if np.all(palette % 257 == 0):  # an 8 bit palette, as nearly all are
            palette = (palette // 257).astype(np.uint8)
        return palette.T[data], axes + "S"
    if colour == "MINISWHITE" and data.dtype.kind == "u":
        return np.iinfo(data.dtype).max - data, axes
    return data, axes


def channels_first(path: Path, data: Array, axes: str) -> Array:
    """An array with named axes as ``(channels, *spatial)``.

    Raises:
        UnsupportedFormatError: It has other axes.
    """
    keep = [i for i, (axis, n) in enumerate(zip(axes, data.shape, strict=True)) if n > 1 or axis in "ZYX"]
    data = data.reshape([data.shape[i] for i in keep])
    axes = "".join(axes[i] for i in keep)
    if "Z" not in axes and "C" not in axes:
        axes = axes.replace("Q", "Z").replace("I", "Z")  # a stack of pages that nothing is known about
    if "C" not in axes:
        axes = axes.replace("S", "C")
    order = [axis for axis in "CZYX" if axis in axes]
    if sorted(order) != sorted(axes) or not axes.count("Y") == axes.count("X") == 1:
        odd = [_AXIS_WORDS.get(axis, f"an axis {axis!r}") for axis in axes if axis not in order]
        what = odd[0] if odd else f"axes {axes}"
        raise UnsupportedFormatError(path, f"has {what}, which is not supported; save one image of it as its own file")
    ordered = data.transpose([axes.index(axis) for axis in order])
    return ordered if "C" in order else ordered[None]


@contextmanager
def _errors_logged() -> Iterator[list[str]]:
    """What tifffile reports as an error without raising it, such as pages that are missing at the end."""
    complaints: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                complaints.append(one_line(record.getMessage()))

    logger, handler = logging.getLogger("tifffile"), Collect()
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield complaints
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
