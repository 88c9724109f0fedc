"""Dense descriptors: what a representation looks like around key points or on a grid, matched at every rotation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Float

from modalign.errors import InvalidInputError
from modalign.geometry import Grid, Linear
from modalign.image import Image
from modalign.registration import workspace
from modalign.registration.engine import Engine
from modalign.registration.matching import KeyPoints, mutual_neighbours
from modalign.registration.registrar import Registration, Status
from modalign.registration.rivalry import Pairing, doubts, supports
from modalign.registration.robust_fit import Agreement, Elsewhere, Estimator, Model, RobustFit, agreement, spread
from modalign.registration.search import compressed

Array = np.ndarray
Points = Float[Array, "points ndim"]
Places = Literal["corners", "grid"]
Rings = Float[Array, "points channels rings angles"]
"""Values of the image on circles around points, at even angles."""

LEAST_COVER = 0.6
"""Points with a smaller share of their circles inside the image and its mask are dropped."""
GRADIENT_BLUR, TENSOR_BLUR = 1.0, 1.5
"""Standard deviations, in pixels, of the smoothing before the gradients and of their products."""

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

    A descriptor holds all channels on circles around a point, less their mean and scaled to unit length. A
    representation of a rotated image is the rotated representation, so the descriptors of the moving image are turned
    by every angle in steps; at each one mutual nearest neighbours are matched and a transform is fitted. The angle at
    which most matches agree wins, and all others tell how many agree by chance. No orientation has to be estimated, as
    SIFT must; but the images must have the same scale, or one of ``scales``.

    Source: mutual nearest neighbours and a robust fit as usual for learned features; corners, Shi and Tomasi, CVPR
    1994, of the structure tensor summed over the channels, Di Zenzo, CVGIP 33, 1986; sampling on circles with blur
    growing outwards after DAISY, Tola et al., IEEE TPAMI 32(5), 2010.
    """

    transform: Model = "rigid"
    """The kind of transform to fit."""
    points: Places = "corners"
    """Describe the strongest corners, or all points of a regular grid."""
    features: int = 800
    """Most corners an image."""
    step_pixels: int = 3
    """Least distance between corners, or step of the grid, working pixels."""
    radius_pixels: float = 24.0
    """Radius of the outermost circle, working pixels."""
    rings: int = 6
    """Circles around a point."""
    angles: int = 24
    """Values on each circle, and rotations tried."""
    ratio: float = 1.0
    """A match must be nearer than this fraction of the distance to the second nearest descriptor; 1 for no test."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes of the moving image's world, relative to the fixed one's, that are tried."""
    mirror: bool = False
    """Also try the mirror image of the moving image."""
    estimator: Estimator = "magsac"
    """Whether an agreeing match counts by its distance (magsac) or fully (ransac)."""
    inlier_distance_pixels: float = 4.0
    """Matches within this distance of the transform, in working pixels, agree with it."""
    trials: int = 1000
    """Most random samples of the robust fit at each angle."""
    least_inliers: int = 8
    """Fewer agreeing matches are refused."""
    max_side: int = 512
    """Work on at most so many pixels along the longest side."""
    seed: int = 0
    """Seed of the random samples."""

    name: ClassVar[str] = "dense"
    ndims: ClassVar[frozenset[int]] = frozenset({2})

    def __post_init__(self) -> None:
        if self.points not in get_args(Places):
            raise InvalidInputError(f"unknown points {self.points!r}; known are {', '.join(get_args(Places))}")
        if min(self.features, self.step_pixels, self.rings) < 1 or self.angles < 4 or self.max_side < 32:
            raise InvalidInputError(
                "features, step_pixels and rings must be at least 1, angles at least 4 and max_side at least 32"
            )
        if not (self.radius_pixels > 0 and self.inlier_distance_pixels > 0 and 0 < self.ratio <= 1):
            raise InvalidInputError("radius_pixels and inlier_distance_pixels must be positive, ratio at most 1")
        if self.least_inliers < 3:
            raise InvalidInputError(f"least_inliers must be at least 3, not {self.least_inliers}")
        if not self.scales or min(self.scales) <= 0:
            raise InvalidInputError(f"scales are positive numbers, at least one, not {self.scales}")
        if self.transform == "rigid" and set(self.scales) != {1.0}:
            raise InvalidInputError("a rigid transform has scale 1; for other scales use transform similarity")
        self._search(1.0)

    def find(self, fixed: Image, moving: Image) -> Registration:
        """Find the transform on which most matches agree, at the best of all rotations."""
        space = workspace.harmonised(*compressed(*workspace.comparable(fixed, moving)))
        spacing = workspace.finest_spacing(space.fixed, space.moving, self.max_side)
        fixed, moving = (workspace.isotropic(image, spacing) for image in (space.fixed, space.moving))
        one = described(fixed, self)
        attempts = [match for other, mirrored in self._views(moving) for match in self._turned(one, other, mirrored)]
        best = max(attempts, key=lambda attempt: attempt.quality)
        stats = best.stats(fixed.grid) | {"points_fixed": float(len(one.points))}
        if best.found is not None:
            stats |= _rivals(best, best.found.transform, attempts, fixed.grid)
        status, reasons = verdict(stats, self)
        transform = None if best.found is None else space.to_world(best.found.transform)
        return Registration.judged(self.name, status, transform, reasons, stats)

    def _views(self, moving: Image) -> Iterator[tuple["Described", bool]]:
        """The moving image described at every scale and handedness."""
        for scale in self.scales:
            plain = described(moving, self, scale)
            yield plain, False
            if self.mirror:
                yield plain, True

    def _turned(self, fixed: "Described", moving: "Described", mirrored: bool) -> Iterator["Attempt"]:
        """The moving descriptors turned by every angle and matched."""
        opposite = bool(np.linalg.det(fixed.grid.direction) * np.linalg.det(moving.grid.direction) < 0)
        rings = moving.rings if mirrored == opposite else moving.rings[..., ::-1]
        search = replace(self._search(fixed.grid.spacing[0]), mirrored=mirrored)
        for turn in range(self.angles):
            pairing = Pairing(fixed.key_points(), replace(moving, rings=rings).key_points(turn), search)
            matches = mutual_neighbours(pairing.fixed.descriptors, pairing.moving.descriptors, self.ratio)
            here, there = fixed.points[matches[:, 0]], moving.points[matches[:, 1]]
            yield Attempt(pairing, here, there, agreement(here, there, search))

    def _search(self, spacing: float) -> RobustFit:
        limit = self.inlier_distance_pixels * spacing
        return RobustFit(self.transform, limit, self.estimator, self.trials, seed=self.seed)


