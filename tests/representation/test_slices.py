"""A volume slice by slice is the stack of its slices."""

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import Grid, as_rows, rotation_matrix
from modalign.image import Image
from modalign.representation.handmade import GradientMagnitude
from modalign.representation.slices import SliceWise


def test_every_slice_is_encoded_by_itself_on_the_grid_of_the_volume():
    rng = np.random.default_rng(0)
    grid = Grid((5, 20, 24), (3.0, 0.5, 0.5), (1.0, 2.0, 3.0), as_rows(rotation_matrix(3, 30.0)), "millimeter")
    mask = rng.random(grid.shape) < 0.9
    volume = Image(rng.random((2, *grid.shape), dtype=np.float32), grid, ("a", "b"), mask)
    encoded = SliceWise(GradientMagnitude()).encode(volume)
    assert encoded.grid == grid
    np.testing.assert_array_equal(encoded.mask, mask)
    plane = Grid((20, 24), (0.5, 0.5), unit="millimeter")
    for k in range(5):
        alone = GradientMagnitude().encode(Image(volume.data[:, k], plane, ("a", "b")))
        np.testing.assert_array_equal(encoded.data[:, k], alone.data)


def test_an_image_has_no_slices():
    with pytest.raises(InvalidInputError, match="no slices"):
        SliceWise(GradientMagnitude()).encode(Image(np.zeros((1, 9, 9)), Grid((9, 9))))
