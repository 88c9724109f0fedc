"""Calibrating the verdict of a model: on displaced views with known truth, and on pairs that do not belong together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from scipy.special import expit

from modalign.data.displacement import DisplacedPair, DisplacementProtocol, displaced_pairs
from modalign.data.pairs import Pair
from modalign.errors import InvalidInputError
from modalign.geometry import Rigid, Transform, corner_error, identity, planes, turn
from modalign.image import Image
from modalign.io import plain
from modalign.registration import FftSearch, Registrar
from modalign.registration.calibration import FEATURES, GENERAL, SIGNS, Calibration, features
from modalign.registration.evidence import Evidence, gather
from modalign.registration.novelty import LatentStatistics
from modalign.representation import ComirModel
from modalign.representation.encoder import Encoder
from modalign.training.validation import SUCCESS

Array = np.ndarray

LARGEST_VIEW = 256
"""Side of the largest views in pixels."""
SHUFFLED_TILES = 4
"""A single pair is made unrelated by shuffling so many tiles along each axis."""
PRIOR_STRENGTH = 5.0
"""Inverse variance of the weights about their prior: few cases must not make the verdict too sure of itself, and pairs
that the networks have seen are easier than those to come."""
LEAST_CASES = 6
"""Fewer right or fewer wrong cases make no calibration."""


@dataclass(frozen=True)
class CalibrationOptions:
    """How the verdict of a model is calibrated."""

    displaced: int = 30
    """Displaced views that are registered; right and wrong results both teach."""
    unrelated: int = 20
    """Pairs that do not belong together that are registered."""
    missed: int = 20
    """True transforms moved by 2.5 to 10 % of the width, which must not be accepted."""
    seed: int = 0
    """Seed of the views."""

    def __post_init__(self) -> None:
        if min(self.displaced, self.unrelated, self.missed) < 0 or self.seed < 0:
            raise InvalidInputError("the numbers of calibration cases and the seed are at least 0")


@dataclass(frozen=True)
class Case:
    """One registration with known outcome.

    Attributes:
        kind: ``displaced``, ``unrelated`` or ``missed``.
        evidence: What could be known about it.
        right: Whether the corners are within 2 % of the width.
    """

    kind: str
    evidence: Evidence
    right: bool


def calibrated(
    model: ComirModel,
    pairs: Sequence[Pair],
    options: CalibrationOptions,
    report: Callable[[float], None] = lambda _: None,
) -> ComirModel:
    """The model with a calibration of its verdict in its card.

    Args:
        model: A trained model.
        pairs: Pairs to make the cases of: validation pairs where there are some.
        options: How many cases.
        report: Called after every case with the fraction done.
    """
    encoders = model.encoder("fixed"), model.encoder("moving")
    total = max(options.displaced + options.unrelated + options.missed, 1)
    cases = []
    for case in calibration_cases(pairs, encoders, options):
        cases.append(case)
        report(min(len(cases) / total, 1.0))
    calibration = fit_calibration(cases)
    saved = {
        "verdict": calibration and calibration.to_dict(),
        "latents": {
            side: LatentStatistics.fit([encoder.encode(image) for image in images]).to_dict()
            for side, encoder, images in zip(
                ("fixed", "moving"),
                encoders,
                ([p.fixed for p in pairs[:8]], [p.moving for p in pairs[:8]]),
                strict=True,
            )
        },
    }
    return ComirModel(replace(model.card, calibration=plain(saved)), model.networks)


def calibration_cases(
    pairs: Sequence[Pair],
    encoders: tuple[Encoder, Encoder],
    options: CalibrationOptions,
    method: Registrar = FftSearch(),  # noqa: B008
) -> Iterator[Case]:
    """Cases made of some pairs: registered views, moved truths, and pairs that do not belong together."""
    rng = np.random.default_rng(options.seed)
    for number in range(options.displaced):
        view = _view(pairs[number % len(pairs)], rng)
        yield from _registered("displaced", view.fixed, view.moving, view.fixed_to_moving, encoders, method)
    for number in range(options.missed):
        view = _view(pairs[number % len(pairs)], rng)
        moved = _moved(view, rng)
        yield Case("missed", _evidence(view.fixed, view.moving, moved, encoders), False)
    for number in range(options.unrelated):
        fixed, moving = _strangers(pairs, number, rng)
        yield from _registered("unrelated", fixed, moving, None, encoders, method)


def _view(pair: Pair, rng: np.random.Generator) -> DisplacedPair:
    """A displaced view of random size, rotation and shift."""
    shortest = min(pair.fixed.grid.shape)
    side = int(min(shortest * rng.uniform(0.3, 0.7), LARGEST_VIEW))
    protocol = DisplacementProtocol(
        (side,) * pair.fixed.ndim, 180.0, side * rng.uniform(0.05, 0.3), draws=1, seed=int(rng.integers(2**31))
    )
    return next(displaced_pairs(pair.fixed, pair.moving.with_grid(pair.fixed.grid), protocol, pair.name))


def _moved(view: DisplacedPair, rng: np.random.Generator) -> Transform:
    """The truth after a rigid motion of the fixed image by 2.5 to 10 % of the width."""
    grid = view.fixed.grid
    width = max(grid.extent)
    shift = 0.02 * width * rng.standard_normal(grid.ndim)
    radians = np.deg2rad(rng.uniform(-4, 4, len(planes(grid.ndim))))
    motion = Rigid.about(grid.center, turn(grid.ndim, radians), shift)
    wanted = rng.uniform(0.025, 0.1) * width
    factor = wanted / max(corner_error(grid, motion, identity(grid.ndim)), 1e-9)
    return view.fixed_to_moving @ Rigid.about(grid.center, turn(grid.ndim, factor * radians), factor * shift)


def _strangers(pairs: Sequence[Pair], number: int, rng: np.random.Generator) -> tuple[Image, Image]:
    """Views of two specimens; of one pair, the moving view with its tiles shuffled and turned."""
    here = _view(pairs[number % len(pairs)], rng)
    other = int(rng.integers(len(pairs)))
    if other != number % len(pairs):
        return here.fixed, _view(pairs[other], rng).moving
    return here.fixed, here.moving.with_data(shuffled(here.moving.data, rng), here.moving.channels)


def shuffled(data: Array, rng: np.random.Generator) -> Array:
    """Tiles of an array ``(channels, *spatial)`` in random order, each mirrored at random; a rim may stay."""
    steps = [n // SHUFFLED_TILES for n in data.shape[1:]]
    starts = np.indices((SHUFFLED_TILES,) * len(steps)).reshape(len(steps), -1).T * steps
    result = data.copy()
    for to, source in zip(starts, rng.permutation(starts), strict=True):
        tile = data[(slice(None), *(slice(a, a + n) for a, n in zip(source, steps, strict=True)))]
        axes = tuple(axis + 1 for axis in range(len(steps)) if rng.random() < 0.5)
        result[(slice(None), *(slice(a, a + n) for a, n in zip(to, steps, strict=True)))] = np.flip(tile, axes)
    return result


def _registered(
    kind: str,
    fixed: Image,
    moving: Image,
    truth: Transform | None,
    encoders: tuple[Encoder, Encoder],
    method: Registrar,
) -> Iterator[Case]:
    representations = encoders[0].encode(fixed), encoders[1].encode(moving)
    found = method.register(*representations).candidate
    if found is None:
        return
    evidence = gather(*representations, found, (fixed, moving))
    limit = SUCCESS * max(fixed.grid.extent)
    yield Case(kind, evidence, truth is not None and corner_error(fixed.grid, found, truth) <= limit)


def _evidence(fixed: Image, moving: Image, found: Transform, encoders: tuple[Encoder, Encoder]) -> Evidence:
    return gather(encoders[0].encode(fixed), encoders[1].encode(moving), found, (fixed, moving))


def fit_calibration(cases: Sequence[Case], prior: Calibration | None = GENERAL, **about: Any) -> Calibration | None:
    """A logistic model of the cases; ``None`` where too few are right or too few are wrong.

    Args:
        cases: Registrations with known outcome.
        prior: The weights stay near those of this calibration, as far as the cases allow: those of one model leave
            wide gaps between right and wrong, and what lies in the gaps must not be decided by chance. Without a prior
            they stay near zero.
        about: Facts to keep with the calibration.
    """
    rows = np.array([features(case.evidence) for case in cases]).reshape(len(cases), len(FEATURES))
    right = np.array([case.right for case in cases], dtype=bool)
    if min(right.sum(), (~right).sum()) < LEAST_CASES:
        return None
    center, scale = (rows.mean(0), np.maximum(rows.std(0), 1e-3)) if prior is None else (prior.center, prior.scale)
    start = np.zeros(len(FEATURES) + 1) if prior is None else np.array([*prior.weights, prior.intercept])
    *weights, intercept = _logistic((rows - center) / scale, right, start).tolist()
    calibration = Calibration(
        tuple(FEATURES), tuple(np.array(center).tolist()), tuple(np.array(scale).tolist()), tuple(weights), intercept
    )
    chances = np.array([calibration.probability(case.evidence) for case in cases])
    facts = {
        "cases": len(cases),
        "right": int(right.sum()),
        "kinds": {kind: sum(case.kind == kind for case in cases) for kind in ("displaced", "missed", "unrelated")},
        "calibration_error": calibration_error(chances, right),
    }
    return replace(calibration, about={**about, **facts})


def _logistic(
    rows: Float[Array, "cases features"], right: Bool[Array, " cases"], prior: Float[Array, " weights"]
) -> Float[Array, " weights"]:
    """Weights and, last, the intercept, of the logistic model with a normal prior: a maximum of the posterior.

    No weight may have the wrong sign: that better evidence counts against a transform could only be learnt by chance.
    """
    inputs = np.column_stack([rows, np.ones(len(rows))])
    signs = np.where(right, 1.0, -1.0)

    def loss(weights: Array) -> tuple[float, Array]:
        margins = signs * (inputs @ weights)
        away = weights - prior
        value = np.logaddexp(0, -margins).sum() + 0.5 * PRIOR_STRENGTH * away @ away
        slope = -(signs * expit(-margins)) @ inputs + PRIOR_STRENGTH * away
        return float(value), np.asarray(slope)

    signs_of = [SIGNS.get(name, 1) for name in FEATURES]
    bounds = [(0, None) if sign > 0 else (None, 0) for sign in signs_of] + [(None, None)]
    return np.asarray(minimize(loss, prior, jac=True, method="L-BFGS-B", bounds=bounds).x)


def calibration_error(chances: Float[Array, " cases"], right: Array, bins: int = 10) -> float:
    """Expected calibration error: mean distance of stated and observed probability over bins of equal width.

    Source: Naeini et al., AAAI 2015.
    """
    members = np.minimum((chances * bins).astype(int), bins - 1)
    gaps = [abs(chances[members == k].sum() - right[members == k].sum()) for k in range(bins)]
    return float(sum(gaps) / max(len(chances), 1))
