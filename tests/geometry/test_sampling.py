"""The index map and its blocks: linear or not, near or far, large steps or small."""

from dataclasses import dataclass

import numpy as np
import pytest

from modalign.geometry import (
    Affine,
    Chain,
    Grid,
    Rigid,
    as_rows,
    covered,
    resample,
    resample_labels,
    rotation_matrix,
    sampling,
)
from modalign.geometry.sampling import IndexMap, Room, visit, whole

NDIMS = (2, 3)


@dataclass(frozen=True)
class Wrapped:
    """A linear transform that does not look like one."""

    inner: Rigid

    @property
    def ndim(self):
        return self.inner.ndim

    def map_points(self, points):
        return self.inner.map_points(points)

    def inverse(self):
        return Wrapped(self.inner.inverse())

    def __matmul__(self, other):
        return Chain((other, self))


def grids(ndim):
    moving = Grid((40, 31, 27)[:ndim], (1.5, 0.7, 2.0)[:ndim], (3.0, -4.0, 5.0)[:ndim])
    fixed = Grid((35, 42, 29)[:ndim], (1.1, 0.9, 1.3)[:ndim], (1.0, -2.0, 9.0)[:ndim])
    turn = Rigid.about(fixed.center, rotation_matrix(ndim, 25), moving.center - fixed.center)
    return moving, fixed, turn


def noise(shape, dtype="uint8"):
    return (250 * np.random.default_rng(0).random((2, *shape))).astype(dtype)


def literal(data, moving, fixed, transform, fill):
    """Multilinear interpolation point by point."""
    out = np.full((len(data), *fixed.shape), fill, dtype=float)
    last = np.array(moving.shape) - 1
    for index in np.ndindex(*fixed.shape):
        world = transform.map_points(fixed.index_to_world(np.array(index, dtype=float)))
        place = moving.world_to_index(world)
        if np.any(place < -0.5) or np.any(place >= last + 0.5):
            continue
        place = np.clip(place, 0, last)
        base = np.minimum(np.floor(place).astype(int), np.maximum(last - 1, 0))
        part, value = place - base, 0.0
        for corner in np.ndindex(*(2,) * len(last)):
            weight = np.prod(np.where(corner, part, 1 - part))
            value = value + weight * data[(slice(None), *np.minimum(base + corner, last))].astype(float)
        out[(slice(None), *index)] = value
    return out


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_linear_interpolation_is_the_literal_one(ndim, dtype):
    moving, fixed, turn = grids(ndim)
    fixed = Grid(fixed.shape[:1] + tuple(9 for _ in fixed.shape[1:]), fixed.spacing, fixed.origin)
    data = noise(moving.shape, dtype)
    expected = literal(data, moving, fixed, turn, 7.0)
    assert (expected == 7).any()
    assert (expected != 7).any()
    within = 0.5 + 1e-4 if np.issubdtype(dtype, np.integer) else 1e-4 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(resample(data, moving, fixed, turn, fill=7).astype(float), expected, rtol=0, atol=within)


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_transforms_of_any_kind_are_sampled_alike(ndim, dtype, order):
    moving, fixed, turn = grids(ndim)
    data = noise(moving.shape, dtype)
    known = resample(data, moving, fixed, turn, order=order, fill=3)
    for transform in (Wrapped(turn), Chain((Rigid(as_rows(np.eye(ndim)), (0.0,) * ndim), turn))):
        other = resample(data, moving, fixed, transform, order=order, fill=3)
        assert (np.abs(other.astype(float) - known) > 1e-3).mean() < 1e-3  # places on the edge of rounding
    np.testing.assert_array_equal(covered(moving, fixed, turn), covered(moving, fixed, Wrapped(turn)))


@pytest.mark.parametrize("ndim", NDIMS)
def test_what_is_covered_is_what_is_not_filled(ndim):
    moving, fixed, turn = grids(ndim)
    ones = np.ones(moving.shape, bool)
    inside = resample_labels(ones, moving, fixed, turn, fill=False)
    assert 0.2 < inside.mean() < 0.95
    np.testing.assert_array_equal(covered(moving, fixed, turn), inside)
    np.testing.assert_array_equal(resample(noise(moving.shape) + 1, moving, fixed, turn, fill=0)[0] > 0, inside)


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_no_block_needs_a_large_window(ndim, scale, monkeypatch):
    monkeypatch.setattr(sampling, "WINDOW_POINTS", 5000)
    side = 2000 if ndim == 2 else 150
    moving = Grid((side,) * ndim)
    fixed = Grid((90, 80, 40)[:ndim], (scale,) * ndim)
    turn = Rigid.about(fixed.center, rotation_matrix(ndim, 30), moving.center - fixed.center)
    where, room = IndexMap(moving, fixed, turn), Room()
    seen = np.zeros(fixed.shape, int)
    for block in where.parts(whole(fixed.shape), 1000):
        seen[block] += 1
        found = visit(where, block, room)
        if found is not None:
            assert np.prod([part.stop - part.start for part in found.window(moving.shape, 1)]) <= 5000 * 2**ndim
    assert (seen == 1).all()


@pytest.mark.parametrize("ndim", NDIMS)
def test_far_away_is_outside(ndim):
    moving, fixed, _ = grids(ndim)
    for distance in (1e3, 1e12, 1e200):
        away = Affine.from_matrix(np.block([[np.eye(ndim), np.full((ndim, 1), distance)], [np.zeros(ndim), 1.0]]))
        assert (resample(noise(moving.shape), moving, fixed, away, fill=9) == 9).all()
        assert not covered(moving, fixed, away).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (1, 1, 1), (1, 5, 1)])
@pytest.mark.parametrize("order", [0, 1])
def test_axes_of_one_pixel(shape, order):
    grid = Grid(shape)
    data = noise(shape, "float64")
    np.testing.assert_array_equal(
        resample(data, grid, grid, Rigid(as_rows(np.eye(len(shape))), (0.0,) * len(shape)), order=order), data
    )
    finer = grid.resized(tuple(0.25 for _ in shape))
    out = resample(data, grid, finer, Rigid(as_rows(np.eye(len(shape))), (0.0,) * len(shape)), order=order, fill=-1.0)
    assert out.min() >= data.min() - 1e-9
    assert out.max() <= data.max() + 1e-9


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "uint32"])
def test_the_largest_integers_do_not_wrap_around(dtype):
    grid, shift = Grid((6, 7)), Rigid(as_rows(np.eye(2)), (0.3, 0.4))
    data = np.full((1, 6, 7), np.iinfo(dtype).max, dtype)
    out = resample(data, grid, grid, shift, fill=0)
    assert (out[0, :5, :6] >= np.iinfo(dtype).max - 2048).all()


def test_a_value_that_is_not_finite_stays_where_it_is():
    grid = Grid((12, 13))
    data = np.random.default_rng(0).random((1, 12, 13))
    data[0, 5, 6] = np.inf
    out = resample(data, grid, grid, Rigid(as_rows(np.eye(2)), (0.25, 0.0)))
    assert (~np.isfinite(out)).sum() <= 4
    assert np.isfinite(out[0, 0]).all()
