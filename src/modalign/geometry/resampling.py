"""Sampling an array on another grid through a transform: one interpolation, block by block."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from modalign.errors import InvalidInputError
from modalign.geometry.grid import Grid
from modalign.geometry.sampling import BLOCK_POINTS, IndexMap, Room, coverage, sample, spline_coefficients, whole
from modalign.geometry.transforms import Transform

Array = np.ndarray


def resample(
    data: Shaped[Array, "channels *spatial"],
    moving: Grid,
    fixed: Grid,
    fixed_to_moving: Transform,
    *,
    order: int = 1,
    fill: float | Float[Array, " channels"] = 0.0,
) -> Shaped[Array, "channels *fixed_spatial"]:
    """Sample an image on another grid, ``result(x) = data(fixed_to_moving(x))``.

    A point lies inside the image up to half a pixel beyond the outermost pixel centres, as in ITK; there the border
    pixel is repeated. Points outside get ``fill``.

    Args:
        data: The moving image; any real dtype, which the result keeps (rounded and clipped to the range of the data).
        moving: Its grid.
        fixed: The grid to sample on.
        fixed_to_moving: Maps world points of ``fixed`` to world points of ``moving``.
        order: 0 nearest neighbour, 1 linear, 3 cubic B-spline.
        fill: Value (or one value a channel) outside the moving image.

    Raises:
        InvalidInputError: The grids, the transform and the data do not have the same number of dimensions.
    """
    _check(data, moving, fixed, fixed_to_moving)
    if data.dtype == bool:
        raise InvalidInputError("interpolating a mask is not defined; use resample_labels")
    if order > 1 and not np.all(np.isfinite(data)):
        raise InvalidInputError(NOT_FINITE)
    result = filled(fill, data.dtype, (len(data), *fixed.shape))
    values = np.stack([spline_coefficients(channel) for channel in data]) if order > 1 else data
    limits = [(channel.min(), channel.max()) for channel in data] if order > 1 else ()
    where, room = IndexMap(moving, fixed, fixed_to_moving), Room()
    for block in where.parts(whole(fixed.shape), BLOCK_POINTS):
        out = result[(slice(None), *block)]
        sample(lambda window: values[(slice(None), *window)], where, block, order, out, room=room, limits=limits)
    return result


NOT_FINITE = "cubic interpolation would spread the values that are not finite (NaN); use linear"


def resample_labels(
    labels: Shaped[Array, "*spatial"], moving: Grid, fixed: Grid, fixed_to_moving: Transform, *, fill: Any = 0
) -> Shaped[Array, "*fixed_spatial"]:
    """Sample a label map or mask by nearest neighbour; values of any integer size are copied, never computed.

    Arguments as in :func:`resample`, without the channel axis.
    """
    _check(labels[None], moving, fixed, fixed_to_moving)
    result = np.full(fixed.shape, fill, dtype=labels.dtype)
    where, room = IndexMap(moving, fixed, fixed_to_moving), Room()
    for block in where.parts(whole(fixed.shape), BLOCK_POINTS):
        sample(lambda window: labels[window][None], where, block, 0, result[block][None], room=room)
    return result


def covered(moving: Grid, fixed: Grid, fixed_to_moving: Transform) -> Bool[Array, "*fixed_spatial"]:
    """Which pixels of the fixed grid :func:`resample` finds inside the moving image."""
    return coverage(IndexMap(moving, fixed, fixed_to_moving), BLOCK_POINTS)


def _check(data: Array, moving: Grid, fixed: Grid, fixed_to_moving: Transform) -> None:
    if data.shape[1:] != moving.shape:
        raise InvalidInputError(f"data of shape {data.shape[1:]} does not lie on a grid of shape {moving.shape}")
    check_dimensions(moving, fixed, fixed_to_moving)


def check_dimensions(moving: Grid, fixed: Grid, fixed_to_moving: Transform) -> None:
    """Make sure that both grids and the transform have the same number of dimensions.

    Raises:
        InvalidInputError: They have not.
    """
    if not moving.ndim == fixed.ndim == fixed_to_moving.ndim:
        raise InvalidInputError(
            f"cannot resample a {moving.ndim}D image on a {fixed.ndim}D grid with a {fixed_to_moving.ndim}D transform"
        )


def filled(fill: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Shaped[Array, "channels *spatial"]:
    """An array that holds the fill of each channel.

    Raises:
        InvalidInputError: The type cannot hold the fill.
    """
    result = np.empty(shape, dtype=dtype)
    result[:] = np.broadcast_to(_as_fill(fill, dtype), shape[:1]).reshape(-1, *(1,) * (len(shape) - 1))
    return result


def _as_fill(fill: Any, dtype: np.dtype[Any]) -> Array:
    """The fill in the type of the image; refused where that type cannot hold it."""
    wanted: Array = np.asarray(fill, dtype=np.float64)
    if np.issubdtype(dtype, np.integer):
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        if not np.all((wanted >= low) & (wanted <= high)):
            raise InvalidInputError(f"{dtype} pixels cannot be filled with {fill}; their values lie in {low} to {high}")
    return wanted.astype(dtype)
