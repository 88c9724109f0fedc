"""What is peculiar to mutual information: modalities need not look alike, and only near starts are found."""

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import corner_error
from modalign.registration import MutualInformation
from modalign.testing.registration import known_pair


def other_modality(image):
    """A non-monotone map of the intensities, inverted in the main."""
    values = (image.data - image.data.mean()) / image.data.std()
    return image.with_data((50 - 10 * values + 12 * np.cos(2 * values)).astype(np.float32))


def test_a_pair_with_inverted_contrast_is_registered():
    fixed, moving, truth = known_pair(2, -12.0, 0.06, feature=5.0)
    result = MutualInformation().register(fixed, other_modality(moving))
    assert corner_error(fixed.grid, result.fixed_to_moving, truth) < 0.2 * 0.9


def test_a_start_near_the_truth_widens_the_reach():
    fixed, moving, truth = known_pair(2, 80.0, 0.02, feature=5.0)
    near = MutualInformation(start_rotations_degrees=(75.0,)).register(fixed, moving)
    far = MutualInformation().register(fixed, moving)
    assert corner_error(fixed.grid, near.fixed_to_moving, truth) < 0.2 * 0.9
    assert far.status != "accepted"


def test_the_seed_draws_other_samples_but_finds_the_same_place():
    fixed, moving, _ = known_pair(2)
    first, second = (MutualInformation(samples=5000, seed=seed).register(fixed, moving) for seed in (0, 1))
    assert first.fixed_to_moving != second.fixed_to_moving
    assert corner_error(fixed.grid, first.fixed_to_moving, second.fixed_to_moving) < 0.2 * 0.9


def test_images_that_share_nothing_are_refused():
    fixed, moving, _ = known_pair(2)
    noise = moving.with_data(np.random.default_rng(1).random(moving.data.shape))
    result = MutualInformation().register(fixed, noise)
    assert result.status == "refused"
    assert "intensities" in result.reasons[0]


@pytest.mark.parametrize("options", [{"start_rotations_degrees": ()}, {"bins": 2}, {"samples": 10}])
def test_impossible_options_are_refused(options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        MutualInformation(**options)
