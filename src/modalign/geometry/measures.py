"""Distances between transforms."""

import numpy as np

from modalign.geometry.grid import Grid
from modalign.geometry.transforms import Transform


def corner_error(grid: Grid, found: Transform, truth: Transform) -> float:
    """Mean distance, in world units, between where two transforms take the corners of a grid.

    4 corners in 2D and 8 in 3D, at pixel centres: the error of the CoMIR and MultiRegEval protocols.
    """
    difference = found.map_points(grid.corners) - truth.map_points(grid.corners)
    return float(np.linalg.norm(difference, axis=-1).mean())
