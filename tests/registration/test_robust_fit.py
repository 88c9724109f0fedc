"""The robust fit against planted outliers, literal versions, and the least-squares fits of single transforms."""

from itertools import combinations

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import Grid, Rigid, fit_affine, fit_rigid, fit_similarity, rotation_matrix
from modalign.local_features.matching import KeyPoints, from_bits, look_alikes, mutual_neighbours
from modalign.registration.rivalry import Pairing, doubts, supports
from modalign.registration.robust_fit import Elsewhere, RobustFit, agreement, fitted, spread

MODELS = ("rigid", "similarity", "affine")


def planted(model, ndim, inliers, outliers, mirrored=False, seed=0, far=0.0):
    """Matches of which some follow a transform up to noise of half a unit; the order is random."""
    rng = np.random.default_rng(seed)
    linear = rotation_matrix(ndim, 70.0) @ rotation_matrix(ndim, -25.0, (0, 1))
    linear = linear * (1.25 if model != "rigid" else 1.0) * np.where(np.arange(ndim) == 0, -1 if mirrored else 1, 1)
    if model == "affine":
        linear = linear @ (np.eye(ndim) + 0.1 * np.eye(ndim, k=1))
    fixed = rng.uniform(0, 300, (inliers + outliers, ndim)) + far
    moving = fixed @ linear.T + 12.0 + rng.normal(0, 0.5, fixed.shape)
    moving[inliers:] = rng.uniform(moving.min(0), moving.max(0), (outliers, ndim))
    order = rng.permutation(len(fixed))
    return fixed[order], moving[order], order < inliers, linear


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("estimator", ["magsac", "ransac"])
def test_nine_of_ten_matches_may_be_wrong(model, ndim, estimator):
    fixed, moving, true, linear = planted(model, ndim, 60, 540, far=1e5)
    search = RobustFit(model, 2.5, estimator, trials=200_000)
    found = agreement(fixed, moving, search)
    assert found.inliers[true].mean() > 0.95
    assert found.inliers[~true].mean() < 0.05
    np.testing.assert_allclose(found.transform.linear, linear, atol=0.02)
    corners = fixed[true]
    exact = (corners @ linear.T) + 12.0
    assert np.linalg.norm(found.transform.map_points(corners) - exact, axis=1).mean() < 0.5


@pytest.mark.parametrize("model", MODELS)
def test_it_agrees_with_the_best_of_all_samples(model):
    """The oracle tries every sample of the least size and counts; a random search must not find fewer inliers."""
    fixed, moving, *_ = planted(model, 2, 9, 12, seed=3)
    search = RobustFit(model, 2.0, "ransac", trials=5000)
    best = 0
    for sample in combinations(range(len(fixed)), search.sample_size(2)):
        chosen = list(sample)
        matrix = fitted(fixed[chosen], moving[chosen], search)
        distances = np.linalg.norm(fixed @ matrix[:, :-1].T + matrix[:, -1] - moving, axis=1)
        best = max(best, int((distances < 2.0).sum()))
    assert agreement(fixed, moving, search).count >= best


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_many_fits_at_once_equal_single_fits(ndim, mirrored):
    rng = np.random.default_rng(1)
    fixed, noise = rng.normal(0, 50, (7, 9, ndim)) + 4000, rng.normal(0, 3, (7, 9, ndim))
    linear = rotation_matrix(ndim, 130.0) * np.where(np.arange(ndim) == 0, -1 if mirrored else 1, 1)
    moving = 0.8 * fixed @ linear.T + noise
    singles = {
        "rigid": lambda a, b: fit_rigid(a, b, mirrored=mirrored),
        "similarity": lambda a, b: fit_similarity(a, b, mirrored=mirrored),
        "affine": fit_affine,
    }
    for model, single in singles.items():
        many = fitted(fixed, moving, RobustFit(model, 1.0, mirrored=mirrored))
        for matrix, a, b in zip(many, fixed, moving, strict=True):
            np.testing.assert_allclose(matrix, single(a, b).matrix[:-1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("ndim", [2, 3])
def test_only_the_wanted_handedness_is_found(ndim):
    fixed, moving, true, _ = planted("rigid", ndim, 50, 50, mirrored=True)
    found = agreement(fixed, moving, RobustFit("rigid", 2.5, mirrored=True))
    assert found.transform.is_mirrored
    assert found.inliers[true].all()
    other = agreement(fixed, moving, RobustFit("rigid", 2.5))
    assert other is None or (not other.transform.is_mirrored and other.count < 15)


def test_a_rival_lies_elsewhere():
    """Two transforms share the matches; looking away from the better one finds the other."""
    fixed, moving, true, _ = planted("rigid", 2, 120, 80)
    second = np.flatnonzero(~true)[:50]
    moving[second] = fixed[second] + [60.0, -40.0]
    search = RobustFit("rigid", 2.5)
    best = agreement(fixed, moving, search)
    assert best.inliers[true].all()
    rival = agreement(fixed, moving, search, Elsewhere(best.transform, Grid((300, 300))))
    assert rival.inliers[second].all()
    np.testing.assert_allclose(rival.transform.offset, [60.0, -40.0], atol=1e-6)


def test_the_same_seed_gives_the_same_answer():
    fixed, moving, *_ = planted("rigid", 3, 10, 190)
    one, two = (agreement(fixed, moving, RobustFit("rigid", 2.5, trials=3000)) for _ in range(2))
    assert one.transform == two.transform
    assert one.quality == two.quality


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 30])
def test_matches_that_determine_nothing_give_no_answer(model, count):
    """Too few, or all in one place."""
    place = np.full((count, 3), 7.0)
    assert agreement(place, place, RobustFit(model, 1.0)) is None


