"""Masked correlation against its definition, and what only the exhaustive search can do."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import Affine, Grid, Rigid, Similarity, as_rows, corner_error, rotation_matrix
from modalign.image import Image
from modalign.registration import FftSearch
from modalign.registration.masked_ncc import VARIANCE_FLOOR, Correlator, ncc, rank, stacked, standardised
from modalign.registration.search import scales, verdict
from modalign.testing.registration import textured_scene, views


def scene_pair(truth, size=(140, 150), channels=1, noise=0.0):
    """Fixed and moving view of one scene a channel, on pixels of size 1; the transform is about the centres."""
    grid = Grid(size)
    seen = [views(textured_scene(2, seed), grid, grid, truth(grid)) for seed in range(channels)]
    images = [np.concatenate([pair[role].data for pair in seen]) for role in (0, 1)]
    rng = np.random.default_rng(5)
    fixed, moving = (Image(data + noise * rng.standard_normal(data.shape), grid) for data in images)
    return fixed, moving, truth(grid)


def turned(degrees, shift):
    return lambda grid: Rigid.about(grid.center, rotation_matrix(2, degrees), np.array(shift))


def scaled_pair(degrees, scale, shift=(4.0, -3.0), mirrored=False, channels=1):
    """Two views of one scene on equal grids; things in the moving one are ``scale`` times as large."""
    grid = Grid((100, 100), (1.3, 1.3), (7.0, -20.0))
    rotation = rotation_matrix(2, degrees) * np.array([1, -1 if mirrored else 1])
    offset = grid.center - scale * rotation @ (grid.center + shift)
    truth = Similarity(as_rows(rotation), scale, tuple(offset.tolist()))
    fine = grid.centered((300, 300), (1.3 / 3,) * 2)  # the moving image holds area means, as a camera's does
    fixed, moving = [], []
    for seed in range(channels):
        scene = textured_scene(2, seed, feature=4.0)
        to_scene = Rigid(as_rows(np.eye(2)), tuple(-grid.center))
        from_moving = Affine.from_matrix(to_scene.matrix @ truth.inverse().matrix)
        seen = scene.resampled(fine, from_moving)
        moving.append(seen.data.reshape(1, 100, 3, 100, 3).mean((2, 4)))
        mask = seen.valid.reshape(100, 3, 100, 3).all((1, 3))
        fixed.append(scene.resampled(grid, to_scene, order=3).data)
    return Image(np.concatenate(fixed), grid), Image(np.concatenate(moving), grid, (), mask), truth


def literal_ncc(fixed, fixed_mask, moving, moving_mask, shift):
    """Definition of the masked correlation, pixel by pixel; and the overlap."""
    pairs = []
    for y, x in product(*map(range, fixed_mask.shape)):
        v, u = y + shift[0], x + shift[1]
        inside = 0 <= v < moving_mask.shape[0] and 0 <= u < moving_mask.shape[1]
        if inside and fixed_mask[y, x] and moving_mask[v, u]:
            pairs.append((fixed[:, y, x], moving[:, v, u]))
    if not pairs:
        return -1.0, 0
    f, g = (np.array(values, dtype=float) for values in zip(*pairs, strict=True))
    f, g = f - f.mean(0), g - g.mean(0)
    floor = VARIANCE_FLOOR * len(pairs)
    return (f * g).sum() / np.sqrt(max((f**2).sum(), floor) * max((g**2).sum(), floor)), len(pairs)


def masked_stack(shape, seed, channels=2):
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.8
    data = rng.normal(3, 2, (channels, *shape)) * np.arange(1, channels + 1).reshape(-1, 1, 1)
    stack = standardised(Image(data, Grid(shape), (), mask))
    return stack, stack[:-2], stack[-1] > 0


def test_fft_correlation_equals_its_definition_at_every_shift():
    fixed, f, f_mask = masked_stack((9, 7), 0)
    moving, g, g_mask = masked_stack((8, 11), 1)
    area, share = float(min(f_mask.sum(), g_mask.sum())), 0.25
    correlator = Correlator(fixed, (8, 11), area, share, coarsening=1)
    spectra = correlator.spectra(moving)
    scores, _ = correlator.scores(spectra)
    checked = 0
    for shift in product(range(-8, 8), range(-6, 11)):
        expected, count = literal_ncc(f, f_mask, g, g_mask, shift)
        if count >= share * area:
            assert scores[shift] == pytest.approx(expected, abs=1e-4)
            checked += 1
    assert checked > 60
    assert (scores > -0.999).sum() == checked, "shifts with too little overlap score −1"


def test_correlation_of_two_stacks_equals_its_definition():
    fixed, f, f_mask = masked_stack((9, 7), 0, channels=3)
    moving, g, g_mask = masked_stack((9, 7), 1, channels=3)
    expected, count = literal_ncc(f, f_mask, g, g_mask, (0, 0))
    assert ncc(fixed, moving) == pytest.approx((expected, count), abs=1e-4)


def test_coarse_normalisation_changes_the_correlation_little():
    image = textured_scene(2).cropped((100, 100), (90, 80))
    fixed, moving = standardised(image), standardised(image.cropped((10, 5), (70, 70)))
    exact, coarse = (Correlator(fixed, (70, 70), 4900.0, 0.3, coarsening=n).scores for n in (1, 4))
    exact_scores, coarse_scores = (
        scores(Correlator(fixed, (70, 70), 4900.0, 0.3, coarsening=n).spectra(moving))[0]
        for scores, n in ((exact, 1), (coarse, 4))
    )
    shifts = [(y, x) for y in range(-25, 20, 5) for x in range(-20, 20, 5)]
    assert max(abs(exact_scores[s] - coarse_scores[s]) for s in shifts) < 0.02
    assert exact_scores[-10, -5] == pytest.approx(1, abs=0.02)


def test_a_flat_overlap_does_not_win():
    rng = np.random.default_rng(0)
    texture = rng.normal(size=(1, 20, 20)).astype(np.float32)
    flat = 1e-4 * texture
    mask = np.ones((20, 20), dtype=np.float32)
    assert ncc(stacked(texture, mask), stacked(texture, mask))[0] > 0.9
    assert abs(ncc(stacked(flat, mask), stacked(flat, mask))[0]) < 1e-3


def test_larger_overlaps_outrank_smaller_ones_with_the_same_score():
    assert rank(0.5, 0.8) > rank(0.5, 0.4)
    assert rank(0.9, 0.3) > rank(0.4, 1.0), "a true match on a third of the area still wins"


@pytest.mark.parametrize("degrees", [-179.5, 33.3])
def test_sub_pixel_accuracy_at_any_rotation_despite_noise(degrees):
    fixed, moving, truth = scene_pair(turned(degrees, (6.4, -9.7)), noise=5.0)
    result = FftSearch().register(fixed, moving)
    assert result.status == "accepted"
    assert corner_error(fixed.grid, result.fixed_to_moving, truth) < 0.1


def test_a_third_of_overlap_suffices():
    fixed, moving, truth = scene_pair(turned(15, (0.0, 95.0)))
    result = FftSearch(min_overlap=0.25, max_rotation_degrees=40).register(fixed, moving)
    assert result.stats["overlap"] < 0.4
    assert corner_error(fixed.grid, result.fixed_to_moving, truth) < 0.2


def test_all_channels_count():
    fixed, moving, truth = scene_pair(turned(-70, (5.0, 3.0)), channels=5)
    assert corner_error(fixed.grid, FftSearch().register(fixed, moving).fixed_to_moving, truth) < 0.1


def test_mirror_images_are_found_only_on_request():
    def truth(grid):
        return Rigid.about(grid.center, rotation_matrix(2, 40) * np.array([1, -1]), np.array([4.0, -7.0]))

    fixed, moving, expected = scene_pair(truth)
    found = FftSearch(mirror=True, max_rotation_degrees=60).register(fixed, moving)
    assert found.fixed_to_moving.is_mirrored
    assert found.stats["mirrored"] == 1
    assert corner_error(fixed.grid, found.fixed_to_moving, expected) < 0.1
    assert FftSearch(max_rotation_degrees=60).register(fixed, moving).status != "accepted"


def test_flipped_axes_of_the_moving_grid_are_no_mirror_image():
    fixed, moving, truth = scene_pair(turned(25, (3.0, 5.0)))
    flipped = replace(moving.grid, direction=as_rows(np.diag([1.0, -1.0])), origin=(0.0, moving.grid.shape[1] - 1.0))
    stored = Image(moving.data[..., ::-1].copy(), flipped)
    assert (
        corner_error(fixed.grid, FftSearch(max_rotation_degrees=40).register(fixed, stored).fixed_to_moving, truth)
        < 0.1
    )


def test_rotations_beyond_the_limit_are_not_tried():
    fixed, moving, _ = scene_pair(turned(60, (0.0, 0.0)))
    result = FftSearch(max_rotation_degrees=20).register(fixed, moving)
    assert abs(result.stats["rotation_degrees"]) < 30
    assert result.status != "accepted"


def test_images_of_very_different_size():
    fixed, moving, truth = scene_pair(turned(120, (20.0, 10.0)), size=(170, 180))
    part = fixed.cropped((40, 60), (70, 64))
    assert corner_error(part.grid, FftSearch().register(part, moving).fixed_to_moving, truth) < 0.15


def test_scales_are_evenly_spaced_and_end_at_the_limits():
    tried = scales(0.5, 2, 0.1)
    assert (tried[0], tried[-1]) == pytest.approx((0.5, 2))
    steps = np.diff(np.log(tried))
    assert steps.max() <= 0.1
    assert steps == pytest.approx(np.full(len(steps), steps[0]))
    assert scales(0.7, 0.7, 0.1) == [0.7]


@pytest.mark.parametrize(
    ("degrees", "scale", "options"),
    [
        (-150.0, 0.5, {"max_scale": 0.7}),
        (77.0, 1.37, {"min_scale": 1.2, "max_scale": 1.5}),
        (-20.0, 0.73, {"max_rotation_degrees": 25}),
        (15.0, 2.0, {"max_rotation_degrees": 20, "min_scale": 1.0}),
    ],
)
def test_any_scale_between_a_half_and_two_is_found(degrees, scale, options):
    fixed, moving, truth = scaled_pair(degrees, scale)
    result = FftSearch(**{"min_scale": 0.5, "max_scale": 2.0} | options).register(fixed, moving)
    assert result.status == "accepted"
    assert isinstance(result.fixed_to_moving, Similarity)
    assert result.stats["scale"] == pytest.approx(scale, rel=2e-3)
    assert corner_error(fixed.grid, result.fixed_to_moving, truth) < 0.15 * 1.3 * scale


def test_a_wrong_scale_without_a_search_is_not_accepted():
    fixed, moving, _ = scaled_pair(20.0, 1.5)
    assert FftSearch(max_rotation_degrees=40).register(fixed, moving).status != "accepted"


def test_a_known_scale_is_kept():
    fixed, moving, truth = scaled_pair(20.0, 1.5)
    found = FftSearch(max_rotation_degrees=40, min_scale=1.5, max_scale=1.5).register(fixed, moving).fixed_to_moving
    assert found.scale == pytest.approx(1.5, abs=1e-12)
    assert corner_error(fixed.grid, found, truth) < 0.2


def test_mirror_scale_masks_channels_and_left_handed_axes_together():
    fixed, moving, truth = scaled_pair(-35.0, 0.8, mirrored=True, channels=2)
    data, mask = fixed.data.copy(), np.ones(fixed.grid.shape, dtype=bool)
    data[:, :30, :50], mask[:30, :50] = 1e4, False
    fixed = Image(data, fixed.grid, (), mask)
    grid = moving.grid  # stored from right to left: a left-handed direction
    corner = tuple(grid.index_to_world(np.array([0.0, grid.shape[1] - 1.0])))
    flipped = replace(grid, direction=as_rows(np.diag([1.0, -1.0])), origin=corner)
    moving = Image(moving.data[..., ::-1].copy(), flipped, (), moving.valid[:, ::-1].copy())
    method = FftSearch(min_scale=0.7, max_scale=1.0, mirror=True, max_rotation_degrees=40)
    result = method.register(fixed, moving)
    assert result.status == "accepted"
    assert result.fixed_to_moving.is_mirrored
    assert corner_error(fixed.grid, result.fixed_to_moving, truth) < 0.2


def test_a_fifth_of_overlap_suffices():
    fixed, moving, truth = scene_pair(turned(-12, (98.0, 30.0)))
    result = FftSearch(min_overlap=0.15, max_rotation_degrees=30).register(fixed, moving)
    assert 0.15 < result.stats["overlap"] < 0.26
    assert corner_error(fixed.grid, result.fixed_to_moving, truth) < 0.3


@pytest.mark.parametrize("transform", ["similarity", "affine"])
def test_the_last_refinement_may_change_more_than_the_search(transform):
    grid = Grid((140, 150))
    stretch = {"similarity": np.diag([1.03, 1.03]), "affine": np.array([[1.02, 0.03], [0.0, 0.98]])}[transform]
    matrix = np.eye(3)
    matrix[:2, :2] = rotation_matrix(2, 50) @ stretch
    matrix[:2, 2] = grid.center + np.array([3.0, -2.0]) - matrix[:2, :2] @ grid.center
    scene, to_scene = textured_scene(2, feature=4.0), Rigid(as_rows(np.eye(2)), tuple(-grid.center))
    fixed = scene.resampled(grid, to_scene, order=3)
    moving = scene.resampled(grid, Affine.from_matrix(to_scene.matrix @ np.linalg.inv(matrix)), order=3)
    result = FftSearch(transform=transform, max_rotation_degrees=70).register(fixed, moving)
    assert corner_error(grid, result.fixed_to_moving, Affine.from_matrix(matrix)) < 0.1
    assert type(result.fixed_to_moving).__name__.lower() == transform


def test_proposals_are_distinct_and_the_first_is_near_the_truth():
    fixed, moving, truth = scene_pair(turned(33.0, (6.0, -9.0)))
    proposed = FftSearch(max_rotation_degrees=60).propose(fixed, moving)
    assert len(proposed) >= 2
    assert [c.rank for c in proposed] == sorted((c.rank for c in proposed), reverse=True)
    assert corner_error(fixed.grid, proposed[0].transform, truth) < 2
    assert corner_error(fixed.grid, proposed[0].transform, proposed[1].transform) > 0.1 * 150


def test_proposals_lie_in_the_worlds_of_the_images():
    fixed, moving, truth = scene_pair(turned(33.0, (6.0, -9.0)))
    fixed = fixed.with_grid(replace(fixed.grid, unit="micrometer"))
    moving = moving.with_grid(replace(moving.grid, unit="micrometer").in_unit("millimeter"))
    proposed = FftSearch(max_rotation_degrees=60).propose(fixed, moving)[0].transform.map_points(fixed.grid.corners)
    assert 1000 * proposed == pytest.approx(truth.map_points(fixed.grid.corners), abs=3)


def test_unrelated_images_are_not_accepted_at_any_scale():
    fixed, *_ = scaled_pair(0.0, 1.0)
    still = Rigid(as_rows(np.eye(2)), tuple(-fixed.grid.center))
    other = textured_scene(2, 40, feature=4.0).resampled(fixed.grid, still)
    result = FftSearch(min_scale=0.6, max_scale=1.4, max_rotation_degrees=30).register(fixed, other)
    assert result.status != "accepted"


def test_status_by_contrast():
    assert verdict(0.5, 0.5)[0] == "accepted"
    assert verdict(0.5, 0.2)[0] == "unsure"
    assert verdict(0.5, 0.05)[0] == "refused"
    assert verdict(0.01, 0.9)[0] == "refused"


@pytest.mark.parametrize(
    "options",
    [
        {"max_rotation_degrees": 181},
        {"min_overlap": 0},
        {"candidates": 1},
        {"max_side": 9},
        {"min_scale": 2.0},
        {"min_scale": 0.0},
        {"max_scale": math.inf},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(InvalidInputError, match="|".join(options)):
        FftSearch(**options)


@pytest.mark.parametrize("side", [70, 600])
def test_small_and_large_images_are_refined_alike(side):
    """Below the coarsest level there is nothing to climb; above the window levels poses are only refined."""
    grid = Grid((side, side), (120 / side,) * 2)
    truth = Rigid.about(grid.center, rotation_matrix(2, 37.7), np.array([5.3, -8.1]))
    fixed, moving = views(textured_scene(2, feature=4.0), grid, grid, truth)
    assert corner_error(grid, FftSearch().register(fixed, moving).fixed_to_moving, truth) < 0.1 * grid.spacing[0]
