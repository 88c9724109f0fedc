"""Grids: indices are pixel centres, and nothing that is done to a grid moves the world."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.errors import InvalidInputError
from modalign.geometry import Grid, as_rows, rotation_matrix

NDIMS = (2, 3)


def random_grid(ndim, seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 41, ndim).tolist())
    spacing, origin = 10 ** rng.uniform(-2, 2, ndim), rng.uniform(-1e4, 1e4, ndim)
    angles = rng.uniform(-180, 180, 2)
    direction = rotation_matrix(ndim, angles[0]) @ rotation_matrix(ndim, angles[1], (0, 1))
    return Grid(shape, tuple(spacing.tolist()), tuple(origin.tolist()), as_rows(direction), "micrometer")


# Grids are built in the tests: strategies draw plain numbers only, which is what Hypothesis can shrink.
few = settings(max_examples=25, deadline=None, derandomize=True, database=None)
ndims, seeds = st.sampled_from(NDIMS), st.integers(0, 2**31)


@few
@given(ndims, seeds)
def test_world_to_index_undoes_index_to_world(ndim, seed):
    grid = random_grid(ndim, seed)
    indices = np.random.default_rng(seed).uniform(-50, 50, (7, grid.ndim))
    np.testing.assert_allclose(grid.world_to_index(grid.index_to_world(indices)), indices, atol=1e-6)


@few
@given(ndims, seeds)
def test_the_matrix_is_index_to_world(ndim, seed):
    grid = random_grid(ndim, seed)
    for index in np.ndindex(*(2,) * grid.ndim):
        expected = np.array(grid.origin) + np.array(grid.direction) @ (np.array(grid.spacing) * index)
        np.testing.assert_allclose(grid.index_to_world(np.array(index, float)), expected, atol=1e-8)
        np.testing.assert_allclose((grid.matrix @ [*index, 1])[:-1], expected, atol=1e-8)


def test_one_step_along_an_axis_is_one_pixel_in_its_direction():
    grid = Grid((10, 20), (2.0, 0.5), (100.0, 50.0), as_rows(rotation_matrix(2, 90)))
    np.testing.assert_allclose(grid.index_to_world(np.array([1.0, 0.0])) - grid.origin, (0.0, 2.0), atol=1e-12)
    np.testing.assert_allclose(grid.index_to_world(np.array([0.0, 1.0])) - grid.origin, (-0.5, 0.0), atol=1e-12)


@few
@given(ndims, seeds, st.floats(0.2, 5))
def test_a_resized_grid_has_the_same_centre_and_about_the_same_field(ndim, seed, factor):
    grid = random_grid(ndim, seed)
    spacing = tuple(s * factor for s in grid.spacing)
    resized = grid.resized(spacing)
    np.testing.assert_allclose(resized.center, grid.center, atol=1e-6)
    assert resized.spacing == spacing
    for before, after, size in zip(grid.extent, resized.extent, spacing, strict=True):
        assert abs(before - after) <= max(0.5 * size, size - before) * (1 + 1e-9)  # rounded to whole pixels, at least 1


@pytest.mark.parametrize("ndim", NDIMS)
def test_pyramid_levels_follow_the_convention(ndim):
    """x0 = (xL + 0.5) f - 0.5 for the level with factor f."""
    grid = Grid(
        (24, 36, 48)[:ndim], (1.5, 0.7, 2.0)[:ndim], (3.0, -4.0, 5.0)[:ndim], as_rows(rotation_matrix(ndim, 30))
    )
    level = grid.resized([4 * s for s in grid.spacing])
    indices = np.random.default_rng(0).uniform(0, 6, (9, ndim))
    np.testing.assert_allclose(grid.world_to_index(level.index_to_world(indices)), (indices + 0.5) * 4 - 0.5)


@few
@given(ndims, seeds)
def test_a_crop_does_not_move(ndim, seed):
    grid = random_grid(ndim, seed)
    start = tuple(n // 3 for n in grid.shape)
    crop = grid.cropped(start, tuple(n - s for n, s in zip(grid.shape, start, strict=True)))
    inside = np.full(grid.ndim, 0.25)
    np.testing.assert_allclose(crop.index_to_world(inside), grid.index_to_world(inside + start), atol=1e-6)
    np.testing.assert_allclose(crop.corners[-1], grid.corners[-1], atol=1e-6)


@pytest.mark.parametrize("ndim", NDIMS)
def test_corners_are_the_outermost_pixel_centres(ndim):
    grid = Grid((3, 4, 5)[:ndim], (2.0, 0.5, 3.0)[:ndim])
    assert grid.corners.shape == (2**ndim, ndim)
    np.testing.assert_array_equal(grid.corners.min(0), np.zeros(ndim))
    np.testing.assert_array_equal(grid.corners.max(0), [4.0, 1.5, 12.0][:ndim])
    assert grid.extent == (6.0, 2.0, 15.0)[:ndim]
    np.testing.assert_allclose(grid.center, grid.corners.mean(0))


def test_units_keep_the_length():
    grid = Grid((3, 4), (0.5, 0.25), (10.0, 20.0), unit="micrometer")
    converted = grid.in_unit("millimeter")
    np.testing.assert_allclose(converted.spacing, (0.5e-3, 0.25e-3))
    np.testing.assert_allclose(converted.origin, (10e-3, 20e-3))
    np.testing.assert_allclose(converted.in_unit("micrometer").corners, grid.corners)
    assert grid.in_unit("micrometer") is grid
    with pytest.raises(InvalidInputError, match="a pixel has no known length"):
        grid.in_unit("pixel")
    assert grid.without_unit() == Grid((3, 4))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": ()}, "at least one pixel"),
        ({"shape": (3, 0)}, "at least one pixel"),
        ({"spacing": (1.0,)}, "2 entries each"),
        ({"origin": (1.0, 2.0, 3.0)}, "2 entries each"),
        ({"spacing": (1.0, 0.0)}, "positive"),
        ({"spacing": (1.0, -1.0)}, "positive"),
        ({"spacing": (1.0, float("nan"))}, "positive"),
        ({"origin": (float("inf"), 0.0)}, "finite"),
        ({"direction": ((1.0, 0.5), (0.0, 1.0))}, "orthogonal"),
        ({"direction": ((2.0, 0.0), (0.0, 2.0))}, "orthogonal"),
    ],
)
def test_impossible_grids_are_refused(fields, message):
    with pytest.raises(InvalidInputError, match=message):
        Grid(**{"shape": (3, 4), **fields})


def test_equal_grids_are_equal_and_hash_alike():
    a, b = Grid((3, 4), (1.0, 2.0)), Grid((3, 4), (np.float64(1), 2.0), (0.0, 0.0))
    assert a == b
    assert hash(a) == hash(b)
    assert a != Grid((3, 4), (1.0, 2.5))
