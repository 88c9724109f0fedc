"""Mutual information of two one-channel images at many poses at once: where a climb should start, and who wins.

The information is that of two equalised images in few bins, less what chance alone would give. All in NumPy; the
climbing is in :mod:`modalign.registration.mattes`.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from modalign.geometry import Linear, Rigid, Similarity, as_rows, corner_error, rotation_matrix
from modalign.image import Image
from modalign.registration import workspace

Array = np.ndarray

COARSEST_PIXELS = 6000
"""The coarsest level is the first on which the smaller image has at most so many pixels."""
SCORE_BINS = 10
"""Bins along each axis of the histogram: few, so that small overlaps tell poses apart as well."""
SCORE_POINTS, SWEEP_POINTS = 20_000, 1500
"""Most pixels that rank one pose: one by one, and in bulk."""
SWEEP_PIXELS = 2
"""Step between the poses of a sweep, in pixels of the level: shifts, and rotations at the border."""
SCALES = (1.0, 0.9, 1 / 0.9)
"""Sizes that are tried where the transform may scale."""
PEAKS = 3
"""Local maxima kept of the shifts of each rotation."""
DISTINCT = 0.06
"""Poses are distinct if they move the corners apart, on average, by this fraction of the fixed image's width."""
AGREEMENT = 0.03
"""Runs that take the corners to the same place within this fraction of the width have found the same."""
LEAST_RUNS = 4
"""Fewer runs cannot tell whether the best stands out."""


@dataclass(frozen=True)
class Run:
    """A transform and what it is worth.

    Attributes:
        fixed_to_moving: In the common world of the level.
        information: Mutual information of the overlap in nats, less what chance alone would give.
        overlap: Overlap as a fraction of the valid area of the smaller image.
        pixels: How many pixels of the overlap were compared.
    """

    fixed_to_moving: Linear
    information: float = 0.0
    overlap: float = 0.0
    pixels: int = 0

    @property
    def rank(self) -> float:
        """What decides between places: information times overlap, or a small overlap would win by chance."""
        return self.information * self.overlap


@dataclass(frozen=True, eq=False)
class Level:
    """Two one-channel images on square pixels of one size."""

    fixed: Image
    moving: Image

    @classmethod
    def of(cls, fixed: Image, moving: Image, spacing: float, blur: float = 0.0) -> "Level":
        """Both images at one pixel size, smoothed by a Gaussian of ``blur`` pixels, and equalised."""
        images = (blurred(workspace.isotropic(image, spacing), blur) for image in (fixed, moving))
        return cls(*(equalised(image) for image in images))

    @property
    def spacing(self) -> float:
        """Pixel size in world units."""
        return float(self.fixed.grid.spacing[0])

    @property
    def degrees_a_pixel(self) -> float:
        """The rotation that moves the border of the larger image by one pixel."""
        return float(np.rad2deg(2 / max(*self.fixed.grid.shape, *self.moving.grid.shape)))

    @cached_property
    def share(self) -> float:
        """Largest possible overlap as a fraction of the valid pixels of the fixed image."""
        return min(1.0, float(self.moving.valid.sum()) / float(self.fixed.valid.sum()))

    @cached_property
    def fixed_labels(self) -> Int[Array, "*spatial"]:
        """Bin of every fixed pixel."""
        return binned(equalised(self.fixed))

    @cached_property
    def moving_labels(self) -> Int[Array, "*padded"]:
        """Bin of every moving pixel, and the number of bins where there is none: masked, and one pixel around."""
        return np.pad(binned(equalised(self.moving)), 1, constant_values=SCORE_BINS)

    def points(self, count: int, seed: int) -> Int[Array, "points ndim"]:
        """Indices of at most ``count`` valid pixels of the fixed image, drawn without repetition."""
        places = np.argwhere(self.fixed.valid)
        if len(places) <= count:
            return places
        return places[np.sort(np.random.default_rng(seed).choice(len(places), count, replace=False))]


def blurred(image: Image, sigma: float) -> Image:
    """The image under a Gaussian of ``sigma`` pixels; masked pixels take no part."""
    if sigma == 0:
        return image
    weights = image.valid.astype(np.float32)
    share = np.maximum(ndimage.gaussian_filter(weights, sigma), np.float32(1e-6))
    data = [ndimage.gaussian_filter(np.where(image.valid, channel, 0), sigma) / share for channel in image.data]
    return image.with_data(np.stack(data), image.channels)


