"""Two images at one pixel size, and what may be true of them: poses and candidates."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from modalign.geometry import Grid, Linear, Rigid, Similarity, as_rows, rotation_matrix
from modalign.image import Image
from modalign.registration.masked_ncc import Stack, rank, stacked, standardised
from modalign.registration.workspace import isotropic

Array = np.ndarray


@dataclass(frozen=True)
class Candidate:
    """A transform that may be the true one, with how well the images agree under it.

    Attributes:
        transform: Maps world points of the fixed image to world points of the moving one.
        score: Masked correlation.
        overlap: Overlap as a fraction of the valid area of the smaller image.
    """

    transform: Linear
    score: float
    overlap: float

    @property
    def rank(self) -> float:
        """What decides between candidates, see :func:`modalign.registration.masked_ncc.rank`."""
        return rank(self.score, self.overlap)


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

    @classmethod
    def of(cls, found: Candidate, fixed: Grid, moving: Grid) -> "Pose":
        """The pose of a rigid transform or similarity that turns the last two axes only, as every one does in 2D."""
        linear = found.transform.linear
        degrees = float(np.rad2deg(np.arctan2(linear[-1, -2], linear[-2, -2])))
        shift = found.transform.map_points(fixed.center) - moving.center
        scale = linear_scale(found.transform)
        mirrored = found.transform.is_mirrored
        return cls(degrees, mirrored, tuple(shift.tolist()), found.score, found.overlap, scale)

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

    def candidate(self, fixed: Grid, moving: Grid) -> Candidate:
        """The pose as a transform of world points, with its score and overlap."""
        return Candidate(self.transform(fixed, moving), self.score, self.overlap)


@dataclass(frozen=True, eq=False)
class Level:
    """Two images at one pixel size.

    Attributes:
        fixed: Standardised stack of the fixed image.
        moving: The same of the moving image.
        fixed_grid: Its grid, with square pixels.
        moving_grid: Its grid, with square pixels of the same size (or of as much more as its world is larger).
    """

    fixed: Stack
    moving: Stack
    fixed_grid: Grid
    moving_grid: Grid

    @classmethod
    def of(cls, fixed: Image, moving: Image, spacing: float, scale: float = 1.0) -> "Level":
        """Both images resampled to pixels of one size.

        Args:
            fixed: The fixed image.
            moving: The moving image.
            spacing: Pixel size in the world of the fixed image.
            scale: Size of the moving image's world relative to the fixed one's.
        """
        fixed, moving = isotropic(fixed, spacing), isotropic(moving, spacing * scale)
        return cls(standardised(fixed), standardised(moving), fixed.grid, moving.grid)

    @property
    def spacing(self) -> float:
        """Pixel size in the world of the fixed image."""
        return self.fixed_grid.spacing[0]

    @cached_property
    def area(self) -> float:
        """Valid pixels of the smaller image."""
        return float(min(self.fixed[-1].sum(), self.moving[-1].sum()))

    @property
    def degrees_a_pixel(self) -> float:
        """The rotation that moves the border of the larger image by one pixel."""
        return float(np.rad2deg(self.turn_a_pixel))

    @property
    def turn_a_pixel(self) -> float:
        """The rotation in radians, or the change of scale, that moves the border of the larger image by one pixel."""
        return 2 / max(*self.fixed_grid.shape, *self.moving_grid.shape)

    def warped(self, pose: Pose, margin: int = 0) -> Stack:
        """The moving stack on the fixed grid, grown by ``margin`` pixels to all sides."""
        grid = self.fixed_grid.centered([n + 2 * margin for n in self.fixed_grid.shape])
        return warped(self.moving, self.moving_grid, grid, pose.transform(self.fixed_grid, self.moving_grid))

    def moved(self, pose: Pose, pixels: Float[Array, " ndim"]) -> Pose:
        """The pose after a move of so many pixels along the axes of the fixed image."""
        step = self.spacing * np.array(self.fixed_grid.direction) @ pixels
        return replace(pose, shift=tuple(np.array(pose.shift) + pose.scale * pose.rotation @ step))


def linear_scale(transform: Linear) -> float:
    """By how much a transform lengthens distances, on the geometric mean over all directions."""
    return float(abs(np.linalg.det(transform.linear)) ** (1 / transform.ndim))


def warped(moving: Stack, moving_grid: Grid, fixed_grid: Grid, fixed_to_moving: Linear) -> Stack:
    """A stack sampled linearly on another grid; pixels that need values from outside the mask become invalid."""
    matrix = np.linalg.inv(moving_grid.matrix) @ fixed_to_moving.matrix @ fixed_grid.matrix
    sampled = _SAMPLERS.get(fixed_grid.ndim, _sampled)
    mask, *data = (sampled(channel, matrix, fixed_grid.shape) for channel in (moving[-1], *moving[:-2]))
    return stacked(np.stack(data), (mask > 0.999).astype(np.float32))


def _sampled(channel: Array, matrix: Array, shape: tuple[int, ...]) -> Float[Array, "*fixed_spatial"]:
    """A channel at the indices to which a homogeneous matrix takes those of another grid; 0 outside."""
    return np.asarray(ndimage.affine_transform(channel, matrix, output_shape=shape, output=np.float32, order=1))


def _sampled_plane(channel: Array, matrix: Array, shape: tuple[int, ...]) -> Float[Array, "*fixed_spatial"]:
    import cv2

    rows = matrix[:-1][::-1][:, [1, 0, 2]]  # OpenCV counts (x, y)
    return np.asarray(cv2.warpAffine(channel, rows, shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))


_SAMPLERS: dict[int, Callable[[Array, Array, tuple[int, ...]], Array]] = {2: _sampled_plane}
"""Faster ways than the general one, by the number of dimensions."""
