"""Poses of a moving image before a fixed one, and how to improve them: by trial in steps, then continuously."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from modalign.geometry import Grid, Linear, Rigid, Similarity, as_rows, rotation_matrix
from modalign.image import Image
from modalign.registration.masked_ncc import Stack, ncc, rank, stacked, standardised
from modalign.registration.workspace import isotropic

Array = np.ndarray

CLIMBS = 4
"""Rounds of trials around the best pose of a level."""
REFINEMENTS = 30
"""Steps of the continuous optimisation, which mostly needs fewer than ten."""
SETTLED = 1e-3
"""The optimisation ends where a step moves the border by less than this many pixels."""
BLUR = 0.8
"""Standard deviation, in pixels, of the smoothing before the continuous optimisation: it hides the interpolation."""


@dataclass(frozen=True)
class Pose:
    """A rotation of the world about the centre of the fixed image, whose centre goes to that of the moving one.

    Attributes:
        degrees: Angle of the rotation, see :func:`modalign.geometry.rotation_matrix`.
        mirrored: Whether the last axis is mirrored before the rotation.
        scale: Size of the moving image's world relative to the fixed one's, applied with the rotation.
        shift: Added after the rotation, in world units.
        score: Masked correlation.
        overlap: Overlap as a fraction of the valid area of the smaller image.
    """

    degrees: float
    mirrored: bool
    shift: tuple[float, ...]
    score: float = -1.0
    overlap: float = 0.0
    scale: float = 1.0

    @property
    def rank(self) -> float:
        """What decides between poses, see :func:`modalign.registration.masked_ncc.rank`."""
        return rank(self.score, self.overlap)

    @property
    def rotation(self) -> Float[Array, "ndim ndim"]:
        """The rotation, with the mirror and without the scale."""
        signs = np.ones(len(self.shift))
        signs[-1] = -1 if self.mirrored else 1
        return rotation_matrix(len(self.shift), self.degrees) * signs

    def transform(self, fixed: Grid, moving: Grid) -> Linear:
        """The pose as a transform of world points: rigid, or a similarity where it scales."""
        if self.scale == 1:
            return Rigid.about(fixed.center, self.rotation, moving.center - fixed.center + self.shift)
        offset = moving.center + self.shift - self.scale * self.rotation @ fixed.center
        return Similarity(as_rows(self.rotation), self.scale, tuple(offset.tolist()))


@dataclass(frozen=True, eq=False)
class Level:
    """Two images at one pixel size.

    Attributes:
        fixed: Standardised stack of the fixed image.
        moving: The same of the moving image.
        fixed_grid: Its grid, with square pixels.
        moving_grid: Its grid, with square pixels of the same size.
    """

    fixed: Stack
    moving: Stack
    fixed_grid: Grid
    moving_grid: Grid

    @classmethod
    def of(cls, fixed: Image, moving: Image, spacing: float) -> "Level":
        """Both images resampled to pixels of one size."""
        fixed, moving = isotropic(fixed, spacing), isotropic(moving, spacing)
        return cls(standardised(fixed), standardised(moving), fixed.grid, moving.grid)

    @property
    def spacing(self) -> float:
        """Pixel size in world units."""
        return self.fixed_grid.spacing[0]

    @cached_property
    def area(self) -> float:
        """Valid pixels of the smaller image."""
        return float(min(self.fixed[-1].sum(), self.moving[-1].sum()))

    @property
    def degrees_a_pixel(self) -> float:
        """The rotation that moves the border of the larger image by one pixel."""
        longest = max(*self.fixed_grid.shape, *self.moving_grid.shape)
        return float(np.rad2deg(2 / longest))

    def warped(self, pose: Pose, margin: int = 0) -> Stack:
        """The moving stack on the fixed grid, grown by ``margin`` pixels to all sides."""
        grid = self.fixed_grid.centered([n + 2 * margin for n in self.fixed_grid.shape])
        return warped(self.moving, self.moving_grid, grid, pose.transform(self.fixed_grid, self.moving_grid))

    def moved(self, pose: Pose, pixels: Float[Array, " ndim"]) -> Pose:
        """The pose after a move of so many pixels along the axes of the fixed image."""
        step = self.spacing * np.array(self.fixed_grid.direction) @ pixels
        return replace(pose, shift=tuple(np.array(pose.shift) + pose.scale * pose.rotation @ step))


def warped(moving: Stack, moving_grid: Grid, fixed_grid: Grid, fixed_to_moving: Linear) -> Stack:
    """A stack sampled linearly on another grid; pixels that need values from outside the mask become invalid.

    The only step of this method that exists in 2D only.
    """
    import cv2

    matrix = np.linalg.inv(moving_grid.matrix) @ fixed_to_moving.matrix @ fixed_grid.matrix
    rows = matrix[:-1][::-1][:, [1, 0, 2]]  # OpenCV counts (x, y)
    size = fixed_grid.shape[::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    mask, *data = (cv2.warpAffine(plane, rows, size, flags=flags) for plane in (moving[-1], *moving[:-2]))
    return stacked(np.stack(data), (mask > 0.999).astype(np.float32))


def climbed(level: Level, pose: Pose, min_overlap: float) -> Pose:
    """The pose of highest rank within reach of whole-pixel steps in shift and rotation, as far as they overlap."""
    best = pose
    for _ in range(CLIMBS):
        start = best
        angles = (0.0, -level.degrees_a_pixel, level.degrees_a_pixel)
        trials = [_best_shift(level, replace(start, degrees=start.degrees + angle), min_overlap) for angle in angles]
        best = max(trials, key=lambda trial: trial.rank)
        if (best.degrees, best.shift) == (start.degrees, start.shift):
            break
    return best


def _best_shift(level: Level, pose: Pose, min_overlap: float) -> Pose:
    """The best of a pose and its neighbours one pixel away."""
    stack = level.warped(pose, margin=1)
    best, still = replace(pose, score=-2.0, overlap=1.0), (0,) * level.fixed_grid.ndim
    for offset in product((0, -1, 1), repeat=len(still)):
        window = tuple(slice(1 + o, 1 + o + n) for o, n in zip(offset, level.fixed_grid.shape, strict=True))
        score, count = ncc(level.fixed, stack[(slice(None), *window)])
        overlap = count / level.area
        if rank(score, overlap) > best.rank and (overlap >= min_overlap or offset == still):
            moved = level.moved(pose, np.array(offset, dtype=float)) if offset != still else pose
            best = replace(moved, score=score, overlap=overlap)
    return best


def refined(level: Level, pose: Pose) -> Pose:
    """The pose that maximises the masked correlation, by Gauss–Newton steps from a pose a pixel or two away.

    Source: Evangelidis and Psarakis, IEEE TPAMI 30(10), 2008, equations 15–19, for a rotation and shift composed with
    the pose, over all channels, with means over the overlap.
    """
    level = replace(level, fixed=_blurred(level.fixed), moving=_blurred(level.moving))
    best = _scored(level, pose)
    for _ in range(REFINEMENTS):
        step = _step(level, best)
        trial = _scored(level, _turned(level, best, step))
        if trial.score <= best.score:
            break
        best = trial
        if np.abs(step).max() < SETTLED:
            break
    return best


def _blurred(stack: Stack) -> Stack:
    data = np.stack([ndimage.gaussian_filter(channel, BLUR, mode="nearest", truncate=3.0) for channel in stack[:-2]])
    return stacked(data, stack[-1])


def _scored(level: Level, pose: Pose) -> Pose:
    score, count = ncc(level.fixed, level.warped(pose))
    return replace(pose, score=score, overlap=count / level.area)


def _turned(level: Level, pose: Pose, step: Float[Array, " parameters"]) -> Pose:
    """The pose after a small motion of the fixed frame: pixels along each axis, then pixels of turn at the border."""
    moved = level.moved(pose, step[:-1])
    degrees = step[-1] * level.degrees_a_pixel
    return replace(moved, degrees=moved.degrees + (-degrees if pose.mirrored else degrees))


def _step(level: Level, pose: Pose) -> Float[Array, " parameters"]:
    """The Gauss–Newton step in pixels."""
    stack = level.warped(pose)
    mask = ndimage.binary_erosion(stack[-1] > 0, border_value=0) & (level.fixed[-1] > 0)
    spin = _spin(level)[:, mask]
    grams = np.sum([_gram(f, g, mask, spin) for f, g in zip(level.fixed[:-2], stack[:-2], strict=True)], axis=0)
    *_, ff, gg = range(len(grams))
    inverse = np.linalg.pinv(grams[:ff, :ff], hermitian=True)
    by_f, by_g = inverse @ grams[:ff, ff], inverse @ grams[:ff, gg]
    unexplained = grams[gg, gg] - grams[gg, :ff] @ by_g
    agreement = grams[ff, gg] - grams[ff, :ff] @ by_g
    gain = unexplained / agreement if agreement > 0 else np.sqrt(grams[gg, gg] / grams[ff, ff])
    return np.asarray(gain * by_f - by_g)


def _gram(fixed: Array, warped: Array, mask: Array, spin: Array) -> Float[Array, "rows rows"]:
    """Centred inner products of the derivatives by the parameters, the fixed and the warped channel."""
    slopes = [slope[mask] for slope in np.gradient(warped)]
    rows = np.stack([*slopes, sum(s * v for s, v in zip(slopes, spin, strict=True)), fixed[mask], warped[mask]])
    rows = rows - rows.mean(1, keepdims=True)
    return np.asarray(rows @ rows.T, dtype=np.float64)


def _spin(level: Level) -> Float[Array, "ndim *spatial"]:
    """Motion in pixels of every fixed pixel when the border of the image turns by one pixel."""
    grid = level.fixed_grid
    axes = np.array(grid.direction)
    small = np.deg2rad(level.degrees_a_pixel)
    turn = small * axes.T @ rotation_matrix(grid.ndim, 90.0) @ axes  # the derivative of a rotation is a quarter turn
    center = (np.array(grid.shape) - 1) / 2
    places = np.indices(grid.shape, dtype=np.float32) - center.reshape(-1, *(1,) * grid.ndim).astype(np.float32)
    return np.tensordot(turn.astype(np.float32), places, 1)
