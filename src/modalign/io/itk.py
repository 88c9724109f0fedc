"""SimpleITK, imported when it is first needed: it is large, and most runs read no file of its formats."""

from typing import Any

import numpy as np
from jaxtyping import Shaped

from modalign.geometry import Grid, as_rows
from modalign.geometry.grid import Unit


def simple_itk() -> Any:
    """The module SimpleITK (which has no types)."""
    import SimpleITK

    return SimpleITK


def channels_first(volume: Any) -> Shaped[np.ndarray, "channels *spatial"]:
    """The pixels of an ITK image; the components of vectors become channels."""
    pixels = simple_itk().GetArrayFromImage(volume)
    return np.asarray(np.moveaxis(pixels, -1, 0) if volume.GetNumberOfComponentsPerPixel() > 1 else pixels[None])


def grid_of(volume: Any, unit: Unit) -> Grid:
    """The grid of an ITK image, its vectors turned into array order."""
    ndim = volume.GetDimension()
    direction = np.reshape(volume.GetDirection(), (ndim, ndim))[::-1, ::-1]
    vectors = (volume.GetSize()[::-1], volume.GetSpacing()[::-1], volume.GetOrigin()[::-1])
    return Grid(*vectors, as_rows(direction), unit)
