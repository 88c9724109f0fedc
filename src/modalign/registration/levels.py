"""Two images at several resolutions, coarsest first, the moving one in place: where deformations are found."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from modalign.data.unit_range import Range, in_unit_range, nearest_filled, unit_range
from modalign.errors import InvalidInputError
from modalign.geometry import Grid, Linear
from modalign.image import Image
from modalign.registration import workspace
from modalign.registration.shared_information import stretch

if TYPE_CHECKING:
    from torch import Tensor

    from modalign.deformation import Level

FINEST_SIDES = {2: 512, 3: 96}
"""Side, in pixels, of the square or cube with as many pixels as the finest level has at most."""
COARSEST_SIDE = 16
"""Levels end before a side is shorter than this."""
MOST_LEVELS = 5
LEAST_PIXELS, MOST_PIXELS = 2, 8
"""The finest level has at least so many pixels along each axis, and for that at most so many times as usual in all."""


@dataclass(frozen=True, eq=False)
class Pyramid:
    """The levels, coarsest first, each with its grid in the common world of both images."""

    grids: "tuple[Grid, ...]"
    levels: "tuple[Level, ...]"


def pyramid(fixed: Image, moving: Image, linear: Linear, side: int = 0) -> Pyramid:
    """Both images on square pixels at several resolutions.

    Args:
        fixed: In the common world.
        moving: Likewise, with as many channels.
        linear: Maps points of the fixed image to the moving one.
        side: Of the square or cube with as many pixels as the finest level has at most; by default 512, and 96 in 3D.

    Raises:
        InvalidInputError: The image is so thin that it would have no pixels along an axis.
    """
    side = side or FINEST_SIDES[fixed.ndim]
    spacings = [workspace.spacing_by_area(fixed, moving, side)]
    spacings[0] = min(spacings[0], min(fixed.grid.extent) / LEAST_PIXELS)
    if prod(extent / spacings[0] for extent in fixed.grid.extent) > MOST_PIXELS * side**fixed.ndim:
        raise InvalidInputError(
            f"an image of {' × '.join(map(str, fixed.grid.shape))} pixels is too thin to be bent as a whole: crop it, "
            "or register a slice of it"
        )
    while len(spacings) < MOST_LEVELS and min(fixed.grid.extent) / spacings[0] / 2 >= COARSEST_SIDE:
        spacings.insert(0, 2 * spacings[0])
    ranges = [unit_range(image) for image in (fixed, moving)]
    grids, levels = [], []
    for size in spacings:
        still = workspace.isotropic(fixed, size)
        brought = nearest_filled(workspace.isotropic(moving, size * stretch(linear))).resampled(still.grid, linear)
        grids.append(still.grid)
        levels.append(_level(still, brought, ranges))
    return Pyramid(tuple(grids), tuple(levels))


def _level(fixed: Image, moving: Image, ranges: list[Range]) -> "Level":
    from modalign.deformation import Level

    images = (_tensor(in_unit_range(image, one)) for image, one in zip((fixed, moving), ranges, strict=True))
    masks = (_tensor(image.valid[None]) for image in (fixed, moving))
    return Level(*images, *masks)


def _tensor(values: np.ndarray) -> "Tensor":
    import torch

    return torch.from_numpy(np.ascontiguousarray(values[None], np.float32))
