"""Local features: SIFT key points, matched and fitted by a robust linear transform."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from modalign.errors import InvalidInputError
from modalign.geometry import Grid, Linear, fit_affine, fit_rigid, fit_similarity
from modalign.image import Image
from modalign.registration import workspace
from modalign.registration.engine import Engine
from modalign.registration.registrar import Registration, Status

Array = np.ndarray
Points = Float[Array, "points ndim"]
Model = Literal["rigid", "similarity", "affine"]

PERCENTILES = (0.5, 99.5)
"""Intensities between these percentiles of the valid pixels are spread over 0 to 255."""
BLOCK_MATCHES = 1 << 24
"""Similarities of descriptors computed at a time."""
TRIALS = 20_000
"""Random samples of the robust fit; it stops earlier where the inliers are many."""
REFITS = 10
"""Rounds of fitting to the inliers and selecting them again."""

LEAST_INLIERS = 8
"""Fewer inliers are refused: unrelated images reach six by chance."""
TRUSTED_INLIERS = 14
"""Fewer inliers leave the result unsure."""
TRUSTED_RATIO = 0.08
"""A smaller share of inliers among the matches leaves the result unsure."""
TRUSTED_SPREAD = 0.06
"""Inliers that spread less than this fraction of the width leave the result unsure: the rotation is weakly held."""

ADVICE = "use a representation in which the images look alike, or another method"


@dataclass(frozen=True)
class Sift(Engine):
    """Match SIFT key points and fit a transform to them: for images or representations with much local detail.

    Any rotation and any position with some overlap are found. Images with inverted contrast do not match: use a
    representation of them. Images with several channels are reduced to one, see
    :func:`modalign.registration.workspace.pictures`.

    Source: Lowe, IJCV 60(2), 2004; descriptors compared by the Hellinger distance, Arandjelović and Zisserman, CVPR
    2012; MAGSAC++, Barath et al., CVPR 2020, for affine hypotheses, and two-point RANSAC for the others, because two
    points suffice there and far fewer inliers are needed.
    """

    transform: Model = "rigid"
    """The kind of transform to fit."""
    features: int = 5000
    """Most key points an image."""
    contrast_threshold: float = 0.004
    """Weaker key points are dropped; OpenCV's own default, 0.04, is made for photographs."""
    ratio: float = 0.9
    """A match must be nearer than this fraction of the distance to the second nearest descriptor."""
    inlier_distance_pixels: float = 3.0
    """Matches within this distance of the transform, in working pixels, agree with it."""
    max_side: int = 2048
    """Work on at most so many pixels along the longest side."""
    seed: int = 0
    """Seed of the random samples."""

    name: ClassVar[str] = "sift"
    ndims: ClassVar[frozenset[int]] = frozenset({2})

    def __post_init__(self) -> None:
        if self.transform not in FITS:
            raise InvalidInputError(f"unknown transform {self.transform!r}; known are {', '.join(FITS)}")
        if self.features < LEAST_INLIERS:
            raise InvalidInputError(f"features must be at least {LEAST_INLIERS}, not {self.features}")
        if not 0 < self.ratio <= 1:
            raise InvalidInputError(f"ratio is a fraction above 0 and at most 1, not {self.ratio}")
        if not (self.inlier_distance_pixels > 0 and self.contrast_threshold >= 0 and self.max_side >= 32):
            raise InvalidInputError("inlier_distance_pixels must be positive, max_side at least 32")

    def find(self, fixed: Image, moving: Image) -> Registration:
        """Find the transform on which most matches agree."""
        space = workspace.harmonised(*workspace.pictures(fixed, moving))
        spacing = workspace.finest_spacing(space.fixed, space.moving, self.max_side)
        images = [workspace.isotropic(image, spacing) for image in (space.fixed, space.moving)]
        keys = [_key_points(image, self) for image in images]
        stats = {"key_points_fixed": float(len(keys[0])), "key_points_moving": float(len(keys[1]))}
        matches = _matches(keys[0].descriptors, keys[1].descriptors, self.ratio)
        points = [key.points[index] for key, index in zip(keys, matches.T, strict=True)]
        fixed_points, moving_points = _without_duplicates(*points)
        fit = self._robust_fit(images[0].grid, images[1].grid, fixed_points, moving_points)
        transform, inliers = fit if fit else (None, np.zeros(0, dtype=bool))
        stats |= {"matches": float(len(fixed_points)), "inliers": float(inliers.sum())}
        stats |= {"inlier_ratio": float(inliers.mean()) if len(inliers) else 0.0}
        stats |= {"spread": _spread(fixed_points[inliers], images[0].grid) if inliers.any() else 0.0}
        status, reasons = verdict(stats)
        found = None if transform is None else space.to_world(transform)
        return Registration.judged(self.name, status, found, reasons, stats)

    def _robust_fit(
        self, fixed_grid: Grid, moving_grid: Grid, fixed: Points, moving: Points
    ) -> tuple[Linear, Bool[Array, " points"]] | None:
        """The transform in the common world that most matches agree on, and which do."""
        hypothesis = _hypothesis(self, fixed, moving)
        if hypothesis is None:
            return None
        limit = self.inlier_distance_pixels
        inliers = np.linalg.norm(fixed @ hypothesis[:, :-1].T + hypothesis[:, -1] - moving, axis=1) < 2 * limit
        mirrored = bool(np.linalg.det(fixed_grid.direction) * np.linalg.det(moving_grid.direction) < 0)
        fixed, moving = fixed_grid.index_to_world(fixed), moving_grid.index_to_world(moving)
        transform: Linear | None = None
        for _ in range(REFITS):
            if inliers.sum() < LEAST_INLIERS // 2:
                return None
            transform = FITS[self.transform](fixed[inliers], moving[inliers], mirrored)
            distances = np.linalg.norm(transform.map_points(fixed) - moving, axis=1)
            before, inliers = inliers, distances < limit * fixed_grid.spacing[0]
            if np.array_equal(before, inliers):
                break
        return None if transform is None else (transform, inliers)


