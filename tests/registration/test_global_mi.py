"""The cross-mutual-information function against its definition, and what only a search by information can do."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import Grid, Rigid, as_rows, corner_error, rotation_matrix
from modalign.image import Image
from modalign.registration import FftSearch, GlobalMI
from modalign.registration.cmif import Cmif, dependence, joint_counts
from modalign.registration.global_mi import Standing, verdict
from modalign.registration.poses import Pose
from modalign.registration.quantisation import centers, nearest, planes, quantised
from modalign.registration.quantised_level import climbed, quantised_level, refined
from modalign.testing.registration import textured_scene, views

GRID = Grid((130, 150), (0.9, 0.7), (12.5, -40.0))


def turned(degrees, shift=(0.0, 0.0), mirrored=False):
    rotation = rotation_matrix(2, degrees) * np.array([1, -1 if mirrored else 1])
    return Rigid.about(GRID.center, rotation, np.array(shift))


def banded(data):
    """Three colours by a relation to gray that repeats: neither monotone nor one to one in any channel."""
    gray = (data[0] - 100) / 14
    return np.stack([np.cos(2.5 * gray), np.sin(5 * gray), np.cos(4 * gray + 1)]).astype(np.float32)


def two_modalities(truth, seed=0, noise=0.0):
    """Gray fixed image, and a colour image of the same scene in which correlation finds nothing."""
    fixed, moving = views(textured_scene(2, seed, feature=3.0), GRID, GRID, truth)
    rng = np.random.default_rng(seed)
    data = banded(moving.data)
    colour = data + noise * rng.standard_normal(data.shape).astype(np.float32)
    return fixed, Image(colour, moving.grid, ("red", "green", "blue"), moving.mask)


def random_labels(shape, classes, seed, masked=0.2):
    """Labels of which about a fifth is masked, and their planes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, shape).astype(np.uint8)
    labels[rng.random(shape) < masked] = classes
    return labels, planes(labels, classes)


def literal_information(fixed, moving, classes, shift):
    """Definition of the mutual information in nats, pixel by pixel; the two entropies; and the overlap."""
    joint = np.zeros(classes)
    for y, x in product(*map(range, fixed.shape)):
        v, u = y + shift[0], x + shift[1]
        if 0 <= v < moving.shape[0] and 0 <= u < moving.shape[1]:
            a, b = fixed[y, x], moving[v, u]
            if a < classes[0] and b < classes[1]:
                joint[a, b] += 1
    count = joint.sum()
    p = joint / max(count, 1)
    p_a, p_b = p.sum(1), p.sum(0)
    terms = [p[a, b] * np.log(p[a, b] / (p_a[a] * p_b[b])) for a, b in product(*map(range, classes)) if p[a, b] > 0]
    entropies = [-sum(q * np.log(q) for q in marginal if q > 0) for marginal in (p_a, p_b)]
    return sum(terms), entropies, count


@pytest.mark.parametrize("normalised", [False, True])
def test_the_function_equals_the_joint_histogram_at_every_shift(normalised):
    fixed, fixed_planes = random_labels((9, 7), 3, 0)
    moving, moving_planes = random_labels((8, 11), 4, 1)
    least = 12
    function = Cmif(fixed_planes, (8, 11), least, normalised)
    scores, counts = function.scores(function.spectra(moving_planes))
    checked = 0
    for shift in product(range(-8, 8), range(-6, 11)):
        information, entropies, count = literal_information(fixed, moving, (3, 4), shift)
        if count >= least:
            share = 2 * information / sum(entropies) if normalised else 1 - np.exp(-2 * information)
            assert scores[shift] ** 2 == pytest.approx(share, abs=1e-4)
            assert counts[shift] == pytest.approx(count, abs=1e-2)
            checked += 1
    assert checked > 60
    assert np.count_nonzero(scores) <= checked, "shifts with too little overlap score 0"


def test_the_information_of_two_images_that_lie_on_each_other_equals_its_definition():
    fixed, fixed_planes = random_labels((12, 9), 3, 0)
    moving, moving_planes = random_labels((12, 9), 5, 1)
    information, _, count = literal_information(fixed, moving, (3, 5), (0, 0))
    joint = joint_counts(fixed_planes, moving_planes)
    assert joint.sum() == count
    assert -0.5 * np.log(1 - dependence(joint) ** 2) == pytest.approx(information, abs=1e-3)


