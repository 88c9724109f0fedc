"""The verdict: is a registration to be trusted? Evidence in; a calibrated probability, a status and plain reasons out.

The probability is that of a mean corner error of at most 2 % of the width of the fixed image. It comes from a logistic
model of the :class:`~modalign.registration.evidence.Evidence`, fitted on simulated displacements with known truth and
on pairs that do not belong together; see :mod:`modalign.training.calibration`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from modalign.errors import InvalidInputError
from modalign.image import Image
from modalign.registration.calibration import GENERAL, Calibration
from modalign.registration.evidence import Evidence, gather
from modalign.registration.facts import MOST_AGREE, STRONG_ECHO, facts
from modalign.registration.novelty import LatentStatistics
from modalign.registration.registrar import Registration, Status
from modalign.registration.soundness import limited

LEAST_OVERLAP = 0.15
"""Less overlap is refused whatever else speaks for it: there is too little to judge by."""
LARGEST_SCALE, LARGEST_SHEAR = math.log(2.5), math.log(1.5)
"""Transforms that change sizes or shapes by more are never accepted without a look."""
LARGEST_NOVELTY = 5.0
"""Representations further from those of training, in units of what is usual, are never accepted without a look."""

AMBIGUOUS = 0.1
"""Where the images look alike and yet another place fits as well within this fraction, the texture may be periodic."""

ADVICE = {
    "unsure": "look at the overlay before using it",
    "refused": "check that both images show the same place, and use a model or a larger field of view",
}
"""What to do where a registration is not accepted."""


def reasons(status: Status, evidence: Evidence) -> tuple[str, ...]:
    """The facts that speak for the status, and advice where it is not ``accepted``."""
    told = facts(evidence)
    if status == "accepted":
        return tuple(fact.sentence for fact in told if fact.favours)[:3] or ("the evidence as a whole speaks for it",)
    against = tuple(fact.sentence for fact in told if fact.favours is False)[:3]
    doubts = against or tuple(fact.sentence for fact in told if fact.favours is None)[:3]
    return (*(doubts or ("the evidence as a whole is weak",)), ADVICE[status])


@dataclass(frozen=True)
class Judge:
    """Judges registrations by evidence that does not depend on the method that found them.

    Attributes:
        calibration: Turns evidence into a probability.
        latents: Statistics of the representations of the training images, fixed and moving, where there is a model.
        note: What the user should know about the calibration.
    """

    calibration: Calibration = GENERAL
    latents: tuple[LatentStatistics, LatentStatistics] | None = None
    note: str = ""

    @classmethod
    def of_model(cls, saved: Mapping[str, Any] | None, sides: tuple[str, str] = ("fixed", "moving")) -> "Judge":
        """The judge that a model's card describes; the general one, which says so, where it has none.

        Args:
            saved: The calibration of the card.
            sides: Which modality of the model the fixed and the moving image belong to.

        Raises:
            InvalidInputError: The calibration is damaged, or was made for other evidence.
        """
        if not saved:
            return cls(note="this model has no calibration of its own: the confidence is that of the general one")
        try:
            latents = tuple(LatentStatistics.from_dict(saved["latents"][side]) for side in sides)
            own = saved["verdict"]
        except (KeyError, TypeError) as error:
            raise InvalidInputError(f"the calibration of this model is damaged ({error!r})") from error
        if own is None:
            return cls(GENERAL, latents, "this model had too few cases for a calibration: the general one is used")  # type: ignore[arg-type]
        return cls(Calibration.from_dict(own), latents)  # type: ignore[arg-type]

    def judge(
        self, registration: Registration, fixed: Image, moving: Image, originals: tuple[Image, Image] | None = None
    ) -> Registration:
        """Judge a registration anew; its own status is replaced, and so are its reasons where it has a transform.

        Args:
            registration: What a method found.
            fixed: The fixed image that the method saw: the original or its representation.
            moving: The moving one.
            originals: The images behind the representations, if they are others.
        """
        found = registration.candidate
        if found is None:
            return replace(registration, confidence=0.0)
        evidence = gather(fixed, moving, found, originals, novelty=self._novelty(fixed, moving))
        confidence = self.calibration.probability(evidence)
        stats = registration.stats
        limits = limited(judged(confidence, evidence, self.calibration), found, fixed_grid=fixed.grid, stats=stats)
        status, why = limits.status, (*limits.reasons, *reasons(limits.status, evidence))
        verdict = Registration.judged(registration.engine, status, found, why, stats, confidence)
        notes = (*registration.notes, *filter(None, [self.note]))
        return replace(verdict, notes=notes, evidence=evidence.to_dict())

    def _novelty(self, fixed: Image, moving: Image) -> float:
        if self.latents is None:
            return 0.0
        return max(known.novelty(image) for known, image in zip(self.latents, (fixed, moving), strict=True))


def judged(confidence: float, evidence: Evidence, calibration: Calibration) -> Status:
    """The status by the probability, and by what no probability may overrule."""
    if not (evidence.overlap >= LEAST_OVERLAP and confidence >= calibration.refuse):  # nor where one is not a number
        return "refused"
    odd = evidence.scale > LARGEST_SCALE or evidence.shear > LARGEST_SHEAR or evidence.novelty > LARGEST_NOVELTY
    alike = max(evidence.agreement, evidence.similarity) > MOST_AGREE
    odd |= alike and (evidence.contrast < AMBIGUOUS or evidence.echo > STRONG_ECHO)
    return "unsure" if odd or confidence < calibration.accept else "accepted"