@dataclass(frozen=True, eq=False)
class Described:
    """Points of an image in world units, what surrounds them, and the grid of the image."""

    points: Points
    rings: Rings = field(repr=False)
    grid: Grid

    def key_points(self, turn: int = 0) -> KeyPoints:
        """The points with one row for each descriptor, turned by so many of its angles."""
        turned = np.roll(self.rings, turn, axis=-1)
        return KeyPoints(self.points, turned.reshape(len(turned), int(np.prod(turned.shape[1:]))))


@dataclass(frozen=True, eq=False)
class Attempt:
    """Points matched at one rotation, and what they agree on."""

    pairing: Pairing
    fixed: Points
    moving: Points
    found: Agreement | None

    @property
    def quality(self) -> float:
        """What decides between rotations."""
        return -1.0 if self.found is None else self.found.quality

    def stats(self, grid: Grid) -> dict[str, float]:
        """Numbers of matches and inliers, and how far these spread over the fixed image."""
        inliers = np.zeros(len(self.fixed), dtype=bool) if self.found is None else self.found.inliers
        return {
            "matches": float(len(self.fixed)),
            "inliers": float(inliers.sum()),
            "inlier_ratio": float(inliers.mean()) if len(inliers) else 0.0,
            "spread": spread(self.fixed[inliers], grid),
            "mirrored": float(self.pairing.search.mirrored),
        }


def _rivals(best: Attempt, found: Linear, attempts: Sequence[Attempt], grid: Grid) -> dict[str, float]:
    """How many matches agree on the best transform elsewhere, at the same rotation or any other, and its support."""
    elsewhere = Elsewhere(found, grid)
    beside = replace(best, found=agreement(best.fixed, best.moving, best.pairing.search, elsewhere))
    distinct = [one for one in (beside, *attempts) if one.found and elsewhere.holds(one.found.transform.matrix[:-1])]
    ranked = sorted(distinct, key=lambda one: -one.quality)[:1]
    rivals = [(one.pairing, one.found.transform) for one in ranked if one.found]
    count = max((one.found.count for one in distinct if one.found), default=0)
    among_look_alikes = (best.pairing, best.pairing.rival(found, grid))
    return {"runner_up_inliers": float(count)} | supports(best.pairing, found, (*rivals, among_look_alikes))


def described(image: Image, options: DenseDescriptors, scale: float = 1.0) -> Described:
    """Points of an image and what surrounds them.

    Args:
        image: On square pixels.
        options: Which points, how many, and the circles.
        scale: The circles are larger by this factor.
    """
    values, valid = _standardised(image), image.valid.astype(np.float32)
    places = {"corners": _corners, "grid": _lattice}[options.points](values, valid, options)
    rings, cover = _sampled(values, valid, places, scale, options)
    keep = cover.mean(axis=(1, 2)) >= LEAST_COVER
    points = image.grid.index_to_world(places[keep])
    return Described(points, _normalised(rings[keep], cover[keep]), image.grid)


def _standardised(image: Image) -> Float[Array, "channels y x"]:
    """Values less the mean of their channel, by one scale for all channels; 0 under the mask."""
    valid = image.valid
    values = image.data[:, valid]
    centered = np.where(valid, image.data - values.mean(axis=1)[:, None, None], 0)
    deviation = np.sqrt((centered**2).sum() / values.size)
    return np.asarray(centered / max(float(deviation), 1e-12), dtype=np.float32)


