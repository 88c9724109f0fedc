"""A common space for two images: one unit, square pixels, float32, and comparable channels."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import sparse

from modalign.geometry import Affine, Grid, Linear, Rigid, Similarity, as_rows, identity
from modalign.geometry.grid import METERS
from modalign.image import Image
from modalign.local_features.channels import as_float32, gray, is_rgb, masked, projected

Array = np.ndarray


@dataclass(frozen=True)
class Workspace:
    """Two images whose worlds can be compared, with the way back to their own worlds.

    Attributes:
        fixed: The fixed image in the common unit.
        moving: The moving image in the common unit.
        from_fixed: Maps points of the fixed image's own world to the common world.
        to_moving: Maps points of the common world to the moving image's own world.
    """

    fixed: Image
    moving: Image
    from_fixed: Linear
    to_moving: Linear

    def to_world(self, fixed_to_moving: Linear) -> Linear:
        """A transform found in the common world as a transform between the images' own worlds."""
        return smallest_group(self.to_moving.matrix @ fixed_to_moving.matrix @ self.from_fixed.matrix)


def harmonised(fixed: Image, moving: Image) -> Workspace:
    """Bring two images to one length unit.

    Physical units are converted to the unit of the fixed image. Where exactly one of the units is ``"pixel"``, lengths
    cannot be compared and both images are taken as plain arrays of pixels of size 1.
    """
    units = (fixed.grid.unit, moving.grid.unit)
    still = identity(fixed.ndim)
    if units[0] == units[1]:
        return Workspace(fixed, moving, still, still)
    if "pixel" in units:
        plain_fixed, plain_moving = (image.with_grid(image.grid.without_unit()) for image in (fixed, moving))
        from_fixed = Affine.from_matrix(fixed.grid.matrix).inverse()
        return Workspace(plain_fixed, plain_moving, from_fixed, Affine.from_matrix(moving.grid.matrix))
    factor = METERS[units[0]] / METERS[units[1]]
    to_moving = Similarity(as_rows(np.eye(fixed.ndim)), factor, (0.0,) * fixed.ndim)
    return Workspace(fixed, moving.with_grid(moving.grid.in_unit(units[0])), still, to_moving)


def smallest_group(matrix: Float[Array, "homogeneous homogeneous"]) -> Linear:
    """The transform with this homogeneous matrix: rigid where it keeps distances, else a similarity, else affine."""
    gram = matrix[:-1, :-1].T @ matrix[:-1, :-1]
    scale = float(np.sqrt(np.trace(gram) / len(gram)))
    if not np.allclose(gram, scale**2 * np.eye(len(gram)), rtol=0, atol=1e-9 * scale**2):
        return Affine.from_matrix(matrix)
    return Rigid.from_matrix(matrix) if abs(scale - 1) < 1e-9 else Similarity.from_matrix(matrix)


def finest_spacing(fixed: Image, moving: Image, max_side: int) -> float:
    """Pixel size at which neither image has more detail to offer, or the longest side has ``max_side`` pixels."""
    detail = max(min(image.grid.spacing) for image in (fixed, moving))
    longest = max(max(image.grid.extent) for image in (fixed, moving))
    return max(detail, longest / max_side)


def spacing_by_area(fixed: Image, moving: Image, side: int) -> float:
    """Pixel size at which the larger image has about as many pixels as a square, or cube, of a side; or all it has.

    The shape does not matter but for very long images, whose longest side has at most ``4 * side`` pixels.
    """
    detail = max(min(image.grid.spacing) for image in (fixed, moving))
    extents = [np.array(image.grid.extent) for image in (fixed, moving)]
    even = max(float(np.prod(extent)) ** (1 / len(extent)) for extent in extents)
    longest = max(float(extent.max()) for extent in extents)
    return float(max(detail, even / side, longest / (4 * side)))


