"""Rotations of the grid onto itself: a group, that moves pixels the way its matrix says."""

from itertools import product

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import axis_rotations, grid_rotations, rotation_group

NDIMS = (2, 3)
COUNTS = {2: 4, 3: 24}
TABLES = {ndim: axis_rotations(ndim) for ndim in NDIMS}
ALL = [pytest.param(ndim, g, id=f"{ndim}D-{i}") for ndim in NDIMS for i, g in enumerate(TABLES[ndim])]


@pytest.mark.parametrize("ndim", NDIMS)
def test_the_group_has_as_many_elements_as_it_should(ndim):
    assert len(set(TABLES[ndim])) == COUNTS[ndim]
    np.testing.assert_array_equal(TABLES[ndim][0].matrix, np.eye(ndim))
    assert all(round(np.linalg.det(g.matrix)) == 1 for g in TABLES[ndim])


@pytest.mark.parametrize("ndim", NDIMS)
def test_the_group_is_closed_and_acts_as_a_group(ndim):
    matrices = {g.matrix.tobytes(): g for g in TABLES[ndim]}
    array = np.random.default_rng(0).random((2, 3, 4, 5)[: ndim + 1])
    for a, b in product(TABLES[ndim], repeat=2):
        product_element = matrices[(a.matrix @ b.matrix + 0.0).tobytes()]
        np.testing.assert_array_equal(a.act(b.act(array)), product_element.act(array))


@pytest.mark.parametrize(("ndim", "g"), ALL)
def test_a_pixel_goes_where_the_matrix_takes_it(ndim, g):
    shape = np.array((3, 4, 6)[:ndim])
    array = np.arange(shape.prod()).reshape(shape)
    turned = g.act(array)
    for index in np.ndindex(*shape):
        about_center = np.array(index) - (shape - 1) / 2
        where = g.matrix @ about_center + (np.array(turned.shape) - 1) / 2
        assert turned[tuple(np.rint(where).astype(int))] == array[index]


@pytest.mark.parametrize(("ndim", "g"), ALL)
def test_the_inverse_undoes(ndim, g):
    array = np.random.default_rng(0).random((2, 3, 4, 5)[: ndim + 1])
    np.testing.assert_array_equal(g.inverse().act(g.act(array)), array)
    np.testing.assert_array_equal(g.inverse().matrix, np.linalg.inv(g.matrix))


@pytest.mark.parametrize(("ndim", "g"), ALL)
def test_arrays_and_tensors_are_turned_alike(ndim, g):
    torch = pytest.importorskip("torch")
    array = np.random.default_rng(0).random((2, 3, 4, 5)[: ndim + 1])
    np.testing.assert_array_equal(g.act(torch.from_numpy(array)).numpy(), g.act(array))


def test_in_2d_these_are_the_quarter_turns():
    array = np.random.default_rng(0).random((2, 3, 4))
    turns = [np.rot90(array, k, axes=(1, 2)) for k in range(4)]
    for g in TABLES[2]:
        assert sum(t.shape == g.act(array).shape and np.array_equal(t, g.act(array)) for t in turns) == 1
    assert {g.act(array).tobytes() for g in TABLES[2]} == {t.tobytes() for t in turns}


GROUPS = {
    2: {"C1": 1, "C2": 2, "C4": 4, "D4": 8},
    3: {"C1": 1, "V4": 4, "O": 24} | {f"{name}{axis}": n for name, n in (("C4", 4), ("D4", 8)) for axis in "zyx"},
}
NAMED = [(ndim, name, count) for ndim, names in GROUPS.items() for name, count in names.items()]


@pytest.mark.parametrize(("ndim", "name", "count"), NAMED)
def test_every_named_group_is_one(ndim, name, count):
    group = rotation_group(name, ndim)
    assert group.elements[0] == TABLES[ndim][0]
    assert len(group) == len(set(group.elements)) == count
    array = np.random.default_rng(0).random((2, 3, 4, 5)[: ndim + 1])
    for a, b in product(group.elements, repeat=2):
        assert a @ b in group.elements
        np.testing.assert_array_equal((a @ b).act(array), a.act(b.act(array)))
        np.testing.assert_array_equal((a @ b).matrix, a.matrix @ b.matrix)
    assert all(g.inverse() in group.elements for g in group.elements)
    mirrors = sum(np.linalg.det(g.matrix) < 0 for g in group.elements)
    assert mirrors == (count / 2 if (ndim, name) == (2, "D4") else 0)


def test_quarter_turns_about_an_axis_keep_it():
    for axis, letter in enumerate("zyx"):
        for name, keeps in (("C4", {1.0}), ("D4", {1.0, -1.0})):
            assert {g.matrix[axis, axis] for g in rotation_group(f"{name}{letter}", 3).elements} == keeps


@pytest.mark.parametrize(
    ("spacing", "shape", "name"),
    [
        ((0.5, 0.5), None, "C4"),
        ((0.5, 0.7), None, "C2"),
        ((0.5, 0.5), (64, 64), "C4"),
        ((0.5, 0.5), (64, 32), "C2"),
        ((1.0, 1.0, 1.0), None, "O"),
        ((1.0, 1.005, 1.0), None, "O"),
        ((4.0, 1.25, 1.25), None, "D4z"),
        ((1.25, 4.0, 1.25), None, "D4y"),
        ((1.25, 1.25, 4.0), None, "D4x"),
        ((1.0, 2.0, 3.0), None, "V4"),
        ((1.0, 1.0, 1.0), (32, 64, 64), "D4z"),
        ((4.0, 1.0, 1.0), (32, 64, 32), "V4"),
    ],
)
def test_the_group_is_the_largest_that_maps_the_grid_onto_itself(spacing, shape, name):
    group = grid_rotations(spacing, shape)
    assert group.name == name
    for g in axis_rotations(len(spacing)):
        order = list(g.permutation)
        same = np.allclose(np.array(spacing)[order], spacing, rtol=0.01)
        same &= shape is None or np.array_equal(np.array(shape)[order], shape)
        assert same == (g in group.elements)


def test_an_unknown_group_names_those_that_there_are():
    with pytest.raises(InvalidInputError, match="no group O in 2D; there are C1, C2, C4, D4"):
        rotation_group("O", 2)


def chi_squared(counts, expected):
    return float((np.square(counts - expected) / expected).sum())


def test_elements_are_drawn_uniformly_and_three_quarter_turns_in_turn_are_not():
    """99.9 % of uniform draws of 24 elements stay below 49.7 (χ² with 23 degrees of freedom)."""
    rng, draws = np.random.default_rng(0), 24_000
    group = rotation_group("O", 3)
    number = {g: k for k, g in enumerate(group.elements)}
    drawn = np.bincount([number[g] for g in group.draw(draws, rng)], minlength=24)
    assert chi_squared(drawn, draws / 24) < 49.7
    turns = [rotation_group(f"C4{axis}", 3).elements for axis in "zyx"]
    every = np.bincount([number[a @ b @ c] for a, b, c in product(*turns)], minlength=24)
    assert every.sum() == 64
    assert (every.min(), every.max()) == (2, 4)
    chained = rng.multinomial(draws, every / 64)
    assert chi_squared(chained, draws / 24) > 1000
