"""How to improve the place of a moving image before a fixed one: by trial in steps, then continuously."""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy import linalg, ndimage

from modalign.geometry import Affine, Grid, Linear, Rigid, Similarity
from modalign.image import Image
from modalign.registration.masked_ncc import Stack, ncc, rank, shifted_ncc, stacked
from modalign.registration.poses import Candidate, Level, Pose, linear_scale, warped
from modalign.registration.search import level_spacings
from modalign.registration.workspace import comparable

__all__ = [
    "Candidate",
    "Level",
    "Model",
    "Pose",
    "climbed",
    "maximise_correlation",
    "maximised",
    "refined",
    "warped",
]

Array = np.ndarray
Model = Literal["rigid", "similarity", "affine"]
"""What may still change about a transform: rotation and shift; the scale as well; or everything linear."""

GROUPS: dict[Model, type[Linear]] = {"rigid": Rigid, "similarity": Similarity, "affine": Affine}
CLIMBS = 4
"""Rounds of trials around the best pose of a level."""
REFINEMENTS = 30
"""Steps of the continuous optimisation, which mostly needs fewer than ten."""
SETTLED = 1e-3
"""The optimisation ends where a step moves the border by less than this many pixels."""
STRIDE = 8.0
"""No step moves the image or its border by more pixels: beyond, the derivatives say nothing."""
MOST_STRETCH = 2.0
"""A refinement that stretches or squeezes by more than this factor has lost its way."""
BLUR = 0.8
"""Standard deviation, in pixels, of the smoothing before the continuous optimisation: it hides the interpolation."""
MAX_PIXELS = 1 << 22
"""Pixels of the larger image at the finest level that the continuous optimisation looks at."""


def climbed(level: Level, pose: Pose, min_overlap: float, scaled: bool = False) -> Pose:
    """The pose of highest rank within reach of whole-pixel steps in shift, rotation and, where wanted, scale.

    Only steps to poses that overlap by ``min_overlap`` are taken.
    """
    best, tried = pose, set[tuple[object, ...]]()
    step = level.turn_a_pixel
    for _ in range(CLIMBS):
        start = best
        starts = [start, *level.turns(start)]
        starts += [replace(start, scale=start.scale * growth) for growth in (1 - step, 1 + step)] * scaled
        fresh = {_key(trial): trial for trial in starts if _key(trial) not in tried}
        known = [start] if tried else []  # the score that a pose comes with is that of another level
        best = max([*known, *(_best_shift(level, trial, min_overlap) for trial in fresh.values())], key=_rank)
        tried |= fresh.keys()
        if _key(best) == _key(start):
            break
    return best


def _rank(pose: Pose) -> float:
    return pose.rank


def _key(pose: Pose) -> tuple[object, ...]:
    """What tells poses of one climb apart, whichever way they were come to."""
    return np.round(pose.matrix, 9).tobytes(), round(pose.scale, 9), pose.shift


def _best_shift(level: Level, pose: Pose, min_overlap: float) -> Pose:
    """The best of a pose and its neighbours one pixel away."""
    best, still = replace(pose, score=-2.0, overlap=1.0), (0,) * level.fixed_grid.ndim
    for offset, score, count in shifted_ncc(level.fixed, level.warped(pose, margin=1)):
        overlap = count / level.area
        if rank(score, overlap) > best.rank and (overlap >= min_overlap or offset == still):
            moved = level.moved(pose, np.array(offset, dtype=float)) if offset != still else pose
            best = replace(moved, score=score, overlap=overlap)
    return best


def refined(level: Level, pose: Pose, model: Literal["rigid", "similarity"] = "rigid") -> Pose:
    """The pose that maximises the masked correlation at a level, see :func:`maximised`."""
    start = pose.transform(level.fixed_grid, level.moving_grid)
    return Pose.of(maximised(level, start, model), level.fixed_grid, level.moving_grid)


