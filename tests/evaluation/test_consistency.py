import numpy as np
import pytest

from modalign.evaluation.consistency import inverse_consistency
from modalign.geometry import DisplacementField, Grid, Rigid, rotation_matrix


@pytest.mark.parametrize("ndim", [2, 3])
class TestInverseConsistency:
    def grids(self, ndim):
        return Grid((14, 12, 10)[:ndim], (0.5, 1.0, 2.0)[:ndim], (3.0,) * ndim), Grid((16,) * ndim, (1.0,) * ndim)

    def test_a_transform_and_its_inverse_agree(self, ndim):
        fixed, moving = self.grids(ndim)
        found = Rigid.about(fixed.center, rotation_matrix(ndim, 20), moving.center - fixed.center)
        assert inverse_consistency(found, found.inverse(), fixed, moving) < 1e-9

    def test_what_is_missed_is_told_in_world_units(self, ndim):
        grid = Grid((40,) * ndim, (0.5,) * ndim)
        there, back = (Rigid(tuple(map(tuple, np.eye(ndim))), (d, *(0.0,) * (ndim - 1))) for d in (1.0, -1.25))
        assert inverse_consistency(there, back, grid, grid) == pytest.approx(0.25)

    def test_a_field_and_its_inverse_agree(self, ndim):
        grid = Grid((20,) * ndim, (0.8,) * ndim)
        field = DisplacementField(0.5 * np.sin(np.moveaxis(grid.points, -1, 0) / 2).astype(np.float32), grid)
        assert inverse_consistency(field, field.inverse(), grid, grid) < 2e-3

    def test_nothing_in_common(self, ndim):
        grid = Grid((5,) * ndim)
        away = Rigid(tuple(map(tuple, np.eye(ndim))), (100.0,) * ndim)
        assert np.isnan(inverse_consistency(away, away.inverse(), grid, grid))
