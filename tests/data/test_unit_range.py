import numpy as np
import pytest

from modalign.data.unit_range import in_unit_range, nearest_filled, unit_range
from modalign.geometry import Grid
from modalign.image import Image


def ramp(ndim, valid=None):
    shape = (9, 8, 7)[:ndim]
    data = np.indices(shape).sum(0).astype(np.float32)[None]
    return Image(data, Grid(shape), mask=valid)


@pytest.mark.parametrize("ndim", [2, 3])
class TestUnitRange:
    def test_valid_intensities_run_from_0_to_1(self, ndim):
        image = ramp(ndim)
        unit = in_unit_range(image, unit_range(image))
        assert unit.min() == 0
        assert unit.max() == 1
        assert unit.dtype == np.float32

    def test_what_is_not_valid_has_the_nearest_valid_value(self, ndim):
        valid = np.ones(ramp(ndim).grid.shape, bool)
        valid[4:] = False
        data = ramp(ndim).data.copy()
        data[:, ~valid] = np.nan
        image = Image(data, ramp(ndim).grid, mask=valid)
        filled = nearest_filled(image).data
        np.testing.assert_array_equal(filled[0, 4:], np.broadcast_to(filled[0, 3], filled[0, 4:].shape))
        np.testing.assert_array_equal(filled[0, :4], data[0, :4])
        assert np.isfinite(in_unit_range(image, unit_range(image))).all()

    def test_without_gaps_nothing_changes(self, ndim):
        image = ramp(ndim)
        assert nearest_filled(image) is image
