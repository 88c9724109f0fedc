"""Two images as fuzzy sets at one pixel size, and the descent of the distance between them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import ndimage

from modalign.geometry import Affine, Grid, Linear, Rigid, Similarity
from modalign.image import Image
from modalign.registration.distance_tables import alpha_levels, distance_table, stretched

Array = np.ndarray
Motion = Literal["rigid", "similarity", "affine"]
Window = Literal["uniform", "hann"]

GROUPS: dict[Motion, type[Linear]] = {"rigid": Rigid, "similarity": Similarity, "affine": Affine}
"""The transforms that each kind of motion leads to."""
POPULATION = 65536
"""Points that stand for an image."""
MOST_TRIES = 4
"""Where few pixels are valid, at most so many times as many places are tried."""
COMPARED = 8192
"""Points over which places are compared."""
LIMIT = 64.0
"""Distances to an α-cut are clipped at so many pixels of the level."""


@dataclass(frozen=True, eq=False)
class FuzzyImage:
    """An image as a fuzzy set, and the points that stand for it.

    Attributes:
        grid: Its grid, with square pixels.
        points: ``(points, ndim + 2)``, float32: pixels from the centre of the grid, α-level, weight.
        table: ``(levels, pixels)``: distance from a point of each level at each pixel to the set; NaN where masked.
    """

    grid: Grid
    points: Float[Array, "points columns"]
    table: Float[Array, "levels pixels"]

    @classmethod
    def of(cls, image: Image, blur: float, levels: int, window: Window, seed: int) -> "FuzzyImage":
        """The fuzzy set of the first channel of an image with square pixels.

        Args:
            image: The image.
            blur: Standard deviation of the smoothing, pixels.
            levels: Number of α-levels above zero.
            window: How much the points count.
            seed: Seed of the choice of points.
        """
        values = stretched(smoothed(image, blur), image.valid, levels)
        table = distance_table(alpha_levels(values), levels, LIMIT)
        if image.mask is not None:
            table[:, ~image.mask] = np.nan
        points = scattered_points(values, window, seed)
        return cls(image.grid, points, table.reshape(levels + 1, -1))

    @property
    def middle(self) -> tuple[float, ...]:
        """Index of the centre of the grid."""
        return tuple((n - 1) / 2 for n in self.grid.shape)

    @cached_property
    def weight(self) -> float:
        """Weight of all points."""
        return float(self.points[:, -1].sum())


def smoothed(image: Image, blur: float) -> Float[Array, "*spatial"]:
    """The first channel after Gaussian smoothing; masked pixels take no part."""

    def blurred(values: Array) -> Array:
        return np.asarray(ndimage.gaussian_filter(values, blur, mode="nearest", truncate=3.0))

    values = image.data[0].astype(np.float32)
    if image.mask is None:
        return blurred(values)
    share = blurred(image.mask.astype(np.float32))
    return np.asarray(blurred(np.where(image.mask, values, np.float32(0))) / np.maximum(share, np.float32(1e-6)))


def scattered_points(values: Float[Array, "*spatial"], window: Window, seed: int) -> Float[Array, "points columns"]:
    """Places scattered evenly over the valid pixels, with their levels and weights; every run of them is even as well.

    They lie anywhere between the pixels: pixel centres would fit best at every whole-pixel shift, wherever the truth.

    Source: additive recurrence with the generalised golden ratio, as in M. Roberts, The unreasonable effectiveness of
    quasirandom sequences, 2018.
    """
    ratio = float(np.roots([1, *(0,) * (values.ndim - 1), -1, -1]).real.max())
    rates = ratio ** -np.arange(1.0, values.ndim + 1)
    start = np.random.default_rng(seed).random(values.ndim)
    valid = ~np.isnan(values)
    if not valid.any():
        return np.empty((0, values.ndim + 2), dtype=np.float32)
    low, high = _bounds(valid)
    share = valid.sum() / np.prod(high - low + 1)
    number = np.arange(round(POPULATION * min(1 / share, MOST_TRIES)))
    places = low + (start + number[:, None] * rates) % 1 * (high - low)
    levels = ndimage.map_coordinates(values, places.T, order=1, mode="nearest")
    seen = np.flatnonzero(~np.isnan(levels))[:POPULATION]
    sides = np.array(values.shape) - 1
    coordinates = places[seen] - sides / 2
    weights = WINDOWS[window](coordinates / values.shape)
    return np.column_stack([coordinates, alpha_levels(levels[seen]), weights]).astype(np.float32)


def _bounds(valid: Bool[Array, "*spatial"]) -> tuple[Integer[Array, " ndim"], Integer[Array, " ndim"]]:
    """First and last index along each axis at which anything is valid."""
    others = [tuple(b for b in range(valid.ndim) if b != a) for a in range(valid.ndim)]
    inside = [np.flatnonzero(valid.any(axis=axes)) for axes in others]
    return np.array([places[0] for places in inside]), np.array([places[-1] for places in inside])


WINDOWS: dict[Window, Callable[[Array], Array]] = {
    "uniform": lambda places: np.ones(len(places)),
    "hann": lambda places: np.cos(np.pi * places).prod(1) ** 2,
}
"""Weight of points at places between −½ and ½ along each axis."""


@dataclass(frozen=True, eq=False)
class Place:
    """A pose of the moving image before the fixed one, in pixels of a level, with what it is worth.

    Attributes:
        pose: Linear part, its inverse, and the shift as the first row of the third matrix; see ``amd_kernels``.
        spacing: World size of a pixel.
        distance: Symmetric distance of the fuzzy sets, in pixels.
        overlap: Weight of the points that meet valid pixels, as a fraction of all, of the image that overlaps more.
    """

    pose: Float[Array, "3 ndim ndim"]
    spacing: float
    distance: float = math.inf
    overlap: float = 0.0

    @property
    def rank(self) -> float:
        """What decides between places, less is better: the distance over the root of the overlap.

        By chance, the distance varies by one over this root, so the smallest overlap would win.
        """
        return self.distance / math.sqrt(max(self.overlap, 1e-6))

    def transform(self, fixed: Grid, moving: Grid, motion: Motion) -> Linear:
        """The pose as a transform of world points."""
        axes = np.array(moving.direction)
        matrix = np.eye(fixed.ndim + 1)
        matrix[:-1, :-1] = axes @ self.pose[0] @ np.array(fixed.direction).T
        matrix[:-1, -1] = moving.center + self.spacing * axes @ self.pose[2, 0] - matrix[:-1, :-1] @ fixed.center
        return GROUPS[motion].from_matrix(matrix)

    @classmethod
    def of(cls, linear: Array, shift: Array, fixed: Grid, moving: Grid, spacing: float) -> "Place":
        """Centre on centre, then a linear map and a shift of the world."""
        axes = np.array(moving.direction)
        pose = np.zeros((3, fixed.ndim, fixed.ndim))
        pose[0] = axes.T @ linear @ np.array(fixed.direction)
        pose[1], pose[2, 0] = np.linalg.inv(pose[0]), axes.T @ shift / spacing
        return cls(pose, spacing)

    def at(self, spacing: float) -> "Place":
        """The same pose in pixels of another size."""
        pose = self.pose.copy()
        pose[2] *= self.spacing / spacing
        return Place(pose, spacing)


@dataclass(frozen=True)
class Schedule:
    """How a pose descends.

    Attributes:
        steps: Most steps.
        samples: Points drawn from each image for a step.
        first: Longest step at first, pixels.
        last: The descent ends where steps of this length lead nowhere any more.
    """

    steps: int
    samples: int
    first: float
    last: float


@dataclass(frozen=True, eq=False)
class FuzzyPair:
    """The fixed and the moving image at one pixel size."""

    fixed: FuzzyImage
    moving: FuzzyImage

    @property
    def spacing(self) -> float:
        """World size of a pixel."""
        return self.fixed.grid.spacing[0]

    @cached_property
    def problem(self) -> Any:
        """Both images as the compiled loops take them."""
        both = (self.fixed, self.moving)
        return (
            tuple(image.points for image in both),
            tuple(image.table for image in both),
            tuple(image.grid.shape for image in both),
            tuple(image.middle for image in both),
        )

    def weights(self, samples: int) -> Float[Array, " images"]:
        """Weight of so many points of each image."""
        both = (self.fixed, self.moving)
        return np.array([image.weight * min(1.0, samples / max(len(image.points), 1)) for image in both])

    def valued(self, place: Place, samples: int = COMPARED) -> Place:
        """The place with its distance and overlap, over all points or so many of each image."""
        from modalign.registration.amd_kernels import distance

        ndim = self.fixed.grid.ndim
        pose, sums = place.at(self.spacing).pose, np.zeros((2, 2 + ndim + ndim**2))
        value = distance(self.problem, pose, 0, samples, sums, np.zeros(ndim), np.zeros((ndim, ndim)))
        overlap = float(np.clip(sums[:, 0] / np.maximum(self.weights(samples), 1e-30), 0, 1).max())
        return Place(pose, self.spacing, value if sums[:, 0].all() else LIMIT, overlap)

    def descended(self, place: Place, motion: Motion, schedule: Schedule, key: int) -> Place:
        """The pose to which stochastic descent leads; ``key`` is where the random numbers begin."""
        from modalign.registration.amd_kernels import descend

        pose = place.at(self.spacing).pose
        steps = (schedule.steps, schedule.samples, float(schedule.first), float(schedule.last))
        descend(self.problem, pose, generators(motion, self.fixed.grid), steps, key)
        return Place(pose, self.spacing)


def generators(motion: Motion, grid: Grid) -> Float[Array, "motions ndim ndim"]:
    """The directions in which the linear part may change; a unit of each moves the pixels by about one pixel."""
    ndim, shape = grid.ndim, np.array(grid.shape)
    units = np.eye(ndim * ndim).reshape(ndim, ndim, ndim, ndim)
    turns = [units[a, b] - units[b, a] for a, b in combinations(range(ndim), 2)]
    directions = {
        "rigid": turns,
        "similarity": [*turns, np.eye(ndim)],
        "affine": [units[a, b] for a, b in product(range(ndim), repeat=2)],
    }[motion]
    return np.array(directions) / math.sqrt((shape**2).sum() / 12)
