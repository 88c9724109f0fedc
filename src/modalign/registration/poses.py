"""Two images at one pixel size, and what may be true of them: poses and candidates."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Shaped
from scipy import ndimage

from modalign.geometry import Grid, Linear, Rigid, Similarity, angle_degrees, as_rows, planes, turn
from modalign.geometry.transforms import Matrix
from modalign.image import Image
from modalign.registration.masked_ncc import Stack, rank, stacked, standardised
from modalign.registration.workspace import isotropic

Array = np.ndarray
SIGNED = frozenset({2})
"""Numbers of dimensions in which a rotation has a direction."""
VALID = 0.999
"""Share of a sample that must come from valid pixels."""


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
        rotation: Rows of an orthogonal matrix: a rotation, after a mirror of the last axis where it mirrors.
        shift: Added after the rotation, in world units.
        score: Masked correlation.
        overlap: Overlap as a fraction of the valid area of the smaller image.
        scale: Size of the moving image's world relative to the fixed one's, applied with the rotation.
    """

    rotation: Matrix
    shift: tuple[float, ...]
    score: float = -1.0
    overlap: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, found: Candidate, fixed: Grid, moving: Grid) -> "Pose":
        """The pose of a rigid transform or similarity; of any other, the one with the nearest rotation."""
        left, _, right = np.linalg.svd(found.transform.linear)
        shift = found.transform.map_points(fixed.center) - moving.center
        scale = linear_scale(found.transform)
        return cls(as_rows(left @ right), tuple(shift.tolist()), found.score, found.overlap, scale)

    @classmethod
    def centered(cls, rotation: Float[Array, "ndim ndim"], *, mirrored: bool = False, scale: float = 1.0) -> "Pose":
        """A pose without a shift, and not scored yet."""
        signs = np.ones(len(rotation))
        signs[-1] = -1 if mirrored else 1
        return cls(as_rows(rotation * signs), (0.0,) * len(rotation), scale=scale)

    @property
    def rank(self) -> float:
        """What decides between poses, see :func:`modalign.registration.masked_ncc.rank`."""
        return rank(self.score, self.overlap)

    @cached_property
    def matrix(self) -> Float[Array, "ndim ndim"]:
        """The rotation, with the mirror and without the scale."""
        return np.array(self.rotation)

    @property
    def mirrored(self) -> bool:
        """Whether it mirrors."""
        return bool(np.linalg.det(self.matrix) < 0)

    @property
    def degrees(self) -> float:
        """By how much it turns, after the mirror if there is one; in 2D with the sign, in 3D about whichever axis."""
        signs = np.ones(len(self.shift))
        signs[-1] = -1 if self.mirrored else 1
        proper = self.matrix * signs
        sign = -1.0 if len(self.shift) in SIGNED and proper[-1, 0] < 0 else 1.0
        return sign * angle_degrees(proper)

    def turned(self, radians: Float[Array, " planes"]) -> "Pose":
        """The pose after another rotation about the same centre, by an angle in each plane of axes."""
        return replace(self, rotation=as_rows(turn(len(self.shift), radians) @ self.matrix))

    def transform(self, fixed: Grid, moving: Grid) -> Linear:
        """The pose as a transform of world points: rigid, or a similarity where it scales."""
        if self.scale == 1:
            return Rigid.about(fixed.center, self.matrix, moving.center - fixed.center + self.shift)
        offset = moving.center + self.shift - self.scale * self.matrix @ fixed.center
        return Similarity(self.rotation, self.scale, tuple(offset.tolist()))

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
    def turn_a_pixel(self) -> float:
        """The rotation in radians, or the change of scale, that moves the border of the larger image by one pixel."""
        return 2 / max(*self.fixed_grid.shape, *self.moving_grid.shape)

    def turns(self, pose: Pose) -> list[Pose]:
        """A pose turned by a pixel at the border, to either side in every plane of axes."""
        steps = np.eye(len(planes(self.fixed_grid.ndim))) * self.turn_a_pixel
        return [pose.turned(sign * step) for step in steps for sign in (-1, 1)]

    def warped(self, pose: Pose, margin: int = 0) -> Stack:
        """The moving stack on the fixed grid, grown by ``margin`` pixels to all sides."""
        grid = self.fixed_grid.centered([n + 2 * margin for n in self.fixed_grid.shape])
        return warped(self.moving, self.moving_grid, grid, pose.transform(self.fixed_grid, self.moving_grid))

    def moved(self, pose: Pose, pixels: Float[Array, " ndim"]) -> Pose:
        """The pose after a move of so many pixels along the axes of the fixed image."""
        step = self.spacing * np.array(self.fixed_grid.direction) @ pixels
        return replace(pose, shift=tuple(np.array(pose.shift) + pose.scale * pose.matrix @ step))


def linear_scale(transform: Linear) -> float:
    """By how much a transform lengthens distances, on the geometric mean over all directions."""
    return float(abs(np.linalg.det(transform.linear)) ** (1 / transform.ndim))


def warped(moving: Stack, moving_grid: Grid, fixed_grid: Grid, fixed_to_moving: Linear) -> Stack:
    """A stack sampled linearly on another grid; pixels that need values from outside the mask become invalid."""
    matrix = np.linalg.inv(moving_grid.matrix) @ fixed_to_moving.matrix @ fixed_grid.matrix
    return _WARPS[fixed_grid.ndim](moving, matrix, fixed_grid.shape)


def nearest(labels: Array, matrix: Array, shape: tuple[int, ...], outside: int) -> Shaped[Array, "*fixed_spatial"]:
    """Labels at the indices to which a homogeneous matrix takes those of another grid, without interpolation."""
    return _LOOK_UPS[len(shape)](labels, matrix, shape, outside)


def _warped_plane(stack: Stack, matrix: Array, shape: tuple[int, ...]) -> Stack:
    mask, *data = (_plane(channel, matrix, shape, "INTER_LINEAR", 0) for channel in (stack[-1], *stack[:-2]))
    return stacked(np.stack(data), (mask > VALID).astype(np.float32))


def _warped_volume(stack: Stack, matrix: Array, shape: tuple[int, ...]) -> Stack:
    from modalign.registration.volume_kernels import warp

    result = np.zeros((len(stack), *shape), np.float32)
    warp(np.ascontiguousarray(stack), matrix[:-1], result)
    return result


def _looked_up_plane(labels: Array, matrix: Array, shape: tuple[int, ...], outside: int) -> Array:
    return _plane(labels, matrix, shape, "INTER_NEAREST", outside)


def _looked_up_volume(labels: Array, matrix: Array, shape: tuple[int, ...], outside: int) -> Array:
    return np.asarray(ndimage.affine_transform(labels, matrix, output_shape=shape, order=0, cval=outside))


def _plane(channel: Array, matrix: Array, shape: tuple[int, ...], method: str, outside: int) -> Array:
    import cv2

    rows = matrix[:-1][::-1][:, [1, 0, 2]]  # OpenCV counts (x, y)
    flags = getattr(cv2, method) | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(channel, rows, shape[::-1], flags=flags, borderValue=outside))


_WARPS: dict[int, Callable[[Stack, Array, tuple[int, ...]], Stack]] = {2: _warped_plane, 3: _warped_volume}
_LOOK_UPS: dict[int, Callable[[Array, Array, tuple[int, ...], int], Array]] = {
    2: _looked_up_plane,
    3: _looked_up_volume,
}
