"""Dense descriptors: what a representation looks like around key points or on a grid, matched at every rotation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, get_args

import numpy as np
from jaxtyping import Float

from modalign.errors import InvalidInputError
from modalign.geometry import Grid, Linear, sweep
from modalign.image import Image
from modalign.local_features.matching import mutual_neighbours
from modalign.local_features.surroundings import Described, Places, Surroundings, described
from modalign.registration import workspace
from modalign.registration.engine import Engine
from modalign.registration.registrar import Registration, Status
from modalign.registration.rivalry import Pairing, doubts, supports
from modalign.registration.robust_fit import Agreement, Elsewhere, Estimator, Model, RobustFit, agreement, spread
from modalign.registration.search import compressed

Array = np.ndarray
Points = Float[Array, "points ndim"]

USUAL: dict[int, dict[str, float]] = {
    2: {
        "features": 800,
        "step_pixels": 3,
        "radius_pixels": 24.0,
        "angles": 24,
        "inlier_distance_pixels": 4.0,
        "max_side": 512,
    },
    3: {
        "features": 500,
        "step_pixels": 1,
        "radius_pixels": 14.0,
        "angles": 12,
        "inlier_distance_pixels": 2.0,
        "max_side": 96,
    },
}
"""The options that depend on the number of dimensions: in space the work grows with the third power of the angles."""
DIRECTIONS_A_STEP = {2: 1.0, 3: 1.5}
"""Directions between two neighbouring rotations: on the circle rotations take them to each other, on the sphere only
nearly."""

WIDEST = 0.2
"""Of the shortest side of the images: no surroundings are wider, or few points would have all of them."""
TRUSTED_INLIERS = 14
"""Fewer inliers leave the result unsure."""
TRUSTED_SPREAD = 0.06
"""Inliers that spread less than this fraction of the width leave the result unsure: the rotation is weakly held."""
LEAST_LEAD, TRUSTED_LEAD = 1.3, 2.0
"""How many times the inliers of the next best place are needed: not to be refused; to be trusted."""

ADVICE = "use a representation in which the images look alike, or another method"


@dataclass(frozen=True)
class DenseDescriptors(Engine):
    """Match what surrounds points of two representations: for CoMIRs, whose values agree between the modalities.

    A descriptor holds all channels on circles (in volumes, spheres) around a point, less their mean and scaled to unit
    length. A representation of a rotated image is the rotated representation, so the descriptors of the moving image
    are turned by every rotation in steps; at each one mutual nearest neighbours are matched and a transform is fitted.
    The rotation at which most matches agree wins, and all others tell how many agree by chance. No orientation has to
    be estimated, as SIFT must; but the images must have the same scale, or one of ``scales``.

    Source: mutual nearest neighbours and a robust fit as usual for learned features; corners, Shi and Tomasi, CVPR
    1994, of the structure tensor summed over the channels, Di Zenzo, CVGIP 33, 1986; sampling on circles with blur
    growing outwards after DAISY, Tola et al., IEEE TPAMI 32(5), 2010.
    """

    transform: Model = "rigid"
    """The kind of transform to fit."""
    points: Places = "corners"
    """Describe the strongest corners, or all points of a regular grid."""
    features: int | None = None
    """Most points an image; by default 800, in volumes 500."""
    step_pixels: int | None = None
    """Least distance between corners, or step of the grid, working pixels; by default 3, in volumes 1."""
    radius_pixels: float | None = None
    """Radius of the outermost circle or sphere, working pixels; by default 24, in volumes 14, and never more than a
    fifth of the shortest side of the images."""
    rings: int = 6
    """Circles or spheres around a point."""
    angles: int | None = None
    """Steps to a full turn, of the values on each circle and of the rotations tried; by default 24, in volumes 12."""
    max_rotation_degrees: float = 180.0
    """Rotations up to this angle are tried."""
    ratio: float = 1.0
    """A match must be nearer than this fraction of the distance to the second nearest descriptor; 1 for no test."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes of the moving image's world, relative to the fixed one's, that are tried."""
    mirror: bool = False
    """Also try the mirror image of the moving image."""
    estimator: Estimator = "magsac"
    """Whether an agreeing match counts by its distance (magsac) or fully (ransac)."""
    inlier_distance_pixels: float | None = None
    """Matches within this distance of the transform, in working pixels, agree with it; by default 4, in volumes 2."""
    trials: int = 1000
    """Most random samples of the robust fit at each angle."""
    least_inliers: int = 8
    """Fewer agreeing matches are refused."""
    max_side: int | None = None
    """Work on at most so many pixels along the longest side; by default 512, in volumes 96."""
    seed: int = 0
    """Seed of the random samples."""

    name: ClassVar[str] = "dense"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})

    def __post_init__(self) -> None:
        if self.points not in get_args(Places):
            raise InvalidInputError(f"unknown points {self.points!r}; known are {', '.join(get_args(Places))}")
        numbers = {"features": 1, "step_pixels": 1, "rings": 1, "angles": 4, "max_side": 32, "least_inliers": 3}
        for name, least in numbers.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise InvalidInputError(f"{name} must be at least {least}, not {value}")
        for name in ("radius_pixels", "inlier_distance_pixels"):
            if (length := getattr(self, name)) is not None and not length > 0:
                raise InvalidInputError(f"{name} must be positive, not {length}")
        if not (0 < self.ratio <= 1 and 0 <= self.max_rotation_degrees <= 180):
            raise InvalidInputError("ratio must be above 0 and at most 1, and max_rotation_degrees from 0 to 180")
        if not self.scales or min(self.scales) <= 0:
            raise InvalidInputError(f"scales are positive numbers, at least one, not {self.scales}")
        if self.transform == "rigid" and set(self.scales) != {1.0}:
            raise InvalidInputError("a rigid transform has scale 1; for other scales use transform similarity")
        self._search(1.0, 2)

    def find(self, fixed: Image, moving: Image) -> Registration:
        """Find the transform on which most matches agree, at the best of all rotations."""
        space = workspace.harmonised(*compressed(*workspace.comparable(fixed, moving)))
        spacing = workspace.finest_spacing(space.fixed, space.moving, round(self._usual("max_side", fixed.ndim)))
        fixed, moving = (workspace.isotropic(image, spacing) for image in (space.fixed, space.moving))
        around = self._surroundings(fixed.grid, moving.grid)
        one = described(fixed, around)
        views = self._views(moving, around)
        attempts = [turned for other, mirrored in views for turned in self._turned(one, other, mirrored)]
        best = max(attempts, key=lambda attempt: attempt.quality)
        stats = best.stats() | {"points_fixed": float(len(one.points))}
        if best.found is not None:
            stats |= _rivals(best, best.found.transform, attempts)
        status, reasons = verdict(stats, self)
        transform = None if best.found is None else space.to_world(best.found.transform)
        return Registration.judged(self.name, status, transform, reasons, stats)

    def _usual(self, name: str, ndim: int) -> float:
        """An option, or what is usual in so many dimensions."""
        given: float | None = getattr(self, name)
        return USUAL[ndim][name] if given is None else given

    def _surroundings(self, *grids: Grid) -> Surroundings:
        ndim = grids[0].ndim
        shortest = min(min(grid.shape) for grid in grids)
        return Surroundings(
            self.points,
            round(self._usual("features", ndim)),
            round(self._usual("step_pixels", ndim)),
            min(self._usual("radius_pixels", ndim), WIDEST * shortest),
            self.rings,
            360 / (DIRECTIONS_A_STEP[ndim] * self._usual("angles", ndim)),
        )

    def _views(self, moving: Image, around: Surroundings) -> Iterator[tuple[Described, bool]]:
        """The moving image described at every scale and handedness."""
        for scale in self.scales:
            plain = described(moving, around, scale)
            yield plain, False
            if self.mirror:
                yield plain, True

    def _turned(self, fixed: Described, moving: Described, mirrored: bool) -> Iterator["Attempt"]:
        """The moving descriptors turned by every rotation and matched."""
        ndim = fixed.grid.ndim
        search = replace(self._search(fixed.grid.spacing[0], ndim), mirrored=mirrored)
        mirror = np.eye(ndim)
        mirror[-1, -1] = -1 if mirrored else 1
        to_fixed, to_moving = np.array(fixed.grid.direction), np.array(moving.grid.direction)
        for rotation, elements in sweep(ndim, 360 / self._usual("angles", ndim), self.max_rotation_degrees):
            for element in elements:
                turn = to_moving.T @ rotation @ element.matrix @ mirror @ to_fixed
                yield Attempt.of(fixed, moving, turn, search, self.ratio)

    def _search(self, spacing: float, ndim: int) -> RobustFit:
        limit = self._usual("inlier_distance_pixels", ndim) * spacing
        return RobustFit(self.transform, limit, self.estimator, self.trials, seed=self.seed)