FITS: dict[str, Callable[[Points, Points, bool], Linear]] = {
    "rigid": lambda fixed, moving, mirrored: fit_rigid(fixed, moving, mirrored=mirrored),
    "similarity": lambda fixed, moving, mirrored: fit_similarity(fixed, moving, mirrored=mirrored),
    "affine": lambda fixed, moving, _: fit_affine(fixed, moving),
}
"""How each kind of transform is fitted to matched points in world units."""


@dataclass(frozen=True, eq=False)
class KeyPoints:
    """Where key points lie, in pixel indices, and what they look like."""

    points: Points
    descriptors: Float[Array, "points numbers"] = field(repr=False)

    def __len__(self) -> int:
        return len(self.points)


def _key_points(image: Image, options: Sift) -> KeyPoints:
    """SIFT key points whose neighbourhood is valid."""
    cv2: Any = import_module("cv2")
    strength = {"nfeatures": options.features, "contrastThreshold": options.contrast_threshold}
    detector = cv2.SIFT_create(**strength, enable_precise_upscale=True)  # else key points are off by a quarter pixel
    found, descriptors = detector.detectAndCompute(_as_bytes(image), None)
    if descriptors is None:
        return KeyPoints(np.zeros((0, image.ndim)), np.zeros((0, 128), dtype=np.float32))
    points = np.array([key.pt[::-1] for key in found])
    sizes = np.array([key.size for key in found])
    keep = _clear_of_mask(image, points, sizes)
    weights = descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6)
    return KeyPoints(points[keep], np.sqrt(weights)[keep])


def _as_bytes(image: Image) -> UInt8[Array, "y x"]:
    values = image.data[0]
    low, high = np.percentile(values[image.valid], PERCENTILES)
    scaled = np.clip((values - low) / max(float(high - low), 1e-12), 0, 1) * 255
    scaled[~image.valid] = np.median(scaled[image.valid])
    return np.asarray(np.rint(scaled), dtype=np.uint8)


def _clear_of_mask(image: Image, points: Points, sizes: Float[Array, " points"]) -> Bool[Array, " points"]:
    """Which key points do not see the border of the mask."""
    if image.mask is None:
        return np.ones(len(points), dtype=bool)
    import cv2

    distance = cv2.distanceTransform(image.mask.astype(np.uint8), cv2.DIST_L2, 5)
    nearest = np.clip(np.rint(points).astype(int), 0, np.array(distance.shape) - 1)
    return np.asarray(distance[tuple(nearest.T)] > sizes)