def test_what_depends_wholly_scores_one_and_what_is_independent_scores_zero():
    identical, independent = np.diag([30.0, 20.0, 50.0]), np.outer([30.0, 20.0, 50.0], [1.0, 2.0])
    assert dependence(identical, normalised=True) == pytest.approx(1, abs=1e-3)
    assert dependence(identical) == pytest.approx(np.sqrt(1 - np.exp(-2 * 1.0297)), abs=1e-3)
    assert dependence(independent) == pytest.approx(0, abs=1e-3)
    assert dependence(independent, normalised=True) == pytest.approx(0, abs=1e-3)


def test_the_highest_peaks_are_where_a_pattern_was_cut_from():
    labels, _ = random_labels((40, 44), 4, 3, masked=0.1)
    cut = labels[11:31, 7:32]
    function = Cmif(planes(cut, 4), labels.shape, 0.5 * cut.size)
    (score, overlap, shift), (runner_up, *_), *_ = function.peaks(function.spectra(planes(labels, 4)), 3)
    assert shift == (11, 7)
    assert overlap == pytest.approx((cut < 4).sum(), abs=0.5)
    assert score > 0.95 > 2 * runner_up


def test_quantisation_is_deterministic_and_finds_separate_colours():
    rng = np.random.default_rng(0)
    colours = np.array([[250, 250, 245], [200, 80, 160], [90, 60, 150], [230, 160, 190]], dtype=np.float32)
    drawn = rng.integers(0, 4, (40, 50))
    data = np.moveaxis(colours[drawn], -1, 0) + rng.normal(0, 3, (3, 40, 50)).astype(np.float32)
    mask = rng.random((40, 50)) < 0.8
    image = Image(data.astype(np.float32), Grid((40, 50)), ("red", "green", "blue"), mask)
    labels, count = quantised(image, 4)
    again, _ = quantised(image, 4)
    assert count == 4
    assert np.array_equal(labels, again)
    assert np.array_equal(labels == 4, ~mask)
    assert all(len(np.unique(labels[mask & (drawn == colour)])) == 1 for colour in range(4))
    assert np.array_equal(planes(labels, count).sum(0), mask)


def test_centres_are_the_means_of_the_values_nearest_to_them():
    values = np.random.default_rng(1).gamma(2, 10, (3000, 2)).astype(np.float32) + 1e4
    found = centers(values, 5)
    labels = nearest(values, found)
    brute = np.square(values[:, None].astype(float) - found).sum(-1).argmin(1)
    assert (labels == brute).mean() > 0.999, "a large offset must not cost digits"
    assert np.abs(found - np.stack([values[brute == k].mean(0) for k in range(5)])).max() < 0.5


def test_an_image_of_two_values_has_two_classes():
    data = np.zeros((1, 10, 10), dtype=np.uint8)
    data[0, :3] = 7
    labels, count = quantised(Image(data, Grid((10, 10))), 8)
    assert count == 2
    assert np.array_equal(labels == labels[0, 0], data[0] == 7)


@pytest.mark.parametrize(("degrees", "shift"), [(-171.0, (6.3, -9.4)), (97.5, (-8.2, 3.7))])
def test_a_relation_that_correlation_cannot_follow_is_recovered_at_any_rotation(degrees, shift):
    truth = turned(degrees, shift)
    fixed, moving = two_modalities(truth, noise=0.3)
    result = GlobalMI().register(fixed, moving)
    assert result.status == "accepted", result.reasons
    assert corner_error(GRID, result.fixed_to_moving, truth) < 0.3 * min(GRID.spacing)


def test_correlation_cannot_follow_that_relation():
    truth = turned(10.0, (6.3, -9.4))
    fixed, moving = two_modalities(truth)
    result = FftSearch(max_rotation_degrees=20).register(fixed, moving)
    assert result.candidate is None or corner_error(GRID, result.candidate, truth) > 5


def test_a_mirrored_image_is_found_only_where_asked_for():
    truth = turned(25.0, (3.3, -4.1), mirrored=True)
    fixed, moving = two_modalities(truth)
    found = GlobalMI(mirror=True, max_rotation_degrees=40).register(fixed, moving)
    assert found.stats["mirrored"] == 1
    assert corner_error(GRID, found.fixed_to_moving, truth) < 0.3 * min(GRID.spacing)
    assert GlobalMI(max_rotation_degrees=40).register(fixed, moving).status == "refused"


