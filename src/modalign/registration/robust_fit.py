"""The linear transform on which most matches agree, in any number of dimensions."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import special

from modalign.errors import InvalidInputError
from modalign.geometry import Affine, Grid, Linear, Rigid, Similarity

Array = np.ndarray
Points = Float[Array, "points ndim"]
Matrices = Float[Array, "*many ndim homogeneous"]
"""Upper rows of homogeneous matrices."""
Model = Literal["rigid", "similarity", "affine"]
Estimator = Literal["magsac", "ransac"]

GROUPS: dict[Model, type[Linear]] = {"rigid": Rigid, "similarity": Similarity, "affine": Affine}
"""What each model yields."""
BATCH = 2000
"""Random samples drawn at a time."""
BLOCK_RESIDUALS = 1 << 20
"""Coordinates of residuals computed at a time."""
CERTAINTY = 0.9999
"""The search ends early once a better sample would have been drawn with this probability."""
REFITS = 10
"""Rounds of fitting to the inliers and selecting them again."""
MOST_STRETCH = 4.0
"""Samples that stretch or shrink some direction by more than this factor are not tried."""
RESOLUTION = 1024
"""Entries of the table of qualities."""
OUTSIDE_LIMIT = 0.01
"""Share of the true matches that the largest noise considered would leave outside the limit."""
DISTINCT = 0.1
"""Two transforms are distinct if they move the corners apart, on average, by this fraction of the longest side."""


@dataclass(frozen=True)
class RobustFit:
    """What is fitted, and how hard is searched.

    The best of each batch of random samples is refitted by least squares to the matches within the limit. Source:
    Fischler and Bolles, CACM 24(6), 1981; refitting, Chum, Matas and Kittler, DAGM 2003; quality by distance, MAGSAC++,
    Barath et al., CVPR 2020.

    Raises:
        InvalidInputError: An option is out of range.
    """

    model: Model
    """The kind of transform."""
    limit: float
    """Matches within this distance of the transform, in world units, agree with it."""
    estimator: Estimator = "magsac"
    """``magsac`` counts a match by its distance, ``ransac`` counts all matches within the limit alike."""
    trials: int = 20_000
    """Most random samples."""
    sample: int = 0
    """Matches in a sample; 0 for as few as determine the transform."""
    mirrored: bool = False
    """Whether left hands become right hands."""
    seed: int = 0
    """Seed of the samples."""

    def __post_init__(self) -> None:
        if self.model not in GROUPS:
            raise InvalidInputError(f"unknown transform {self.model!r}; known are {', '.join(GROUPS)}")
        if self.estimator not in ("magsac", "ransac"):
            raise InvalidInputError(f"unknown estimator {self.estimator!r}; known are magsac, ransac")
        if not self.limit > 0 or self.trials < 1 or self.sample < 0:
            raise InvalidInputError("a robust fit needs a positive limit and at least one trial")

    def sample_size(self, ndim: int) -> int:
        """How many matches are drawn to make a transform of them."""
        return max(self.sample, ndim + (self.model == "affine"))


@dataclass(frozen=True, eq=False)
class Agreement:
    """A transform and the matches that agree with it.

    Attributes:
        transform: Maps the fixed points to the moving ones.
        inliers: Which matches agree.
        quality: Sum over the matches of 1 at no distance, falling to 0 at the limit.
    """

    transform: Linear
    inliers: Bool[Array, " points"]
    quality: float

    @property
    def count(self) -> int:
        """How many matches agree."""
        return int(self.inliers.sum())


@dataclass(frozen=True)
class Elsewhere:
    """Where a rival of a transform may lie: anywhere but near it."""

    transform: Linear
    grid: Grid
    """Of the fixed image: the distance is that of its corners."""

    def holds(self, matrices: Matrices) -> Bool[Array, "*many"]:
        """Which transforms are distinct from this one, see :data:`DISTINCT`."""
        difference = matrices - self.transform.matrix[:-1]
        moved = self.grid.corners @ np.swapaxes(difference[..., :-1], -1, -2) + difference[..., None, :, -1]
        distance = np.linalg.norm(moved, axis=-1).mean(axis=-1)
        return np.asarray(distance > DISTINCT * max(self.grid.extent))


def agreement(fixed: Points, moving: Points, search: RobustFit, elsewhere: Elsewhere | None = None) -> Agreement | None:
    """The transform of highest quality among those through random samples of matches, refitted to all that agree.

    Args:
        fixed: Points in world units, array axis order.
        moving: Their supposed counterparts, row by row.
        search: What to look for.
        elsewhere: Look only there; everywhere if not given.

    Returns:
        The best agreement; ``None`` where the matches are too few or no sample makes a plausible transform.
    """
    size = search.sample_size(fixed.shape[-1])
    if len(fixed) < size:
        return None
    generator = np.random.default_rng(search.seed)
    best, tried, enough = None, 0, search.trials
    while tried < enough:
        samples = generator.integers(len(fixed), size=(min(BATCH, search.trials - tried), size))
        tried += len(samples)
        rival = _best_of(samples, fixed, moving, search, elsewhere)
        if rival is not None and (best is None or rival.quality > best.quality):
            best = rival
            enough = min(search.trials, _trials_needed(best.count / len(fixed), size))
    return best


def _best_of(
    samples: Integer[Array, "samples size"], fixed: Points, moving: Points, search: RobustFit, where: Elsewhere | None
) -> Agreement | None:
    """The best transform through one of these samples, refitted."""
    chosen = _plausible(fixed[samples], moving[samples], search)
    matrices = fitted(fixed[samples[chosen]], moving[samples[chosen]], search)
    matrices = matrices[_invertible(matrices, search)]
    if where is not None:
        matrices = matrices[where.holds(matrices)]
    if len(matrices) == 0:
        return None
    start = matrices[_qualities(matrices, fixed, moving, search).argmax()]
    found = _refitted(start, fixed, moving, search)
    if found is None or (where is not None and not where.holds(found)):
        return None
    distances = _squared_distances(found, fixed, moving) / search.limit**2
    quality = _table(search.estimator, fixed.shape[-1])[_entries(distances)].sum()
    homogeneous = np.vstack([found, np.eye(len(found) + 1)[-1:]])
    return Agreement(GROUPS[search.model].from_matrix(homogeneous), distances < 1, float(quality))


def _plausible(
    fixed: Float[Array, "samples size ndim"], moving: Float[Array, "samples size ndim"], search: RobustFit
) -> Bool[Array, " samples"]:
    """Samples whose points differ and whose mutual distances the model can explain: cheap to see, and few."""
    one, other = np.triu_indices(fixed.shape[1], 1)
    before, after = (np.linalg.norm(points[:, one] - points[:, other], axis=-1) for points in (fixed, moving))
    distinct = (before.min(axis=1) > 0) & (after.min(axis=1) > 0)
    if search.model == "rigid":
        return np.asarray(distinct & (np.abs(before - after) < 2 * search.limit).all(axis=1))
    slack = 2 * search.limit
    return np.asarray(
        distinct & ((after < MOST_STRETCH * before + slack) & (before < MOST_STRETCH * after + slack)).all(axis=1)
    )


def fitted(
    fixed: Float[Array, "*many points ndim"], moving: Float[Array, "*many points ndim"], search: RobustFit
) -> Matrices:
    """Least squares, many at a time; not finite where the points determine nothing.

    Source: Umeyama, IEEE TPAMI 13(4), 1991, equations 40–43; one at a time, :func:`modalign.geometry.fit_rigid`,
    :func:`~modalign.geometry.fit_similarity` and :func:`~modalign.geometry.fit_affine` give the same.
    """
    centers = [points.mean(-2, keepdims=True) for points in (fixed, moving)]
    from_fixed, from_moving = fixed - centers[0], moving - centers[1]
    covariance = np.swapaxes(from_moving, -1, -2) @ from_fixed
    if search.model == "affine":
        linear = covariance @ _inverse(np.swapaxes(from_fixed, -1, -2) @ from_fixed)
    else:
        linear = _turned(covariance, search.mirrored)
        if search.model == "similarity":
            scale = (linear * covariance).sum((-2, -1)) / (from_fixed**2).sum((-2, -1))
            linear = linear * scale[..., None, None]
    offset = centers[1][..., 0, :] - (linear @ centers[0][..., 0, :, None])[..., 0]
    return np.concatenate([linear, offset[..., None]], axis=-1)


def _inverse(gram: Float[Array, "*many ndim ndim"]) -> Float[Array, "*many ndim ndim"]:
    """Inverse of symmetric matrices; not a number where they have none: points on one line or plane."""
    size = np.trace(gram, axis1=-2, axis2=-1)
    singular = ~(np.linalg.det(gram) > 1e-9 * size ** gram.shape[-1])
    safe = np.where(singular[..., None, None], np.eye(gram.shape[-1]), gram)
    return np.where(singular[..., None, None], np.nan, np.linalg.inv(safe))


def _turned(covariance: Float[Array, "*many ndim ndim"], mirrored: bool) -> Float[Array, "*many ndim ndim"]:
    """The rotation (or reflection) nearest to each covariance."""
    u, _, vt = np.linalg.svd(covariance)
    u[..., -1] *= np.where((np.linalg.det(u @ vt) < 0) == mirrored, 1.0, -1.0)[..., None]
    return np.asarray(u @ vt)


def _invertible(matrices: Matrices, search: RobustFit) -> Bool[Array, "*many"]:
    """Transforms that are finite, of the wanted handedness, and do not stretch any direction beyond reason."""
    finite = np.isfinite(matrices).all((-2, -1))
    linear = np.where(finite[..., None, None], matrices[..., :-1], 0)
    stretch = np.linalg.svd(linear, compute_uv=False)
    bounded = (stretch[..., 0] < MOST_STRETCH) & (stretch[..., -1] > 1 / MOST_STRETCH)
    return np.asarray(finite & bounded & ((np.linalg.det(linear) < 0) == search.mirrored))


def _squared_distances(matrices: Matrices, fixed: Points, moving: Points) -> Float[Array, "*many points"]:
    """Squared distance of each moving point from where each transform takes its fixed point."""
    mapped = matrices[..., :-1] @ fixed.T + matrices[..., -1:]
    return np.asarray(((mapped - moving.T) ** 2).sum(-2))


def _qualities(
    matrices: Float[Array, "many ndim homogeneous"], fixed: Points, moving: Points, search: RobustFit
) -> Float[Array, " many"]:
    """How well each transform explains the matches, see :class:`Agreement`."""
    table = _table(search.estimator, fixed.shape[-1])
    rows = max(1, BLOCK_RESIDUALS // fixed.size)
    blocks = [
        table[_entries(_squared_distances(matrices[start : start + rows], fixed, moving) / search.limit**2)].sum(-1)
        for start in range(0, len(matrices), rows)
    ]
    return np.concatenate(blocks)


def _refitted(matrix: Matrices, fixed: Points, moving: Points, search: RobustFit) -> Matrices | None:
    """The transform fitted to the matches that agree with it, until they stay the same; first with twice the limit."""
    agreed = _squared_distances(matrix, fixed, moving) < (2 * search.limit) ** 2
    for _ in range(REFITS):
        if agreed.sum() < search.sample_size(fixed.shape[-1]):
            return None
        matrix = fitted(fixed[agreed], moving[agreed], search)
        if not _invertible(matrix, search):
            return None
        before, agreed = agreed, _squared_distances(matrix, fixed, moving) < search.limit**2
        if np.array_equal(before, agreed):
            break
    return matrix


@cache
def _table(estimator: Estimator, ndim: int) -> Float[Array, " entries"]:
    """Quality of a match by its squared distance, evenly from 0 to the squared limit; 0 beyond.

    That of MAGSAC++ is one minus its loss: the weight (equation 5 there) is the likelihood of the distance, its
    ``ndim`` coordinates being normal, averaged over all noise up to the one that leaves :data:`OUTSIDE_LIMIT` outside;
    the loss is its integral over the squared distance.
    """
    if estimator == "ransac":
        return np.append(np.ones(RESOLUTION), 0.0)
    furthest = special.chdtri(ndim, OUTSIDE_LIMIT) / 2
    order = (ndim - 1) / 2
    weight = special.gammaincc(order, np.linspace(0, furthest, RESOLUTION)) - special.gammaincc(order, furthest)
    loss = np.append(0, np.cumsum((weight[1:] + weight[:-1]) / 2))
    return np.append(1 - loss / loss[-1], 0.0)


def _entries(squared: Float[Array, "*any"]) -> Integer[Array, "*any"]:
    """Where squared distances, in squared limits, stand in the table."""
    return np.where(squared < 1, squared * (RESOLUTION - 1), RESOLUTION).astype(np.intp)


def _trials_needed(share: float, size: int) -> int:
    """Samples after which one without outliers has been drawn with near certainty."""
    clean = min(max(share, 1e-3) ** size, 1 - 1e-9)
    return int(np.ceil(np.log(1 - CERTAINTY) / np.log1p(-clean)))


def spread(points: Points, grid: Grid) -> float:
    """Root mean square distance of points from their middle, as a fraction of the longest side of an image."""
    if len(points) == 0:
        return 0.0
    return float(np.sqrt(((points - points.mean(0)) ** 2).sum(1).mean()) / max(grid.extent))
