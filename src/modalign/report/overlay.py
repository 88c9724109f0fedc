"""Images and representations as pictures: 8-bit RGB on the same grid, for looking at."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from modalign.errors import InvalidInputError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.registration.workspace import isotropic

Array = np.ndarray
RGB = ("red", "green", "blue")
LONGEST = 2048
"""Pixels along the longest side of an overlay or a checkerboard, which are for looking at."""
LARGEST = 1e30
"""Values beyond are shown like this one, so that differences and means of float32 stay finite."""


@dataclass(frozen=True)
class Rendering:
    """How numbers become brightness."""

    percentiles: tuple[float, float] = (0.5, 99.5)
    """Of the valid values; they become black and white, so that a few extreme pixels do not darken the rest."""
    window: tuple[float, float] | None = None
    """The values that become black and white, in place of the percentiles."""
    gamma: float = 1.0
    """Exponent of the brightness; below 1 shows more of the dark structures."""
    invert: bool | None = None
    """Show bright as dark in overlays; by default only images with three channels and a dominant bright background."""

    def __post_init__(self) -> None:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise InvalidInputError(f"percentiles must ascend within 0 and 100, not {self.percentiles}")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise InvalidInputError(f"a window of values must ascend, not {self.window}")
        if not self.gamma > 0:
            raise InvalidInputError(f"gamma must be positive, not {self.gamma}")


DEFAULT = Rendering()


def picture(image: Image, rendering: Rendering = DEFAULT) -> Image:
    """An image or representation as an 8-bit RGB picture on its grid.

    One channel is shown in gray and three as red, green and blue, under one window of values for all channels, so that
    colours keep their relation. Any other number is reduced to its first three principal components, each with unit
    variance and with the sign that makes its largest loading positive. Pixels that are masked out or not finite are
    black.
    """
    return pictures([image], rendering)[0]


def pictures(images: Sequence[Image], rendering: Rendering = DEFAULT) -> list[Image]:
    """Several images as :func:`picture` shows them, with one common window and common principal components.

    Equal colours mean equal values, as for the representations of two modalities. The images may have different grids.

    Raises:
        InvalidInputError: The images do not have the same number of channels.
    """
    if len({len(image.data) for image in images}) != 1:
        raise InvalidInputError(f"pictures on one scale need equal channels, not {[len(i.data) for i in images]}")
    valid = [_valid(image) for image in images]
    shown = _three_channels([_finite(image) for image in images], valid)
    low, high = _window(shown, valid, rendering)
    return [
        _as_picture(_brightness(data, low, high, rendering.gamma) * inside, image.grid)
        for data, inside, image in zip(shown, valid, images, strict=True)
    ]


def magenta_green(
    fixed: Image, warped: Image, rendering: Rendering = DEFAULT, *, longest: int | None = LONGEST
) -> Image:
    """Both images in one: fixed in magenta, warped in green, gray or white where they agree.

    Each is reduced to gray levels (the mean of its channels) and scaled on its own. An image with three channels whose
    background is bright (more than half of its pixels in the upper half of its range, as in bright-field histology)
    is inverted, so that tissue is bright in both; :attr:`Rendering.invert` decides otherwise.

    Args:
        fixed: The fixed image.
        warped: The moving image on the grid of the fixed one.
        rendering: How numbers become brightness.
        longest: Most pixels along the longest side; larger images are averaged first. ``None``: as large as they are.

    Raises:
        InvalidInputError: The images do not lie on one grid.
    """
    _check_same_grid(fixed, warped)
    fixed, warped = shrunk(fixed, longest), shrunk(warped, longest)
    magenta, green = _gray(fixed, rendering), _gray(warped, rendering)
    return _as_picture(np.stack([magenta, green, magenta]), fixed.grid)


def checkerboard(
    fixed: Image, warped: Image, tiles: int = 8, rendering: Rendering = DEFAULT, *, longest: int | None = LONGEST
) -> Image:
    """Tiles taken in turn from the fixed and the warped image; structures continue across edges where they agree.

    The first tile is of the fixed image. Gray levels, inversion, size and errors are those of :func:`magenta_green`.

    Args:
        fixed: The fixed image.
        warped: The moving image on the grid of the fixed one.
        tiles: Number of tiles along the longest extent; they have equal sides in world units.
        rendering: How numbers become brightness.
        longest: Most pixels along the longest side.
    """
    _check_same_grid(fixed, warped)
    if tiles < 1:
        raise InvalidInputError(f"a checkerboard needs at least one tile, not {tiles}")
    fixed, warped = shrunk(fixed, longest), shrunk(warped, longest)
    gray = np.where(_odd_tiles(fixed.grid, tiles), _gray(warped, rendering), _gray(fixed, rendering))
    return _as_picture(np.stack([gray] * len(RGB)), fixed.grid)


def section(image: Image, axis: int = 0, index: int | None = None) -> Image:
    """One slice of an image across an axis, by default the middle one; for looking at, not for measuring.

    Its grid keeps the pixel sizes of the other axes and begins at zero.
    """
    axis = range(image.ndim)[axis]
    index = image.grid.shape[axis] // 2 if index is None else index
    data = image.data.take(index, axis=axis + 1)
    spacing = tuple(s for other, s in enumerate(image.grid.spacing) if other != axis)
    mask = None if image.mask is None else image.mask.take(index, axis=axis)
    return Image(data, Grid(data.shape[1:], spacing, unit=image.grid.unit), image.channels, mask)


def plane(image: Image) -> Image:
    """The image itself, or of a volume its middle section across the first axis."""
    for _ in image.grid.shape[:-2]:
        image = section(image)
    return image


def shrunk(image: Image, longest: int | None = LONGEST) -> Image:
    """The image with at most ``longest`` pixels along its longest side, over the same field of view.

    Pixels keep their proportions. They become means over areas (float32), in which only valid and finite ones take
    part; an image that is small enough stays as it is.
    """
    if longest is None or max(image.grid.shape) <= longest:
        return image
    factor = max(image.grid.shape) / longest
    pixels = bounded(image).without_gaps().with_grid(Grid(image.grid.shape))
    small = isotropic(pixels, factor)
    return small.with_grid(image.grid.centered(small.grid.shape, [factor * s for s in image.grid.spacing]))


def bounded(image: Image) -> Image:
    """The image without numbers so large that means and differences of them would overflow."""
    data = image.data
    if data.dtype.kind != "f" or np.finfo(data.dtype).max <= LARGEST or not np.any(np.abs(data) > LARGEST):
        return image
    return replace(image, data=np.where(np.isfinite(data), data.clip(-LARGEST, LARGEST), data))


def _valid(image: Image) -> Bool[Array, "*spatial"]:
    return np.asarray(image.valid & np.isfinite(image.data).all(axis=0))


def _finite(image: Image) -> Float[Array, "channels *spatial"]:
    """The data as floats, 0 where not valid."""
    return np.where(_valid(image), bounded(image).data, 0).astype(np.float32)


def _check_same_grid(fixed: Image, warped: Image) -> None:
    a, b = fixed.grid, warped.grid
    if a.shape != b.shape or not np.allclose(a.matrix, b.matrix, rtol=1e-5, atol=1e-3 * min(a.spacing)):
        raise InvalidInputError(
            f"an overlay needs both images on one grid, not {fixed} and {warped}; resample the second"
        )


def _three_channels(data: list[Array], valid: list[Array]) -> list[Array]:
    """Reduce all images alike to one or three channels, as floats."""
    if len(data[0]) in (1, len(RGB)):
        return data
    pixels = np.concatenate([d[:, v] for d, v in zip(data, valid, strict=True)], axis=1)
    center, components = _principal_components(pixels)
    return [np.tensordot(components, d - center.reshape(-1, *(1,) * (d.ndim - 1)), axes=1) for d in data]


def _principal_components(
    pixels: Float[Array, "channels pixels"],
) -> tuple[Float[Array, " channels"], Float[Array, "3 channels"]]:
    """The mean and the rows that give the first three components with unit variance; rows of zeros where none is."""
    components = np.zeros((len(RGB), len(pixels)))
    if pixels.shape[1] == 0:
        return np.zeros(len(pixels)), components
    center = pixels.mean(axis=1)
    variances, vectors = np.linalg.eigh(np.atleast_2d(np.cov(pixels, bias=True)))
    for row, column in enumerate(np.argsort(-variances, kind="stable")[: len(RGB)]):
        if variances[column] > 1e-12 * max(variances.max(), np.finfo(float).tiny):
            vector = vectors[:, column]
            sign = np.sign(vector[np.abs(vector).argmax()])
            components[row] = sign * vector / np.sqrt(variances[column])
    return center, components


def _window(data: list[Array], valid: list[Array], rendering: Rendering) -> tuple[float, float]:
    """The values that become black and white, common to all images and channels."""
    if rendering.window is not None:
        return rendering.window
    values = np.concatenate([d[:, v].ravel() for d, v in zip(data, valid, strict=True)])
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, rendering.percentiles)
    if low == high:  # nearly all pixels are equal, as in sparse fluorescence: only the extremes say anything
        low, high = values.min(), values.max()
    return float(low), float(high)


def _brightness(data: Array, low: float, high: float, gamma: float) -> Array:
    if high <= low:
        return np.zeros_like(data)
    return np.asarray(np.clip((data - low) / (high - low), 0, 1) ** gamma)


def _gray(image: Image, rendering: Rendering) -> Float[Array, "*spatial"]:
    """Gray levels from 0 to 1, 0 where not valid; bright backgrounds turned dark as :func:`magenta_green` says."""
    valid = _valid(image)
    gray = _finite(image).mean(axis=0, keepdims=True)
    low, high = _window([gray], [valid], rendering)
    scaled = _brightness(gray, low, high, 1.0)[0]
    dominant = len(image.data) == len(RGB) and valid.any() and np.median(scaled[valid]) > 0.5
    bright = dominant if rendering.invert is None else rendering.invert
    return np.asarray((1 - scaled if bright else scaled) ** rendering.gamma * valid)


def _odd_tiles(grid: Grid, tiles: int) -> Bool[Array, "*spatial"]:
    side = max(grid.extent) / tiles
    numbers = [np.floor((np.arange(n) + 0.5) * s / side) for n, s in zip(grid.shape, grid.spacing, strict=True)]
    return np.asarray(sum(np.ix_(*numbers)) % 2 == 1)


def _as_picture(brightness: Float[Array, "channels *spatial"], grid: Grid) -> Image:
    """8-bit RGB of brightness from 0 to 1; one channel is repeated."""
    levels = np.rint(255 * brightness).astype(np.uint8)
    return Image(np.ascontiguousarray(np.broadcast_to(levels, (len(RGB), *grid.shape))), grid, RGB)
