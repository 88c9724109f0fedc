"""Bringing an original onto another grid: in memory, or from file to file without holding either image."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped

from modalign.errors import InvalidInputError
from modalign.geometry import Grid, Transform
from modalign.geometry.resampling import NOT_FINITE, check_dimensions, filled
from modalign.geometry.sampling import IndexMap, Read, Room, sample, spline_coefficients
from modalign.image import Image
from modalign.io import Compression, write_tiled
from modalign.io.pyramid import header
from modalign.io.tiled import blocks_of

Array = np.ndarray
Window = tuple[slice, ...]
Interpolation = Literal["nearest", "linear", "cubic"]
ORDERS: dict[Interpolation, int] = {"nearest": 0, "linear": 1, "cubic": 3}
MARGIN = 24
"""Pixels around a window beyond which a value does not count for its B-spline coefficients: 0.27^24 = 2e-14."""


@runtime_checkable
class Source(Protocol):
    """An image of which windows can be read: :class:`modalign.io.TiledReader`, or one in memory."""

    @property
    def grid(self) -> Grid:
        """Grid of the whole image."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """One name a channel."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        ...

    def blocks(self) -> Iterator[Window]:
        """Windows that cover the image, for reading all of it with little memory."""
        ...

    def read(self, window: Window, channels: slice = slice(None)) -> Shaped[Array, "channels *window"]:
        """The pixels of a window, one slice an axis with start and stop inside the image."""
        ...


@dataclass(frozen=True)
class InMemory:
    """An image in memory as a source of windows."""

    image: Image

    @property
    def grid(self) -> Grid:
        """Grid of the whole image."""
        return self.image.grid

    @property
    def channels(self) -> tuple[str, ...]:
        """One name a channel."""
        return self.image.channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        return self.image.data.dtype

    def blocks(self) -> Iterator[Window]:
        """Windows that cover the image."""
        return blocks_of(self.grid.shape)

    def read(self, window: Window, channels: slice = slice(None)) -> Shaped[Array, "channels *window"]:
        """The pixels of a window."""
        return self.image.data[(channels, *window)]


def warp(
    moving: Image,
    fixed: Grid,
    fixed_to_moving: Transform,
    *,
    interpolation: Interpolation = "linear",
    fill: Sequence[float] | None = None,
) -> Image:
    """The original moving image on another grid: one interpolation; dtype, channels and range are kept.

    Args:
        moving: The image to sample.
        fixed: The grid to sample it on.
        fixed_to_moving: Maps world points of the fixed grid to the moving image.
        interpolation: Nearest for labels, linear or cubic for intensities.
        fill: One value a channel outside the moving image; by default :func:`background`.
    """
    outside = background(moving) if fill is None else np.array(fill, dtype=float)
    return moving.resampled(fixed, fixed_to_moving, order=ORDERS[interpolation], fill=outside)