def test_points_on_a_line_determine_no_affine_transform():
    line = np.column_stack([np.arange(20.0), 2 * np.arange(20.0)])
    assert agreement(line, line, RobustFit("affine", 1.0)) is None
    assert agreement(line, line, RobustFit("rigid", 1.0)).count == 20


def test_impossible_options_are_refused():
    for options in ({"limit": 0.0}, {"trials": 0}, {"sample": -1}):
        with pytest.raises(InvalidInputError):
            RobustFit(**{"model": "rigid", "limit": 1.0} | options)


def test_mutual_neighbours_equal_a_literal_search(monkeypatch):
    """In blocks of few rows, so that the blocks are exercised too."""
    rng = np.random.default_rng(0)
    fixed, moving = (rng.normal(size=(n, 8)).astype(np.float32) for n in (70, 90))
    fixed, moving = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (fixed, moving))
    monkeypatch.setattr("modalign.local_features.matching.BLOCK_MATCHES", 900)
    distance = np.linalg.norm(fixed[:, None] - moving[None], axis=2)
    for ratio in (1.0, 0.9):
        expected = []
        for i in range(len(fixed)):
            j = int(distance[i].argmin())
            first, second = np.sort(distance[i])[:2]
            if distance[:, j].argmin() == i and first < ratio * second:
                expected.append((i, j))
        assert [tuple(pair) for pair in mutual_neighbours(fixed, moving, ratio)] == expected
    pairs = {tuple(pair) for pair in look_alikes(fixed, moving, 3)}
    assert pairs == {(i, j) for i in range(70) for j in np.argsort(distance[i])[:3]}


def test_support_counts_places_that_look_alike_where_a_transform_takes_them():
    """Against the literal count, on key points of which half have a like counterpart there."""
    rng = np.random.default_rng(2)
    points = np.stack(np.meshgrid(np.arange(0, 200, 20.0), np.arange(0, 200, 20.0)), axis=-1).reshape(-1, 2)
    rows = rng.normal(size=(len(points), 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    other = np.where(np.arange(len(points))[:, None] % 2 == 0, rows, rows[::-1])
    shift = Rigid(((1.0, 0.0), (0.0, 1.0)), (3.0, 1.0))
    pairing = Pairing(KeyPoints(points, rows), KeyPoints(np.add(points, [3.5, 1.0]), other), RobustFit("rigid", 2.0))
    literal = 0
    for place, row in zip(shift.map_points(points), rows, strict=True):
        near = np.linalg.norm(pairing.moving.points - place, axis=1) < 2.0
        literal += bool((other[near] @ row >= 0.9).any())
    assert pairing.support(shift, 0.9) == literal == 50
    rival = Rigid(((1.0, 0.0), (0.0, 1.0)), (43.5, 1.0))
    assert pairing.support(rival, 0.9) < 5
    counts = supports(pairing, shift, [(pairing, rival), (pairing, None)])
    assert counts == {"support": 50.0, "runner_up_support": float(pairing.support(rival, 0.95))}
    assert list(doubts(counts)) == []
    assert "another place" in next(iter(doubts(counts | {"runner_up_support": 25.0})))


def test_bits_are_compared_by_hamming_distance():
    bits = np.random.default_rng(0).integers(0, 256, (20, 32)).astype(np.uint8)
    hamming = np.unpackbits(bits[:, None] ^ bits[None], axis=2).sum(2)
    rows = from_bits(bits)
    np.testing.assert_allclose(1 - rows @ rows.T, 2 * hamming / 256, atol=1e-5)


def test_spread_is_a_fraction_of_the_longest_side():
    grid = Grid((100, 200), (0.5, 2.0))
    assert spread(np.zeros((0, 2)), grid) == 0
    assert spread(np.array([[0.0, 0.0], [0.0, 400.0]]), grid) == pytest.approx(0.5, rel=0.01)
