import numpy as np
import pytest
import torch
from scipy import ndimage

from modalign.data.labelled import LabelledImage
from modalign.errors import InvalidInputError, ModelError, TrainingError
from modalign.geometry import Grid
from modalign.image import Image, Labels
from modalign.losses import DeepSim, unlikeness
from modalign.nn.feature_net import FeatureNetOptions
from modalign.representation import FeatureModel, load_extractor
from modalign.training import FeatureOptions, fit_features

SMALL = FeatureNetOptions((8, 12))
SHAPES = {2: (72, 64), 3: (24, 26, 28)}


def tissue(ndim, seed, labels=True):
    """Texture of two kinds, and which is where."""
    rng, shape = np.random.default_rng(seed), SHAPES[ndim]
    where = ndimage.gaussian_filter(rng.standard_normal(shape), 5) > 0
    fine, smooth = rng.standard_normal(shape), ndimage.gaussian_filter(rng.standard_normal(shape), 2) * 4
    data = np.where(where, 1.5 + 0.5 * fine, smooth).astype(np.float32)[None]
    grid = Grid(shape)
    return LabelledImage(f"t{seed}", Image(data, grid), Labels(where.astype(np.int32), grid) if labels else None)


@pytest.mark.parametrize("ndim", [2, 3])
def test_what_is_where_is_learnt(ndim):
    images = [tissue(ndim, seed) for seed in range(4)]
    options = FeatureOptions(steps=30, patch=24, batch=4, network=SMALL, learning_rate=5e-3, validations=2)
    trained = fit_features(images[:3], images[3:], options)
    assert trained.learnt
    assert trained.fitted.score > 0.7
    assert trained.model.card.task == "segmentation"
    assert trained.model.card.training["validation_images"] == ["t3"]


def test_an_auto_encoder_reproduces_what_it_never_saw():
    images = [tissue(2, seed, labels=False) for seed in range(4)]
    options = FeatureOptions(steps=80, patch=32, batch=4, network=SMALL, learning_rate=1e-2, validations=4, noise=0.1)
    trained = fit_features(images[:3], images[3:], options)
    assert trained.model.card.task == "autoencoder"
    assert trained.learnt
    assert trained.fitted.score > 0.3


def test_too_little_training_is_told():
    images = [tissue(2, seed) for seed in range(2)]
    trained = fit_features(images, [], FeatureOptions(steps=1, patch=16, batch=1, network=SMALL))
    assert not trained.learnt
    assert "Train longer, or check that the labels" in trained.message
    assert trained.model.card.training["validated_on_training_images"]


def test_one_class_everywhere_is_nothing_learnt():
    """However large the share of that class: what counts is how far beyond it the network came."""
    images = [tissue(2, seed) for seed in range(3)]
    mostly = [
        LabelledImage(
            one.name,
            one.image,
            Labels(np.maximum(one.labels.data, np.indices(one.labels.data.shape)[0] > 8), one.image.grid),
        )
        for one in images
    ]
    trained = fit_features(mostly, [], FeatureOptions(steps=2, patch=24, batch=4, network=SMALL))
    assert "by chance 0.9" in trained.message
    assert not trained.learnt


def test_channels_of_different_brightness_are_not_reproduced_by_their_means():
    """Nor do pixels count that are not valid."""
    rng = np.random.default_rng(0)
    data = (100 * np.arange(3)[:, None, None] + rng.random((3, 64, 64))).astype(np.float32)
    valid = np.ones((64, 64), bool)
    valid[:, 32:] = False
    image = LabelledImage("a", Image(data, Grid((64, 64)), mask=valid))
    trained = fit_features([image], [], FeatureOptions(steps=2, patch=32, batch=4, network=SMALL))
    assert not trained.learnt
    assert trained.fitted.score < 0.1


