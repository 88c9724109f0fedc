"""Statistics over many registrations, in which a failure counts as an infinite error."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from modalign.errors import InvalidInputError

Array = np.ndarray
Errors = Float[Array, " registrations"]


@dataclass(frozen=True)
class Interval:
    """A confidence interval; both ends are not a number where it cannot be estimated."""

    low: float
    high: float


def success_rate(errors: Errors, tolerance: float) -> float:
    """Share of the registrations with an error of at most ``tolerance``; not a number counts as a failure."""
    return float(success_curve(errors, np.array([tolerance], dtype=float))[0])


def success_curve(errors: Errors, tolerances: Float[Array, " tolerances"]) -> Float[Array, " tolerances"]:
    """Success rate at each tolerated error: the empirical distribution function of the errors.

    It ends at the share of the registrations that gave a result at all.
    """
    ordered = np.sort(_counted(errors))
    finite = np.where(np.isfinite(tolerances), tolerances, np.finfo(float).max)  # no tolerance admits a failure
    return np.asarray(np.searchsorted(ordered, finite, side="right") / len(ordered))


def median_error(errors: Errors) -> float:
    """Median with failures counted as infinitely wrong: infinite where half of the registrations failed."""
    return float(np.median(_counted(errors)))


def bootstrap_interval(
    values: Float[Array, " registrations"],
    specimens: Sequence[str],
    statistic: Callable[[Float[Array, " registrations"]], float],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a statistic, resampling whole specimens with replacement.

    Registrations of one specimen resemble each other and are not independent samples; drawing them one by one would
    give intervals that are too narrow. From a single specimen no interval can be estimated. Where all values agree, the
    interval has no width, which says that the specimens do not differ, not that the value is certain.

    Args:
        values: One a registration; the statistic decides what becomes of failures.
        specimens: Name of the specimen of each registration.
        statistic: Takes the values of a resample.
        confidence: Probability that the interval is to cover the true value with.
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Source: Davison and Hinkley, Bootstrap Methods and their Application, 1997, sections 3.8 (clusters) and 5.3.1.
    """
    if len(values) != len(specimens) or not len(values):
        raise InvalidInputError(f"{len(values)} values cannot belong to {len(specimens)} specimen names")
    names = np.asarray(specimens)
    groups = [values[names == name] for name in dict.fromkeys(specimens)]
    if len(groups) < 2:
        return Interval(float("nan"), float("nan"))
    generator = np.random.default_rng(seed)
    draws = generator.integers(len(groups), size=(resamples, len(groups)))
    statistics = [statistic(np.concatenate([groups[index] for index in draw])) for draw in draws]
    # an order statistic, not a mean of two: infinite medians must not turn into inf − inf
    low, high = np.quantile(statistics, [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf")
    return Interval(float(low), float(high))


def _counted(errors: Errors) -> Errors:
    if not len(errors):
        raise InvalidInputError("no registrations to take statistics of")
    return np.where(np.isnan(errors), np.inf, errors)


@dataclass(frozen=True)
class PairedComparison:
    """Whether one method's errors are smaller than another's on the same registrations.

    Attributes:
        p_value: Two-sided, of Wilcoxon's signed-rank test; 1 where all errors are equal.
        effect: Matched-pairs rank-biserial correlation, from −1 to 1: positive where the first method is better.
        pairs: Number of registrations.
    """

    p_value: float
    effect: float
    pairs: int


def paired_comparison(first: Errors, second: Errors) -> PairedComparison:
    """Compare the errors of two methods on the same registrations; a failure is worse than any error.

    Registrations of one specimen are not independent: give one value a specimen, such as its median, where several
    were made of each. Source: Wilcoxon, Biometrics Bulletin 1(6), 1945; Kerby, Comprehensive Psychology 3, 2014.

    Raises:
        InvalidInputError: The two do not have the same length, or are empty.
    """
    if len(first) != len(second) or not len(first):
        raise InvalidInputError(f"{len(first)} and {len(second)} errors are not those of the same registrations")
    from scipy.stats import rankdata, wilcoxon

    finite = [errors[np.isfinite(errors)].max(initial=1.0) for errors in (first, second)]
    worst = 2 * max(finite)  # what failures count as: ranks need an order only
    differences = np.minimum(_counted(second), worst) - np.minimum(_counted(first), worst)
    unequal = differences[differences != 0]
    if not len(unequal):
        return PairedComparison(1.0, 0.0, len(first))
    ranks = rankdata(np.abs(unequal))
    effect = float((ranks * np.sign(unequal)).sum() / ranks.sum())
    return PairedComparison(float(wilcoxon(unequal).pvalue), effect, len(first))


def area_under_success(errors: Errors, largest: float) -> float:
    """Area under the success curve up to a tolerance, divided by that tolerance: 1 where all errors are 0."""
    return float(np.mean(np.clip(1 - _counted(errors) / largest, 0, 1)))
