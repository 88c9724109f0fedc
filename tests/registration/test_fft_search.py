"""Masked correlation against its definition, and what only the exhaustive search can do."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import Grid, Rigid, as_rows, corner_error, rotation_matrix
from modalign.image import Image
from modalign.registration import FftSearch
from modalign.registration.fft_search import verdict
from modalign.registration.masked_ncc import VARIANCE_FLOOR, Correlator, ncc, rank, stacked, standardised
from modalign.registration.search import angles
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


@pytest.mark.parametrize("half_turn", [False, True])
def test_fft_correlation_equals_its_definition_at_every_shift(half_turn):
    fixed, f, f_mask = masked_stack((9, 7), 0)
    moving, g, g_mask = masked_stack((8, 11), 1)
    area, share = float(min(f_mask.sum(), g_mask.sum())), 0.25
    correlator = Correlator(fixed, (8, 11), area, share, coarsening=1)
    spectra = correlator.spectra(moving)
    if half_turn:
        g, g_mask, spectra = g[:, ::-1, ::-1], g_mask[::-1, ::-1], correlator.half_turned(spectra)
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


def test_angles_contain_zero_and_half_a_circle_counts_twice():
    some, opposites = angles(30, 0.7)
    assert 0.0 in some
    assert not opposites
    assert max(np.diff(some)) <= 0.7
    half, opposites = angles(180, 0.7)
    assert opposites
    assert half[0] == 0
    assert max(half) < 180


def test_status_by_contrast():
    assert verdict(0.5, 0.5)[0] == "accepted"
    assert verdict(0.5, 0.2)[0] == "unsure"
    assert verdict(0.5, 0.05)[0] == "refused"
    assert verdict(0.01, 0.9)[0] == "refused"


@pytest.mark.parametrize(
    "options", [{"max_rotation_degrees": 181}, {"min_overlap": 0}, {"candidates": 1}, {"max_side": 9}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(InvalidInputError, match=next(iter(options)).partition("_")[0]):
        FftSearch(**options)


@pytest.mark.parametrize("side", [70, 600])
def test_small_and_large_images_are_refined_alike(side):
    """Below the coarsest level there is nothing to climb; above the window levels poses are only refined."""
    grid = Grid((side, side), (120 / side,) * 2)
    truth = Rigid.about(grid.center, rotation_matrix(2, 37.7), np.array([5.3, -8.1]))
    fixed, moving = views(textured_scene(2, feature=4.0), grid, grid, truth)
    assert corner_error(grid, FftSearch().register(fixed, moving).fixed_to_moving, truth) < 0.1 * grid.spacing[0]
