"""What is peculiar to key points: detectors, presets, transform models, masks, and honest failures."""

from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import Affine, Grid, Rigid, Similarity, as_rows, corner_error, identity, rotation_matrix
from modalign.image import Image
from modalign.local_features.key_points import available_detectors
from modalign.registration.features import PRESETS, Features, verdict
from modalign.testing.registration import known_pair, textured_scene

GRID = Grid((150, 180), (0.9, 0.7), (-60.0, -60.0))
AFFINE = np.array([[0.95, -0.32, 3.0], [0.38, 1.05, -2.0], [0.0, 0.0, 1.0]])
TRUTHS = {
    "rigid": Rigid(as_rows(rotation_matrix(2, 33)), (3.0, -2.0)),
    "similarity": Similarity(as_rows(rotation_matrix(2, -50)), 1.15, (3.0, -2.0)),
    "affine": Affine.from_matrix(AFFINE),
}
GOOD = {"key_points_fixed": 500.0, "key_points_moving": 500.0, "matches": 60.0, "inliers": 40.0, "inlier_ratio": 0.67}
GOOD |= {"spread": 0.3, "runner_up_support": 2.0, "support": 50.0, "chance_inliers": 0.1}


def seen(truth, seed=0):
    scene = textured_scene(2, seed)
    return scene.resampled(GRID, identity(2), order=3), scene.resampled(GRID, truth.inverse(), order=3)


@pytest.mark.parametrize("model", TRUTHS)
def test_each_model_is_recovered_in_world_units(model):
    truth = TRUTHS[model]
    fixed, moving = seen(truth)
    result = Features(transform=model).register(fixed, moving)
    assert result.status == "accepted"
    assert type(result.fixed_to_moving) is type(truth)
    assert corner_error(GRID, result.fixed_to_moving, truth) < 0.3 * 0.9


@pytest.mark.parametrize("detector", available_detectors())
def test_every_detector_finds_any_rotation(detector):
    truth = Rigid.about(GRID.center, rotation_matrix(2, -125.0), np.array([4.0, -6.0]))
    result = Features(detector=detector, features=1500).register(*seen(truth))
    assert result.status == "accepted"
    assert corner_error(GRID, result.fixed_to_moving, truth) < 0.5


@pytest.mark.parametrize(("detector", "limit"), [("sift", 0.05), ("orb", 0.2)])
def test_key_points_carry_no_systematic_shift(detector, limit):
    """A half turn doubles any constant offset of the key points: SIFT in OpenCV has a quarter pixel, ORB up to one."""
    truth = Rigid.about(GRID.center, rotation_matrix(2, 180), np.zeros(2))
    found = Features(detector=detector).register(*seen(truth)).fixed_to_moving
    assert corner_error(GRID, found, truth) < limit


def test_a_detector_that_opencv_lacks_is_named(monkeypatch):
    """Releases from 5.0 on have AKAZE in the extra modules only."""
    monkeypatch.delattr(cv2, "AKAZE_create", raising=False)
    monkeypatch.delattr(cv2, "xfeatures2d", raising=False)
    with pytest.raises(InvalidInputError, match=r"no AKAZE; it has sift, asift, orb"):
        Features(detector="akaze").register(*seen(TRUTHS["rigid"]))


def test_a_detector_of_the_extra_modules_is_found(monkeypatch):
    extra = type("xfeatures2d", (), {"KAZE_create": staticmethod(lambda threshold: cv2.SIFT_create(3000))})
    monkeypatch.delattr(cv2, "KAZE_create", raising=False)
    monkeypatch.setattr(cv2, "xfeatures2d", extra, raising=False)
    assert "kaze" in available_detectors()
    assert Features(detector="kaze").register(*seen(TRUTHS["rigid"])).status == "accepted"


def test_a_mirrored_image_is_found_where_wanted():
    turn = rotation_matrix(2, 140) * [1, -1]
    truth = Rigid.about(GRID.center, turn, np.array([3.0, 5.0]))
    fixed, moving = seen(truth)
    assert Features().register(fixed, moving).status == "refused"
    result = Features(mirror=True).register(fixed, moving)
    assert result.stats["mirrored"] == 1
    assert corner_error(GRID, result.fixed_to_moving, truth) < 0.1


@pytest.mark.parametrize("detector", ["sift", "orb"])
def test_an_inverted_image_is_found_where_wanted(detector):
    fixed, moving = seen(TRUTHS["rigid"])
    negative = moving.with_data(-moving.data)
    assert Features(detector=detector).register(fixed, negative).status != "accepted"
    result = Features(detector=detector, inverted=True).register(fixed, negative)
    assert result.status == "accepted"
    assert corner_error(GRID, result.fixed_to_moving, TRUTHS["rigid"]) < 0.3


def test_world_axes_of_another_handedness_are_no_mirror():
    """The moving file stores its columns from right to left: the world, and the transform, stay as they were."""
    fixed, moving = seen(TRUTHS["rigid"])
    last = moving.grid.index_to_world(np.array([[0.0, GRID.shape[1] - 1.0]]))[0]
    turned = Grid(GRID.shape, GRID.spacing, tuple(last), ((1.0, 0.0), (0.0, -1.0)))
    flipped = Image(moving.data[..., ::-1].copy(), turned)
    result = Features().register(fixed, flipped)
    assert corner_error(GRID, result.fixed_to_moving, TRUTHS["rigid"]) < 0.1


@pytest.mark.parametrize("preset", ["sift-fiji", "sift-multiregeval"])
def test_published_settings_register_and_can_be_saved(preset):
    fixed, moving = seen(TRUTHS["rigid"])
    options = PRESETS[preset]
    result = options.register(fixed, moving)
    assert result.fixed_to_moving is not None
    assert corner_error(GRID, result.fixed_to_moving, TRUTHS["rigid"]) < options.inlier_distance_pixels / 4
    assert Features(**asdict(options)) == options


