"""Whole volumes for the linked planes of a report: both images on one small grid, as pictures of all slices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from modalign.geometry import Grid, Transform
from modalign.image import Image
from modalign.registration.workspace import isotropic
from modalign.report.comparison import Comparison
from modalign.report.content import AXES, ReportContent
from modalign.report.overlay import bounded
from modalign.report.scene import ROLES, averaged, gray_levels

Array = np.ndarray
LONGEST = 96
"""Most voxels along the longest side: enough to see how structures meet, and small enough to be mailed."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Both images on one grid of cubes, before and after.

    Attributes:
        levels: Gray levels ``(z, y, x)`` by role: ``fixed``, ``before`` and, where there is a transform, ``after``.
        grid: Where the cubes lie in the world of the fixed image.
    """

    levels: dict[str, UInt8[Array, "z y x"]]
    grid: Grid

    @property
    def columns(self) -> int:
        """Slices in a row of a mosaic, so that it is about as wide as high."""
        depth, height, width = self.grid.shape
        return max(1, min(depth, round(math.sqrt(depth * height / width))))

    def mosaic(self, role: str) -> UInt8[Array, "y x"]:
        """All slices across the first axis, row by row; what is left of the last row is black."""
        levels = self.levels[role]
        depth, height, width = levels.shape
        rows = math.ceil(depth / self.columns)
        padded = np.zeros((rows * self.columns, height, width), np.uint8)
        padded[:depth] = levels
        tiles = padded.reshape(rows, self.columns, height, width)
        return np.ascontiguousarray(tiles.transpose(0, 2, 1, 3).reshape(rows * height, self.columns * width))


def volume(content: ReportContent, longest: int = LONGEST) -> Volume | None:
    """The volume of a report; ``None`` for 2D images.

    Args:
        content: What the report shows.
        longest: Most voxels along the longest side.
    """
    if content.fixed.ndim != len(AXES):
        return None
    both = Comparison.of(bounded(content.fixed), bounded(content.moving))
    spacing = max(min(both.fixed.grid.spacing), max(both.fixed.grid.extent) / longest)
    fixed = isotropic(replace(both.fixed, data=both.fixed.data.astype(np.float32)), spacing)
    candidate = content.registration.candidate
    transforms = [both.before, *([] if candidate is None else [both.common(candidate)])]
    moved = [_on(fixed.grid, both.moving, transform, spacing) for transform in transforms]
    grays = [*gray_levels([fixed]), *gray_levels(moved)]
    images: Sequence[Image] = (fixed, *moved)
    shown = (gray * image.valid for gray, image in zip(grays, images, strict=True))
    return Volume(dict(zip(ROLES, shown, strict=False)), fixed.grid)


def _on(grid: Grid, moving: Image, fixed_to_moving: Transform, spacing: float) -> Image:
    return averaged(moving, fixed_to_moving, spacing).resampled(grid, fixed_to_moving)
