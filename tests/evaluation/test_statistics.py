"""Statistics count failures, and intervals cover."""

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.evaluation import bootstrap_interval, median_error, success_curve, success_rate

FAILED = [float("inf"), float("nan")]


def test_failures_count_as_infinitely_wrong():
    errors = np.array([1.0, 2.0, *FAILED])
    assert success_rate(errors, 2) == 0.5
    assert success_rate(errors, float("inf")) == 0.5
    assert median_error(errors) == float("inf")
    assert median_error(np.array([1.0, 2.0, 3.0, *FAILED])) == 3


def test_the_success_curve_is_the_share_of_errors_within_each_tolerance():
    errors = np.random.default_rng(0).exponential(10, 200)
    errors[::7] = np.nan
    tolerances = np.array([0.0, 1.0, errors[1], 20.0, 1e9, np.inf])
    literal = [sum(error <= t for error in errors if not np.isnan(error)) / 200 for t in tolerances]
    np.testing.assert_allclose(success_curve(errors, tolerances), literal)


def clustered(generator: np.random.Generator, specimens: int = 25, draws: int = 6) -> tuple[np.ndarray, list[str]]:
    """Values that vary between specimens (variance 1) much more than within them (0.01); the true mean is 0."""
    means = np.repeat(generator.standard_normal(specimens), draws)
    return means + 0.1 * generator.standard_normal(len(means)), [f"s{i // draws}" for i in range(len(means))]


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    by_specimen = by_registration = 0
    for _ in range(100):
        values, names = clustered(generator)
        interval = bootstrap_interval(values, names, lambda v: float(v.mean()), resamples=200)
        naive = bootstrap_interval(values, list(map(str, range(len(values)))), lambda v: float(v.mean()), resamples=200)
        by_specimen += interval.low <= 0 <= interval.high
        by_registration += naive.low <= 0 <= naive.high
    assert 0.85 < by_specimen / 100 < 1  # nominal 0.95, less about 0.02 for a percentile interval of 25 specimens
    assert by_registration / 100 < 0.75  # what ignoring the specimens would have promised as 0.95


def test_the_interval_is_that_of_a_literal_bootstrap():
    values, names = clustered(np.random.default_rng(1), 6, 3)
    interval = bootstrap_interval(values, names, lambda v: float(v.mean()), resamples=500, seed=3)
    generator, means = np.random.default_rng(3), []
    for draw in generator.integers(6, size=(500, 6)):
        chosen = []
        for specimen in draw:
            chosen += [v for v, name in zip(values, names, strict=True) if name == f"s{specimen}"]
        means.append(sum(chosen) / len(chosen))
    means.sort()
    assert interval.low == pytest.approx(means[12])  # the 13th of 500: 2.5 %
    assert interval.high == pytest.approx(means[487])
    assert interval == bootstrap_interval(values, names, lambda v: float(v.mean()), resamples=500, seed=3)


def test_infinite_medians_have_infinite_intervals():
    errors = np.array([1.0, 2.0, np.inf, np.inf, np.inf, 3.0])
    interval = bootstrap_interval(errors, list("abcdef"), median_error, resamples=200)
    assert interval.low < 3
    assert interval.high == float("inf")


def test_one_specimen_gives_no_interval():
    interval = bootstrap_interval(np.array([1.0, 0.0, 1.0]), ["a"] * 3, lambda v: float(v.mean()))
    assert np.isnan([interval.low, interval.high]).all()


def test_empty_and_unequal_lists_are_refused():
    with pytest.raises(InvalidInputError, match="no registrations"):
        success_rate(np.array([]), 1)
    with pytest.raises(InvalidInputError, match="2 values"):
        bootstrap_interval(np.array([1.0, 2.0]), ["a"], median_error)
