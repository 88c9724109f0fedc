"""Reading images with what the user says about their pixel size."""

from dataclasses import replace
from pathlib import Path

from modalign.errors import InvalidInputError
from modalign.geometry import Grid
from modalign.geometry.grid import Unit
from modalign.image import Image
from modalign.io import read_image


def read_with_pixel_size(path: Path, pixel_size: float | None, unit: Unit, *, ndim: int | None = None) -> Image:
    """An image from a file; a given pixel size replaces the one in the file, along all axes.

    Raises:
        InvalidInputError: The pixel size is not a positive number.
        FileError: The file cannot be read as an image.
    """
    image = read_image(path, ndim=ndim)
    if pixel_size is None:
        return image
    if not pixel_size > 0:
        raise InvalidInputError(f"a pixel size must be a positive number, not {pixel_size}")
    grid: Grid = replace(image.grid, spacing=(pixel_size,) * image.ndim, unit=unit)
    return image.with_grid(grid)