def warp_to_file(
    path: Path,
    moving: Source,
    fixed: Grid,
    fixed_to_moving: Transform,
    *,
    space: tuple[Grid, Grid] | None = None,
    interpolation: Interpolation = "linear",
    labels: bool = False,
    fill: Sequence[float] | None = None,
    compression: Compression = "zlib",
    advance: Callable[[float], None] = lambda _: None,
) -> None:
    """As :func:`warp`, written as a tiled pyramid while it is computed; memory is that of a few tiles.

    Pixels are those of :func:`warp` (of :func:`modalign.geometry.resample_labels` for labels): cubic interpolation
    alone may differ in the last digits, as its coefficients are computed from a neighbourhood.

    Args:
        path: Ends in a suffix of TIFF, OME-TIFF or OME-Zarr.
        moving: The image to sample.
        fixed: The grid that the file tells.
        fixed_to_moving: Maps world points of the fixed grid to the moving image.
        space: The grids of the fixed and of the moving image in the world of the transform, where they differ from
            those of the files.
        interpolation: How an image is sampled.
        labels: Values are copied, and 0 is outside.
        fill: One value a channel outside the moving image; by default :func:`background_of`.
        compression: Of a TIFF, see :func:`modalign.io.write_pyramid`.
        advance: Told the finished fraction of the work.

    Raises:
        InvalidInputError: As :func:`warp`.
        UnreadableFileError: The moving image is damaged.
        OutputError: The place cannot be written to.
    """
    here, there = space or (fixed, moving.grid)
    check_dimensions(there, here, fixed_to_moving)
    order = 0 if labels else ORDERS[interpolation]
    usual = np.zeros(len(moving.channels)) if labels else background_of(moving)
    outside = filled(usual if fill is None else fill, moving.dtype, (len(usual), *(1,) * here.ndim))
    limits = limits_of(moving) if order > 1 else ()
    where, room = IndexMap(there, here, fixed_to_moving), Room()

    def render(channels: slice, window: Window) -> Array:
        tile = np.empty((len(outside[channels]), *(part.stop - part.start for part in window)), moving.dtype)
        tile[:] = outside[channels]
        read = _coefficients(moving, channels) if order > 1 else lambda needed: moving.read(needed, channels)
        for block in where.parts(window):
            inner = tuple(slice(b.start - w.start, b.stop - w.start) for b, w in zip(block, window, strict=True))
            sample(read, where, block, order, tile[(slice(None), *inner)], room=room, limits=limits[channels])
        return tile

    names = ("labels",) if labels else moving.channels
    about = header(fixed, names, moving.dtype)
    write_tiled(path, render, about, compression=compression, nearest=order == 0, advance=advance)


def _coefficients(moving: Source, channels: slice) -> Read:
    """Reads windows of the B-spline coefficients, which are computed from a margin around."""

    def read(window: Window) -> Array:
        wide = tuple(
            slice(max(0, part.start - MARGIN), min(n, part.stop + MARGIN))
            for part, n in zip(window, moving.grid.shape, strict=True)
        )
        inner = tuple(slice(p.start - w.start, p.stop - w.start) for p, w in zip(window, wide, strict=True))
        return np.stack([spline_coefficients(channel)[inner] for channel in moving.read(wide, channels)])

    return read


def limits_of(image: Source) -> list[tuple[Any, Any]]:
    """Smallest and largest value of each channel.

    Raises:
        InvalidInputError: A value is not finite.
    """
    ends: list[Array] = []
    for window in image.blocks():
        values = image.read(window).reshape(len(image.channels), -1)
        if not np.all(np.isfinite(values)):
            raise InvalidInputError(NOT_FINITE)
        ends += [values.min(axis=1), values.max(axis=1)]
    return list(zip(np.min(ends, axis=0), np.max(ends, axis=0), strict=True))


def background(image: Image) -> Float[Array, " channels"]:
    """What the image shows where there is nothing, a channel: white for bright colour images, 0 for all others.

    A colour image of integers is bright where the median along its border is in the upper half of its range.
    """
    return background_of(InMemory(image))


def background_of(image: Source) -> Float[Array, " channels"]:
    """As :func:`background`; only the border is read."""
    nothing = np.zeros(len(image.channels))
    colour = [i for i, name in enumerate(image.channels) if name in ("red", "green", "blue")]
    if len(colour) < 3 or not np.issubdtype(image.dtype, np.integer):
        return nothing
    white = np.iinfo(image.dtype).max
    if _median([image.read(window)[colour] for window in border(image.grid.shape)]) > white / 2:
        nothing[colour] = white
    return nothing


def border(shape: Sequence[int]) -> Iterator[Window]:
    """Windows that hold each outermost pixel of an image once."""
    for axis, n in enumerate(shape):
        before = tuple(slice(1, m - 1) for m in shape[:axis])  # what earlier axes have taken is left out
        after = tuple(slice(0, m) for m in shape[axis + 1 :])
        if all(part.stop > part.start for part in before):
            for first in {0, n - 1}:
                yield (*before, slice(first, first + 1), *after)


def _median(parts: Sequence[Array]) -> float:
    return float(np.median(np.concatenate([part.reshape(-1) for part in parts])))
