"""All rotations and whole-pixel shifts of an image before another, by whatever compares them at all shifts at once."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, Protocol, runtime_checkable

import numpy as np

from modalign.geometry import GroupElement, as_rows, sweep
from modalign.registration.masked_ncc import Stack
from modalign.registration.poses import Level, Pose, warped

Array = np.ndarray
Box = tuple[int, ...]

COARSE_SIDES = {2: 112, 3: 16}
"""Longest side, in pixels, at which all rotations and shifts are tried, by the number of dimensions."""
ANGLE_STEPS = {2: 1.4, 3: 3.0}
"""Step between rotations, in coarse pixels at the border of the smaller image. In space it must be wider, for their
number grows with its third power."""
PEAKS = 3
"""Local maxima kept of each rotation: a periodic texture fits as well after a shift."""


@runtime_checkable
class Shifts(Protocol):
    """One fixed image that is compared with many moving ones of one size, at all whole-pixel shifts."""

    @property
    def period(self) -> Box:
        """Shape of the transforms; equal periods can share spectra."""
        ...

    def spectra(self, moving: Stack) -> Any:
        """What :meth:`peaks` needs of a moving stack."""
        ...

    def peaks(self, spectra: Any, number: int) -> list[tuple[float, float, Box]]:
        """Score, overlap in pixels and shift of the highest local maxima, highest first."""
        ...


def swept(
    level: Level,
    compare: Callable[[Stack, Box], Shifts],
    max_rotation_degrees: float,
    *,
    mirrored: bool = False,
    scale: float = 1.0,
) -> Iterator[Pose]:
    """The best shifts of every rotation.

    Every rotation is one of the grid and then a smaller one. The moving image is resampled for the smaller one, and the
    fixed image is turned by that of the grid, without interpolation: one transform of the moving image serves for all
    rotations of the grid. Mirrored, the mirror stands between the two.

    Args:
        level: The two images.
        compare: Makes the comparison with a fixed stack, for moving stacks of a shape.
        max_rotation_degrees: Rotations up to this angle are tried.
        mirrored: Whether to mirror the moving image.
        scale: Size of its world relative to the fixed one's.
    """
    ndim = level.fixed_grid.ndim
    box = (math.ceil(math.hypot(*level.moving_grid.shape)) + 1,) * ndim
    grid, axes = level.fixed_grid.centered(box), np.array(level.fixed_grid.direction)
    mirror = GroupElement(tuple(range(ndim)), (*(False,) * (ndim - 1), mirrored))
    sides = min(max(level.fixed_grid.shape), max(level.moving_grid.shape))
    step = math.degrees(2 * ANGLE_STEPS[ndim] / sides)

    @cache
    def comparison(element: GroupElement) -> Shifts:
        return compare(np.ascontiguousarray(element.act(level.fixed)), box)

    for rotation, elements in sweep(ndim, step, max_rotation_degrees):
        base = Pose(as_rows(axes @ rotation @ mirror.matrix @ axes.T), (0.0,) * ndim, scale=scale)
        stack = warped(level.moving, level.moving_grid, grid, base.transform(level.fixed_grid, level.moving_grid))
        spectra: dict[Box, Any] = {}
        for element in (mirror @ element @ mirror for element in elements):
            shifts = comparison(element)
            if shifts.period not in spectra:
                spectra[shifts.period] = shifts.spectra(stack)
            turned = as_rows(base.matrix @ axes @ element.matrix @ axes.T)
            pose = replace(base, rotation=turned)
            margin = (np.array(box) - np.abs(element.matrix) @ level.fixed_grid.shape) / 2
            for score, overlap, shift in shifts.peaks(spectra[shifts.period], PEAKS):
                moved = element.matrix.T @ (np.array(shift) - margin)
                yield replace(level.moved(pose, moved), score=score, overlap=overlap / level.area)
