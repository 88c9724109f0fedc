"""What every global search shares: from which pixel size to which, which angles, and when two poses are distinct."""

import math
from collections.abc import Sequence

import numpy as np

from modalign.image import Image
from modalign.registration import workspace
from modalign.registration.refinement import Level, Pose

Array = np.ndarray

COARSE_SIDE = 112
"""Longest side, in pixels, at which all rotations and shifts are tried."""
LEAST_SIDE = 56
"""The longest side of the smaller image keeps at least so many pixels there."""
COARSE_CHANNELS = 4
"""At the coarsest level, images with more channels are compared along so many principal axes of their channels."""
DISTINCT = 0.1
"""Two poses are distinct if they move the corners apart, on average, by this fraction of the fixed image's width."""


def level_spacings(fixed: Image, moving: Image, max_side: int) -> list[float]:
    """Pixel sizes from the coarsest level to the finest, each at most twice as large as the next."""
    finest = workspace.finest_spacing(fixed, moving, max_side)
    longest = [max(image.grid.extent) for image in (fixed, moving)]
    coarsest = max(finest, min(max(longest) / COARSE_SIDE, min(longest) / LEAST_SIDE))
    steps = math.ceil(math.log2(coarsest / finest) - 1e-9)
    return [finest * (coarsest / finest) ** (k / steps) for k in range(steps, 0, -1)] + [finest]


def angles(limit: float, step: float) -> tuple[list[float], bool]:
    """Angles within the limit, zero among them and at most ``step`` apart; whether their opposites belong as well."""
    count = math.ceil(limit / step)
    if limit == 180:  # a half turn costs no new transform: one half of the circle is enough
        return [180 * k / count for k in range(count)], True
    return [limit * k / count for k in range(-count, count + 1)] if count else [0.0], False


def compressed(fixed: Image, moving: Image) -> tuple[Image, Image]:
    """Both images along their first few principal axes: the correlation hardly changes, the time does.

    The correlation is a sum of inner products over the channels, so rotating the channels leaves it as it is.
    """
    if len(fixed.data) <= COARSE_CHANNELS:
        return fixed, moving
    axes = workspace.joint_axes(fixed, moving)[:COARSE_CHANNELS]
    return workspace.projected(fixed, axes), workspace.projected(moving, axes)


def distinct(poses: Sequence[Pose], level: Level, count: int) -> list[Pose]:
    """The best poses, best first, leaving out those that say nearly the same as a better one."""
    corners = level.fixed_grid.corners
    separation = DISTINCT * max(level.fixed_grid.extent)
    kept: list[Pose] = []
    places: list[Array] = []
    for pose in sorted(poses, key=lambda pose: -pose.rank):
        place = pose.transform(level.fixed_grid, level.moving_grid).map_points(corners)
        if all(np.linalg.norm(place - other, axis=1).mean() > separation for other in places):
            kept.append(pose)
            places.append(place)
        if len(kept) == count:
            break
    return kept
