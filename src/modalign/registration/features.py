"""Local features: key points of any OpenCV detector, matched and fitted by a robust linear transform."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product
from typing import ClassVar, get_args

import numpy as np
from jaxtyping import Float

from modalign.errors import InvalidInputError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.local_features.key_points import Detector, KeyPointOptions, key_points, mirrored_key_points
from modalign.local_features.matching import KeyPoints, first_of_each, mutual_neighbours
from modalign.registration import workspace
from modalign.registration.engine import Engine
from modalign.registration.registrar import Registration, Status
from modalign.registration.rivalry import Pairing, doubts, supports
from modalign.registration.robust_fit import Agreement, Estimator, Model, RobustFit, agreement, spread

Array = np.ndarray
Points = Float[Array, "points ndim"]


TRUSTED_INLIERS = 14
"""Fewer inliers leave the result unsure; unrelated images reach six by chance."""
CHANCE = 4.0
"""So many times the inliers of a random transform are needed on top: a wide limit collects wrong matches too."""
TRUSTED_RATIO = 0.08
"""A smaller share of inliers among the matches leaves the result unsure."""
TRUSTED_SPREAD = 0.06
"""Inliers that spread less than this fraction of the width leave the result unsure: the rotation is weakly held."""

ADVICE = "use a representation in which the images look alike, or another method"


@dataclass(frozen=True)
class Features(Engine):
    """Match key points and fit a transform to them: for images or representations with much local detail.

    Any rotation and any position with some overlap are found. Images with several channels are reduced to one, see
    :func:`modalign.registration.workspace.pictures`. :data:`PRESETS` holds named settings, those of publications among
    them.

    Source: SIFT, Lowe, IJCV 60(2), 2004, with descriptors compared by the Hellinger distance; the robust fit as in
    :mod:`modalign.registration.robust_fit`.
    """

    detector: Detector = "sift"
    """What finds and describes key points; asift is SIFT on tilted views, for affine transforms. Releases of OpenCV
    from 5.0 on have brisk, akaze and kaze only where they come with the extra modules."""
    transform: Model = "rigid"
    """The kind of transform to fit."""
    features: int = 5000
    """Most key points an image."""
    contrast_threshold: float = 0.004
    """Weaker key points of SIFT are dropped; OpenCV's own default, 0.04, is made for photographs."""
    scales_per_octave: int = 3
    """Scales of SIFT at which key points are sought while the image is halved once."""
    sigma: float = 1.6
    """Blur of the first scale of SIFT, pixels."""
    octave_sides: tuple[int, int] = (0, 1_000_000)
    """Only octaves of SIFT whose image sides, in pixels, lie within these bounds are used."""
    hellinger: bool = True
    """Compare descriptors of SIFT by the Hellinger distance instead of the Euclidean one."""
    ratio: float = 0.9
    """A match must be nearer than this fraction of the distance to the second nearest descriptor; 1 for no test."""
    mirror: bool = False
    """Also try the mirror image of the moving image."""
    inverted: bool = False
    """Also try the moving image with bright and dark exchanged."""
    estimator: Estimator = "magsac"
    """Whether an agreeing match counts by its distance (magsac) or fully (ransac)."""
    inlier_distance_pixels: float = 3.0
    """Matches within this distance of the transform, in working pixels, agree with it."""
    trials: int = 20_000
    """Most random samples of the robust fit."""
    sample: int = 0
    """Matches in a random sample; 0 for as few as determine the transform."""
    least_inliers: int = 8
    """Fewer agreeing matches are refused."""
    least_inlier_ratio: float = 0.0
    """A smaller share of agreeing matches is refused."""
    max_side: int = 2048
    """Work on at most so many pixels along the longest side."""
    seed: int = 0
    """Seed of the random samples."""

    name: ClassVar[str] = "features"
    ndims: ClassVar[frozenset[int]] = frozenset({2})

    def __post_init__(self) -> None:
        if self.detector not in get_args(Detector):
            raise InvalidInputError(f"unknown detector {self.detector!r}; known are {', '.join(get_args(Detector))}")
        if self.features < self.least_inliers or self.least_inliers < 3:
            raise InvalidInputError(
                f"features must be at least least_inliers, and those at least 3, not {self.features} and "
                f"{self.least_inliers}"
            )
        if not (0 < self.ratio <= 1 and 0 <= self.least_inlier_ratio < 1):
            raise InvalidInputError(f"ratio is a fraction above 0 and at most 1, not {self.ratio}")
        if not (self.inlier_distance_pixels > 0 and self.contrast_threshold >= 0 and self.max_side >= 32):
            raise InvalidInputError("inlier_distance_pixels must be positive, max_side at least 32")
        if self.scales_per_octave < 1 or not self.sigma > 0:
            raise InvalidInputError("scales_per_octave must be at least 1, sigma positive")
        self._search(1.0)

    def find(self, fixed: Image, moving: Image) -> Registration:
        """Find the transform on which most matches agree."""
        space = workspace.harmonised(*workspace.pictures(fixed, moving))
        spacing = workspace.finest_spacing(space.fixed, space.moving, self.max_side)
        fixed, moving = (workspace.isotropic(image, spacing) for image in (space.fixed, space.moving))
        keys = key_points(fixed, self._key_point_options())
        attempts = [self._attempt(keys, *view, fixed.grid) for view in self._views(fixed.grid, moving)]
        best = max(attempts, key=lambda attempt: attempt.quality)
        stats = best.stats(fixed.grid)
        if best.found is not None and best.found.count >= self.least_inliers:
            found = best.found.transform
            rivals = ((attempt.pairing, attempt.pairing.rival(found, fixed.grid)) for attempt in attempts)
            stats |= supports(best.pairing, found, rivals)
        status, reasons = verdict(stats, self)
        transform = None if best.found is None else space.to_world(best.found.transform)
        return Registration.judged(self.name, status, transform, reasons, stats)

    def _views(self, fixed: Grid, moving: Image) -> Iterator[tuple[KeyPoints, bool]]:
        """Key points of the moving image, as it is and, where wanted, mirrored and inverted; and whether mirrored."""
        options = self._key_point_options()
        opposite = bool(np.linalg.det(fixed.direction) * np.linalg.det(moving.grid.direction) < 0)
        for mirrored, inverted in product((False, True)[: 1 + self.mirror], (False, True)[: 1 + self.inverted]):
            seen = moving.with_data(-moving.data) if inverted else moving
            yield (key_points if mirrored == opposite else mirrored_key_points)(seen, options), mirrored

    def _attempt(self, fixed: KeyPoints, moving: KeyPoints, mirrored: bool, grid: Grid) -> "Attempt":
        """Match the fixed key points with those of one view of the moving image."""
        search = replace(self._search(grid.spacing[0]), mirrored=mirrored)
        matches = mutual_neighbours(fixed.descriptors, moving.descriptors, self.ratio)
        places = [keys.points[index] for keys, index in zip((fixed, moving), matches.T, strict=True)]
        first = first_of_each(np.column_stack(places) / grid.spacing[0])
        found = agreement(places[0][first], places[1][first], search)
        return Attempt(Pairing(fixed, moving, search), len(first), found, places[0][first])

    def _key_point_options(self) -> KeyPointOptions:
        shared = {option.name for option in fields(KeyPointOptions)} & {option.name for option in fields(self)}
        return KeyPointOptions(**{name: getattr(self, name) for name in shared})

    def _search(self, spacing: float) -> RobustFit:
        limit = self.inlier_distance_pixels * spacing
        return RobustFit(self.transform, limit, self.estimator, self.trials, self.sample, seed=self.seed)


