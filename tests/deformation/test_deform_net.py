import numpy as np
import pytest
import torch

from modalign.deformation import DeformCard, DeformModel, DeformNet, DeformNetOptions, load_deform_model
from modalign.errors import InvalidInputError, ModelError

SMALL = DeformNetOptions((4, 6, 6, 6))


def network(ndim, channels=1):
    torch.manual_seed(0)
    made = DeformNet(SMALL, ndim, channels)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return made


def model(ndim=2, pixel_size=1.5):
    return DeformModel(DeformCard(ndim, 1, SMALL, pixel_size, "micrometer", {"learnt": True}), network(ndim))


@pytest.mark.parametrize("ndim", [2, 3])
class TestDeformNet:
    def test_images_of_any_size(self, ndim):
        shape = (19, 22, 13)[:ndim]
        images = torch.rand(2, 1, 2, *shape)
        assert network(ndim, 2)(*images).shape == (1, ndim, *shape)

    def test_equal_images_have_no_velocity(self, ndim):
        image = torch.rand(1, 1, *(16,) * ndim)
        assert float(network(ndim)(image, image).detach().abs().max()) == 0

    def test_exchanged_images_have_the_opposite_velocity(self, ndim):
        made, (one, other) = network(ndim), torch.rand(2, 1, 1, *(16,) * ndim)
        there = made(one, other)
        assert float(there.detach().abs().max()) > 1e-3
        torch.testing.assert_close(made(other, one), -there)

    def test_a_new_one_hardly_deforms(self, ndim):
        fresh = DeformNet(SMALL, ndim, 1)
        assert float(fresh(*torch.rand(2, 1, 1, *(16,) * ndim)).detach().abs().max()) < 0.05


class TestDeformModel:
    def test_a_saved_model_says_the_same(self, tmp_path):
        saved = model()
        saved.save(tmp_path / "net")
        loaded = load_deform_model(tmp_path / "net")
        assert loaded.card == saved.card
        images = torch.rand(2, 1, 1, 16, 16)
        torch.testing.assert_close(loaded.network(*images), saved.network(*images))

    def test_other_images_are_refused(self):
        with pytest.raises(InvalidInputError, match="2D images with 1 channel; what is compared is 3D with 1"):
            model().check(1, 3)

    def test_pixel_sizes_in_other_units(self):
        card = model(pixel_size=1.5).card
        assert card.pixel_size_in("micrometer") == 1.5
        assert card.pixel_size_in("millimeter") == pytest.approx(0.0015)
        assert card.pixel_size_in("pixel") is None

    @pytest.mark.parametrize(
        "damage", ["no folder", "no weights", "other weights", "other method", "newer", "no json", "half"]
    )
    def test_damaged_folders_are_refused(self, tmp_path, damage):
        folder = tmp_path / "net"
        if damage != "no folder":
            model().save(folder)
        card = folder / "model.json"
        if damage == "no weights":
            (folder / "network.safetensors").unlink()
        if damage == "other weights":
            card.write_text(card.read_text().replace('"widths": [', '"widths": [\n8, 8, '))
        if damage == "other method":
            card.write_text(card.read_text().replace('"deform"', '"features"'))
        if damage == "newer":
            card.write_text(card.read_text().replace('"version": 1', '"version": 99'))
        if damage == "no json":
            card.write_text("{")
        if damage == "half":
            card.write_text(card.read_text().replace('"ndim"', '"dimensions"'))
        with pytest.raises(ModelError, match="net"):
            DeformModel.load(folder)

    def test_a_folder_that_changes_is_read_again(self, tmp_path):
        first = model()
        first.save(tmp_path / "net")
        assert load_deform_model(tmp_path / "net") is load_deform_model(tmp_path / "net")
        model(pixel_size=3.0).save(tmp_path / "net")
        assert load_deform_model(tmp_path / "net").card.pixel_size == 3.0


def test_widths_come_in_pairs():
    with pytest.raises(InvalidInputError, match="pairs"):
        DeformNetOptions((4, 6, 6))


def test_weights_are_not_changed_by_loading(tmp_path):
    model().save(tmp_path / "net")
    loaded = DeformModel.load(tmp_path / "net").network
    assert not any(weight.requires_grad for weight in loaded.parameters())
    assert all(np.isfinite(weight.numpy()).all() for weight in loaded.parameters())
