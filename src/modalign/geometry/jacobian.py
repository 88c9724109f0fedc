"""What a transform does to volumes: signed Jacobian determinants, folding, and how unevenly it stretches.

The determinants are those of the edges that meet at each corner of each cell between neighbouring pixels, ``2^ndim`` a
cell, all from one-sided differences: with central differences a chequerboard of folds goes unseen. Together with the
two tetrahedra inside each cube they also give the volume that is turned inside out (Liu et al., "On finite difference
Jacobian computation in deformable image registration", IJCV 2024).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import factorial

import numpy as np
from jaxtyping import Bool, Float, Shaped

from modalign.errors import InvalidInputError
from modalign.geometry.grid import Grid
from modalign.geometry.transforms import Transform

Array = np.ndarray

LEAST_DETERMINANT = 1e-9
"""Smaller determinants, and negative ones, count as this under the logarithm."""
INSCRIBED = {2: (), 3: (((0, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1)), ((1, 1, 1), (0, 0, 1), (0, 1, 0), (1, 0, 0)))}
"""The corners of the simplices inside a cell that touch none of its corner simplices but in an edge."""


@dataclass(frozen=True)
class Deformation:
    """How a transform deforms a grid.

    Attributes:
        folded: Share of the cells with a corner whose determinant is not positive.
        folded_volume: Volume that is turned inside out, as a share of that of the grid.
        least: Smallest corner determinant.
        largest: Largest corner determinant.
        sd_log: SDlogJ: standard deviation over the cells of the logarithm of the determinant in their middle, where
            that is at least ``1e-9``.
    """

    folded: float
    folded_volume: float
    least: float
    largest: float
    sd_log: float


def deformation(transform: Transform, grid: Grid, mask: Bool[Array, "*spatial"] | None = None) -> Deformation:
    """How a transform deforms the pixels of a grid.

    Args:
        transform: Maps world points of the grid.
        grid: Has at least two pixels along each axis.
        mask: Cells count where all of their pixels are valid; everywhere by default.

    Raises:
        InvalidInputError: The grid has no cells, or none that counts.
    """
    nodes = _mapped(transform, grid)
    counted = np.ones(tuple(n - 1 for n in grid.shape), bool) if mask is None else _cells(mask)
    if not counted.any():
        raise InvalidInputError("no cell between pixels counts: nothing tells how the grid is deformed")
    folded = np.zeros(counted.shape, bool)
    least, largest, turned = np.inf, -np.inf, 0.0
    for determinant in _corner_determinants(nodes, grid):
        folded |= determinant <= 0
        inside = determinant[counted]
        least, largest = min(least, float(inside.min())), max(largest, float(inside.max()))
        turned += float(np.maximum(-inside, 0).sum())
    for determinant in _inscribed_determinants(nodes, grid):
        turned += float(np.maximum(-determinant[counted], 0).sum())
    middle = np.log(np.maximum(_middle_determinants(nodes, grid)[counted], LEAST_DETERMINANT))
    volume = turned / (2 * factorial(grid.ndim)) / counted.sum()  # two ways to cut a cell into simplices
    return Deformation(float(folded[counted].mean()), float(volume), least, largest, float(middle.std()))


def jacobian_determinants(transform: Transform, grid: Grid) -> Float[Array, "*cells"]:
    """The signed determinant in the middle of each cell between neighbouring pixels, one less along each axis."""
    return _middle_determinants(_mapped(transform, grid), grid)


def folded_cells(transform: Transform, grid: Grid) -> Bool[Array, "*cells"]:
    """The cells between neighbouring pixels with a corner whose determinant is not positive."""
    nodes = _mapped(transform, grid)
    folded = np.zeros(tuple(n - 1 for n in grid.shape), bool)
    for determinant in _corner_determinants(nodes, grid):
        folded |= determinant <= 0
    return folded


def _mapped(transform: Transform, grid: Grid) -> Float[Array, "ndim *spatial"]:
    """Where the pixels go, in pixels of the grid."""
    if min(grid.shape) < 2:
        raise InvalidInputError(f"a grid of {grid.shape} has no cells: nothing tells how it is deformed")
    return np.moveaxis(grid.world_to_index(transform.map_points(grid.points)), -1, 0)


def _corner_determinants(nodes: Array, grid: Grid) -> Iterator[Float[Array, "*cells"]]:
    for corner in product((0, 1), repeat=grid.ndim):
        edges = []
        for axis in range(grid.ndim):
            ends = [_at(nodes, (*corner[:axis], end, *corner[axis + 1 :])) for end in (0, 1)]
            edges.append(list(ends[1] - ends[0]))
        yield _determinant(edges)


def _inscribed_determinants(nodes: Array, grid: Grid) -> Iterator[Float[Array, "*cells"]]:
    for first, *others in INSCRIBED[grid.ndim]:
        sign = np.sign(np.linalg.det(np.array(others, float) - np.array(first, float)))
        yield sign * _determinant([list(_at(nodes, other) - _at(nodes, first)) for other in others])


def _middle_determinants(nodes: Array, grid: Grid) -> Float[Array, "*cells"]:
    corners = list(product((0, 1), repeat=grid.ndim))
    edges = []
    for axis in range(grid.ndim):
        signed = ((1 if corner[axis] else -1) * _at(nodes, corner) for corner in corners)
        edges.append(list(sum(signed) / 2 ** (grid.ndim - 1)))
    return _determinant(edges)


def _at(nodes: Shaped[Array, "ndim *spatial"], corner: tuple[int, ...]) -> Shaped[Array, "ndim *cells"]:
    """One corner of every cell."""
    return np.asarray(nodes[(slice(None), *(slice(1, None) if end else slice(None, -1) for end in corner))])


def _cells(mask: Bool[Array, "*spatial"]) -> Bool[Array, "*cells"]:
    corners = product((0, 1), repeat=mask.ndim)
    return np.asarray(np.all([_at(mask[None], corner)[0] for corner in corners], axis=0))


def _determinant(vectors: Sequence[Sequence[Array]]) -> Float[Array, "*cells"]:
    """The determinant of vectors given by their components, expanded along the first."""
    first, *others = vectors
    if not others:
        return np.asarray(first[0])
    minors = (_determinant([[*other[:k], *other[k + 1 :]] for other in others]) for k in range(len(first)))
    return np.asarray(sum((-1) ** k * first[k] * minor for k, minor in enumerate(minors)))
