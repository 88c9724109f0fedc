"""What is peculiar to SIFT: the three transform models, masks, and honest failures."""

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import Affine, Grid, Rigid, Similarity, as_rows, corner_error, identity, rotation_matrix
from modalign.image import Image
from modalign.registration import Sift
from modalign.registration.sift import verdict
from modalign.testing.registration import known_pair, textured_scene

GRID = Grid((150, 180), (0.9, 0.7), (-60.0, -60.0))
AFFINE = np.array([[0.95, -0.32, 3.0], [0.38, 1.05, -2.0], [0.0, 0.0, 1.0]])
TRUTHS = {
    "rigid": Rigid(as_rows(rotation_matrix(2, 33)), (3.0, -2.0)),
    "similarity": Similarity(as_rows(rotation_matrix(2, -50)), 1.15, (3.0, -2.0)),
    "affine": Affine.from_matrix(AFFINE),
}


def seen(truth, seed=0):
    scene = textured_scene(2, seed)
    return scene.resampled(GRID, identity(2), order=3), scene.resampled(GRID, truth.inverse(), order=3)


@pytest.mark.parametrize("model", TRUTHS)
def test_each_model_is_recovered_in_world_units(model):
    truth = TRUTHS[model]
    fixed, moving = seen(truth)
    result = Sift(transform=model).register(fixed, moving)
    assert result.status == "accepted"
    assert type(result.fixed_to_moving) is type(truth)
    assert corner_error(GRID, result.fixed_to_moving, truth) < 0.3 * 0.9


def test_key_points_carry_no_systematic_shift():
    """A half turn doubles any constant offset of the key points: it must stay far below the quarter pixel of OpenCV."""
    truth = Rigid.about(GRID.center, rotation_matrix(2, 180), np.zeros(2))
    fixed, moving = seen(truth)
    assert corner_error(GRID, Sift().register(fixed, moving).fixed_to_moving, truth) < 0.05


def test_channels_of_a_representation_are_projected_together():
    one, other = seen(TRUTHS["rigid"], 0), seen(TRUTHS["rigid"], 1)
    mix = np.array([[1.0, 0.2], [-0.7, 0.4], [0.3, -0.5], [0.9, 0.1]], dtype=np.float32)
    fixed, moving = (
        Image(np.tensordot(mix, np.concatenate([a.data, b.data]), 1), GRID) for a, b in zip(one, other, strict=True)
    )
    assert corner_error(GRID, Sift().register(fixed, moving).fixed_to_moving, TRUTHS["rigid"]) < 0.3


def test_different_channels_are_compared_in_gray():
    fixed, moving = seen(TRUTHS["rigid"])
    color = Image(np.repeat(np.clip(fixed.data, 0, 255), 3, 0).astype(np.uint8), GRID, ("red", "green", "blue"))
    assert corner_error(GRID, Sift().register(color, moving).fixed_to_moving, TRUTHS["rigid"]) < 0.3


def test_masks_with_ragged_borders_do_not_attract_key_points():
    """Both images carry the same mask at the same pixels: key points on its border would vote for the identity."""
    fixed, moving = seen(TRUTHS["rigid"])
    mask = np.random.default_rng(3).random((10, 12)) < 0.8
    mask = np.kron(mask, np.ones((15, 15), dtype=bool))
    masked = [Image(np.where(mask, image.data, -1e4), GRID, (), mask) for image in (fixed, moving)]
    result = Sift().register(*masked)
    assert corner_error(GRID, result.fixed_to_moving, TRUTHS["rigid"]) < 0.3


def test_images_without_detail_are_refused_with_advice():
    ramp = Image(np.linspace(0, 1, 64 * 64).reshape(1, 64, 64), Grid((64, 64)))
    result = Sift().register(ramp, ramp)
    assert result.status == "refused"
    assert "key points" in result.reasons[0]


def test_unrelated_images_are_refused_with_advice():
    fixed, *_ = known_pair(2, seed=0)
    _, moving, _ = known_pair(2, seed=7)
    result = Sift().register(fixed, moving)
    assert result.status == "refused"
    assert "representation" in result.reasons[0]


def test_few_or_huddled_inliers_leave_doubt():
    good = {"key_points_fixed": 500.0, "key_points_moving": 500.0, "matches": 60.0, "inliers": 40.0}
    good |= {"inlier_ratio": 0.67, "spread": 0.3}
    assert verdict(good)[0] == "accepted"
    assert verdict(good | {"inliers": 9.0})[0] == "unsure"
    assert verdict(good | {"inlier_ratio": 0.02})[0] == "unsure"
    assert verdict(good | {"spread": 0.01})[0] == "unsure"
    assert verdict(good | {"inliers": 5.0})[0] == "refused"


@pytest.mark.parametrize("options", [{"features": 1}, {"ratio": 0.0}, {"inlier_distance_pixels": 0.0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        Sift(**options)
