import numpy as np
import pytest
from scipy import ndimage

from modalign.errors import InvalidInputError, NotInvertibleError
from modalign.geometry import (
    Affine,
    Chain,
    DisplacementField,
    Grid,
    InverseField,
    Rigid,
    as_rows,
    identity,
    resample,
    rotation_matrix,
)

GRIDS = [
    Grid((40, 50), (0.5, 0.7), (3.0, -2.0), as_rows(rotation_matrix(2, 20.0)), "micrometer"),
    Grid((18, 20, 22), (1.0, 0.8, 0.6), (1.0, 2.0, 3.0), as_rows(rotation_matrix(3, 30.0)), "millimeter"),
]


def smooth(grid, amplitude=2.0, seed=0):
    """A smooth random field of an amplitude in pixels."""
    rng = np.random.default_rng(seed)
    noise = np.stack([ndimage.gaussian_filter(rng.standard_normal(grid.shape), 5) for _ in range(grid.ndim)])
    return DisplacementField((amplitude * min(grid.spacing) * noise / np.abs(noise).max()).astype(np.float32), grid)


def inner_points(grid, count=200):
    rng = np.random.default_rng(1)
    return grid.index_to_world(rng.uniform(4, np.array(grid.shape) - 5, (count, grid.ndim)))


@pytest.mark.parametrize("grid", GRIDS, ids=["2D", "3D"])
class TestDisplacementField:
    def test_it_moves_the_pixels_by_its_vectors(self, grid):
        field, at = smooth(grid), (3,) * grid.ndim
        moved = field.map_points(grid.index_to_world(np.array(at, float)))
        expected = grid.index_to_world(np.array(at, float)) + field.displacement[(slice(None), *at)]
        np.testing.assert_allclose(moved, expected, atol=1e-9)

    def test_an_affine_transform_is_kept_between_the_pixels(self, grid):
        matrix = np.eye(grid.ndim + 1)
        matrix[:-1] += 0.1 * np.random.default_rng(0).standard_normal((grid.ndim, grid.ndim + 1))
        affine = Affine.from_matrix(matrix)
        field = DisplacementField.sampled(affine, grid)
        points = inner_points(grid)
        np.testing.assert_allclose(field.map_points(points), affine.map_points(points), atol=1e-4)

    def test_the_inverse_undoes_it(self, grid):
        field, points = smooth(grid), inner_points(grid)
        there = field.map_points(points)
        np.testing.assert_allclose(field.inverse().map_points(there), points, atol=3e-3 * min(grid.spacing))
        back = field.inverse().map_points(points)
        np.testing.assert_allclose(field.map_points(back), points, atol=1.01e-3 * min(grid.spacing))

    def test_the_inverse_of_the_inverse_is_the_field(self, grid):
        field = smooth(grid)
        assert field.inverse().inverse() is field

    def test_it_composes_with_linear_transforms(self, grid):
        field, points = smooth(grid), inner_points(grid)
        turn = Rigid(as_rows(rotation_matrix(grid.ndim, 10.0)), (1.0,) * grid.ndim)
        for first, second in ((field, turn), (turn, field), (field.inverse(), turn), (turn, field.inverse())):
            both = second @ first
            assert isinstance(both, Chain)
            np.testing.assert_allclose(both.map_points(points), second.map_points(first.map_points(points)))

    def test_the_inverse_of_a_composition_undoes_it(self, grid):
        turn = Rigid(as_rows(rotation_matrix(grid.ndim, 10.0)), (1.0,) * grid.ndim)
        both, points = turn @ smooth(grid), inner_points(grid)
        np.testing.assert_allclose(
            both.inverse().map_points(both.map_points(points)), points, atol=3e-3 * min(grid.spacing)
        )

    def test_resampling_follows_it(self, grid):
        rng = np.random.default_rng(2)
        data = np.stack([ndimage.gaussian_filter(rng.standard_normal(grid.shape), 2)]).astype(np.float32)
        field = smooth(grid)
        warped = resample(data, grid, grid, field)
        where = grid.world_to_index(field.map_points(grid.points))
        expected = ndimage.map_coordinates(data[0], np.moveaxis(where, -1, 0), order=1)
        inner = (slice(4, -4),) * grid.ndim
        np.testing.assert_allclose(warped[0][inner], expected[inner], atol=1e-5)

    def test_a_field_that_folds_cannot_be_undone_there(self, grid):
        turned = np.zeros((grid.ndim, *grid.shape), np.float32)
        index = np.indices(grid.shape)[-1]
        vector = np.array(grid.direction)[:, -1] * grid.spacing[-1]
        turned += (-2.0 * (index - grid.shape[-1] / 2))[None] * vector.reshape(-1, *(1,) * grid.ndim)
        with pytest.raises(NotInvertibleError, match="folds"):
            DisplacementField(turned.astype(np.float32), grid).inverse().map_points(inner_points(grid))

    def test_what_is_no_field_is_refused(self, grid):
        with pytest.raises(InvalidInputError, match="shape"):
            DisplacementField(np.zeros((grid.ndim + 1, *grid.shape), np.float32), grid)
        bad = np.zeros((grid.ndim, *grid.shape), np.float32)
        bad[0, 0] = np.nan
        with pytest.raises(InvalidInputError, match="finite"):
            DisplacementField(bad, grid)

    def test_points_of_another_dimension_are_refused(self, grid):
        with pytest.raises(InvalidInputError, match="coordinates"):
            smooth(grid).map_points(np.zeros((2, 5 - grid.ndim)))

    def test_the_field_of_nothing_moves_nothing(self, grid):
        still = DisplacementField.sampled(identity(grid.ndim), grid)
        assert not still.displacement.any()
        assert isinstance(still.inverse(), InverseField)
        np.testing.assert_array_equal(still.inverse().map_points(inner_points(grid)), inner_points(grid))


def test_strong_smooth_squeezing_is_undone():
    """Where the field nearly folds, plain fixed-point iteration would run away."""
    grid = Grid((64, 64))
    index = np.arange(64.0)
    wave = 64 / (2 * np.pi) * 0.9 * np.sin(2 * np.pi * index / 63)  # slope up to 0.9 in both signs
    field = DisplacementField(np.stack([np.broadcast_to(wave[:, None], (64, 64)), np.zeros((64, 64))]), grid)
    points = grid.index_to_world(np.random.default_rng(0).uniform(1, 62, (500, 2)))
    np.testing.assert_allclose(field.map_points(field.inverse().map_points(points)), points, atol=1.01e-3)