PRESETS: Mapping[str, Features] = {
    **{detector: Features(detector=detector) for detector in get_args(Detector)},
    "sift-fiji": Features(
        features=100_000,
        contrast_threshold=0.0001,
        scales_per_octave=4,
        octave_sides=(128, 1024),
        hellinger=False,
        estimator="ransac",
        inlier_distance_pixels=25.0,
        trials=1000,
        least_inliers=5,
        least_inlier_ratio=0.05,
    ),
    "sift-multiregeval": Features(
        features=500,
        contrast_threshold=0.04,
        hellinger=False,
        ratio=1.0,
        estimator="ransac",
        inlier_distance_pixels=2.0,
        trials=100,
        sample=3,
        least_inliers=3,
    ),
}
"""Named settings.

``sift-fiji`` are those of the Fiji script of Pielawski et al., NeurIPS 2020: 4 scales an octave, in Lowe's count too;
octaves of at least 128 and at most 1024 pixels; descriptors of 4 × 4 histograms of 8 bins, as in OpenCV; ratio 0.9;
rigid, 1000 trials, 25 pixels, at least 5 % and 5 inliers. Its least contrast is meant for intensities from 0 to 1, but
compared with 0 to 255, so it hardly rejects anything; that is kept. Fiji never doubles an image, OpenCV does, so images
below 512 pixels get one octave more here; Fiji drops all matches that share a moving key point, where mutual neighbours
keep the nearest. ``sift-multiregeval`` are those of Lu et al., PLOS ONE 17(11), 2022: 500 key points, mutual neighbours
without a ratio test; Euclidean, 100 trials of 3 matches, 2 pixels. Both publications accept whatever passes these
bounds; the verdicts here are stricter.
"""


