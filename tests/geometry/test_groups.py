"""Rotations of the grid onto itself: a group, that moves pixels the way its matrix says."""

from itertools import product

import numpy as np
import pytest

from modalign.geometry import axis_rotations

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
