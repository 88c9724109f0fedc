"""Exhaustive rigid search by mutual information, coarse to fine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from modalign.errors import InvalidInputError
from modalign.geometry import random_rotations
from modalign.image import Image
from modalign.registration import workspace
from modalign.registration.cmif import Cmif
from modalign.registration.engine import Engine
from modalign.registration.masked_ncc import Stack
from modalign.registration.poses import Pose
from modalign.registration.quantised_level import QuantisedLevel, climbed, quantised_level, refined, scored
from modalign.registration.registrar import Registration, Status
from modalign.registration.search import distinct, level_spacings
from modalign.registration.sweeps import swept

Array = np.ndarray

COARSE_SIDES = {2: 48, 3: 16}
"""Longest side, in pixels, at which all rotations and shifts are tried, by the number of dimensions."""
LEAST_SIDE = COARSE_SIDES[2]
"""Images are not made smaller than this."""
CLIMB_SIDE = 256
"""Candidates are scored again at levels up to this side; the last of them is refined beyond it."""
KEPT, LEAST_KEPT = 4, 4
"""One of so many candidates is scored again at the next finer level; but never fewer than the second number."""
SMOOTH_CLASSES = 8
"""Classes at the last, continuous refinement: more take longer and are not more accurate."""
CHANCE_POSES = 24
"""Random poses that show how much information the images share by chance."""

LEAST_CONTRAST, TRUSTED_CONTRAST = 0.15, 0.25
"""By how much, as a fraction of its height above chance, the best place must outrank the next best elsewhere: not to be
refused; to be trusted."""
TRUSTED_SURPRISE = 3.0
"""Height above chance, in standard deviations of random poses, that trust needs as well."""


@dataclass(frozen=True)
class GlobalMI(Engine):
    """Try all rotations and shifts by mutual information, then refine: for originals of different modalities.

    Both images are quantised into a few classes by k-means over their own channels, so colours count and the relation
    between the images may be anything. The mutual information of a coarse version is computed for all shifts at once,
    by FFT and with masks, at every rotation; the best distinct candidates are scored again at finer levels, and the
    best of all is refined to a part of a pixel. No starting position is needed.

    Candidates are ranked by what is nearly the mutual information times the overlap: what unrelated images share by
    chance falls with one over the overlap, so that small overlaps gain nothing from it.

    Source: Öfverstedt, Lindblad, Sladoje, Pattern Recognition Letters 159, 2022, for the exhaustive search at one
    level.
    """

    max_rotation_degrees: float = 180.0
    """Rotations up to this angle to both sides are tried."""
    mirror: bool = False
    """Also try the mirror image of the moving image."""
    min_overlap: float = 0.3
    """Least overlap, as a fraction of the valid area of the smaller image."""
    coarse_classes: int = 6
    """Classes into which each image is quantised where all rotations and shifts are tried."""
    fine_classes: int = 24
    """Classes into which each image is quantised where candidates are scored again."""
    normalised: bool = False
    """Maximise the mutual information as a share of the mean entropy of both images in the overlap."""
    candidates: int = 64
    """How many distinct places are scored again at a finer level."""
    max_side: int = 512
    """Work on at most so many pixels along the longest side, in 3D on as many voxels as a square of it has; the result
    is still exact to a part of a pixel."""
    seed: int = 0
    """Seed of the quantisation."""

    name: ClassVar[str] = "global-mi"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})

    def __post_init__(self) -> None:
        if not 0 <= self.max_rotation_degrees <= 180:
            raise InvalidInputError(f"max_rotation_degrees lies between 0 and 180, not {self.max_rotation_degrees}")
        if not 0 < self.min_overlap <= 1:
            raise InvalidInputError(f"min_overlap is a fraction above 0 and at most 1, not {self.min_overlap}")
        if not all(2 <= classes <= 64 for classes in (self.coarse_classes, self.fine_classes)):
            classes = f"{self.coarse_classes} and {self.fine_classes}"
            raise InvalidInputError(f"images are quantised into 2 to 64 classes, not {classes}")
        if self.candidates < 2:
            raise InvalidInputError(f"at least 2 candidates are needed to compare the best, not {self.candidates}")
        if self.max_side < LEAST_SIDE:
            raise InvalidInputError(f"max_side is at least {LEAST_SIDE} pixels, not {self.max_side}")
        if self.seed < 0:
            raise InvalidInputError(f"a seed is at least 0, not {self.seed}")

    def find(self, fixed: Image, moving: Image) -> Registration:
        """Find the rigid transform under which the overlap shares most information."""
        space = workspace.harmonised(fixed, moving)
        climb_side = min(self.max_side, CLIMB_SIDE)
        coarse, *finer = level_spacings(space.fixed, space.moving, climb_side, coarse_side=COARSE_SIDES[fixed.ndim])
        level = self._level(space, coarse, self.coarse_classes)
        poses = self._searched(level)
        if len(poses) == 0:
            return _nothing_shared(self)
        stands: list[Standing] = []
        for spacing in finer or [coarse]:
            level = self._level(space, spacing, self.fine_classes)
            count = max(LEAST_KEPT, len(poses) // KEPT)
            poses = distinct([climbed(level, pose, self.min_overlap) for pose in poses], level, count)
            stands.append(Standing.of(poses, self._by_chance(level)))
        finest = level_spacings(space.fixed, space.moving, self.max_side)[-1]
        best = refined(self._level(space, finest, min(SMOOTH_CLASSES, self.fine_classes)), poses[0])
        return result(self, space, best, stands)

    def _level(self, space: workspace.Workspace, spacing: float, classes: int) -> QuantisedLevel:
        return quantised_level(space.fixed, space.moving, spacing, classes, self.seed, self.normalised)

    def _searched(self, level: QuantisedLevel) -> list[Pose]:
        """The best distinct poses among all rotations and whole-pixel shifts, best first."""
        found = [pose for mirrored in (False, True)[: 1 + self.mirror] for pose in self._swept(level, mirrored)]
        return distinct(found, level, self.candidates)

    def _swept(self, level: QuantisedLevel, mirrored: bool) -> Iterator[Pose]:
        def compare(fixed: Stack, box: tuple[int, ...]) -> Cmif:
            return Cmif(fixed[:-2], box, self.min_overlap * level.area, self.normalised)

        return swept(level, compare, self.max_rotation_degrees, mirrored=mirrored)

    def _by_chance(self, level: QuantisedLevel) -> list[Pose]:
        """Random rotations about the centre, with their scores."""
        turns = random_rotations(level.fixed_grid.ndim, CHANCE_POSES, np.random.default_rng(self.seed))
        return [scored(level, Pose.centered(turn)) for turn in turns]


@dataclass(frozen=True)
class Standing:
    """How the best of some distinct poses stands out at one level.

    Attributes:
        contrast: By what fraction its rank exceeds that of the next best, both counted from the mean of random poses.
        surprise: By how many standard deviations of random poses its rank exceeds their mean.
    """

    contrast: float
    surprise: float

    @classmethod
    def of(cls, poses: Sequence[Pose], by_chance: Sequence[Pose]) -> "Standing":
        """The standing of the first of some distinct poses, best first, among the others and among random ones."""
        random = [pose.rank for pose in by_chance]
        height, *others = (pose.rank - float(np.mean(random)) for pose in poses)
        contrast = 1 - max([0.0, *others]) / height if height > 0 else 0.0
        return cls(contrast, height / max(float(np.std(random)), 1e-9))


def result(method: GlobalMI, space: workspace.Workspace, best: Pose, stands: Sequence[Standing]) -> Registration:
    """The registration that the best pose stands for, judged by the level at which it stands out least."""
    stats = {
        "score": best.score,
        "overlap": best.overlap,
        "contrast": min(standing.contrast for standing in stands),
        "surprise": min(standing.surprise for standing in stands),
        "rotation_degrees": float(best.degrees),
        "mirrored": float(best.mirrored),
    }
    status, reasons = verdict(stats["contrast"], stats["surprise"])
    transform = best.transform(space.fixed.grid, space.moving.grid)
    return Registration.judged(method.name, status, space.to_world(transform), reasons, stats)


def verdict(contrast: float, surprise: float) -> tuple[Status, tuple[str, ...]]:
    """Status and reason by how far the best place outranks the next best elsewhere, and random ones."""
    if contrast < LEAST_CONTRAST:
        reason = f"another place shares almost as much information (contrast {contrast:.2f})"
        return "refused", (f"{reason}; use a larger field of view, a representation, or limit the rotation",)
    numbers = f"contrast {contrast:.2f}, {surprise:.1f} standard deviations above chance"
    if contrast < TRUSTED_CONTRAST or surprise < TRUSTED_SURPRISE:
        return "unsure", (f"the best place stands out a little ({numbers}); look at the overlay",)
    return "accepted", (f"the best place stands out ({numbers})",)


def _nothing_shared(method: GlobalMI) -> Registration:
    return Registration(method.name, "refused", None, ("the images share no information; lower min_overlap",))