def maximise_correlation(
    fixed: Image,
    moving: Image,
    start: Linear,
    model: Model = "rigid",
    *,
    coarse_side: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Candidate:
    """Refine a transform by maximising the masked correlation of two images that look alike, coarse to fine.

    The images keep their own worlds and units, which ``start`` connects; values that are not finite must be masked.

    Args:
        fixed: The fixed image.
        moving: The moving image; where the numbers of channels differ, both are compared in gray.
        start: Maps world points of ``fixed`` to world points of ``moving``, to within a pixel or two of the coarsest
            level.
        model: What may change: the result is ``start`` after a motion of the fixed world from this group.
        coarse_side: Longest side in pixels at the coarsest level; a smaller one reaches further. By default that at
            which searches begin.
        max_pixels: Most pixels of the larger image at the finest level.

    Returns:
        The transform with the correlation and overlap at the finest level; ``start`` with its own where nothing
        is better.
    """
    fixed, moving = comparable(fixed, moving)
    scale = linear_scale(start)
    max_side = round(max_pixels**0.5)
    best = Candidate(start, -1.0, 0.0)
    for spacing in level_spacings(fixed, moving, max_side, scale, coarse_side):
        best = maximised(Level.of(fixed, moving, spacing, scale), best.transform, model)
    return best


def maximised(level: Level, start: Linear, model: Model = "rigid") -> Candidate:
    """The transform that maximises the masked correlation at a level, by Gauss–Newton steps from a pixel or two away.

    Source: Evangelidis and Psarakis, IEEE TPAMI 30(10), 2008, equations 15–19, for a motion composed with the
    transform, over all channels, with means over the overlap.
    """
    level = replace(level, fixed=_blurred(level.fixed), moving=_blurred(level.moving))
    motion = Motion.of(level.fixed_grid, model, level.turn_a_pixel)
    best, stack = _scored(level, start)
    for _ in range(REFINEMENTS):
        step = _step(level.fixed, stack, motion)
        trial, stack = _scored(level, motion.after(best.transform, step))
        if trial.score <= best.score or _stretch(start, trial.transform) > MOST_STRETCH:
            break
        best = trial
        if np.abs(step).max() < SETTLED:
            break
    return best


def _stretch(start: Linear, transform: Linear) -> float:
    """By what factor a transform stretches or squeezes more than another one, at most, in any direction."""
    change = np.linalg.svd(np.linalg.solve(start.linear, transform.linear), compute_uv=False)
    return float(max(change.max(), 1 / max(change.min(), 1e-9)))


@dataclass(frozen=True, eq=False)
class Motion:
    """The small motions of the fixed frame that a model allows.

    Attributes:
        grid: Grid of the fixed image, square pixels.
        model: What may change.
        generators: Velocity of every kind of motion as a matrix, in pixels at the border about the centre of the grid.
    """

    grid: Grid
    model: Model
    generators: Float[Array, "kinds ndim ndim"]

    @classmethod
    def of(cls, grid: Grid, model: Model, unit: float) -> "Motion":
        """The motions of a model; one step of ``unit`` counts as one pixel."""
        return cls(grid, model, unit * np.array(_generators(grid.ndim, model)).reshape(-1, grid.ndim, grid.ndim))

    def after(self, transform: Linear, step: Float[Array, " parameters"]) -> Linear:
        """A transform after a motion: pixels along each axis, then pixels at the border of each kind of motion."""
        center = (np.array(self.grid.shape) - 1) / 2
        motion = np.eye(self.grid.ndim + 1)
        motion[:-1, :-1] = linalg.expm(np.tensordot(step[self.grid.ndim :], self.generators, 1))
        motion[:-1, -1] = center + step[: self.grid.ndim] - motion[:-1, :-1] @ center
        world = self.grid.matrix @ motion @ np.linalg.inv(self.grid.matrix)
        group = max(type(transform), GROUPS[self.model], key=lambda kind: kind.rank)
        return group.from_matrix(transform.matrix @ world)

    def slopes(
        self, gradient: Float[Array, "ndim pixels"], places: Float[Array, "ndim pixels"]
    ) -> Float[Array, "parameters pixels"]:
        """Derivatives of an image by the parameters, from its gradient at places about the centre of the grid."""
        rows = [*gradient]
        for generator in self.generators.astype(np.float32):
            entries = zip(*np.nonzero(generator), strict=True)
            rows.append(np.sum([generator[i, j] * gradient[i] * places[j] for i, j in entries], axis=0))
        return np.stack(rows)


def _generators(ndim: int, model: Model) -> list[Float[Array, "ndim ndim"]]:
    """A basis of the velocities: quarter turns in every plane, then growth; or each entry of the matrix alone."""
    entries = np.eye(ndim * ndim).reshape(ndim, ndim, ndim, ndim)
    turns = [entries[j, i] - entries[i, j] for i, j in combinations(range(ndim), 2)]
    bases = {"rigid": turns, "similarity": [*turns, np.eye(ndim)], "affine": [*entries.reshape(-1, ndim, ndim)]}
    return bases[model]


def _blurred(stack: Stack) -> Stack:
    data = np.stack([ndimage.gaussian_filter(channel, BLUR, mode="nearest", truncate=3.0) for channel in stack[:-2]])
    return stacked(data, stack[-1])


def _scored(level: Level, transform: Linear) -> tuple[Candidate, Stack]:
    """A transform with its score and overlap, and the moving stack it brings to the fixed grid."""
    stack = warped(level.moving, level.moving_grid, level.fixed_grid, transform)
    score, count = ncc(level.fixed, stack)
    return Candidate(transform, score, count / level.area), stack


def _step(fixed: Stack, stack: Stack, motion: Motion) -> Float[Array, " parameters"]:
    """The Gauss–Newton step in pixels."""
    mask = ndimage.binary_erosion(stack[-1] > 0, border_value=0) & (fixed[-1] > 0)
    if not mask.any():
        return np.zeros(motion.grid.ndim + len(motion.generators))
    places = _places(mask)
    grams = np.sum([_gram(f, g, mask, motion, places) for f, g in zip(fixed[:-2], stack[:-2], strict=True)], axis=0)
    *_, ff, gg = range(len(grams))
    inverse = np.linalg.pinv(grams[:ff, :ff], hermitian=True)
    by_f, by_g = inverse @ grams[:ff, ff], inverse @ grams[:ff, gg]
    unexplained = grams[gg, gg] - grams[gg, :ff] @ by_g
    agreement = grams[ff, gg] - grams[ff, :ff] @ by_g
    gain = unexplained / agreement if agreement > 0 else np.sqrt(grams[gg, gg] / grams[ff, ff])
    step = np.nan_to_num(gain * by_f - by_g)
    return np.asarray(step * min(1.0, STRIDE / max(np.abs(step).max(), STRIDE)))


def _places(mask: Bool[Array, "*spatial"]) -> Float[Array, "ndim pixels"]:
    """Pixels of a mask, as seen from the centre of the grid."""
    center = (np.array(mask.shape, dtype=np.float32) - 1) / 2
    return np.stack(np.nonzero(mask)).astype(np.float32) - center[:, None]


def _gram(fixed: Array, warped: Array, mask: Array, motion: Motion, places: Array) -> Float[Array, "rows rows"]:
    """Centred inner products of the derivatives by the parameters, the fixed and the warped channel."""
    gradient = np.stack([slope[mask] for slope in np.gradient(warped)])
    rows = np.concatenate([motion.slopes(gradient, places), fixed[mask][None], warped[mask][None]])
    rows = rows - rows.mean(1, keepdims=True)
    return np.asarray(rows @ rows.T, dtype=np.float64)
