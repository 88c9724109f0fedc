"""Search, refine, judge: several methods in turn until one result stands up to independent evidence."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from modalign.errors import InvalidInputError
from modalign.geometry import Linear, corner_error
from modalign.image import Image
from modalign.registration.calibration import GENERAL
from modalign.registration.dense_descriptors import DenseDescriptors
from modalign.registration.engine import Engine
from modalign.registration.evidence import AGREES, Evidence, gather
from modalign.registration.features import Features
from modalign.registration.fft_search import FftSearch
from modalign.registration.global_mi import GlobalMI
from modalign.registration.mutual_information import MutualInformation
from modalign.registration.poses import linear_scale
from modalign.registration.refinement import maximise_correlation
from modalign.registration.registrar import Registrar, Registration
from modalign.registration.verify import judged

Model = Literal["rigid", "similarity", "affine"]
SAME_PLACE = 0.06
"""Leads closer than this fraction of the width are one place. Which of them is the most exact, mutual information
tells: correlation, which some of them maximise, has its maximum elsewhere where the images are not alike."""


@dataclass(frozen=True)
class Lead:
    """A transform that one of the methods has proposed.

    Attributes:
        engine: The method.
        transform: Maps world points of the fixed image to world points of the moving one.
        evidence: What speaks for it.
    """

    engine: str
    transform: Linear
    evidence: Evidence

    @property
    def odds(self) -> float:
        """Logarithm of its odds by the evidence, under the general calibration."""
        return GENERAL.log_odds(self.evidence)


@dataclass(frozen=True)
class Auto(Engine):
    """Try one method after the other until a result can be trusted, and keep the best: the default.

    The exhaustive search by correlation comes first: it finds any rotation and position where the images, or their
    representations, look alike. If its result does not convince, dense descriptors, key points and then the exhaustive
    search by mutual information are tried. What is kept is decided by evidence that none of
    the methods maximises, see :mod:`modalign.registration.evidence`.
    """

    transform: Model = "rigid"
    """The kind of transform of the result; a similarity also where scales are searched."""
    max_rotation_degrees: float = 180.0
    """Rotations up to this angle to both sides are tried."""
    mirror: bool = False
    """Also try the mirror image of the moving image."""
    min_scale: float = 1.0
    """Smallest scale that is tried; 1 where pixel sizes can be trusted."""
    max_scale: float = 1.0
    """Largest scale that is tried."""
    min_overlap: float = 0.2
    """Least overlap, as a fraction of the valid area of the smaller image."""
    convinced: float = 0.95
    """Probability by the evidence from which on no further method is tried."""
    seed: int = 0
    """Seed of the methods that draw at random."""

    name: ClassVar[str] = "auto"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})

    def __post_init__(self) -> None:
        if not 0 < self.convinced < 1:
            raise InvalidInputError(f"convinced is a probability between 0 and 1, not {self.convinced}")
        self._search()  # whose checks hold here as well

    def find(self, fixed: Image, moving: Image) -> Registration:
        """Find the transform that the evidence speaks for."""
        leads: list[Lead] = []
        reasons: list[str] = []
        enough = float(np.log(self.convinced / (1 - self.convinced)))
        for method in self.stages(fixed.ndim):
            result = method.register(fixed, moving)
            reasons += [] if result.candidate else [f"{method.name}: {result.reasons[0]}"]
            leads += self._refined(fixed, moving, result)
            if leads and max(lead.odds for lead in leads) > enough:
                break
        return outcome(self, fixed, leads, reasons)

    def stages(self, ndim: int) -> tuple[Registrar, ...]:
        """The methods in the order in which they are tried."""
        limit = self.max_rotation_degrees
        by_information = GlobalMI(max_rotation_degrees=limit, mirror=self.mirror, seed=self.seed)
        by_surroundings = DenseDescriptors(
            transform=self._group, max_rotation_degrees=limit, mirror=self.mirror, seed=self.seed
        )
        by_key_points = Features(transform=self._group, mirror=self.mirror, seed=self.seed)
        by_small_steps = MutualInformation(transform=self._group, seed=self.seed)
        stages: dict[int, tuple[Registrar, ...]] = {
            2: (self._search(), by_surroundings, by_key_points, by_information),
            # volumes mostly come with their orientation
            3: (self._search(), by_surroundings, by_small_steps, by_information),
        }
        if self.min_overlap < by_information.min_overlap:  # where little overlaps, chance informs more: last of all
            return (*stages[ndim], replace(by_information, min_overlap=self.min_overlap))
        return stages[ndim]

    @property
    def _group(self) -> Model:
        return "similarity" if self.transform == "rigid" and self.min_scale < self.max_scale else self.transform

    def _search(self) -> FftSearch:
        return FftSearch(
            transform=self.transform,
            max_rotation_degrees=self.max_rotation_degrees,
            mirror=self.mirror,
            min_scale=self.min_scale,
            max_scale=self.max_scale,
            min_overlap=self.min_overlap,
        )

    def _refined(self, fixed: Image, moving: Image, result: Registration) -> Iterator[Lead]:
        """What a method found, as it is and after refinement by correlation: the evidence decides between the two."""
        found = result.candidate
        if not isinstance(found, Linear):
            return
        yield Lead(result.engine, found, gather(fixed, moving, found))
        if result.engine != FftSearch.name:  # which ends with this refinement
            refined = maximise_correlation(fixed, moving, found, self._group).transform
            if refined != found:
                yield Lead(f"{result.engine} + correlation", refined, gather(fixed, moving, refined))


def outcome(method: Auto, fixed: Image, leads: list[Lead], reasons: list[str]) -> Registration:
    """The best lead, with how many of the methods support it."""
    if not leads:
        return Registration(method.name, "refused", None, tuple(reasons) or ("no method found anything",))
    likely = max(leads, key=lambda lead: lead.odds)
    width = max(fixed.grid.extent)
    best = max(
        (lead for lead in leads if _near(fixed, lead, likely, SAME_PLACE * width)),
        key=lambda lead: lead.evidence.information,
    )
    backing = {lead.engine.partition(" ")[0] for lead in leads if _near(fixed, lead, best, 2 * AGREES * width)}
    tried = {lead.engine.partition(" ")[0] for lead in leads}
    probability = GENERAL.probability(best.evidence)
    stats = {"probability": probability, "methods": float(len(tried)), "agreeing_methods": float(len(backing))}
    status = judged(probability, best.evidence, GENERAL)
    reason = f"found by {best.engine}; {len(backing)} of {len(tried)} methods tried lead there"
    return Registration.judged(method.name, status, best.transform, (reason,), stats)


def _near(fixed: Image, lead: Lead, best: Lead, limit: float) -> bool:
    return corner_error(fixed.grid, lead.transform, best.transform) <= limit * linear_scale(best.transform)