def _matches(fixed: Float[Array, "n k"], moving: Float[Array, "m k"], ratio: float) -> Integer[Array, "matches 2"]:
    """Indices of descriptors of unit length that are each other's nearest, and clearly nearer than the second."""
    if len(fixed) < 2 or len(moving) < 2:
        return np.zeros((0, 2), dtype=int)
    rows = max(1, BLOCK_MATCHES // len(moving))
    best_of_moving, owner = np.full(len(moving), -np.inf, dtype=np.float32), np.zeros(len(moving), dtype=int)
    nearest, passes = np.zeros(len(fixed), dtype=int), np.zeros(len(fixed), dtype=bool)
    for start in range(0, len(fixed), rows):
        block = slice(start, start + rows)
        similarity = fixed[block] @ moving.T
        top = similarity.argmax(0)
        better = similarity[top, np.arange(len(moving))] > best_of_moving
        best_of_moving[better] = similarity[top, np.arange(len(moving))][better]
        owner[better] = top[better] + start
        nearest[block] = similarity.argmax(1)
        second, first = np.partition(similarity, -2, axis=1)[:, -2:].T
        passes[block] = 1 - first < ratio**2 * (1 - second)  # squared distances are 2 − 2 similarity
    mutual = owner[nearest] == np.arange(len(fixed))
    chosen = np.flatnonzero(mutual & passes)
    return np.column_stack([chosen, nearest[chosen]])


def _without_duplicates(
    fixed: Points, moving: Points
) -> tuple[Float[Array, "places ndim"], Float[Array, "places ndim"]]:
    """One match a place: a key point with several orientations must not count several times."""
    _, first = np.unique(np.rint(np.column_stack([fixed, moving])), axis=0, return_index=True)
    order = np.sort(first)
    return fixed[order], moving[order]


def _hypothesis(options: Sift, fixed: Points, moving: Points) -> Float[Array, "ndim homogeneous"] | None:
    """A robust transform of pixel indices, to start from."""
    cv2: Any = import_module("cv2")
    if len(fixed) < LEAST_INLIERS // 2:
        return None
    cv2.setRNGSeed(options.seed)
    settings: dict[str, Any] = {
        "ransacReprojThreshold": options.inlier_distance_pixels,
        "maxIters": TRIALS,
        "confidence": 0.9999,
    }
    if options.transform == "affine":
        matrix, _ = cv2.estimateAffine2D(fixed, moving, method=cv2.USAC_MAGSAC, **settings)
    else:
        matrix, _ = cv2.estimateAffinePartial2D(fixed, moving, method=cv2.RANSAC, **settings)
    return None if matrix is None or not np.isfinite(matrix).all() else np.asarray(matrix)


def _spread(points: Points, grid: Grid) -> float:
    """Root mean square distance of points from their middle, as a fraction of the longest side."""
    return float(np.sqrt(((points - points.mean(0)) ** 2).sum(1).mean()) / max(grid.shape))


def verdict(stats: dict[str, float]) -> tuple[Status, tuple[str, ...]]:
    """Status and reasons by the numbers of matches and inliers."""
    if min(stats["key_points_fixed"], stats["key_points_moving"]) < LEAST_INLIERS:
        return "refused", (f"too few key points: the images have too little local detail; {ADVICE}",)
    if stats["inliers"] < LEAST_INLIERS:
        counted = f"only {stats['inliers']:.0f} of {stats['matches']:.0f} matches agree"
        return "refused", (f"{counted}, at least {LEAST_INLIERS} are needed; {ADVICE}",)
    doubts = []
    if stats["inliers"] < TRUSTED_INLIERS:
        doubts.append(f"only {stats['inliers']:.0f} matches agree; look at the overlay before using it")
    if stats["inlier_ratio"] < TRUSTED_RATIO:
        doubts.append(f"only {stats['inlier_ratio']:.0%} of the matches agree; look at the overlay before using it")
    if stats["spread"] < TRUSTED_SPREAD:
        doubts.append("the agreeing matches lie close together, so the rotation is weakly held; look at the overlay")
    if doubts:
        return "unsure", tuple(doubts)
    return "accepted", (f"{stats['inliers']:.0f} of {stats['matches']:.0f} matches agree on one transform",)
