"""Transforms are groups: laws in 2D and 3D, for large, small and almost no motion."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.errors import InvalidInputError, NotInvertibleError
from modalign.geometry import (
    Affine,
    Chain,
    Grid,
    Linear,
    Rigid,
    Similarity,
    as_rows,
    corner_error,
    identity,
    rotation_matrix,
)

NDIMS = (2, 3)
KINDS = (Rigid, Similarity, Affine)
SIZES = (1e-9, 1e-4, 1.0)
"""How far from the identity: rounding that a careless formula would amplify shows up near it."""


def random_transform(kind, ndim, seed, size):
    rng = np.random.default_rng(seed)
    angles = rng.uniform(-180, 180, 2) * size
    rotation = rotation_matrix(ndim, angles[0]) @ rotation_matrix(ndim, angles[1], (0, 1))
    if size == 1 and rng.random() < 0.5:
        rotation[0] *= -1  # mirrored
    shift = tuple(rng.uniform(-100, 100, ndim) * size)
    scale = float(np.exp(rng.uniform(-1, 1) * size))
    shear = np.eye(ndim + 1)
    shear[:-1, :-1] = scale * rotation @ (np.eye(ndim) + np.triu(rng.uniform(-0.5, 0.5, (ndim, ndim)), 1) * size)
    shear[:-1, -1] = shift
    return {
        Rigid: Rigid(as_rows(rotation), shift),
        Similarity: Similarity(as_rows(rotation), scale, shift),
        Affine: Affine(as_rows(shear)),
    }[kind]


# Transforms are built in the tests: strategies draw plain numbers only, which is what Hypothesis can shrink.
few = settings(max_examples=30, deadline=None, derandomize=True, database=None)
ndims = st.sampled_from(NDIMS)
draws = st.tuples(st.sampled_from(range(len(KINDS))), st.integers(0, 2**31), st.sampled_from(SIZES))


def built(ndim, *drawn):
    return [random_transform(KINDS[kind], ndim, seed, size) for kind, seed, size in drawn]


def some_points(ndim):
    return np.random.default_rng(5).uniform(-200, 200, (6, ndim))


@few
@given(ndims, st.tuples(draws, draws, draws))
def test_composition_applies_the_right_one_first(ndim, drawn):
    a, b, _ = built(ndim, *drawn)
    x = some_points(a.ndim)
    np.testing.assert_allclose((a @ b).map_points(x), a.map_points(b.map_points(x)), atol=1e-8)


@few
@given(ndims, st.tuples(draws, draws, draws))
def test_composition_is_associative(ndim, drawn):
    a, b, c = built(ndim, *drawn)
    x = some_points(a.ndim)
    np.testing.assert_allclose(((a @ b) @ c).map_points(x), (a @ (b @ c)).map_points(x), atol=1e-7)


@few
@given(ndims, draws)
def test_the_inverse_undoes_from_both_sides(ndim, drawn):
    (a,) = built(ndim, drawn)
    x = some_points(a.ndim)
    np.testing.assert_allclose(a.inverse().map_points(a.map_points(x)), x, atol=1e-8)
    np.testing.assert_allclose((a @ a.inverse()).map_points(x), x, atol=1e-8)
    np.testing.assert_allclose((a.inverse() @ a).map_points(x), x, atol=1e-8)
    assert type(a.inverse()) is type(a)


@few
@given(ndims, draws)
def test_the_identity_changes_nothing(ndim, drawn):
    (a,) = built(ndim, drawn)
    x = some_points(a.ndim)
    e = identity(a.ndim)
    np.testing.assert_array_equal(e.map_points(x), x)
    for same in (a @ e, e @ a):
        assert type(same) is type(a)
        np.testing.assert_allclose(same.map_points(x), a.map_points(x), atol=1e-9)


@few
@given(ndims, st.tuples(draws, draws, draws))
def test_a_composition_stays_in_the_larger_group(ndim, drawn):
    a, b, _ = built(ndim, *drawn)
    assert type(a @ b) is max(type(a), type(b), key=KINDS.index)


@few
@given(ndims, draws)
def test_the_matrix_says_the_same_and_comes_back(ndim, drawn):
    (a,) = built(ndim, drawn)
    x = some_points(a.ndim)
    homogeneous = np.column_stack([x, np.ones(len(x))])
    np.testing.assert_allclose((homogeneous @ a.matrix.T)[:, :-1], a.map_points(x), atol=1e-9)
    np.testing.assert_allclose(type(a).from_matrix(a.matrix).matrix, a.matrix, atol=1e-12)


@few
@given(ndims, st.sampled_from((0, 1)), st.integers(0, 2**31), st.sampled_from(SIZES))
def test_distances_are_kept_up_to_one_scale(ndim, kind, seed, size):
    (a,) = built(ndim, (kind, seed, size))
    x = some_points(a.ndim)
    scale = getattr(a, "scale", 1.0)
    before, after = np.diff(x, axis=0), np.diff(a.map_points(x), axis=0)
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), scale * np.linalg.norm(before, axis=1), rtol=1e-9)


@few
@given(ndims, st.tuples(draws, draws, draws))
def test_chains_obey_the_same_laws(ndim, drawn):
    a, b, c = built(ndim, *drawn)
    x = some_points(a.ndim)
    expected = c.map_points(b.map_points(a.map_points(x)))
    chain = Chain((a, b, c))
    for same in (chain, Chain((c,)) @ b @ a, c @ Chain((a, b)), chain.simplified(), Chain((b, c)) @ Chain((a,))):
        np.testing.assert_allclose(same.map_points(x), expected, atol=1e-7)
    np.testing.assert_allclose(chain.inverse().map_points(expected), x, atol=1e-6)
    assert isinstance(chain.simplified(), Linear)
    assert len((c @ Chain((a, b))).transforms) == 3


def test_a_chain_keeps_what_is_not_linear():
    class Squared:
        ndim = 2

        def map_points(self, points):
            return points**2

        def inverse(self):
            raise NotInvertibleError("points and their mirror images are squared alike")

        def __matmul__(self, other):
            return Chain((self,)) @ other

    shift = Rigid(((1, 0), (0, 1)), (1, 2))
    chain = shift @ Squared() @ shift @ shift
    x = np.array([[1.0, 2.0], [3.0, -4.0]])
    expected = (x + np.array([2, 4])) ** 2 + np.array([1, 2])
    np.testing.assert_allclose(chain.map_points(x), expected)
    assert len(chain.simplified().transforms) == 3
    np.testing.assert_allclose(chain.simplified().map_points(x), expected)
    with pytest.raises(NotInvertibleError):
        chain.inverse()


@pytest.mark.parametrize("ndim", NDIMS)
def test_points_of_any_leading_shape(ndim):
    transform = random_transform(Affine, ndim, 3, 1.0)
    points = np.random.default_rng(0).normal(size=(2, 5, ndim))
    mapped = transform.map_points(points)
    assert mapped.shape == points.shape
    np.testing.assert_allclose(mapped[1, 3], transform.map_points(points[1, 3]))


def test_a_positive_angle_is_counter_clockwise_on_the_screen():
    right, up = np.array([0.0, 1.0]), np.array([-1.0, 0.0])  # (y, x), y points down
    np.testing.assert_allclose(rotation_matrix(2, 90) @ right, up, atol=1e-12)


@pytest.mark.parametrize("ndim", NDIMS)
def test_a_rotation_about_a_point_keeps_it(ndim):
    center, shift = np.arange(5.0, 5 + ndim), np.full(ndim, 0.5)
    turned = Rigid.about(center, rotation_matrix(ndim, 40), shift)
    np.testing.assert_allclose(turned.map_points(center), center + shift)


@pytest.mark.parametrize("ndim", NDIMS)
def test_mirrors_are_noticed_and_kept(ndim):
    mirror = np.diag([-1.0, *[1.0] * (ndim - 1)])
    a = Rigid(as_rows(mirror), (1.0,) * ndim)
    assert a.is_mirrored
    assert not (a @ a).is_mirrored
    assert Similarity.from_matrix((a @ Similarity(as_rows(np.eye(ndim)), 2.0, (0.0,) * ndim)).matrix).is_mirrored
    assert a.inverse().is_mirrored
    assert not identity(ndim).is_mirrored


@pytest.mark.parametrize("ndim", NDIMS)
def test_from_matrix_gives_the_nearest_member(ndim):
    """The polar factor is nearer to a sheared matrix than any rotation a little beside it."""
    sheared = random_transform(Affine, ndim, 11, 1.0).matrix
    nearest = Rigid.from_matrix(sheared)
    distance = np.linalg.norm(nearest.matrix - sheared)
    for axes in [(-2, -1), (0, 1), (0, -1)]:
        for angle in (-1.0, 1.0):
            beside = rotation_matrix(ndim, angle, axes) @ nearest.linear
            assert np.linalg.norm(beside - sheared[:-1, :-1]) > distance
    scaled = Similarity.from_matrix(sheared)
    for factor in (0.99, 1.01):
        assert np.linalg.norm(factor * scaled.linear - sheared[:-1, :-1]) > np.linalg.norm(scaled.matrix - sheared)


def test_a_flat_affine_transform_has_no_inverse():
    flat = Affine(((1, 1, 0), (1, 1, 0), (0, 0, 1)))
    with pytest.raises(NotInvertibleError):
        flat.inverse()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rigid(((1, 0.5), (0, 1)), (0, 0)),
        lambda: Rigid(((2, 0), (0, 2)), (0, 0)),
        lambda: Rigid(((1, 0), (0, 1)), (0, 0, 0)),
        lambda: Rigid(((1, 0), (0, 1)), (float("nan"), 0)),
        lambda: Similarity(((1, 0), (0, 1)), 0.0, (0, 0)),
        lambda: Similarity(((1, 0), (0, 1)), -1.0, (0, 0)),
        lambda: Similarity(((1, 0), (0, 1)), float("inf"), (0, 0)),
        lambda: Affine(((1, 0), (0, 1), (0, 0))),
        lambda: Affine(((1, 0, 0), (0, 1, 0), (0, 1, 1))),
        lambda: Affine(((1, 0, float("inf")), (0, 1, 0), (0, 0, 1))),
        lambda: Chain(()),
        lambda: Chain((identity(2), identity(3))),
        lambda: identity(2) @ identity(3),
        lambda: identity(2).map_points(np.zeros((4, 3))),
    ],
)
def test_impossible_transforms_are_refused(make):
    with pytest.raises(InvalidInputError):
        make()


def test_transforms_compare_and_hash_by_value():
    a, b = Rigid(((1, 0), (0, 1)), (np.float64(2), 3)), Rigid(((1.0, 0.0), (0.0, 1.0)), (2.0, 3.0))
    assert a == b
    assert hash(a) == hash(b)


@pytest.mark.parametrize("ndim", NDIMS)
def test_the_corner_error_of_a_shift_is_its_length(ndim):
    grid = Grid((30, 40, 50)[:ndim], (2.0, 0.5, 1.0)[:ndim])
    shift = Rigid(as_rows(np.eye(ndim)), (3.0, 4.0, 0.0)[:ndim])
    np.testing.assert_allclose(corner_error(grid, shift, identity(ndim)), 5.0)
