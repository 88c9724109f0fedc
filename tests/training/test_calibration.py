"""Calibrating the verdict: cases with known outcome, and probabilities that mean what they say."""

from dataclasses import replace

import numpy as np
import pytest

from modalign.data.pairs import Pair
from modalign.errors import InvalidInputError
from modalign.geometry import Grid, corner_error, identity
from modalign.registration.calibration import FEATURES, GENERAL
from modalign.registration.evidence import Evidence
from modalign.representation import Identity
from modalign.testing.registration import textured_scene
from modalign.training.calibration import (
    CalibrationOptions,
    Case,
    calibration_cases,
    calibration_error,
    fit_calibration,
    shuffled,
)

FEW = CalibrationOptions(displaced=6, unrelated=4, missed=4)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    grid = Grid((200, 220), (0.8, 0.8), (-80.0, -88.0))
    pairs = []
    for seed in range(2):
        image = textured_scene(2, seed).resampled(grid, identity(2))
        pairs.append(Pair(f"p{seed}", image, image))
    return list(calibration_cases(pairs, (Identity(), Identity()), FEW))


def test_cases_know_their_outcome(cases: list[Case]) -> None:
    kinds = {kind: [case for case in cases if case.kind == kind] for kind in ("displaced", "missed", "unrelated")}
    assert len(kinds["missed"]) == 4
    assert not any(case.right for case in kinds["missed"] + kinds["unrelated"])
    assert sum(case.right for case in kinds["displaced"]) >= 5
    assert min(c.evidence.contrast for c in kinds["displaced"] if c.right) > max(
        c.evidence.contrast for c in kinds["unrelated"]
    )


def test_moved_truths_are_moved_by_what_is_said(cases: list[Case]) -> None:
    """The tiles of same-modality pairs see the motion as it is."""
    drifts = [case.evidence.drift for case in cases if case.kind == "missed"]
    assert all(0.01 < drift <= 0.1 for drift in drifts)


def synthetic(count: int, seed: int) -> list[Case]:
    """Evidence whose contrast alone decides, by a logistic law."""
    rng = np.random.default_rng(seed)
    base = Evidence(0.5, 0.0, 9.0, 0.5, 16.0, 0.01, 0.01, 0.01, 9.0, 9.0, 0.8, 0.9, 0.0, 0.0)
    contrasts = rng.uniform(-0.4, 0.9, count)
    right = rng.random(count) < 1 / (1 + np.exp(-8 * (contrasts - 0.25)))
    return [Case("displaced", replace(base, contrast=float(c)), bool(r)) for c, r in zip(contrasts, right, strict=True)]


def test_probabilities_mean_what_they_say() -> None:
    """Fitted on one draw of a known law, the calibration states the law's probabilities on another."""
    calibration = fit_calibration(synthetic(600, 0), prior=None)
    assert calibration is not None
    fresh = synthetic(2000, 1)
    chances = np.array([calibration.probability(case.evidence) for case in fresh])
    assert calibration_error(chances, np.array([case.right for case in fresh])) < 0.05
    contrasts = np.array([case.evidence.contrast for case in fresh])
    assert np.abs(chances - 1 / (1 + np.exp(-8 * (contrasts - 0.25)))).max() < 0.12
    assert calibration.about["cases"] == 600
    assert calibration.names == tuple(FEATURES)


def test_few_cases_stay_near_the_prior_and_many_leave_it() -> None:
    def distance(count: int) -> float:
        fitted = fit_calibration(synthetic(count, 0))
        assert fitted is not None
        return float(np.linalg.norm(np.array(fitted.weights) - GENERAL.weights))

    assert distance(30) < distance(3000)


def test_too_few_cases_make_no_calibration() -> None:
    assert fit_calibration([case for case in synthetic(100, 0) if case.right]) is None
    assert fit_calibration([]) is None


def test_calibration_error_of_hand_made_cases() -> None:
    assert calibration_error(np.array([0.95] * 10), np.array([True] * 10)) == pytest.approx(0.05)
    assert calibration_error(np.array([0.9, 0.9, 0.1, 0.1]), np.array([True, True, True, True])) == pytest.approx(0.5)


def test_shuffled_tiles_keep_the_values_and_lose_the_order() -> None:
    data = np.arange(2 * 40 * 48, dtype=float).reshape(2, 40, 48)
    mixed = shuffled(data, np.random.default_rng(0))
    assert np.array_equal(np.sort(mixed[0], axis=None), np.sort(data[0], axis=None))
    assert (mixed == data).mean() < 0.3


def test_absurd_options_are_refused() -> None:
    with pytest.raises(InvalidInputError):
        CalibrationOptions(displaced=-1)


def test_corner_error_of_the_moved_truth_is_in_the_band() -> None:
    from modalign.training.calibration import _moved, _view

    image = textured_scene(2).resampled(Grid((200, 220), (0.8, 0.8), (-80.0, -88.0)), identity(2))
    rng = np.random.default_rng(0)
    for _ in range(10):
        view = _view(Pair("p", image, image), rng)
        error = corner_error(view.fixed.grid, _moved(view, rng), view.fixed_to_moving) / max(view.fixed.grid.extent)
        assert 0.02 < error < 0.11
