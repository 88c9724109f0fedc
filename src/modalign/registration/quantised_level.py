"""Two quantised images at one pixel size, and how to find more mutual information from a pose nearby."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product

import numpy as np
from jaxtyping import Float, Shaped, UInt8, UInt16
from scipy import ndimage

from modalign.geometry import planes as planes_of_turning
from modalign.image import Image
from modalign.registration.cmif import dependence, joint_counts
from modalign.registration.masked_ncc import stacked
from modalign.registration.poses import Level, Pose, nearest
from modalign.registration.quantisation import planes, quantised
from modalign.registration.workspace import isotropic

Array = np.ndarray

CLIMBS = 4
"""Rounds of trials around a candidate at each level."""
RADII = (1.0, 0.6, 0.35, 0.2)
"""Reach of the rounds of the continuous refinement, in pixels: each fits a parabola to trials so far away."""
BLUR = 0.8
"""Standard deviation, in pixels, of the smoothing of the classes in the refinement: it hides the interpolation."""


@dataclass(frozen=True, eq=False)
class QuantisedLevel(Level):
    """Two quantised images at one pixel size; the stacks hold a plane a class.

    Attributes:
        fixed_labels: Class of every pixel of the fixed image; the number of classes where it is masked.
        moving_labels: The same of the moving image.
        normalised: Whether scores are of the normalised mutual information.
    """

    fixed_labels: UInt8[Array, "*fixed_spatial"]
    moving_labels: UInt8[Array, "*moving_spatial"]
    normalised: bool

    @property
    def fixed_planes(self) -> Float[Array, "classes *spatial"]:
        """Memberships of the classes of the fixed image."""
        return self.fixed[:-2]

    @property
    def classes(self) -> tuple[int, int]:
        """Number of classes of each image."""
        return len(self.fixed) - 2, len(self.moving) - 2

    @cached_property
    def codes(self) -> UInt16[Array, "*spatial"]:
        """The labels of the fixed image times the number of labels of the moving one: added to these, a joint label."""
        return self.fixed_labels * np.uint16(self.classes[1] + 1)


def quantised_level(
    fixed: Image, moving: Image, spacing: float, classes: int, seed: int = 0, normalised: bool = False
) -> QuantisedLevel:
    """Both images resampled to square pixels of one size, then quantised each for itself."""
    images = [isotropic(image, spacing) for image in (fixed, moving)]
    (fixed_labels, k_fixed), (moving_labels, k_moving) = (quantised(image, classes, seed) for image in images)
    stacks = [
        stacked(planes(labels, count), image.valid.astype(np.float32))
        for labels, count, image in ((fixed_labels, k_fixed, images[0]), (moving_labels, k_moving, images[1]))
    ]
    return QuantisedLevel(stacks[0], stacks[1], images[0].grid, images[1].grid, fixed_labels, moving_labels, normalised)


def scored(level: QuantisedLevel, pose: Pose) -> Pose:
    """The pose with the score of its labels by nearest neighbour."""
    return _with_score(level, pose, _joint(level, _labels(level, pose)))


def climbed(level: QuantisedLevel, pose: Pose, min_overlap: float) -> Pose:
    """The pose of highest rank within reach of whole-pixel steps in shift and rotation, as far as they overlap."""
    best = _best_shift(level, pose, min_overlap)
    for _ in range(CLIMBS):
        start = best
        trials = [_best_shift(level, turn, min_overlap) for turn in level.turns(start)]
        best = max([start, *trials], key=lambda trial: trial.rank)
        if best is start:
            break
    return best


def _best_shift(level: QuantisedLevel, pose: Pose, min_overlap: float) -> Pose:
    """The best of a pose and its neighbours one pixel away; the pose itself where none overlaps enough."""
    labels = _labels(level, pose, margin=1)
    offsets = sorted(product((-1, 0, 1), repeat=labels.ndim), key=np.count_nonzero)
    windows = [
        tuple(slice(1 + o, 1 + o + n) for o, n in zip(offset, level.fixed_grid.shape, strict=True))
        for offset in offsets
    ]
    joint = np.stack([_joint(level, labels[window]) for window in windows])
    score, overlap = _scores(level, joint)
    ranks = np.where(overlap >= min_overlap, score * np.sqrt(overlap), 0)
    best = int(ranks.argmax())
    moved = level.moved(pose, np.array(offsets[best], dtype=float)) if best else pose
    return replace(moved, score=float(score[best]), overlap=float(overlap[best]))


def _labels(level: QuantisedLevel, pose: Pose, margin: int = 0) -> UInt8[Array, "*spatial"]:
    """Labels of the moving image on the fixed grid, grown by ``margin`` pixels to all sides, by nearest neighbour."""
    grid = level.fixed_grid.centered([n + 2 * margin for n in level.fixed_grid.shape])
    transform = pose.transform(level.fixed_grid, level.moving_grid)
    matrix = np.linalg.inv(level.moving_grid.matrix) @ transform.matrix @ grid.matrix
    return nearest(level.moving_labels, matrix, grid.shape, outside=level.classes[1])


def _joint(level: QuantisedLevel, labels: Shaped[Array, "*spatial"]) -> Float[Array, "fixed moving"]:
    """Joint histogram of the labels of both images where both are valid."""
    shape = tuple(count + 1 for count in level.classes)
    counts = np.bincount((level.codes + labels).ravel(), minlength=math.prod(shape))
    return np.asarray(counts.reshape(shape)[:-1, :-1], dtype=np.float64)


def _with_score(level: QuantisedLevel, pose: Pose, joint: Float[Array, "fixed moving"]) -> Pose:
    score, overlap = _scores(level, joint)
    return replace(pose, score=float(score), overlap=float(overlap))


def _scores(
    level: QuantisedLevel, joint: Float[Array, "*poses fixed moving"]
) -> tuple[Float[Array, "*poses"], Float[Array, "*poses"]]:
    """Score and overlap by joint histograms."""
    return dependence(joint, level.normalised), np.asarray(joint.sum((-2, -1)) / level.area)


def refined(level: QuantisedLevel, pose: Pose) -> Pose:
    """The pose at the top of parabolas fitted to the score around it, in ever smaller reach.

    The classes of the moving image are smoothed and interpolated linearly, so that the score depends on the pose
    continuously.
    """
    level = replace(level, moving=_blurred(level.moving))
    ndim = level.fixed_grid.ndim
    design = _design(ndim + len(planes_of_turning(ndim)))
    best = _interpolated(level, pose)
    for radius in RADII:
        steps = radius * design
        trials = [best, *(_interpolated(level, _turned(level, best, step)) for step in steps[1:])]
        top = _summit(steps, np.array([trial.score for trial in trials]))
        highest = _interpolated(level, _turned(level, best, np.clip(top, -2 * radius, 2 * radius)))
        best = max([*trials, highest], key=lambda trial: trial.score)
    return best


def _blurred(stack: Float[Array, "rows *spatial"]) -> Float[Array, "rows *spatial"]:
    """The stack with classes smoothed, as far as they are valid, so that they still add up to the mask."""
    smooth = np.stack([ndimage.gaussian_filter(row, BLUR, truncate=3.0) for row in (*stack[:-2], stack[-1])])
    return stacked(smooth[:-1] / np.maximum(smooth[-1], np.float32(1e-6)), stack[-1])


def _turned(level: Level, pose: Pose, step: Float[Array, " parameters"]) -> Pose:
    """The pose after a small motion: pixels along each axis, then pixels of turn at the border in each plane."""
    ndim = level.fixed_grid.ndim
    return level.moved(pose, step[:ndim]).turned(step[ndim:] * level.turn_a_pixel)


def _interpolated(level: QuantisedLevel, pose: Pose) -> Pose:
    """The pose with the score of linearly interpolated classes."""
    return _with_score(level, pose, joint_counts(level.fixed_planes, level.warped(pose)[:-2]))


def _design(parameters: int) -> Float[Array, "trials parameters"]:
    """No step, and steps of length one along every parameter and every pair of them: enough to fit a parabola."""
    unit = np.eye(parameters)
    pairs = [(unit[i] + unit[j]) / math.sqrt(2) for i, j in combinations(range(parameters), 2)]
    return np.concatenate([np.zeros((1, parameters)), unit, -unit, pairs])


def _summit(steps: Float[Array, "trials parameters"], scores: Float[Array, " trials"]) -> Float[Array, " parameters"]:
    """Where the parabola through the trials is highest; no step where it is not a hill."""
    count = steps.shape[1]
    rows, columns = np.triu_indices(count)
    terms = np.column_stack([np.ones(len(steps)), steps, steps[:, rows] * steps[:, columns]])
    solution = np.linalg.lstsq(terms, scores, rcond=None)[0]
    curvature = np.zeros((count, count))
    curvature[rows, columns] = solution[1 + count :]
    curvature = curvature + curvature.T
    if np.linalg.eigvalsh(curvature).max() >= 0:
        return np.zeros(count)
    return np.asarray(-np.linalg.solve(curvature, solution[1 : 1 + count]))
