"""Bringing images to the pixel size at which a model was trained."""

from math import prod

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from modalign.errors import ModelError
from modalign.geometry import Grid, identity
from modalign.geometry.grid import Unit
from modalign.image import Image

Array = np.ndarray
SAME_PIXEL_SIZE = 0.05
"""Pixel sizes that differ by less than this fraction count as equal: nothing is resampled."""
SMOOTHING = 0.4
"""Standard deviation, in new pixels, of the smoothing of an image before it is shrunk by much; less where by less."""
LEAST_PIXELS, MOST_PIXELS, MOST_GROWTH = 64, 1 << 24, 64.0
"""No image becomes less than this on the pixels of a model, nor more than the larger of this and so many times what it
is: such pixel sizes are mistakes."""
TRUNCATED = 4.0
"""The Gaussian ends after so many standard deviations."""


def working_grid(grid: Grid, pixel_size: tuple[float, ...], unit: Unit) -> Grid:
    """The grid of another pixel size over the same field of view; the same grid where nothing is to be done.

    That is where either pixel size is unknown, or both are nearly the same.

    Raises:
        ModelError: There would be hardly any pixels, or a multitude of those that there are.
    """
    if "pixel" in (grid.unit, unit):
        return grid
    wanted = Grid((1,) * grid.ndim, pixel_size, unit=unit).in_unit(grid.unit).spacing
    if np.all(np.abs(np.array(wanted) / np.array(grid.spacing) - 1) < SAME_PIXEL_SIZE):
        return grid
    voxels = prod(length / size for length, size in zip(grid.extent, wanted, strict=True))
    if voxels > max(MOST_GROWTH * prod(grid.shape), MOST_PIXELS) or voxels < LEAST_PIXELS:
        sizes, models = (" × ".join(f"{size:.3g}" for size in each) for each in (grid.spacing, wanted))
        raise ModelError(
            f"this image has pixels of {sizes} {grid.unit}, of which the {models} {grid.unit} of the model would make "
            f"{voxels:.2g} pixels: check the pixel size of the image and its unit"
        )
    return grid.resized(wanted)


def brought_to(image: Image, grid: Grid) -> Image:
    """An image on a :func:`working_grid` or a part of it, smoothed before it is shrunk."""
    sigma = _sigma(image.grid, grid)
    channels = (channel.astype(np.float32) for channel in image.data)
    smooth = np.stack([ndimage.gaussian_filter(channel, sigma, truncate=TRUNCATED) for channel in channels])
    return image.with_data(smooth, image.channels).resampled(grid, identity(image.ndim))


def reach(image: Grid, grid: Grid) -> tuple[int, ...]:
    """How many pixels of an image around a place :func:`brought_to` looks at, along each axis."""
    return tuple((np.ceil(TRUNCATED * _sigma(image, grid)).astype(int) + 2).tolist())


def _sigma(image: Grid, grid: Grid) -> Float[Array, " ndim"]:
    """Standard deviations in pixels of the image."""
    ratios = np.array(grid.spacing) / np.array(image.spacing)
    return np.asarray(np.where(ratios > 1, SMOOTHING * np.sqrt(np.maximum(ratios**2 - 1, 0)), 0))
