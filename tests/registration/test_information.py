"""Mutual information of many poses at once, against its definition."""

from math import log

import numpy as np
import pytest

from modalign.geometry import Grid, Rigid, as_rows, corner_error, identity, rotation_matrix
from modalign.image import Image
from modalign.registration.information import (
    COARSEST_PIXELS,
    SCORE_BINS,
    Level,
    Run,
    Starts,
    contrast,
    distinct,
    equalised,
    information,
    level_spacings,
    scored,
)
from modalign.testing.registration import known_pair, textured_scene


def literal_information(a, b):
    """Mutual information in nats from probabilities, less the bias of Miller."""
    used = [(x, y) for x, y in zip(a, b, strict=True) if SCORE_BINS not in (x, y)]
    n = len(used)
    joint = {pair: used.count(pair) / n for pair in set(used)}
    first, second = ({v: sum(p for k, p in joint.items() if k[i] == v) for v in {k[i] for k in joint}} for i in (0, 1))
    nats = sum(p * log(p / (first[x] * second[y])) for (x, y), p in joint.items())
    free = (len(joint) - 1) - (len(first) - 1) - (len(second) - 1)
    return nats - free / (2 * n), n


def shifted_pair(ndim, pixels):
    """One texture on a grid, and on the same grid moved by whole pixels."""
    grid = Grid((40, 44, 36)[:ndim])
    scene = textured_scene(ndim)
    move = Rigid(as_rows(np.eye(ndim)), tuple(np.array(pixels, dtype=float)))
    to_scene = Rigid(as_rows(0.5 * np.eye(ndim) * 2), tuple(-grid.center))
    return scene.resampled(grid, to_scene), scene.resampled(grid, to_scene @ move.inverse()), move


def test_the_information_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, SCORE_BINS + 1, (1, 300))
    others = np.stack([(labels[0] + rng.integers(0, k, 300)) % (SCORE_BINS + 1) for k in (1, 3, 11)])
    nats, counts = information(labels, others)
    for row, value, count in zip(others, nats, counts, strict=True):
        expected, n = literal_information(labels[0].tolist(), row.tolist())
        assert count == n
        assert value == pytest.approx(expected, abs=1e-12)


def test_the_bias_of_few_points_is_taken_away():
    rng = np.random.default_rng(1)
    for points in (400, 1500):
        nats, _ = information(rng.integers(0, SCORE_BINS, (1, points)), rng.integers(0, SCORE_BINS, (200, points)))
        assert abs(nats.mean()) < 0.1 * (SCORE_BINS - 1) ** 2 / (2 * points)


def test_equalised_values_fill_all_bins_alike_and_ties_share_one_rank():
    rng = np.random.default_rng(2)
    mask = np.ones((60, 50), dtype=bool)
    mask[:10] = False
    picture = Image(np.exp(rng.normal(0, 2, (1, 60, 50))), Grid((60, 50)), (), mask)
    ranks = equalised(picture).data[0][mask]
    assert np.ptp(np.histogram(ranks, 10, (0, 1))[0]) <= 1
    two = equalised(picture.with_data((picture.data > 1).astype(np.float32))).data[0][mask]
    assert len(np.unique(two)) == 2
    assert two.mean() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(("ndim", "pixels"), [(2, (4, -6)), (3, (2, -4, 2))])
def test_the_sweep_finds_a_shift_and_scores_it_like_a_single_pose(ndim, pixels):
    fixed, moving, truth = shifted_pair(ndim, pixels)
    level = Level.of(fixed, moving, 1.0)
    best = Starts(rotations_degrees=(0.0,), reach_degrees=0.0, max_shift=0.2).best(level)[0]
    assert corner_error(fixed.grid, best.fixed_to_moving, truth) < 1e-9
    assert scored(level, best.fixed_to_moving, 0).information == pytest.approx(best.information, rel=0.1)


def test_every_start_rotation_is_tried_and_its_neighbours_within_reach():
    level = Level.of(*known_pair(2)[:2], 2.0)
    starts = Starts(rotations_degrees=(-40.0, 0.0, 40.0), reach_degrees=5.0)
    poses = list(starts.poses(level))
    degrees = np.array([np.rad2deg(np.arctan2(p.linear[1, 0], p.linear[0, 0])) for p in poses])
    for start in (-40, 0, 40):
        near = degrees[np.abs(degrees - start) < 6]
        assert near.min() == pytest.approx(start - 5)
        assert near.max() == pytest.approx(start + 5)
        assert np.diff(np.sort(near)).max() <= 2 * level.degrees_a_pixel + 1e-6
    center = level.fixed.grid.center
    assert all(np.allclose(pose.map_points(center), level.moving.grid.center) for pose in poses)


def test_a_masked_pixel_never_counts():
    fixed, moving, truth = shifted_pair(2, (2, 4))
    mask = np.random.default_rng(0).random(fixed.grid.shape) > 0.4
    level = Level.of(Image(fixed.data, fixed.grid, (), mask), moving, 1.0)
    literal, n = literal_information(
        [int(v) for v in level.fixed_labels[mask]],
        [int(v) for v in np.pad(level.moving_labels, 8, constant_values=SCORE_BINS)[11:51, 13:57][mask]],
    )
    run = scored(level, truth, 0)
    assert run.information == pytest.approx(literal, abs=1e-9)
    assert run.overlap == pytest.approx(n / mask.sum())


def test_levels_halve_down_to_few_pixels():
    image = Image(np.zeros((1, 500, 700)), Grid((500, 700), (0.5, 0.5)))
    spacings = level_spacings(image, image, 1024)
    assert spacings[-1] == 0.5
    assert np.allclose(np.divide(spacings[:-1], spacings[1:]), 2)
    coarsest = 250 * 350 / spacings[0] ** 2
    assert COARSEST_PIXELS / 4 < coarsest <= COARSEST_PIXELS


def test_distinct_places_are_apart_and_contrast_is_against_the_best_elsewhere():
    fixed = Image(np.zeros((1, 50, 50)), Grid((50, 50)))
    places = [Rigid(as_rows(rotation_matrix(2, 0.0)), (0.0, x)) for x in (0.0, 0.5, 10.0, 20.0)]
    runs = [Run(place, nats, 1.0) for place, nats in zip(places, (1.0, 0.9, 0.6, 0.2), strict=True)]
    assert distinct(runs[::-1], fixed, 8) == [runs[0], runs[2], runs[3]]
    assert distinct(runs, fixed, 2) == [runs[0], runs[2]]
    assert contrast(fixed, runs, runs[0]) == pytest.approx(0.4)
    assert contrast(fixed, runs[:2], runs[0]) == 0, "two runs are too few to tell"
    assert contrast(fixed, runs, Run(identity(2) @ places[3] @ places[3], 1.0, 1.0)) == 0, "nothing was found there"
