from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from modalign.data.labelled import LabelledImage
from modalign.deformation import DeformNetOptions
from modalign.errors import InvalidInputError, TrainingError
from modalign.geometry import DisplacementField, Grid, deformation
from modalign.image import Image, Labels
from modalign.registration import Deform, register
from modalign.training import DeformOptions, fit_deform
from modalign.training.deform_pairs import DeformPairs, centred

SMALL = DeformNetOptions((8, 12, 12, 12))
SHAPES = {2: (48, 52), 3: (20, 24, 22)}


def subject(ndim, seed, labels=True):
    """A bright blob of its own size and place."""
    grid = Grid(SHAPES[ndim])
    rng = np.random.default_rng(seed)
    away = np.linalg.norm((grid.points - grid.center - rng.uniform(-2, 2, ndim)) / np.array(grid.shape), axis=-1)
    inside = away < rng.uniform(0.2, 0.32)
    data = ndimage.gaussian_filter(inside.astype(np.float32), 1.0)[None]
    return LabelledImage(f"s{seed}", Image(data, grid), Labels(inside.astype(np.int32), grid) if labels else None)


OPTIONS = DeformOptions(
    steps=40, pairing="subjects", similarity="mse", network=SMALL, learning_rate=5e-3, validations=4, weight=0.01
)


@pytest.mark.parametrize("ndim", [2, 3])
def test_subjects_it_never_saw_come_closer(ndim, tmp_path):
    subjects = [subject(ndim, seed) for seed in range(10)]
    trained = fit_deform(subjects[:7], subjects[7:], OPTIONS)
    assert trained.learnt
    assert trained.fitted.score > trained.before + 0.03
    trained.model.save(tmp_path / "net")
    told = Deform("none", "mse", network=str(tmp_path / "net"), steps=0, check_back=False)
    fixed, moving = subjects[8], subjects[9]
    found = register(fixed.image, moving.image, told)
    assert deformation(found.candidate, fixed.image.grid).folded == 0
    left = [register(fixed.image, moving.image, replace(told, steps=steps)).stats["unlike_after"] for steps in (0, 20)]
    assert left[1] < left[0] < found.stats["unlike_before"]


def test_equal_images_are_not_bent(tmp_path):
    subjects = [subject(2, seed) for seed in range(4)]
    fit_deform(subjects, [], replace(OPTIONS, steps=5)).model.save(tmp_path / "net")
    one = subjects[0].image
    found = register(one, one, Deform("none", "mse", network=str(tmp_path / "net"), steps=0))
    assert not isinstance(found.candidate, DisplacementField)
    assert "there is nothing to bend" in found.reasons


def test_labels_of_training_pairs_help():
    subjects = [subject(2, seed) for seed in range(8)]
    noisy = [
        replace(one, image=one.image.with_data(np.random.default_rng(k).random((1, *SHAPES[2])).astype(np.float32)))
        for k, one in enumerate(subjects)
    ]
    blind, led = (
        fit_deform(noisy, [], replace(OPTIONS, steps=50, supervision=weight)).fitted.score for weight in (0.0, 5.0)
    )
    assert led > blind


def test_onto_an_atlas():
    subjects = [subject(2, seed) for seed in range(6)]
    options = replace(OPTIONS, pairing="atlas", steps=30)
    trained = fit_deform(subjects[1:5], subjects[5:], options, atlas=subjects[0])
    assert trained.model.card.training["atlas"] == "s0"
    assert trained.fitted.score > trained.before


def test_without_labels_the_loss_is_judged():
    subjects = [subject(2, seed, labels=False) for seed in range(6)]
    trained = fit_deform(subjects[:4], subjects[4:], replace(OPTIONS, steps=30))
    assert trained.learnt
    assert trained.before < trained.fitted.score < 0


class TestPairs:
    def stacks(self, count):
        return tuple(np.full((2, 8, 8), k, np.float32) for k in range(count))

    @pytest.mark.parametrize(("pairing", "away"), [("neighbours", 2), ("subjects", 8)])
    def test_who_is_paired_with_whom(self, pairing, away):
        pairs = DeformPairs(self.stacks(9), None, pairing, 2, 1)
        drawn = [pairs.draw(8, np.random.default_rng(k)) for k in range(200)]
        apart = np.array([abs(one[0, 0, 0] - other[0, 0, 0]) for one, other in drawn])
        assert apart.min() == 1
        assert apart.max() == away

    def test_an_atlas_is_always_the_fixed_one(self):
        pairs = DeformPairs(self.stacks(3), np.full((2, 8, 8), 7, np.float32), "atlas", 1, 1)
        assert all(pairs.draw(8, np.random.default_rng(k))[0].max() == 7 for k in range(5))

    def test_patches_of_a_pair_lie_on_each_other(self):
        ramp = np.arange(800, dtype=np.float32).reshape(2, 20, 20)
        pairs = DeformPairs((ramp, ramp + 1000), None, "subjects", 1, 1)
        one, other = pairs.draw(12, np.random.default_rng(0))
        assert one.shape == (2, 12, 12)
        assert len(np.unique(other - one)) == 1

    def test_other_sizes_meet_in_the_middle(self):
        stack = np.ones((2, 5, 6), np.float32)
        stack[0, 2, 3] = 2
        for shape in ((9, 4), (3, 8), (5, 6)):
            moved = centred(stack, shape, 1)
            assert moved.shape == (2, *shape)
            np.testing.assert_array_equal(np.argwhere(moved[0] == 2)[0], [n // 2 for n in shape])
            assert moved[0].min() == 1  # continued, not cut off by zeros
            assert moved[1].sum() == min(5, shape[0]) * min(6, shape[1])


class TestWrongInput:
    def test_pixel_sizes_in_several_units(self):
        one, other = subject(2, 0), subject(2, 1)
        grid = Grid(other.image.grid.shape, unit="millimeter")
        labels = Labels(other.labels.data, grid)
        with pytest.raises(TrainingError, match="unit of their pixels"):
            fit_deform([one, replace(other, image=other.image.with_grid(grid), labels=labels)], [], OPTIONS)

    def test_one_image(self):
        with pytest.raises(TrainingError, match="at least two"):
            fit_deform([subject(2, 0)], [], OPTIONS)

    def test_an_atlas_without_its_pairing(self):
        with pytest.raises(TrainingError, match="atlas"):
            fit_deform([subject(2, 0)] * 2, [], OPTIONS, atlas=subject(2, 1))
        with pytest.raises(TrainingError, match="atlas"):
            fit_deform([subject(2, 0)] * 2, [], replace(OPTIONS, pairing="atlas"))

    def test_supervision_without_labels(self):
        bare = [subject(2, seed, labels=False) for seed in range(2)]
        with pytest.raises(TrainingError, match="labels are missing: s0, s1"):
            fit_deform(bare, [], replace(OPTIONS, supervision=1.0))

    def test_several_forms(self):
        with pytest.raises(TrainingError, match="differ in channels, dimensions"):
            fit_deform([subject(2, 0), subject(3, 0)], [], OPTIONS)

    @pytest.mark.parametrize(
        "options",
        [
            {"reach": 0},
            {"batch": 0},
            {"patch": 8},
            {"weight": -1.0},
            {"features": "x"},
            {"similarity": "deepsim", "maps": (0,), "supervision": -1.0},
        ],
    )
    def test_wrong_options(self, options):
        with pytest.raises(InvalidInputError):
            DeformOptions(**options)

    def test_deepsim_needs_features(self):
        with pytest.raises(InvalidInputError, match="train features"):
            fit_deform([subject(2, 0)] * 2, [], replace(OPTIONS, similarity="deepsim"))