def equalised(image: Image) -> Image:
    """The first channel with its valid values replaced by their rank, from 0 to 1; equal values get their mean rank.

    The bins of a joint histogram are then equally full, and the modalities may have any contrast.
    """
    values, inverse, counts = np.unique(image.data[0][image.valid], return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts + 1) / 2) / max(counts.sum() - 1, 1)
    data = np.zeros((1, *image.grid.shape), dtype=np.float32)
    data[0][image.valid] = ranks[inverse.ravel()] if len(values) > 1 else 0.5
    return replace(image, data=data, channels=())


def binned(image: Image) -> Int[Array, "*spatial"]:
    """Bin of every pixel of an equalised image; the number of bins where it is masked."""
    labels = np.minimum((image.data[0] * SCORE_BINS).astype(np.int64), SCORE_BINS - 1)
    return np.where(image.valid, labels, SCORE_BINS)


def level_spacings(fixed: Image, moving: Image, max_side: int) -> list[float]:
    """Pixel sizes from the coarsest level to the finest, each twice as large as the next."""
    finest = workspace.finest_spacing(fixed, moving, max_side)
    volume = min(math.prod(image.grid.extent) for image in (fixed, moving)) / finest**fixed.ndim
    steps = max(0, math.ceil(math.log2(volume / COARSEST_PIXELS) / fixed.ndim))
    return [finest * 2**k for k in range(steps, -1, -1)]


def information(labels: Int[Array, "#poses points"], other: Int[Array, "poses points"]) -> tuple[Array, Array]:
    """Mutual information in nats, less its bias, and number of points in use, for each of several poses.

    Points whose label is the number of bins take no part. Source of the bias: Miller, Note on the bias of information
    estimates, 1955: half the number of free cells over the number of points.
    """
    side = SCORE_BINS + 1
    codes = (np.arange(len(other))[:, None] * side + labels) * side + other
    joint = np.bincount(codes.ravel(), minlength=len(other) * side**2).reshape(-1, side, side)[:, :-1, :-1]
    count = np.maximum(joint.sum((1, 2)), 1)
    rows, columns = joint.sum(2), joint.sum(1)
    nats = (_nlogn(joint) - _nlogn(rows) - _nlogn(columns)) / count + np.log(count)
    free = [(cells > 0).reshape(len(cells), -1).sum(1) - 1 for cells in (joint, rows, columns)]
    return np.asarray(nats - (free[0] - free[1] - free[2]) / (2 * count)), count


def _nlogn(counts: Int[Array, "poses *cells"]) -> Float[Array, " poses"]:
    return np.asarray((counts * np.log(np.maximum(counts, 1))).reshape(len(counts), -1).sum(1))


def scored(level: Level, transform: Linear, seed: int) -> Run:
    """What a transform is worth at a level."""
    points = level.points(SCORE_POINTS, seed)
    world = level.fixed.grid.index_to_world(points.astype(float))
    places = _flat(level.moving.grid.world_to_index(transform.map_points(world)), level.moving_labels.shape, 0)
    nats, count = information(level.fixed_labels[tuple(points.T)][None], level.moving_labels.ravel()[places][None])
    return Run(transform, float(nats[0]), min(1.0, float(count[0]) / (len(points) * level.share)), int(count[0]))


@dataclass(frozen=True)
class Starts:
    """Which poses are tried before any is climbed."""

    rotations_degrees: tuple[float, ...] = (-20.0, 0.0, 20.0)
    """Rotations about the centre of the fixed image; in 3D about each axis in turn."""
    reach_degrees: float = 10.0
    """Rotations up to so far from these are tried as well."""
    max_shift: float = 0.15
    """Shifts of the centres up to this fraction of the width are tried along each axis."""
    scaled: bool = False
    """Whether other sizes are tried as well."""
    count: int = 8
    """How many distinct places are kept."""
    seed: int = 0
    """Seed of the pixels that score a pose."""

    def best(self, level: Level) -> list[Run]:
        """The best distinct poses, best first."""
        reach = self.max_shift * max(level.fixed.grid.extent)
        return distinct(swept(level, self.poses(level), reach, self.seed), level.fixed, self.count)

    def poses(self, level: Level) -> Iterator[Linear]:
        """Every rotation about every axis, at every size, with the centres on each other."""
        fixed, moving = level.fixed.grid, level.moving.grid
        for scale in SCALES if self.scaled else SCALES[:1]:
            for rotation in self._rotations(fixed.ndim, SWEEP_PIXELS * level.degrees_a_pixel):
                rows, offset = as_rows(rotation), tuple((moving.center - scale * rotation @ fixed.center).tolist())
                yield Rigid(rows, offset) if scale == 1 else Similarity(rows, scale, offset)

    def _rotations(self, ndim: int, step: float) -> list[Array]:
        """The rotations to try, at most ``step`` degrees apart."""
        count = math.ceil(self.reach_degrees / step)
        offsets = self.reach_degrees * np.arange(-count, count + 1) / max(count, 1)
        angles = sorted({round(start + offset, 6) for start in self.rotations_degrees for offset in offsets})
        planes = list(combinations(range(ndim), 2))[::-1]
        turned = [rotation_matrix(ndim, angle, plane) for plane in planes for angle in angles if angle]
        return [np.eye(ndim)] * (0.0 in angles) + turned