@dataclass(frozen=True, eq=False)
class Attempt:
    """Points matched at one rotation, and what they agree on."""

    one: Described
    other: Described
    turn: Float[Array, "ndim ndim"]
    search: RobustFit
    fixed: Points
    moving: Points
    found: Agreement | None

    @classmethod
    def of(
        cls, one: Described, other: Described, turn: Float[Array, "ndim ndim"], search: RobustFit, ratio: float
    ) -> "Attempt":
        """Match what is seen in the fixed image to what is seen in the moving one after a turn."""
        matches = mutual_neighbours(one.seen().descriptors, other.seen(turn).descriptors, ratio)
        here, there = one.points[matches[:, 0]], other.points[matches[:, 1]]
        return cls(one, other, turn, search, here, there, agreement(here, there, search))

    @cached_property
    def pairing(self) -> Pairing:
        """All key points, for the search for a rival; not kept by attempts that nobody asks."""
        return Pairing(self.one.seen(), self.other.seen(self.turn), self.search)

    @property
    def quality(self) -> float:
        """What decides between rotations."""
        return -1.0 if self.found is None else self.found.quality

    def stats(self) -> dict[str, float]:
        """Numbers of matches and inliers, and how far these spread over the fixed image."""
        inliers = np.zeros(len(self.fixed), dtype=bool) if self.found is None else self.found.inliers
        return {
            "matches": float(len(self.fixed)),
            "inliers": float(inliers.sum()),
            "inlier_ratio": float(inliers.mean()) if len(inliers) else 0.0,
            "spread": spread(self.fixed[inliers], self.one.grid),
            "mirrored": float(self.search.mirrored),
        }


