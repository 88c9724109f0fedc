"""What is peculiar to mutual information: modalities need not look alike, and only near starts are found."""

from dataclasses import replace

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import Affine, Grid, Rigid, Similarity, as_rows, corner_error, rotation_matrix
from modalign.image import Image
from modalign.registration import MutualInformation
from modalign.registration.mattes import KINDS, from_itk_transform, simple_itk, to_itk_transform
from modalign.registration.optical_density import hue, optical_density
from modalign.testing.registration import FIXED_GRIDS, MOVING_GRIDS, known_pair, known_pose, textured_scene, views

HAEMATOXYLIN, EOSIN = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])


def other_modality(image):
    """A non-monotone map of the intensities, inverted in the main."""
    values = (image.data - image.data.mean()) / image.data.std()
    return image.with_data((50 - 10 * values + 12 * np.cos(2 * values)).astype(np.float32))


def stained(amounts):
    """Light from 0 to 255 through two dyes whose amounts are ``(2, y, x)``."""
    light = 240 * 10 ** -np.tensordot(np.stack([HAEMATOXYLIN, EOSIN], 1), amounts, 1)
    return np.rint(light).astype(np.uint8)


def two_textures(shape, seed=0):
    """Two independent textures from 0 to 1, large enough to be climbed."""
    scenes = (textured_scene(2, seed + k, feature=5.0).data[0][: shape[0], : shape[1]] for k in (0, 1))
    return [np.clip((scene - scene.mean()) / (5 * scene.std()) + 0.5, 0, 1) for scene in scenes]


def test_a_pair_with_inverted_contrast_is_registered():
    fixed, moving, truth = known_pair(2, -12.0, 0.06, feature=5.0)
    result = MutualInformation().register(fixed, other_modality(moving))
    assert corner_error(fixed.grid, result.fixed_to_moving, truth) < 0.2 * 0.9
    assert result.status == "accepted"


def test_large_rotations_and_shifts_within_the_starts_are_found():
    fixed, moving, truth = known_pair(2, 28.0, 0.13)
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


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(("kind", "group"), [("similarity", Similarity), ("affine", Affine)])
def test_size_and_shear_are_found_where_they_may_change(ndim, kind, group):
    stretch = {"similarity": np.full(ndim, 1.06), "affine": np.linspace(0.96, 1.06, ndim)}[kind]
    fixed, moving, rigid = known_pair(ndim, 4.0, 0.02, feature=3.0)
    center = moving.grid.center
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1], matrix[:-1, -1] = np.diag(stretch), center - stretch * center
    stretched = Affine.from_matrix(matrix)  # of the moving world
    to_scene = Rigid(as_rows(np.eye(ndim)), tuple(-FIXED_GRIDS[ndim].center))
    back = Affine.from_matrix(to_scene.matrix @ rigid.inverse().matrix @ stretched.inverse().matrix)
    moving = textured_scene(ndim, feature=3.0).resampled(MOVING_GRIDS[ndim], back, order=3)
    result = MutualInformation(transform=kind, candidates=3).register(fixed, moving)
    assert isinstance(result.fixed_to_moving, group)
    truth = Affine.from_matrix(stretched.matrix @ rigid.matrix)
    assert corner_error(fixed.grid, result.fixed_to_moving, truth) < 0.4 * max(fixed.grid.spacing)


def test_the_hue_of_a_stained_section_tells_what_its_luminance_does_not():
    """The signal depends on which dye there is, the luminance on how much of both."""
    shape = (200, 220)
    share, thickness = two_textures(shape)
    grid = Grid(shape, (0.5, 0.5), unit="micrometer")
    section = Image(stained(np.stack([0.1 + 0.2 * share, 0.3 - 0.2 * share]) * (1 + thickness)), grid)
    truth = Rigid.about(grid.center, rotation_matrix(2, 14.0), np.array([5.0, -4.0]))
    signal = Image(np.sqrt(share)[None].astype(np.float32), grid).resampled(grid, truth, order=3)
    hues, light = (
        MutualInformation(colour=colour, candidates=3).register(signal, section) for colour in ("auto", "luminance")
    )
    assert corner_error(grid, hues.fixed_to_moving, truth) < 0.25
    assert hues.stats["information"] > 2 * light.stats["information"]


def test_gray_pictures_with_three_channels_have_no_hue_and_are_registered_all_the_same():
    fixed, moving, truth = known_pair(2, 6.0, 0.04)
    gray = np.clip(moving.data - 20, 0, 255).astype(np.uint8)
    result = MutualInformation(colour="hue").register(fixed, moving.with_data(np.repeat(gray, 3, axis=0)))
    assert corner_error(fixed.grid, result.fixed_to_moving, truth) < 0.3 * 0.9


def test_optical_densities_of_dyes_add_up_and_the_hue_is_their_share():
    share, thickness = two_textures((120, 130))
    amounts = np.stack([0.1 + 0.1 * share, 0.2 - 0.1 * share]) * (0.4 + thickness)
    picture = Image(stained(amounts), Grid(share.shape))
    density = optical_density(picture).data
    expected = np.tensordot(np.stack([HAEMATOXYLIN, EOSIN], 1), amounts, 1)
    offset = (density - expected).mean((1, 2), keepdims=True)  # the brightest pixel counts as white
    np.testing.assert_allclose(density, expected + offset, atol=0.012)
    assert abs(np.corrcoef(hue(picture).data.ravel(), share.ravel())[0, 1]) > 0.9


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_transform_survives_the_way_to_itk_and_back(ndim, kind):
    fixed, *_ = known_pair(ndim)
    matrix = known_pose(ndim, 13.0, 0.1).matrix.copy()
    matrix[:-1, :-1] *= {"rigid": 1.0, "similarity": 1.2, "affine": np.linspace(0.9, 1.1, ndim)}[kind]
    transform = KINDS[kind].from_matrix(matrix)
    there = to_itk_transform(transform, kind, fixed)
    np.testing.assert_allclose(from_itk_transform(there, kind).matrix, transform.matrix, atol=1e-9)
    point = np.arange(1.0, ndim + 1)
    mapped = there.TransformPoint(point[::-1].tolist())[::-1]
    np.testing.assert_allclose(mapped, transform.map_points(point), atol=1e-9)


def test_the_number_of_itk_threads_is_left_as_it_was():
    threads = simple_itk().ProcessObject.GetGlobalDefaultNumberOfThreads()
    fixed, moving, _ = known_pair(2)
    MutualInformation(candidates=2).register(fixed, moving)
    assert simple_itk().ProcessObject.GetGlobalDefaultNumberOfThreads() == threads


def test_a_masked_half_does_not_pull():
    """Bright rubbish under the mask of both images, at the same place, would hold them where they are."""
    truth = known_pose(2, 9.0, 0.08)
    fixed, moving = views(textured_scene(2), FIXED_GRIDS[2], MOVING_GRIDS[2], truth)
    rubbish = []
    for image in (fixed, moving):
        data, mask = image.data.copy(), image.valid.copy()
        data[:, :40], mask[:40] = 1e4 * (1 + np.indices(image.grid.shape)[1][:40] % 7), False
        rubbish.append(replace(image, data=data, mask=mask))
    result = MutualInformation().register(*rubbish)
    assert corner_error(fixed.grid, result.fixed_to_moving, truth) < 0.3 * 0.9


@pytest.mark.parametrize(
    "options",
    [
        {"start_rotations_degrees": ()},
        {"bins": 2},
        {"samples": 10},
        {"max_shift": 0.8},
        {"candidates": 1},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        MutualInformation(**options)