def test_patches_are_no_larger_than_the_images():
    trained = fit_features([tissue(2, 0)], [], FeatureOptions(steps=1, patch=4000, batch=1, network=SMALL))
    assert trained.fitted.steps == 1
    without = fit_features([tissue(2, 0)], [], FeatureOptions(steps=1, patch=72, batch=1, network=SMALL))
    assert trained.fitted.loss == without.fitted.loss


class TestInterruption:
    OPTIONS = FeatureOptions(steps=6, patch=16, batch=2, network=SMALL, validations=2)

    def interrupted(self, folder, after=3):
        def stop(now):
            if now.step == after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit_features([tissue(2, 0)], [], self.OPTIONS, checkpoint=folder, report=stop)

    def test_going_on_gives_the_very_same_network(self, tmp_path):
        self.interrupted(tmp_path / "state")
        resumed = fit_features([tissue(2, 0)], [], self.OPTIONS, checkpoint=tmp_path / "state", resume=True)
        whole = fit_features([tissue(2, 0)], [], self.OPTIONS)
        for one, other in zip(resumed.model.network.parameters(), whole.model.network.parameters(), strict=True):
            torch.testing.assert_close(one, other)

    def test_other_data_cannot_go_on(self, tmp_path):
        self.interrupted(tmp_path / "state")
        with pytest.raises(TrainingError, match=r"other settings \(images\)"):
            fit_features([tissue(2, 1)], [], self.OPTIONS, checkpoint=tmp_path / "state", resume=True)


class TestSaved:
    def test_an_extractor_says_the_same_after_saving(self, tmp_path):
        trained = fit_features([tissue(2, 0)], [], FeatureOptions(steps=2, patch=16, batch=1, network=SMALL)).model
        trained.save(tmp_path / "model")
        image = torch.rand(1, 1, 20, 20)
        for one, other in zip(load_extractor(tmp_path / "model")(image), trained.extractor()(image), strict=True):
            torch.testing.assert_close(one, other)

    def test_it_makes_a_similarity(self):
        images = [tissue(2, seed) for seed in range(3)]
        model = fit_features(images, [], FeatureOptions(steps=5, patch=16, batch=2, network=SMALL)).model
        seen = torch.rand(1, 1, 32, 32)
        assert float(unlikeness(DeepSim(model.extractor()), seen, seen)) == pytest.approx(0, abs=1e-5)
        assert float(unlikeness(DeepSim(model.extractor()), seen.roll(5, -1), seen)) > 1e-3

    def test_what_is_no_extractor_is_refused(self, tmp_path):
        with pytest.raises(ModelError, match=r"not a model folder.*train features"):
            FeatureModel.load(tmp_path)


class TestBadInput:
    def test_no_images(self):
        with pytest.raises(TrainingError, match="no image"):
            fit_features([], [], FeatureOptions(steps=1))

    def test_labels_of_some_only(self):
        with pytest.raises(TrainingError, match="without labels among labelled ones: t1"):
            fit_features([tissue(2, 0), tissue(2, 1, labels=False)], [], FeatureOptions(steps=1))

    def test_images_of_several_forms(self):
        with pytest.raises(TrainingError, match="differ in channels and dimensions"):
            fit_features([tissue(2, 0), tissue(3, 1)], [], FeatureOptions(steps=1))

    def test_labels_that_do_not_fit(self):
        one = tissue(2, 0)
        with pytest.raises(InvalidInputError, match="must lie on each other"):
            LabelledImage("a", one.image, Labels(np.ones((5, 5), int), Grid((5, 5))))

    @pytest.mark.parametrize(
        "options",
        [{"batch": 0}, {"noise": -1.0}, {"patch": 4}, {"learning_rate": 0.0}, {"validations": 0}, {"steps": 0}],
    )
    def test_options_out_of_range(self, options):
        with pytest.raises(InvalidInputError):
            FeatureOptions(**options)

    def test_a_device_that_is_not_there(self):
        with pytest.raises(TrainingError, match="cannot train on 'cuda:99'"):
            fit_features([tissue(2, 0)], [], FeatureOptions(steps=1, accelerator="cuda:99"))
