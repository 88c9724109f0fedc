"""From evidence to a probability: a logistic model, and the general one for images without a model of their own."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from modalign.errors import InvalidInputError
from modalign.registration.evidence import AGREES, Evidence

Array = np.ndarray

FEATURES: dict[str, Callable[[Evidence], float]] = {
    "contrast": lambda e: float(np.clip(e.contrast, -0.5, 1)),
    "surprise": lambda e: _log(e.surprise),
    "agreement": lambda e: (e.agreement * e.tiles + 0.2) / (e.tiles + 4),
    "drift": lambda e: min(e.drift / AGREES, 4.0),
    "spread": lambda e: min(e.spread / AGREES, 4.0),
    "consistency": lambda e: min(e.consistency / AGREES, 4.0),
    "information": lambda e: _log(e.information),
    "original_information": lambda e: _log(e.original_information),
    "overlap": lambda e: e.overlap,
    "structure": lambda e: e.structure,
}
"""What the logistic model sees of the evidence."""

SIGNS = {"drift": -1, "spread": -1, "consistency": -1}
"""Features that can only speak against a transform; all others can only speak for it."""


def _log(deviations: float) -> float:
    """Standard deviations on a scale on which the hundredth says little more."""
    return math.copysign(math.log1p(abs(deviations)), deviations)


def features(evidence: Evidence) -> Float[Array, " features"]:
    """The features of the logistic model."""
    return np.array([feature(evidence) for feature in FEATURES.values()])


@dataclass(frozen=True)
class Calibration:
    """A logistic model that turns evidence into a probability.

    Attributes:
        names: Names of the features.
        center: Their means among the cases it was fitted on.
        scale: Their standard deviations there.
        weights: Weights of the standardised features.
        intercept: Log odds at the means.
        accept: Probability from which on a registration is accepted.
        refuse: Probability below which it is refused.
        about: What it was fitted on, in words and numbers.
    """

    names: tuple[str, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    accept: float = 0.9
    refuse: float = 0.5
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len({len(self.names), len(self.center), len(self.scale), len(self.weights)}) != 1:
            raise InvalidInputError("a calibration has one centre, scale and weight a feature")
        if self.names != tuple(FEATURES):
            raise InvalidInputError("this calibration was made for other evidence; calibrate the model anew")

    def log_odds(self, evidence: Evidence) -> float:
        """Logarithm of the odds that the transform is right."""
        standardised = (features(evidence) - self.center) / self.scale
        return float(standardised @ np.array(self.weights) + self.intercept)

    def probability(self, evidence: Evidence) -> float:
        """Probability that the transform is right."""
        return 1 / (1 + math.exp(-min(max(self.log_odds(evidence), -30.0), 30.0)))

    def to_dict(self) -> dict[str, Any]:
        """The saved form."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "Calibration":
        """The calibration from its saved form.

        Raises:
            InvalidInputError: It is incomplete, or was made for other evidence.
        """
        try:
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
            return cls(**values)
        except TypeError as error:
            raise InvalidInputError(f"the calibration of this model is damaged: {error}") from error


GENERAL = Calibration(
    names=tuple(FEATURES),
    center=(0.1382, 1.147, 0.2686, 2.651, 2.656, 1.126, 2.21, 2.111, 0.7298, 0.8487),
    scale=(0.4485, 1.94, 0.2976, 1.776, 1.765, 1.452, 1.59, 1.503, 0.1686, 0.1788),
    weights=(0, 0, 1.976, 0, 0, -1.31, 1.818, 1.57, 0.6302, 0),
    intercept=-1.215,
)
"""For images without a model, and for models without a calibration of their own.

Fitted by benchmarks/general_calibration.py on 1,250 cases, 482 of them right.
"""