@dataclass(frozen=True, eq=False)
class Attempt:
    """One view of the moving image matched with the fixed one."""

    pairing: Pairing
    matches: int
    found: Agreement | None
    points: Points = field(repr=False)
    """Fixed points of the matches."""

    @property
    def quality(self) -> float:
        """What decides between views."""
        return -1.0 if self.found is None else self.found.quality

    def stats(self, fixed_grid: Grid) -> dict[str, float]:
        """Numbers of key points, matches and inliers, and how far these spread."""
        inliers = np.zeros(self.matches, dtype=bool) if self.found is None else self.found.inliers
        return {
            "key_points_fixed": float(len(self.pairing.fixed)),
            "key_points_moving": float(len(self.pairing.moving)),
            "matches": float(self.matches),
            "inliers": float(inliers.sum()),
            "inlier_ratio": float(inliers.mean()) if self.matches else 0.0,
            "chance_inliers": self.matches * self._reach(fixed_grid),
            "spread": spread(self.points[inliers], fixed_grid),
            "mirrored": float(self.pairing.search.mirrored),
        }

    def _reach(self, fixed_grid: Grid) -> float:
        """Share of the image within the limit of a place: how often a wrong match agrees with a transform."""
        return min(1.0, float(np.pi * self.pairing.search.limit**2 / np.prod(fixed_grid.extent)))


def verdict(stats: Mapping[str, float], options: Features) -> tuple[Status, tuple[str, ...]]:
    """Status and reasons by the numbers of matches and inliers."""
    if min(stats["key_points_fixed"], stats["key_points_moving"]) < options.least_inliers:
        return "refused", (f"too few key points: the images have too little local detail; {ADVICE}",)
    if stats["inliers"] < options.least_inliers:
        counted = f"only {stats['inliers']:.0f} of {stats['matches']:.0f} matches agree"
        return "refused", (f"{counted}, at least {options.least_inliers} are needed; {ADVICE}",)
    if stats["inlier_ratio"] < options.least_inlier_ratio:
        return "refused", (f"only {stats['inlier_ratio']:.0%} of the matches agree; {ADVICE}",)
    if reasons := tuple(_doubts(stats)):
        return "unsure", reasons
    return "accepted", (f"{stats['inliers']:.0f} of {stats['matches']:.0f} matches agree on one transform",)


def _doubts(stats: Mapping[str, float]) -> Iterator[str]:
    look = "look at the overlay before using it"
    if stats["inliers"] < TRUSTED_INLIERS + CHANCE * stats["chance_inliers"]:
        yield f"only {stats['inliers']:.0f} matches agree; {look}"
    if stats["inlier_ratio"] < TRUSTED_RATIO:
        yield f"only {stats['inlier_ratio']:.0%} of the matches agree; {look}"
    if stats["spread"] < TRUSTED_SPREAD:
        yield f"the agreeing matches lie close together, so the rotation is weakly held; {look}"
    yield from doubts(stats)
