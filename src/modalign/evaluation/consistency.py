"""Whether the way there and the way back agree."""

import numpy as np
from jaxtyping import Float

from modalign.geometry import Grid, Transform


def inverse_consistency(fixed_to_moving: Transform, moving_to_fixed: Transform, fixed: Grid, moving: Grid) -> float:
    """Mean distance to where one started, after going there by one transform and back by the other.

    The mean over the pixels of the fixed image whose way leads into the moving one, and over those of the moving image
    the other way round, together, in the unit of the fixed image's world (both worlds must have one unit). 0 where each
    is the other's inverse. Not a number where nothing leads into the other image.

    Source: Christensen and Johnson, Consistent image registration, IEEE TMI 20(7), 2001.
    """
    there = _distances(fixed_to_moving, moving_to_fixed, fixed, moving)
    back = _distances(moving_to_fixed, fixed_to_moving, moving, fixed)
    both = np.concatenate([there, back])
    return float(both.mean()) if len(both) else float("nan")


def _distances(first: Transform, then: Transform, start: Grid, end: Grid) -> Float[np.ndarray, " points"]:
    points = start.points.reshape(-1, start.ndim)
    away = first.map_points(points)
    index = end.world_to_index(away)
    inside = np.all((index >= -0.5) & (index <= np.array(end.shape) - 0.5), axis=1)
    return np.asarray(np.linalg.norm(then.map_points(away[inside]) - points[inside], axis=1))
