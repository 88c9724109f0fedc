"""What is peculiar to dense descriptors: channels, every rotation, mirror, scale, masks, and honest failures."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import Affine, Grid, Rigid, Similarity, as_rows, corner_error, identity, rotation_matrix
from modalign.image import Image
from modalign.local_features.surroundings import Surroundings, described
from modalign.registration.dense_descriptors import DenseDescriptors, verdict
from modalign.testing.registration import known_pair, textured_scene

GRID = Grid((150, 180), (0.9, 0.7), (-60.0, -60.0))
SURROUNDINGS = Surroundings("corners", 800, 3, 24.0, 6, 15.0)
FEW = DenseDescriptors(features=400)
TRUTHS = {
    "rigid": Rigid(as_rows(rotation_matrix(2, 33)), (3.0, -2.0)),
    "similarity": Similarity(as_rows(rotation_matrix(2, -50)), 1.05, (3.0, -2.0)),
    "affine": Affine.from_matrix(np.array([[0.95, -0.32, 3.0], [0.38, 1.05, -2.0], [0.0, 0.0, 1.0]])),
}
GOOD = {"matches": 200.0, "inliers": 60.0, "inlier_ratio": 0.3, "spread": 0.3, "runner_up_inliers": 6.0}
GOOD |= {"support": 50.0, "runner_up_support": 2.0}


def seen(truth, seed=0, feature=2.0):
    scene = textured_scene(2, seed, feature)
    return scene.resampled(GRID, identity(2), order=3), scene.resampled(GRID, truth.inverse(), order=3)


@pytest.mark.parametrize("model", TRUTHS)
def test_each_model_is_recovered_in_world_units(model):
    truth = TRUTHS[model]
    result = DenseDescriptors(transform=model, features=400).register(*seen(truth))
    assert result.status == "accepted"
    assert type(result.fixed_to_moving) is type(truth)
    assert corner_error(GRID, result.fixed_to_moving, truth) < 0.5


@pytest.mark.parametrize("degrees", [-172.5, 7.0, 120.0])
def test_angles_on_and_between_the_steps_are_found(degrees):
    truth = Rigid.about(GRID.center, rotation_matrix(2, degrees), np.array([8.0, -11.0]))
    result = FEW.register(*seen(truth))
    assert result.status == "accepted"
    assert corner_error(GRID, result.fixed_to_moving, truth) < 0.3


def test_points_on_a_grid_do_as_well():
    truth = Rigid.about(GRID.center, rotation_matrix(2, 50), np.zeros(2))
    result = DenseDescriptors(points="grid", features=900).register(*seen(truth, feature=4.0))
    assert result.status == "accepted"
    assert corner_error(GRID, result.fixed_to_moving, truth) < 1.0


def test_channels_are_compared_one_by_one():
    """One channel of noise in each image, of its own: half of the values disagree, the rest decides."""
    truth = TRUTHS["rigid"]
    shared, moved = seen(truth)
    noise = [textured_scene(2, seed).resampled(GRID, identity(2)).data for seed in (5, 6)]
    fixed, moving = (
        Image(np.concatenate([image.data, own]), GRID) for image, own in zip((shared, moved), noise, strict=True)
    )
    result = FEW.register(fixed, moving)
    assert result.status == "accepted"
    assert corner_error(GRID, result.fixed_to_moving, truth) < 0.5
    exchanged = Image(moving.data[::-1].copy(), GRID)
    assert FEW.register(fixed, exchanged).status != "accepted"


def test_a_mirrored_image_is_found_where_wanted():
    truth = Rigid.about(GRID.center, rotation_matrix(2, 140) * [1, -1], np.array([3.0, 5.0]))
    fixed, moving = seen(truth)
    assert FEW.register(fixed, moving).status != "accepted"
    result = DenseDescriptors(mirror=True, features=400).register(fixed, moving)
    assert result.stats["mirrored"] == 1
    assert corner_error(GRID, result.fixed_to_moving, truth) < 0.3


def test_world_axes_of_another_handedness_are_no_mirror():
    fixed, moving = seen(TRUTHS["rigid"])
    last = moving.grid.index_to_world(np.array([[0.0, GRID.shape[1] - 1.0]]))[0]
    turned = Grid(GRID.shape, GRID.spacing, tuple(last), ((1.0, 0.0), (0.0, -1.0)))
    result = FEW.register(fixed, Image(moving.data[..., ::-1].copy(), turned))
    assert corner_error(GRID, result.fixed_to_moving, TRUTHS["rigid"]) < 0.3


def test_volumes_may_be_mirrored_and_their_axes_of_another_handedness():
    """The same pixels on axes of which one is turned round are a mirror image; with the pixels turned as well, not."""
    fixed, moving, truth = known_pair(3, 5.0, 0.03)
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    grid = moving.grid
    round_grid = replace(grid, origin=(*grid.origin[:2], -grid.origin[2]), direction=as_rows(flip[:-1, :-1]))
    near = DenseDescriptors(max_rotation_degrees=40.0)  # for speed
    mirrored = moving.with_grid(round_grid)
    assert near.register(fixed, mirrored).status != "accepted"
    result = replace(near, mirror=True).register(fixed, mirrored)
    assert result.stats["mirrored"] == 1
    assert corner_error(fixed.grid, result.candidate, Rigid.from_matrix(flip @ truth.matrix)) < 0.6
    last = tuple(grid.index_to_world(np.array([[0.0, 0.0, grid.shape[2] - 1.0]]))[0].tolist())
    turned = Image(moving.data[..., ::-1].copy(), replace(grid, origin=last, direction=as_rows(flip[:-1, :-1])))
    assert corner_error(fixed.grid, near.register(fixed, turned).candidate, truth) < 0.6


def test_rotations_beyond_the_limit_are_not_tried():
    truth = Rigid.about(GRID.center, rotation_matrix(2, 100), np.zeros(2))
    fixed, moving = seen(truth)
    assert FEW.register(fixed, moving).status == "accepted"
    limited = replace(FEW, max_rotation_degrees=45.0).register(fixed, moving)
    assert limited.status != "accepted"


def test_another_scale_is_found_where_named():
    truth = Similarity(as_rows(rotation_matrix(2, 20)), 0.7, (1.0, 2.0))
    fixed, moving = seen(truth)
    result = DenseDescriptors(transform="similarity", features=400, scales=(0.7, 1.0)).register(fixed, moving)
    assert result.status == "accepted"
    assert corner_error(GRID, result.fixed_to_moving, truth) < 0.5


def test_points_keep_away_from_the_mask():
    """Both images carry the same mask at the same pixels: what its border looks like would vote for the identity."""
    fixed, moving = seen(TRUTHS["rigid"])
    mask = np.ones(GRID.shape, dtype=bool)
    mask[:, 90:] = False
    mask[70:110, 30:60] = False
    masked = [Image(np.where(mask, image.data, -1e4), GRID, (), mask) for image in (fixed, moving)]
    points = GRID.world_to_index(described(masked[0], SURROUNDINGS).points)
    inside = np.clip(np.rint(points).astype(int), 0, np.array(GRID.shape) - 1)
    assert mask[tuple(inside.T)].all()
    result = FEW.register(*masked)
    assert corner_error(GRID, result.fixed_to_moving, TRUTHS["rigid"]) < 0.3


def test_corners_are_located_to_a_part_of_a_pixel():
    """Blobs at known places between pixels."""
    grid = Grid((96, 96))
    y, x = np.indices(grid.shape)
    places = np.array([[30.3, 30.6], [60.7, 35.2], [45.0, 65.4]])
    blobs = sum(np.exp(-((y - py) ** 2 + (x - px) ** 2) / (2 * 2.0**2)) for py, px in places)
    found = described(Image(blobs[None], grid), replace(SURROUNDINGS, count=3, radius=12.0)).points
    nearest = np.linalg.norm(places[:, None] - found[None], axis=2).min(axis=1)
    assert nearest.max() < 0.15


def test_images_without_corners_are_refused_with_advice():
    ramp = Image(np.linspace(0, 1, 64 * 64).reshape(1, 64, 64), Grid((64, 64)))
    result = FEW.register(ramp, ramp)
    assert result.status == "refused"
    assert "representation" in result.reasons[0]


@pytest.mark.parametrize(("side", "period", "noise"), [(150, 20, 0.0), (150, 9, 0.02), (200, 30, 0.1)])
def test_no_repeating_texture_is_accepted(side, period, noise):
    """Even where the noiseless border gives the right repeat away."""
    wave = np.cos(np.arange(side) * 2 * np.pi / period)
    waves, rng = np.outer(wave, wave), np.random.default_rng(0)
    fixed, moving = (
        Image((image + noise * rng.standard_normal(waves.shape))[None].astype(np.float32), Grid(waves.shape))
        for image in (waves, np.roll(waves, 3, axis=-1))
    )
    assert FEW.register(fixed, moving).status != "accepted"


def test_few_or_huddled_inliers_or_a_rival_leave_doubt():
    options = DenseDescriptors()
    assert verdict(GOOD, options)[0] == "accepted"
    assert verdict(GOOD | {"inliers": 13.0}, options)[0] == "unsure"
    assert verdict(GOOD | {"spread": 0.01}, options)[0] == "unsure"
    assert verdict(GOOD | {"runner_up_inliers": 40.0}, options)[0] == "unsure"
    assert verdict(GOOD | {"runner_up_support": 40.0}, options)[0] == "unsure"
    assert verdict(GOOD | {"runner_up_inliers": 55.0}, options)[0] == "refused"
    assert verdict(GOOD | {"inliers": 5.0}, options)[0] == "refused"


def test_options_can_be_saved_and_rebuilt():
    options = DenseDescriptors(transform="similarity", scales=(0.9, 1.0), mirror=True)
    assert DenseDescriptors(**asdict(options)) == options


@pytest.mark.parametrize(
    "options",
    [
        {"features": 0},
        {"angles": 3},
        {"radius_pixels": 0.0},
        {"least_inliers": 2},
        {"scales": ()},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        DenseDescriptors(**options)


def test_a_rigid_transform_has_no_other_scale():
    with pytest.raises(InvalidInputError, match="similarity"):
        DenseDescriptors(scales=(0.5, 1.0))