def _rivals(best: Attempt, found: Linear, attempts: Sequence[Attempt]) -> dict[str, float]:
    """How many matches agree on the best transform elsewhere, at the same rotation or any other, and its support."""
    grid: Grid = best.one.grid
    elsewhere = Elsewhere(found, grid)
    beside = replace(best, found=agreement(best.fixed, best.moving, best.search, elsewhere))
    distinct = [one for one in (beside, *attempts) if one.found and elsewhere.holds(one.found.transform.matrix[:-1])]
    ranked = sorted(distinct, key=lambda one: -one.quality)[:1]
    rivals = [(one.pairing, one.found.transform) for one in ranked if one.found]
    count = max((one.found.count for one in distinct if one.found), default=0)
    among_look_alikes = (best.pairing, best.pairing.rival(found, grid))
    return {"runner_up_inliers": float(count)} | supports(best.pairing, found, (*rivals, among_look_alikes))


def verdict(stats: Mapping[str, float], options: DenseDescriptors) -> tuple[Status, tuple[str, ...]]:
    """Status and reasons by the numbers of inliers here and elsewhere."""
    if stats["inliers"] < options.least_inliers:
        counted = f"only {stats['inliers']:.0f} of {stats['matches']:.0f} matches agree"
        return "refused", (f"{counted}, at least {options.least_inliers} are needed; {ADVICE}",)
    lead = stats["inliers"] / max(stats["runner_up_inliers"], 1.0)
    if lead < LEAST_LEAD:
        rival = f"another place fits almost as well ({stats['runner_up_inliers']:.0f} matches agree there"
        return "refused", (f"{rival}, {stats['inliers']:.0f} here); {ADVICE}",)
    if reasons := tuple(_doubts(stats, lead)):
        return "unsure", reasons
    return "accepted", (f"{stats['inliers']:.0f} of {stats['matches']:.0f} matches agree on one transform",)


def _doubts(stats: Mapping[str, float], lead: float) -> Iterator[str]:
    look = "look at the overlay before using it"
    if stats["inliers"] < TRUSTED_INLIERS:
        yield f"only {stats['inliers']:.0f} matches agree; {look}"
    if lead < TRUSTED_LEAD:
        yield f"another place fits nearly as well ({stats['runner_up_inliers']:.0f} matches agree there); {look}"
    if stats["spread"] < TRUSTED_SPREAD:
        yield f"the agreeing matches lie close together, so the rotation is weakly held; {look}"
    yield from doubts(stats)