def isotropic(image: Image, spacing: float) -> Image:
    """The image in float32 on square pixels over the same field of view; area means where pixels get larger.

    Masked pixels take no part in the means; a pixel is valid where at least half of its area is.
    """
    grid = image.grid.resized((spacing,) * image.ndim)
    weights = [_weights(image.grid, grid, axis) for axis in range(image.ndim)]
    if image.mask is None:
        data = np.stack([_apply(weights, as_float32(channel)) for channel in image.data])
        return Image(data, grid, image.channels)
    share = _apply(weights, image.mask.astype(np.float32))
    valid = np.maximum(share, np.float32(1e-6))
    data = np.stack([_apply(weights, masked(channel, image.mask)) / valid for channel in image.data])
    return Image(data, grid, image.channels, share >= 0.5)


def _apply(weights: list[sparse.csr_matrix | None], channel: Float[Array, "*spatial"]) -> Float[Array, "*smaller"]:
    for axis, matrix in enumerate(weights):
        if matrix is not None:
            lines = np.moveaxis(channel, axis, 0)
            result = matrix @ lines.reshape(len(lines), -1)
            channel = np.moveaxis(result.reshape(-1, *lines.shape[1:]), 0, axis)
    return np.ascontiguousarray(channel)


def _weights(old: Grid, new: Grid, axis: int) -> sparse.csr_matrix | None:
    """Weights ``(new, old)`` along an axis: overlap of the pixel areas, or linear where pixels get smaller.

    Both grids have the same centre. ``None`` where nothing changes.
    """
    n_old, n_new, factor = old.shape[axis], new.shape[axis], new.spacing[axis] / old.spacing[axis]
    if n_old == n_new and abs(factor - 1) < 1e-9:
        return None
    centers = (np.arange(n_new) - (n_new - 1) / 2) * factor + (n_old - 1) / 2
    reach = int(np.ceil(max(factor, 1.0))) + 1
    columns = np.floor(centers)[:, None].astype(int) + np.arange(-reach, reach + 1)
    distance = np.abs(columns - centers[:, None])
    values = (
        np.clip(np.minimum((factor + 1) / 2 - distance, 1), 0, None) if factor > 1 else np.clip(1 - distance, 0, None)
    )
    values /= values.sum(1, keepdims=True)
    columns = np.clip(columns, 0, n_old - 1)  # the border pixel is repeated
    rows = np.broadcast_to(np.arange(n_new)[:, None], columns.shape)
    entries = (values.ravel().astype(np.float32), (rows.ravel(), columns.ravel()))
    return sparse.csr_matrix(entries, shape=(n_new, n_old))


def comparable(fixed: Image, moving: Image) -> tuple[Image, Image]:
    """The two images with the same number of channels: as they are, or both in gray."""
    if len(fixed.data) == len(moving.data):
        return fixed, moving
    return gray(fixed), gray(moving)


def pictures(fixed: Image, moving: Image) -> tuple[Image, Image]:
    """Both images as one comparable channel.

    Gray images stay, RGB becomes luminance, and two images with the same channels (such as representations) are
    projected on the first principal axis of their channels together. Images with different channels become gray.
    """
    both = (fixed, moving)
    if len(fixed.data) != len(moving.data) or len(fixed.data) == 1 or all(is_rgb(image) for image in both):
        return gray(fixed), gray(moving)
    axis = joint_axes(fixed, moving)[:1]
    return projected(fixed, axis), projected(moving, axis)


def joint_axes(fixed: Image, moving: Image) -> Float[Array, "channels channels"]:
    """Principal axes of the channels of both images, strongest first; each points to where most channels grow."""
    covariance = sum(_covariance(image) for image in (fixed, moving))
    _, vectors = np.linalg.eigh(covariance)
    axes = vectors.T[::-1]
    return np.where(axes.sum(1, keepdims=True) < 0, -axes, axes)


def _covariance(image: Image) -> Float[Array, "channels channels"]:
    values = image.data[:, image.valid].astype(np.float64)
    covariance = np.atleast_2d(np.cov(values))
    return np.asarray(covariance / max(np.trace(covariance), np.finfo(float).tiny))
