"""Exhaustive rigid search by masked normalised cross-correlation, coarse to fine."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from modalign.errors import InvalidInputError
from modalign.image import Image
from modalign.registration import workspace
from modalign.registration.engine import Engine
from modalign.registration.masked_ncc import Correlator, Stack
from modalign.registration.poses import Candidate, Level, Pose
from modalign.registration.refinement import GROUPS, Model, climbed, maximised
from modalign.registration.registrar import Registration
from modalign.registration.search import Pyramid, compressed, distinct, scales, verdict
from modalign.registration.sweeps import COARSE_SIDES, swept

Array = np.ndarray

WINDOW_SIDES = {2: 512, 3: 80}
"""Levels with a longer side are only refined, not searched: the level below is already exact to a part of a pixel."""
LEAST_SIDE = COARSE_SIDES[2]
"""Images are not made smaller than this."""
LARGEST_SCALE = 8.0
"""Scales beyond this, or beyond its inverse, are not searched: what is left of the smaller image tells nothing."""
SCALE_STEP = 3.0
"""Step between scales, in coarse pixels at the border of images of one size."""
SCALED_SIDES, SCALED_CANDIDATES = {2: 64, 3: 16}, 2
"""Longest side of the coarsest level where scales are searched, and how many times more places are kept there."""


@dataclass(frozen=True)
class FftSearch(Engine):
    """Try all rotations and whole-pixel shifts, then refine: for images or representations that look alike.

    Every rotation of a coarse version of the moving image is correlated with the fixed one at all shifts at once, by
    FFT and with masks. The best distinct candidates are scored again at finer levels, and the best of all is refined to
    a small part of a pixel. No starting position is needed, and the result does not depend on chance.

    Pixel sizes are trusted unless a range of scales is given; then every rotation is tried at every scale.

    Source: masked correlation, Padfield, IEEE TIP 21(5), 2012; refinement, Evangelidis and Psarakis, IEEE TPAMI 30(10),
    2008.
    """

    max_rotation_degrees: float = 180.0
    """Rotations up to this angle to both sides are tried."""
    mirror: bool = False
    """Also try the mirror image of the moving image."""
    min_scale: float = 1.0
    """Smallest scale tried: how large things are in the moving image, relative to the fixed one, by the pixel sizes."""
    max_scale: float = 1.0
    """Largest scale tried. The time grows with its ratio to the smallest; 0.5 to 2 takes about three times as long."""
    transform: Model = "rigid"
    """What the last refinement may change. Where scales are searched, rigid becomes similarity."""
    min_overlap: float = 0.2
    """Least overlap, as a fraction of the valid area of the smaller image."""
    candidates: int = 16
    """How many distinct places are scored again at a finer level."""
    max_side: int = 2048
    """Work on at most so many pixels along the longest side, in 3D on as many voxels as a square of it has; the result
    is still exact to a part of a pixel."""

    name: ClassVar[str] = "fft-search"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})

    def __post_init__(self) -> None:
        if not 0 <= self.max_rotation_degrees <= 180:
            raise InvalidInputError(f"max_rotation_degrees lies between 0 and 180, not {self.max_rotation_degrees}")
        if not 1 / LARGEST_SCALE <= self.min_scale <= self.max_scale <= LARGEST_SCALE:
            raise InvalidInputError(
                f"min_scale and max_scale lie between {1 / LARGEST_SCALE:g} and {LARGEST_SCALE:g}, in this order, not "
                f"{self.min_scale:g} with {self.max_scale:g}; give pixel sizes where images differ more"
            )
        if self.transform not in GROUPS:
            raise InvalidInputError(f"transform is one of {', '.join(GROUPS)}, not {self.transform!r}")
        if not 0 < self.min_overlap <= 1:
            raise InvalidInputError(f"min_overlap is a fraction above 0 and at most 1, not {self.min_overlap}")
        if self.candidates < 2:
            raise InvalidInputError(f"at least 2 candidates are needed to compare the best, not {self.candidates}")
        if self.max_side < LEAST_SIDE:
            raise InvalidInputError(f"max_side is at least {LEAST_SIDE} pixels, not {self.max_side}")

    def propose(self, fixed: Image, moving: Image) -> list[Candidate]:
        """The best distinct places before the last refinement, best first, as :meth:`find` weighs them.

        Transforms are between the images' own worlds; the images must pass the checks of :meth:`register`.
        """
        space = workspace.harmonised(*workspace.comparable(fixed, moving))
        poses, _ = self._searched(space.fixed, space.moving)
        found = [pose.candidate(space.fixed.grid, space.moving.grid) for pose in poses]
        return [replace(candidate, transform=space.to_world(candidate.transform)) for candidate in found]

    def find(self, fixed: Image, moving: Image) -> Registration:
        """Find the transform under which the overlap correlates best."""
        space = workspace.harmonised(*workspace.comparable(fixed, moving))
        poses, reached = self._searched(space.fixed, space.moving)
        if not poses:
            return _no_overlap(self)
        return result(self, space, self._refined(space, poses[0], reached), poses)

    def _searched(self, fixed: Image, moving: Image) -> tuple[list[Pose], int]:
        """The best distinct poses at the finest level that is searched, best first, and the number of that level."""
        pyramids = self._pyramids(fixed, moving)
        poses, reached = self._swept(pyramids), 0
        for number in range(1, max(len(pyramid.spacings) for pyramid in pyramids)) or (0,):
            nearest = [_nearest(pyramids, pose) for pose in poses]
            levels = {scale: near.level(number) for scale, near in {near.scale: near for near in nearest}.items()}
            if not poses or max(max(level.fixed_grid.shape) for level in levels.values()) > WINDOW_SIDES[fixed.ndim]:
                break
            climbs = [self._climbed(levels[near.scale], pose) for near, pose in zip(nearest, poses, strict=True)]
            poses, reached = distinct(climbs, levels[nearest[0].scale], max(2, len(poses) // 4)), number
        return poses, reached

    def _pyramids(self, fixed: Image, moving: Image) -> list[Pyramid]:
        """One for every scale to try."""
        side = (SCALED_SIDES if self._is_scaled else COARSE_SIDES)[fixed.ndim]
        tried = scales(self.min_scale, self.max_scale, SCALE_STEP * 2 / side)
        return [Pyramid.of(fixed, moving, self.max_side, scale, side) for scale in tried]

    @property
    def _is_scaled(self) -> bool:
        """Whether scales are searched."""
        return self.min_scale < self.max_scale

    def _climbed(self, level: Level, pose: Pose) -> Pose:
        return climbed(level, pose, self.min_overlap, self._is_scaled)

    def _swept(self, pyramids: Sequence[Pyramid]) -> list[Pose]:
        """The best distinct poses among all scales, rotations and whole-pixel shifts at the coarsest level."""
        count = self.candidates * (SCALED_CANDIDATES if self._is_scaled else 1)
        found: list[Pose] = []
        for pyramid in pyramids:
            level = replace(pyramid, images=compressed(*pyramid.images)).level(0)
            for mirrored in (False, True)[: 1 + self.mirror]:
                found += distinct(list(self._turned(level, mirrored, pyramid.scale)), level, count)
        return distinct(found, level, count)

    def _turned(self, level: Level, mirrored: bool, scale: float) -> Iterator[Pose]:
        """The best shifts of every rotation."""

        def compare(fixed: Stack, box: tuple[int, ...]) -> Correlator:
            return Correlator(fixed, box, level.area, self.min_overlap)

        return swept(level, compare, self.max_rotation_degrees, mirrored=mirrored, scale=scale)

    def _refined(self, space: workspace.Workspace, pose: Pose, reached: int) -> Candidate:
        """A pose refined from the level it was searched at, or from the coarsest where more than its motion changes."""
        pyramid = Pyramid.of(space.fixed, space.moving, self.max_side, pose.scale)
        model: Model = "similarity" if self.transform == "rigid" and self._is_scaled else self.transform
        best = pose.candidate(space.fixed.grid, space.moving.grid)
        last = len(pyramid.spacings) - 1
        for number in range(min(reached + 1, last) if model == "rigid" else 0, last + 1):
            best = maximised(pyramid.level(number), best.transform, model)
        return best


def _nearest(pyramids: Sequence[Pyramid], pose: Pose) -> Pyramid:
    return min(pyramids, key=lambda pyramid: abs(math.log(pyramid.scale / pose.scale)))


def result(method: FftSearch, space: workspace.Workspace, best: Candidate, rivals: Sequence[Pose]) -> Registration:
    """The registration that the best place stands for, judged against its rivals at the last level they all reached."""
    runner_up = rivals[1] if len(rivals) > 1 else replace(rivals[0], score=0.0)
    pose = Pose.of(best, space.fixed.grid, space.moving.grid)
    stats = {
        "score": best.score,
        "overlap": best.overlap,
        "runner_up": runner_up.score,
        "contrast": 1 - max(runner_up.rank, 0.0) / rivals[0].rank if rivals[0].rank > 0 else 0.0,
        "rotation_degrees": pose.degrees,
        "scale": pose.scale,
        "mirrored": float(pose.mirrored),
    }
    status, reasons = verdict(stats["score"], stats["contrast"])
    return Registration.judged(method.name, status, space.to_world(best.transform), reasons, stats)


def _no_overlap(method: FftSearch) -> Registration:
    return Registration(method.name, "refused", None, ("the images correlate nowhere; lower min_overlap",))
