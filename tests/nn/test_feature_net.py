import numpy as np
import pytest
import torch

from modalign.errors import InvalidInputError
from modalign.nn.feature_net import FeatureNet, FeatureNetOptions, FrozenExtractor


@pytest.mark.parametrize("ndim", [2, 3])
class TestFeatureNet:
    def test_maps_cover_the_field_of_view_at_half_the_resolution_each(self, ndim):
        extractor = FrozenExtractor(FeatureNet(FeatureNetOptions((4, 6)), ndim, 1, 3, has_skips=False))
        maps = extractor(torch.rand(1, 1, *(22, 17, 13)[:ndim]))
        assert [tuple(m.shape[1:]) for m in maps] == [(4, *(12, 10, 8)[:ndim]), (6, *(6, 5, 4)[:ndim])]

    def test_a_segmentation_adds_the_probabilities_of_its_classes(self, ndim):
        extractor = FrozenExtractor(FeatureNet(FeatureNetOptions((4, 6)), ndim, 2, 3, has_skips=True))
        *_, chances = extractor(torch.rand(1, 2, *(16,) * ndim))
        np.testing.assert_allclose(chances.sum(1).numpy(), 1, atol=1e-5)
        assert chances.shape == (1, 3, *(16,) * ndim)

    def test_an_auto_encoder_sees_nothing_but_its_deepest_map(self, ndim):
        torch.manual_seed(0)
        network = FeatureNet(FeatureNetOptions((4, 6)), ndim, 1, 1, has_skips=False).eval()
        image = torch.rand(1, 1, *(16,) * ndim)
        kept = network.encoder[-1].register_forward_hook(lambda _m, _i, out: torch.zeros_like(out))
        blind = network(image), network(torch.rand_like(image))
        kept.remove()
        torch.testing.assert_close(*blind)
        assert not torch.allclose(network(image), network(torch.rand_like(image)))

    def test_the_gradient_reaches_the_image_and_no_weight(self, ndim):
        extractor = FrozenExtractor(FeatureNet(FeatureNetOptions((4,)), ndim, 1, 2, has_skips=True))
        image = torch.rand(1, 1, *(8,) * ndim, requires_grad=True)
        sum(m.square().sum() for m in extractor(image)).backward()
        assert image.grad.abs().sum() > 0
        assert all(weight.grad is None for weight in extractor.network.parameters())

    def test_other_images_are_refused(self, ndim):
        extractor = FrozenExtractor(FeatureNet(FeatureNetOptions((4,)), ndim, 2, 2, has_skips=True))
        with pytest.raises(InvalidInputError, match=f"{ndim}D images with 2 channels; what is compared is {ndim}D"):
            extractor(torch.rand(1, 1, *(8,) * ndim))
        with pytest.raises(InvalidInputError, match=f"what is compared is {5 - ndim}D"):
            extractor(torch.rand(1, 2, *(8,) * (5 - ndim)))


def test_widths_are_positive():
    with pytest.raises(InvalidInputError, match="positive"):
        FeatureNetOptions((4, 0))
