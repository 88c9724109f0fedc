"""What the published code gets wrong: it takes the absolute values of the differences, and sees no fold in a mirror."""

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import (
    Affine,
    DisplacementField,
    Grid,
    Rigid,
    as_rows,
    deformation,
    folded_cells,
    identity,
    jacobian_determinants,
    rotation_matrix,
)

GRIDS = [
    Grid((20, 24), (0.5, 0.7), (3.0, -2.0), as_rows(rotation_matrix(2, 20.0)), "micrometer"),
    Grid((10, 12, 14), (1.0, 0.8, 0.6), (1.0, 2.0, 3.0), as_rows(rotation_matrix(3, 30.0)), "millimeter"),
]
both = pytest.mark.parametrize("grid", GRIDS, ids=["2D", "3D"])


def noisy(grid, amplitude, seed=0):
    rng = np.random.default_rng(seed)
    pixels = amplitude * rng.uniform(-1, 1, (*grid.shape, grid.ndim))
    vectors = pixels * grid.spacing @ np.array(grid.direction).T
    return DisplacementField(np.moveaxis(vectors, -1, 0), grid)


@both
def test_a_mirror_folds_everything(grid):
    mirror = Affine.from_matrix(np.diag([-1.0] + [1.0] * grid.ndim))
    found = deformation(mirror, grid)
    assert found.folded == 1
    assert found.folded_volume == pytest.approx(1)
    assert found.largest == pytest.approx(-1)


@both
def test_a_rotation_keeps_every_volume(grid):
    turn = Rigid(as_rows(rotation_matrix(grid.ndim, 35.0)), (1.0,) * grid.ndim)
    found = deformation(turn, grid)
    np.testing.assert_allclose(jacobian_determinants(turn, grid), 1, atol=1e-9)
    assert (found.folded, found.folded_volume) == (0, 0)
    assert found.sd_log == pytest.approx(0, abs=1e-9)


@both
def test_an_affine_transform_has_its_determinant_everywhere(grid):
    matrix = np.eye(grid.ndim + 1)
    matrix[:-1, :-1] += 0.2 * np.random.default_rng(3).standard_normal((grid.ndim, grid.ndim))
    affine = Affine.from_matrix(matrix)
    found = deformation(affine, grid)
    assert found.least == pytest.approx(np.linalg.det(affine.linear))
    assert found.largest == pytest.approx(np.linalg.det(affine.linear))


@both
def test_determinants_are_those_of_a_slow_literal_loop(grid):
    field = noisy(grid, 0.4)
    nodes = field.map_points(grid.points)
    unit = abs(np.linalg.det(grid.matrix))
    worst = np.inf
    for cell in np.ndindex(*(n - 1 for n in grid.shape)):
        for corner in np.ndindex(*(2,) * grid.ndim):
            here = np.array(cell) + corner
            edges = []
            for axis in range(grid.ndim):
                step = np.eye(grid.ndim, dtype=int)[axis] * (1 - 2 * corner[axis])
                edges.append((nodes[tuple(here + step)] - nodes[tuple(here)]) * (1 - 2 * corner[axis]))
            worst = min(worst, np.linalg.det(np.array(edges)) / unit)
    sign = np.sign(np.linalg.det(np.array(grid.direction)))
    assert deformation(field, grid).least == pytest.approx(sign * worst)


@both
def test_the_volume_turned_inside_out_and_the_rest_make_the_whole(grid):
    """Simplices fill the cells: their signed volumes sum to that inside the border, which does not move here."""
    field = noisy(grid, 0.9)
    still = field.displacement.copy()
    for axis in range(grid.ndim):
        for end in (0, -1):
            still[(slice(None), *(slice(None),) * axis, end)] = 0
    field = DisplacementField(still, grid)
    found = deformation(field, grid)
    assert 0 < found.folded_volume < 0.5
    assert found.folded > found.folded_volume
    assert jacobian_determinants(field, grid).mean() == pytest.approx(1, abs=0.2)


def test_a_chequerboard_of_folds_is_seen():
    """Central differences skip every second pixel, and find nothing here."""
    grid = Grid((12, 12))
    shift = 0.8 * (np.indices((12, 12)).sum(0) % 2)
    field = DisplacementField(np.stack([shift, shift]), grid)
    central = np.stack([np.gradient(field.displacement[a], axis=b) for a in range(2) for b in range(2)])
    assert np.abs(central[:, 1:-1, 1:-1]).max() == 0
    assert deformation(field, grid).folded > 0.9


def test_only_cells_inside_the_mask_count():
    grid = Grid((10, 10))
    field = np.zeros((2, 10, 10))
    field[0, 2, 2] = 5
    mask = np.zeros((10, 10), bool)
    mask[5:, 5:] = True
    assert deformation(DisplacementField(field, grid), grid).folded > 0
    assert deformation(DisplacementField(field, grid), grid, mask).folded == 0
    assert np.argwhere(folded_cells(DisplacementField(field, grid), grid)).tolist() == [[2, 1], [2, 2]]


def test_uneven_stretching_has_its_standard_deviation():
    """Cells of width 2 and of width 1/2 in equal number: logarithms of ± log 2."""
    grid = Grid((3, 9))
    places = np.concatenate([[0], np.cumsum([2, 0.5] * 4)])
    field = DisplacementField(np.stack([np.zeros((3, 9)), np.broadcast_to(places - np.arange(9), (3, 9))]), grid)
    assert deformation(field, grid).sd_log == pytest.approx(np.log(2))


def test_a_grid_without_cells_is_refused():
    with pytest.raises(InvalidInputError, match="cells"):
        deformation(identity(2), Grid((1, 5)))
    with pytest.raises(InvalidInputError, match="counts"):
        deformation(identity(2), Grid((5, 5)), np.zeros((5, 5), bool))
