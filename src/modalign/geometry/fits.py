"""Least-squares transforms between matched points, in any number of dimensions."""

from itertools import product

import numpy as np
from jaxtyping import Float

from modalign.errors import InvalidInputError
from modalign.geometry.grid import Grid
from modalign.geometry.transforms import Affine, Linear, Rigid, Similarity, Transform, as_rows

Array = np.ndarray
LATTICE = 9
"""Points along each axis of a grid to which an affine transform is fitted where a transform bends."""
Points = Float[Array, "points ndim"]


def fit_rigid(fixed: Points, moving: Points, *, mirrored: bool | None = False) -> Rigid:
    """The rigid transform that takes ``fixed`` to ``moving`` with the least squared distance.

    Args:
        fixed: Points in world units, array axis order.
        moving: Their counterparts, row by row.
        mirrored: ``False`` for a rotation, ``True`` for a reflection, ``None`` for whichever fits better.

    Raises:
        InvalidInputError: Too few points, lists of different length, or points in one place.

    Source: Umeyama, IEEE TPAMI 13(4), 1991, equations 40–43 with the scale fixed to 1.
    """
    similarity = fit_similarity(fixed, moving, mirrored=mirrored)
    rotation = np.array(similarity.rotation)
    return Rigid.about(fixed.mean(0), rotation, moving.mean(0) - fixed.mean(0))


def fit_similarity(fixed: Points, moving: Points, *, mirrored: bool | None = False) -> Similarity:
    """The similarity that takes ``fixed`` to ``moving`` with the least squared distance.

    Arguments and errors as in :func:`fit_rigid`. Source: Umeyama, IEEE TPAMI 13(4), 1991, equations 40–43.
    """
    _check(fixed, moving, needed=fixed.shape[-1])
    from_fixed, from_moving = fixed - fixed.mean(0), moving - moving.mean(0)
    variance = (from_fixed**2).sum()
    u, singular_values, vt = np.linalg.svd(from_moving.T @ from_fixed)
    signs = np.ones(len(singular_values))
    if mirrored is not None and (np.linalg.det(u @ vt) < 0) != mirrored:
        signs[-1] = -1
    scale = float((singular_values * signs).sum() / variance)
    if not scale > 0:
        raise InvalidInputError("these points admit no similarity of the wanted handedness")
    rotation = u * signs @ vt
    return Similarity(as_rows(rotation), scale, tuple(moving.mean(0) - scale * rotation @ fixed.mean(0)))


def fit_affine(fixed: Points, moving: Points) -> Affine:
    """The affine transform that takes ``fixed`` to ``moving`` with the least squared distance.

    Raises:
        InvalidInputError: Too few points, lists of different length, or points on one line (plane in 3D).
    """
    ndim = fixed.shape[-1]
    _check(fixed, moving, needed=ndim + 1)
    center = fixed.mean(0)  # centring keeps the normal equations well conditioned for coordinates far from zero
    design = np.column_stack([fixed - center, np.ones(len(fixed))])
    solution, _, rank, _ = np.linalg.lstsq(design, moving, rcond=1e-9)
    if rank < ndim + 1:
        raise InvalidInputError("the points lie on one line or plane: an affine transform is not determined by them")
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = solution[:-1].T
    matrix[:-1, -1] = solution[-1] - solution[:-1].T @ center
    return Affine.from_matrix(matrix)


def nearest_affine(transform: Transform, grid: Grid) -> Linear:
    """A linear transform itself, and of others the affine one nearest to it over a grid.

    Raises:
        InvalidInputError: The grid has no extent along an axis.
    """
    if isinstance(transform, Linear):
        return transform
    ticks = [np.linspace(0, n - 1, LATTICE) for n in grid.shape]
    points = grid.index_to_world(np.array(list(product(*ticks))))
    return fit_affine(points, transform.map_points(points))


def _check(fixed: Array, moving: Array, needed: int) -> None:
    if fixed.shape != moving.shape:
        raise InvalidInputError(f"{len(fixed)} fixed points cannot be matched with {len(moving)} moving points")
    if len(fixed) < needed:
        raise InvalidInputError(f"this fit needs at least {needed} pairs of points, not {len(fixed)}")
    if not (np.all(np.isfinite(fixed)) and np.all(np.isfinite(moving))):
        raise InvalidInputError("points must be finite numbers")
    if _in_one_place(fixed) or _in_one_place(moving):
        raise InvalidInputError("all points lie in one place: no transform is determined by them")


def _in_one_place(points: Array) -> bool:
    """Whether the points differ by rounding alone; a small field far from the origin is not one place."""
    return bool(np.ptp(points, axis=0).max() <= 1e-12 * np.abs(points).max())
