import numpy as np
import pytest

from modalign.geometry import Grid, Rigid, identity
from modalign.image import Image, Labels
from modalign.report.outlines import LabelledPair, outlines_picture


def square(ndim, start, grid):
    data = np.zeros(grid.shape, np.int32)
    data[(slice(start, start + 10),) * ndim] = 3
    return Labels(data, grid)


@pytest.mark.parametrize("ndim", [2, 3])
class TestLabelledPair:
    def grid(self, ndim):
        return Grid((30,) * ndim, (0.5,) * ndim, unit="micrometer")

    def pair(self, ndim):
        """A square that lies 4 pixels further in the moving image."""
        grid = self.grid(ndim)
        shift = Rigid.about(grid.center, np.eye(ndim), np.full(ndim, 2.0))
        return LabelledPair.of(square(ndim, 8, grid), square(ndim, 12, grid), identity(ndim), shift)

    def test_agreement_before_and_after(self, ndim):
        agreement = self.pair(ndim).agreement
        assert agreement.dice == 1
        assert agreement.dice_before == pytest.approx(0.6**ndim)
        assert agreement.hausdorff95 == 0
        assert 1 < agreement.hausdorff95_before < 4

    def test_maps_without_a_common_label_have_no_distance(self, ndim):
        grid = self.grid(ndim)
        fixed = square(ndim, 8, grid)
        other = Labels(np.where(fixed.data > 0, 5, 0), grid)
        told = LabelledPair.of(fixed, other, identity(ndim), identity(ndim)).agreement.to_dict()
        assert told == {"dice_before": 0, "dice": 0, "hausdorff95_before": None, "hausdorff95": None}

    def test_without_a_transform_there_is_nothing_after(self, ndim):
        grid = self.grid(ndim)
        pair = LabelledPair.of(square(ndim, 8, grid), square(ndim, 12, grid), identity(ndim), None)
        told = pair.agreement.to_dict()
        assert told["dice_before"] == pytest.approx(0.6**ndim, abs=1e-4)
        assert told["dice"] is None
        assert told["hausdorff95"] is None
        image = Image(np.random.default_rng(0).random((1, *(30,) * ndim)).astype(np.float32), grid)
        assert outlines_picture(pair, image).startswith(b"\x89PNG")

    def test_there_is_a_picture(self, ndim):
        image = Image(np.random.default_rng(0).random((1, *(30,) * ndim)).astype(np.float32), self.grid(ndim))
        assert outlines_picture(self.pair(ndim), image).startswith(b"\x89PNG")


def test_many_labels_are_outlined_together():
    grid = Grid((20, 20))
    many = Labels(np.arange(400).reshape(20, 20), grid)
    image = Image(np.random.default_rng(0).random((3, 20, 20)).astype(np.float32), grid)
    pair = LabelledPair.of(many, many, identity(2), identity(2))
    assert outlines_picture(pair, image).startswith(b"\x89PNG")