def test_presets_differ_from_the_defaults():
    assert PRESETS["sift"] == Features()
    assert len(set(PRESETS.values())) == len(PRESETS)


def test_octaves_outside_the_bounds_are_not_used():
    """Of an image of 150 × 180 pixels, octaves of 128 to 1024 pixels are the doubled one and the image itself."""
    fixed, moving = seen(TRUTHS["rigid"])
    points = [
        Features(octave_sides=sides).register(fixed, moving).stats["key_points_fixed"]
        for sides in ((0, 10**6), (250, 1024), (100, 200), (0, 100))
    ]
    assert points[0] == sum(points[1:])
    assert min(points) > 0


def test_channels_of_a_representation_are_projected_together():
    one, other = seen(TRUTHS["rigid"], 0), seen(TRUTHS["rigid"], 1)
    mix = np.array([[1.0, 0.2], [-0.7, 0.4], [0.3, -0.5], [0.9, 0.1]], dtype=np.float32)
    fixed, moving = (
        Image(np.tensordot(mix, np.concatenate([a.data, b.data]), 1), GRID) for a, b in zip(one, other, strict=True)
    )
    assert corner_error(GRID, Features().register(fixed, moving).fixed_to_moving, TRUTHS["rigid"]) < 0.3


def test_different_channels_are_compared_in_gray():
    fixed, moving = seen(TRUTHS["rigid"])
    color = Image(np.repeat(np.clip(fixed.data, 0, 255), 3, 0).astype(np.uint8), GRID, ("red", "green", "blue"))
    assert corner_error(GRID, Features().register(color, moving).fixed_to_moving, TRUTHS["rigid"]) < 0.3


@pytest.mark.parametrize("mirror", [False, True])
def test_masks_with_ragged_borders_do_not_attract_key_points(mirror):
    """Both images carry the same mask at the same pixels: key points on its border would vote for the identity."""
    fixed, moving = seen(TRUTHS["rigid"])
    mask = np.random.default_rng(3).random((10, 12)) < 0.8
    mask = np.kron(mask, np.ones((15, 15), dtype=bool))
    masked = [Image(np.where(mask, image.data, -1e4), GRID, (), mask) for image in (fixed, moving)]
    result = Features(mirror=mirror).register(*masked)
    assert corner_error(GRID, result.fixed_to_moving, TRUTHS["rigid"]) < 0.3


def test_images_without_detail_are_refused_with_advice():
    ramp = Image(np.linspace(0, 1, 64 * 64).reshape(1, 64, 64), Grid((64, 64)))
    result = Features().register(ramp, ramp)
    assert result.status == "refused"
    assert "key points" in result.reasons[0]


def test_unrelated_images_are_refused_with_advice():
    fixed, *_ = known_pair(2, seed=0)
    _, moving, _ = known_pair(2, seed=7)
    result = Features().register(fixed, moving)
    assert result.status == "refused"
    assert "representation" in result.reasons[0]


def test_a_refused_transform_is_kept_for_looking_at():
    fixed, moving = seen(TRUTHS["rigid"])
    result = Features(least_inlier_ratio=0.9999, inlier_distance_pixels=0.05).register(fixed, moving)
    assert result.status == "refused"
    assert corner_error(GRID, result.rejected, TRUTHS["rigid"]) < 0.3


def test_a_scene_that_shows_twice_leaves_doubt():
    """The same tile twice in the fixed image: both places explain the moving one."""
    tile = textured_scene(2).data[:, :110, :110]
    fixed = Image(np.concatenate([tile, tile], axis=2), Grid((110, 220)))
    result = Features(features=600).register(fixed, Image(tile, Grid((110, 110))))
    assert result.status != "accepted"


@pytest.mark.parametrize(("side", "period", "noise"), [(150, 20, 0.0), (150, 9, 0.02), (200, 30, 0.1)])
def test_no_repeating_texture_is_accepted(side, period, noise):
    """Even where the noiseless border gives the right repeat away."""
    wave = np.cos(np.arange(side) * 2 * np.pi / period)
    waves, rng = np.outer(wave, wave), np.random.default_rng(0)
    fixed, moving = (
        Image((image + noise * rng.standard_normal(waves.shape))[None].astype(np.float32), Grid(waves.shape))
        for image in (waves, np.roll(waves, 3, axis=-1))
    )
    assert Features().register(fixed, moving).status != "accepted"


def test_few_or_huddled_inliers_or_a_rival_leave_doubt():
    options = Features()
    assert verdict(GOOD, options)[0] == "accepted"
    assert verdict(GOOD | {"inliers": 9.0}, options)[0] == "unsure"
    assert verdict(GOOD | {"chance_inliers": 8.0}, options)[0] == "unsure"
    assert verdict(GOOD | {"inlier_ratio": 0.02}, options)[0] == "unsure"
    assert verdict(GOOD | {"spread": 0.01}, options)[0] == "unsure"
    assert verdict(GOOD | {"runner_up_support": 40.0}, options)[0] == "unsure"
    assert verdict(GOOD | {"inliers": 5.0}, options)[0] == "refused"
    assert verdict(GOOD, replace(options, least_inlier_ratio=0.9))[0] == "refused"


@pytest.mark.parametrize(
    "options",
    [
        {"features": 1},
        {"ratio": 0.0},
        {"inlier_distance_pixels": 0.0},
        {"scales_per_octave": 0},
        {"least_inliers": 1},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        Features(**options)