def test_normalised_information_registers_as_well():
    truth = turned(-14.0, (5.0, -8.0))
    fixed, moving = two_modalities(truth, seed=2)
    result = GlobalMI(normalised=True, max_rotation_degrees=20).register(fixed, moving)
    assert result.status == "accepted"
    assert corner_error(GRID, result.fixed_to_moving, truth) < 0.3 * min(GRID.spacing)


def test_a_rotation_beyond_the_limit_is_not_found():
    fixed, moving = two_modalities(turned(60.0))
    result = GlobalMI(max_rotation_degrees=20).register(fixed, moving)
    assert result.status == "refused"
    assert abs(result.stats["rotation_degrees"]) < 25


def test_small_overlaps_of_unrelated_images_do_not_win():
    """The information itself grows as the overlap shrinks; what ranks poses does not."""
    (_, fixed), (_, moving) = (random_labels((48, 48), 8, seed) for seed in (5, 6))
    function = Cmif(fixed, (48, 48), 0.15 * 48 * 48)
    scores, counts = function.scores(function.spectra(moving))
    overlaps = counts / (0.64 * 48 * 48)
    small, large = (scores > 0) & (overlaps < 0.3), overlaps > 0.6
    assert scores[small].mean() > 1.4 * scores[large].mean(), "the bias exists"
    ranks = scores * np.sqrt(overlaps)
    assert ranks[small].mean() == pytest.approx(ranks[large].mean(), rel=0.15)


def test_climbing_and_refining_end_at_the_truth_from_pixels_away():
    truth = turned(7.0, (2.4, -3.3))
    fixed, moving = two_modalities(truth, seed=4)
    level = quantised_level(fixed, moving, 0.9, 16)
    start = level.moved(replace(Pose.centered(rotation_matrix(2, 8.0)), shift=(2.4, -3.3)), np.array([1.6, -1.4]))
    pose = climbed(level, start, 0.3)
    off = corner_error(GRID, pose.transform(level.fixed_grid, level.moving_grid), truth)
    assert off < 1.0
    pose = refined(level, pose)
    assert corner_error(GRID, pose.transform(level.fixed_grid, level.moving_grid), truth) < 0.15
    assert level.fixed.dtype == np.float32


def test_unrelated_modalities_are_never_accepted():
    fixed, _ = two_modalities(turned(5.0), seed=0)
    _, moving = two_modalities(turned(5.0), seed=20)
    assert GlobalMI().register(fixed, moving).status == "refused"


def test_the_standing_counts_from_chance():
    def poses(*ranks):
        return [Pose(((1.0, 0.0), (0.0, 1.0)), (0.0, 0.0), score, 1.0) for score in ranks]

    standing = Standing.of(poses(0.6, 0.4), poses(0.2, 0.3, 0.1, 0.2))
    assert standing.contrast == pytest.approx(0.5)
    assert standing.surprise == pytest.approx(0.4 / np.std([0.2, 0.3, 0.1, 0.2]))
    assert Standing.of(poses(0.6), poses(0.2, 0.3)).contrast == 1
    assert Standing.of(poses(0.1, 0.05), poses(0.2, 0.3)).contrast == 0


def test_the_verdict_needs_contrast_and_surprise():
    assert verdict(0.5, 10.0)[0] == "accepted"
    assert verdict(0.5, 2.0)[0] == "unsure"
    assert verdict(0.2, 10.0)[0] == "unsure"
    assert verdict(0.1, 10.0)[0] == "refused"


@pytest.mark.parametrize(
    "options",
    [
        {"max_rotation_degrees": 181.0},
        {"min_overlap": 0.0},
        {"coarse_classes": 1},
        {"fine_classes": 65},
        {"candidates": 1},
        {"max_side": 20},
        {"seed": -1},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InvalidInputError):
        GlobalMI(**options)


def test_the_centre_of_rotation_does_not_matter():
    """Far origins and a turned world change the numbers, not the registration."""
    direction = as_rows(rotation_matrix(2, 90.0))
    truth = turned(12.0, (2.0, 3.0))
    fixed, moving = two_modalities(truth, seed=1)
    moved = replace(fixed, grid=replace(GRID, origin=(5000.0, -3000.0), direction=direction))
    found = GlobalMI().register(moved, moving).fixed_to_moving
    corners = moved.grid.index_to_world(GRID.world_to_index(GRID.corners))
    assert np.linalg.norm(found.map_points(corners) - truth.map_points(GRID.corners), axis=1).mean() < 0.25