def swept(level: Level, poses: Iterable[Linear], reach: float, seed: int) -> Iterator[Run]:
    """The best few shifts after each pose: by whole pixels, up to ``reach`` world units along each axis."""
    points = level.points(SWEEP_POINTS, seed)
    labels = level.fixed_labels[tuple(points.T)][None]
    world = level.fixed.grid.index_to_world(points.astype(float))
    most = int(reach / (SWEEP_PIXELS * level.spacing))
    margin = most * SWEEP_PIXELS
    shifts = np.array(list(product(range(-most, most + 1), repeat=points.shape[1]))) * SWEEP_PIXELS
    table = np.pad(level.moving_labels, 2 * margin, constant_values=SCORE_BINS)
    offsets = shifts @ (np.array(table.strides) // table.itemsize)
    axes = np.array(level.moving.grid.direction) * level.spacing
    for pose in poses:
        places = _flat(level.moving.grid.world_to_index(pose.map_points(world)), level.moving_labels.shape, margin)
        nats, counts = information(labels, table.ravel()[places + offsets[:, None]])
        overlaps = np.minimum(counts / (len(points) * level.share), 1)
        for best in _peaks((nats * overlaps).reshape((2 * most + 1,) * points.shape[1])):
            yield Run(shifted(pose, axes @ shifts[best]), float(nats[best]), float(overlaps[best]))


def _peaks(ranks: Float[Array, "*shifts"]) -> list[int]:
    """Positions of the highest local maxima."""
    highest = np.flatnonzero(ranks == ndimage.maximum_filter(ranks, 3, mode="nearest"))
    return sorted(highest.tolist(), key=lambda place: -float(ranks.flat[place]))[:PEAKS]


def _flat(places: Float[Array, "points ndim"], shape: tuple[int, ...], margin: int) -> Int[Array, " points"]:
    """Positions of the nearest pixels in the table of :func:`swept`; what lies far outside stays outside."""
    inside = np.clip(np.rint(places).astype(np.int64) + 1, -margin, np.array(shape) - 1 + margin) + 2 * margin
    return np.asarray(np.ravel_multi_index(tuple(inside.T), tuple(np.array(shape) + 4 * margin)))


def shifted(transform: Linear, shift: Float[Array, " ndim"]) -> Linear:
    """The transform followed by a shift."""
    matrix = transform.matrix.copy()
    matrix[:-1, -1] += shift
    return type(transform).from_matrix(matrix)


def distinct(runs: Iterable[Run], fixed: Image, count: int) -> list[Run]:
    """The best runs, best first, leaving out those that say nearly the same as a better one."""
    kept: list[Run] = []
    for run in sorted(runs, key=lambda run: -run.rank):
        if all(apart(fixed, run, other) > DISTINCT for other in kept):
            kept.append(run)
        if len(kept) == count:
            break
    return kept


def apart(fixed: Image, run: Run, other: Run) -> float:
    """Mean distance between where two runs take the corners, as a fraction of the width of the fixed image."""
    return corner_error(fixed.grid, run.fixed_to_moving, other.fixed_to_moving) / max(fixed.grid.extent)


def contrast(fixed: Image, runs: Sequence[Run], best: Run) -> float:
    """By how much, as a fraction, what is found near the best run outranks all else; 0 where few runs were compared."""
    distances = [apart(fixed, run, best) for run in runs]
    near = [run.rank for run, distance in zip(runs, distances, strict=True) if distance < AGREEMENT]
    elsewhere = [run.rank for run, distance in zip(runs, distances, strict=True) if distance >= AGREEMENT]
    if not near or len(runs) < LEAST_RUNS or max(near) <= 0:
        return 0.0
    return 1 - max(elsewhere, default=0.0) / max(near)
