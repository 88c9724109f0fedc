"""Fits find the transform that made the points, and the least squares one where there is noise."""

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import Affine, Rigid, Similarity, as_rows, fit_affine, fit_rigid, fit_similarity, rotation_matrix

NDIMS = (2, 3)


def cloud(ndim, n=20, seed=0):
    """Points far from the origin, spread unequally along the axes."""
    return np.random.default_rng(seed).normal(0, (30.0, 3.0, 100.0)[:ndim], (n, ndim)) + 1000


def truths(ndim):
    rotation = rotation_matrix(ndim, 100) @ rotation_matrix(ndim, -25, (0, 1))
    shift = (5.0, -70.0, 12.0)[:ndim]
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = rotation @ (np.eye(ndim) + np.triu(np.full((ndim, ndim), 0.3)))
    matrix[:-1, -1] = shift
    return Rigid(as_rows(rotation), shift), Similarity(as_rows(rotation), 0.4, shift), Affine(as_rows(matrix))


FITS = (fit_rigid, fit_similarity, fit_affine)


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("kind", range(3))
def test_the_transform_behind_the_points_is_found(ndim, kind):
    truth, fixed = truths(ndim)[kind], cloud(ndim)
    found = FITS[kind](fixed, truth.map_points(fixed))
    assert type(found) is type(truth)
    np.testing.assert_allclose(found.matrix, truth.matrix, atol=1e-8 * 1000)  # the cloud is 1000 from the origin
    np.testing.assert_allclose(found.map_points(fixed), truth.map_points(fixed), atol=1e-8)


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("kind", range(3))
def test_the_fewest_points_suffice(ndim, kind):
    truth, fixed = truths(ndim)[kind], cloud(ndim, n=ndim + (kind == 2))
    found = FITS[kind](fixed, truth.map_points(fixed))
    np.testing.assert_allclose(found.map_points(fixed), truth.map_points(fixed), atol=1e-7)


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("kind", range(2))
def test_mirrored_points(ndim, kind):
    mirror = Rigid(as_rows(np.diag([-1.0, *[1.0] * (ndim - 1)])), (0.0,) * ndim)
    truth, fixed = truths(ndim)[kind] @ mirror, cloud(ndim)
    moving = truth.map_points(fixed)
    for mirrored in (True, None):
        found = FITS[kind](fixed, moving, mirrored=mirrored)
        assert found.is_mirrored
        np.testing.assert_allclose(found.map_points(fixed), moving, atol=1e-7)
    assert not FITS[kind](fixed, moving, mirrored=False).is_mirrored


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("kind", range(3))
def test_no_neighbouring_transform_fits_noisy_points_better(ndim, kind):
    fixed = cloud(ndim)
    moving = truths(ndim)[kind].map_points(fixed) + np.random.default_rng(1).normal(0, 1, fixed.shape)

    def cost(transform):
        return ((transform.map_points(fixed) - moving) ** 2).sum()

    found = FITS[kind](fixed, moving)
    center = found.map_points(fixed.mean(0))
    nearby = [Rigid(as_rows(np.eye(ndim)), tuple(0.01 * step)) for step in (*np.eye(ndim), *-np.eye(ndim))]
    nearby += [
        Rigid.about(center, rotation_matrix(ndim, angle, axes), np.zeros(ndim))
        for angle in (-0.05, 0.05)
        for axes in ((-2, -1), (0, 1), (0, -1))
    ]
    if kind:
        nearby += [Similarity(as_rows(np.eye(ndim)), scale, tuple(center - scale * center)) for scale in (0.999, 1.001)]
    assert all(cost(step @ found) > cost(found) for step in nearby)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("ndim", NDIMS)
def test_points_that_determine_nothing_are_refused(fit, ndim):
    points = cloud(ndim)
    with pytest.raises(InvalidInputError, match="at least"):
        fit(points[: ndim - 1], points[: ndim - 1])
    with pytest.raises(InvalidInputError, match="one place"):
        fit(np.ones_like(points), points)
    with pytest.raises(InvalidInputError, match="one place"):
        fit(points, np.ones_like(points))
    damaged = points.copy()
    damaged[3, 0] = np.nan
    with pytest.raises(InvalidInputError, match="finite"):
        fit(points, damaged)
    with pytest.raises((InvalidInputError, TypeError), match=r"matched|Type-check"):
        fit(points, points[:-1])


@pytest.mark.parametrize("ndim", NDIMS)
def test_an_affine_transform_is_not_determined_by_a_line_or_plane(ndim):
    flat = cloud(ndim)
    flat[:, 0] = 2 * flat[:, -1] + 1
    with pytest.raises(InvalidInputError, match="one line or plane"):
        fit_affine(flat, flat)


def test_a_close_cluster_far_from_the_origin_is_a_shape_not_one_place():
    """Stage coordinates: a field of 100 units, a million units away from the origin."""
    fixed = np.random.default_rng(0).uniform(0, 100, (10, 2)) + 1e8
    truth = Rigid.about(fixed.mean(0), rotation_matrix(2, 30), np.array([3.0, -2.0]))
    moving = truth.map_points(fixed)
    np.testing.assert_allclose(fit_rigid(fixed, moving).map_points(fixed), moving, atol=1e-5)