def _corners(
    values: Float[Array, "channels y x"], valid: Float[Array, "y x"], options: DenseDescriptors
) -> Float[Array, "corners 2"]:
    """The strongest local maxima of the smaller eigenvalue of the structure tensor, to a part of a pixel."""
    cv2: Any = import_module("cv2")
    slopes = [np.gradient(cv2.GaussianBlur(channel, (0, 0), GRADIENT_BLUR)) for channel in values]
    products = (sum(slope[i] * slope[j] for slope in slopes) for i, j in ((0, 0), (1, 1), (0, 1)))
    yy, xx, yx = (cv2.GaussianBlur(product, (0, 0), TENSOR_BLUR) for product in products)
    strength = (yy + xx) / 2 - np.hypot((yy - xx) / 2, yx)
    inside = cv2.erode(valid, np.ones((3, 3)), borderValue=0) > 0  # the border of the mask is no corner
    around = 2 * options.step_pixels + 1
    highest = cv2.dilate(strength, np.ones((around, around))) <= strength
    y, x = np.nonzero(highest & inside & (strength > 1e-6 * strength.max()))
    strongest = np.argsort(-strength[y, x], kind="stable")[: options.features]
    y, x = y[strongest], x[strongest]
    dy = _vertex(strength[y - 1, x], strength[y, x], strength[y + 1, x])
    dx = _vertex(strength[y, x - 1], strength[y, x], strength[y, x + 1])
    return np.column_stack([y + dy, x + dx]).astype(float)


def _vertex(
    before: Float[Array, " points"], here: Float[Array, " points"], after: Float[Array, " points"]
) -> Float[Array, " points"]:
    """Where the parabola through three values at −1, 0 and 1 has its top, at most half a step away."""
    bend = np.minimum(before - 2 * here + after, -1e-12)
    return np.asarray(np.clip((before - after) / (2 * bend), -0.5, 0.5))


def _lattice(
    values: Float[Array, "channels y x"], valid: Float[Array, "y x"], options: DenseDescriptors
) -> Float[Array, "nodes 2"]:
    """Valid nodes of a square grid, as dense as ``step_pixels`` and ``features`` allow."""
    step = max(float(options.step_pixels), float(np.sqrt(valid.size / options.features)))
    axes = [np.arange((n - 1) % step / 2, n, step) for n in valid.shape]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, values.ndim - 1)
    return np.asarray(nodes[valid[tuple(np.rint(nodes).astype(int).T)] > 0])


def _sampled(
    values: Float[Array, "channels y x"],
    valid: Float[Array, "y x"],
    places: Float[Array, "points 2"],
    scale: float,
    options: DenseDescriptors,
) -> tuple[Rings, Float[Array, "points rings angles"]]:
    """Values on circles around places, blurred as much as the samples lie apart, and which of them are valid."""
    cv2: Any = import_module("cv2")
    angles = 2 * np.pi * np.arange(options.angles) / options.angles
    radii = scale * options.radius_pixels * np.arange(1, options.rings + 1) / options.rings
    rings = np.zeros((len(places), len(values), options.rings, options.angles), dtype=np.float32)
    cover = np.zeros((len(places), options.rings, options.angles), dtype=np.float32)
    for ring, radius in enumerate(radii):
        blur = max(np.pi * radius / options.angles, 0.6)
        y, x = (
            (places[:, axis, None] + radius * wave(angles)).astype(np.float32)
            for axis, wave in enumerate((np.sin, np.cos))
        )
        weight = cv2.GaussianBlur(valid, (0, 0), blur)
        cover[:, ring] = _looked_up(cv2, weight, y, x) > 0.5
        for channel, image in enumerate(values):
            smooth = cv2.GaussianBlur(image, (0, 0), blur) / np.maximum(weight, 1e-3)
            rings[:, channel, ring] = _looked_up(cv2, smooth, y, x)
    return rings, cover


def _looked_up(
    cv2: Any, image: Float[Array, "y x"], y: Float[Array, "n k"], x: Float[Array, "n k"]
) -> Float[Array, "n k"]:
    """Linear interpolation, 0 outside."""
    if len(y) == 0:
        return y
    values: Array = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return values


def _normalised(rings: Rings, cover: Float[Array, "points rings angles"]) -> Rings:
    """Valid values less their mean, of unit length; every circle counts by its circumference."""
    weight = (cover * np.arange(1, cover.shape[1] + 1)[:, None])[:, None]
    mean = (rings * weight).sum((2, 3), keepdims=True) / np.maximum(weight.sum((2, 3), keepdims=True), 1e-6)
    centered = (rings - mean) * np.sqrt(weight)
    length = np.sqrt((centered**2).sum((1, 2, 3), keepdims=True))
    return np.asarray(centered / np.maximum(length, 1e-6), dtype=np.float32)


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
