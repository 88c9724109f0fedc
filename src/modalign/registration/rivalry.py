"""Whether another place would do as well: the search for a rival of a transform, and what speaks for each."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float

from modalign.geometry import Grid, Linear
from modalign.local_features.matching import KeyPoints, first_of_each, look_alikes
from modalign.registration.robust_fit import Agreement, Elsewhere, RobustFit, agreement

Array = np.ndarray
Points = Float[Array, "points ndim"]

LOOK_ALIKES = 5
"""So many of the most similar moving key points are considered for each fixed one."""
RIVAL_TRIALS = 4000
"""Random samples in the search for a rival: one worth the name has many inliers."""
ALIKE = 0.95
"""Descriptors with a larger inner product look alike in any image."""
NEAR = 4
"""So many moving key points around a place are compared with the one expected there."""
TRUSTED_RIVAL = 0.3
"""A rival with more than this fraction of the support leaves the result unsure.

On CoMIRs and textures without repetitions, rivals had up to a tenth, on periodic patterns a half and more.
"""


@dataclass(frozen=True, eq=False)
class Pairing:
    """Key points of two images, with descriptors that can be compared, and what is fitted to them."""

    fixed: KeyPoints
    moving: KeyPoints
    search: RobustFit

    @cached_property
    def look_alikes(self) -> tuple[Points, Points, Float[Array, " pairs"]]:
        """Every fixed key point with each of its look-alikes, and how similar they are."""
        one, other = look_alikes(self.fixed.descriptors, self.moving.descriptors, LOOK_ALIKES).T
        likeness = (self.fixed.descriptors[one] * self.moving.descriptors[other]).sum(axis=1)
        return self.fixed.points[one], self.moving.points[other], likeness

    def usual_likeness(self, transform: Linear) -> float:
        """How similar the median pair of look-alikes is that agrees with a transform; at most :data:`ALIKE`."""
        fixed, moving, likeness = self.look_alikes
        agree = np.linalg.norm(transform.map_points(fixed) - moving, axis=1) < self.search.limit
        return min(ALIKE, float(np.median(likeness[agree]))) if agree.any() else ALIKE

    def rival(self, best: Linear, grid: Grid) -> Linear | None:
        """The best transform elsewhere, if each key point may match any of its look-alikes.

        Args:
            best: The transform to keep away from.
            grid: Of the fixed image.
        """
        search = replace(self.search, trials=min(self.search.trials, RIVAL_TRIALS))
        fixed, moving, _ = self.look_alikes
        found: Agreement | None = agreement(fixed, moving, search, Elsewhere(best, grid))
        return None if found is None else found.transform

    def support(self, transform: Linear, likeness: float) -> int:
        """How many places of the fixed image meet, under a transform, a moving key point as similar as that."""
        from scipy.spatial import cKDTree

        near = range(1, min(NEAR, len(self.moving)) + 1)
        distance, index = cKDTree(self.moving.points).query(transform.map_points(self.fixed.points), near)
        alike = np.einsum("nk,nmk->nm", self.fixed.descriptors, self.moving.descriptors[index]) >= likeness
        met = (alike & (distance < self.search.limit)).any(axis=1)
        return len(first_of_each(self.fixed.points[met] / self.search.limit))


def supports(best: Pairing, found: Linear, rivals: Iterable[tuple[Pairing, Linear | None]]) -> dict[str, float]:
    """How many places look alike under the transform found, and under its strongest rival.

    They look alike if their descriptors are as similar as those of the median pair that agrees with the transform, so
    an image without repetitions hardly supports any other transform, and a periodic one supports many.
    """
    likeness = best.usual_likeness(found)
    there = [pairing.support(rival, likeness) for pairing, rival in rivals if rival is not None]
    return {"support": float(best.support(found, likeness)), "runner_up_support": float(max(there, default=0))}


def doubts(stats: Mapping[str, float]) -> Iterator[str]:
    """A sentence if the rival has so much support that the result is not to be trusted."""
    if stats["runner_up_support"] > TRUSTED_RIVAL * stats["support"]:
        counts = f"{stats['runner_up_support']:.0f} key points look alike there, {stats['support']:.0f} here"
        yield f"another place fits almost as well ({counts}); look at the overlay before using it"
