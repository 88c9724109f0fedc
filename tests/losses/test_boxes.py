import numpy as np
import pytest
import torch
from scipy import ndimage

from modalign.losses.boxes import box_mean, box_sum


def values(shape, channels=2):
    return torch.tensor(np.random.default_rng(0).standard_normal((1, channels, *shape)))


@pytest.mark.parametrize("shape", [(13,), (12, 7), (6, 9, 5), (1, 4)])
@pytest.mark.parametrize(("window", "step"), [(1, 1), (3, 1), (5, 2), (7, 3), (9, 2), (15, 4)])
class TestBoxes:
    def test_sums_are_those_of_scipy(self, shape, window, step):
        found = box_sum(values(shape), window, step)
        every = (slice(None, None, step),) * len(shape)
        for channel, ours in zip(values(shape)[0].numpy(), found[0].numpy(), strict=True):
            mean = ndimage.uniform_filter(channel, window, mode="constant")
            np.testing.assert_allclose(ours, mean[every] * window ** len(shape), atol=1e-9)

    def test_means_are_over_what_lies_inside(self, shape, window, step):
        ones = torch.ones(1, 1, *shape, dtype=torch.float64)
        expected = box_sum(values(shape), window, step) / box_sum(ones, window, step)
        torch.testing.assert_close(box_mean(values(shape), window, step), expected, atol=1e-6, rtol=1e-6)
        assert float(box_mean(ones, window, step).min()) == pytest.approx(1, abs=1e-6)

    def test_the_way_back_is_the_adjoint(self, shape, window, step):
        inputs = values(shape).requires_grad_()
        assert torch.autograd.gradcheck(lambda v: box_sum(v, window, step), (inputs,))


def test_a_constant_stays_itself_and_keeps_its_type():
    for dtype in (torch.float32, torch.float64):
        found = box_mean(torch.full((1, 1, 8, 9), 3.0, dtype=dtype), 5)
        assert found.dtype == dtype
        torch.testing.assert_close(found, torch.full_like(found, 3.0))
