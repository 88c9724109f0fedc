"""NPY: bare arrays without a pixel size, channel names or axes.

An array with two axes is a 2D image with one channel; one with four axes is a volume, ``(channels, z, y, x)``. Three
axes can be ``(channels, y, x)`` or ``(z, y, x)``, and the file does not say which: whoever reads it has to, with
``ndim``.
"""

from pathlib import Path

import numpy as np

from modalign.errors import UnreadableFileError, UnsupportedFormatError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.io.decoded import Decoded
from modalign.io.files import atomic_path, one_line

_HAS_CHANNELS: dict[tuple[int, int | None], bool] = {
    (2, None): False,
    (2, 2): False,
    (3, 2): True,
    (3, 3): False,
    (4, None): True,
    (4, 3): True,
}
"""(axes of the array, ndim asked for) -> whether the first axis is the channels."""


def read_npy(path: Path, ndim: int | None = None) -> Decoded:
    """Read a NumPy file; never runs pickled code.

    Raises:
        UnreadableFileError: Truncated, or an array of Python objects.
        UnsupportedFormatError: The axes do not say what they are, or do not fit ``ndim``.
    """
    array = _load(path)
    has_channels = _HAS_CHANNELS.get((array.ndim, ndim))
    if has_channels is None:
        raise UnsupportedFormatError(path, _advice(array.shape, ndim))
    data = array if has_channels else array[None]
    return Decoded(data, Grid(data.shape[1:]))


def write_npy(path: Path, image: Image) -> None:
    """Write ``(y, x)`` for one channel in 2D, else ``(channels, *spatial)``."""
    bare = len(image.data) == 1 and _HAS_CHANNELS.get((image.ndim, None)) is False
    data = image.data[0] if bare else image.data
    with atomic_path(path) as temporary:
        np.save(temporary, data, allow_pickle=False)


def _load(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged header is parsed as Python and fails in many ways
        reason = "it holds Python objects" if "allow_pickle" in str(error) else one_line(error)
        raise UnreadableFileError(path, f"is not a complete NumPy array of numbers ({reason})") from error
    if 0 in array.shape or array.dtype.kind not in "biufc":
        raise UnreadableFileError(path, f"is not an image: an array of shape {array.shape} and type {array.dtype}")
    return np.asarray(array)


def _advice(shape: tuple[int, ...], ndim: int | None) -> str:
    if len(shape) == 3 and ndim is None:
        return (
            f"an array of shape {shape} can be (channels, y, x) or (z, y, x); "
            "say ndim=2 or ndim=3 when reading it, or save it as .ome.tif, which names its axes"
        )
    wanted = "an image" if ndim is None else f"a {ndim}D image"
    return f"an array of shape {shape} is not {wanted}; arrays hold (y, x), (channels, y, x) or (channels, z, y, x)"
