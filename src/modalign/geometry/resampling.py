"""Sampling an array on another grid through a transform: one interpolation, block by block."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import ndimage

from modalign.errors import InvalidInputError
from modalign.geometry.grid import Grid
from modalign.geometry.transforms import Transform

Array = np.ndarray
BLOCK_POINTS = 1 << 18
"""Output points handled at a time: bounds the memory for coordinates to a few megabytes, whatever the image size."""


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
        raise InvalidInputError("cubic interpolation would spread the values that are not finite (NaN); use linear")
    outside = np.broadcast_to(_as_fill(fill, data.dtype), (len(data),))
    result = np.empty((len(data), *fixed.shape), dtype=data.dtype)
    result[:] = outside.reshape(-1, *(1,) * fixed.ndim)
    coefficients = [_spline(channel, order) for channel in data]
    limits = [_limits(channel) for channel in data]
    for block, indices in _blocks(moving, fixed, fixed_to_moving):
        inside = _inside(indices, moving.shape)
        points = indices[inside].T
        for channel, values in enumerate(coefficients):
            sampled = ndimage.map_coordinates(values, points, np.float64, order, _mode(order), prefilter=False)
            result[channel, block][inside] = _as_dtype(np.clip(sampled, *limits[channel]), data.dtype)
    return result


def resample_labels(
    labels: Shaped[Array, "*spatial"], moving: Grid, fixed: Grid, fixed_to_moving: Transform, *, fill: Any = 0
) -> Shaped[Array, "*fixed_spatial"]:
    """Sample a label map or mask by nearest neighbour; values of any integer size are copied, never computed.

    Arguments as in :func:`resample`, without the channel axis.
    """
    _check(labels[None], moving, fixed, fixed_to_moving)
    result = np.full(fixed.shape, fill, dtype=labels.dtype)
    for block, indices in _blocks(moving, fixed, fixed_to_moving):
        inside = _inside(indices, moving.shape)
        nearest = np.floor(indices[inside] + 0.5).astype(np.intp)
        result[block][inside] = labels[tuple(np.minimum(nearest, np.array(moving.shape) - 1).T)]
    return result


def _check(data: Array, moving: Grid, fixed: Grid, fixed_to_moving: Transform) -> None:
    if data.shape[1:] != moving.shape:
        raise InvalidInputError(f"data of shape {data.shape[1:]} does not lie on a grid of shape {moving.shape}")
    if not moving.ndim == fixed.ndim == fixed_to_moving.ndim:
        raise InvalidInputError(
            f"cannot resample a {moving.ndim}D image on a {fixed.ndim}D grid with a {fixed_to_moving.ndim}D transform"
        )


def _blocks(moving: Grid, fixed: Grid, fixed_to_moving: Transform) -> Iterator[tuple[slice, Array]]:
    """Slices along the first axis of ``fixed`` with the moving indices of their points, ``(*block, ndim)``."""
    rows = max(1, BLOCK_POINTS // int(np.prod(fixed.shape[1:])))
    for start in range(0, fixed.shape[0], rows):
        block = slice(start, min(start + rows, fixed.shape[0]))
        axes = [np.arange(block.start, block.stop), *(np.arange(n) for n in fixed.shape[1:])]
        indices = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(float)
        yield block, moving.world_to_index(fixed_to_moving.map_points(fixed.index_to_world(indices)))


def _inside(indices: Array, shape: tuple[int, ...]) -> Bool[Array, "*block"]:
    tolerance = 1e-9  # points on the border must not fall out through rounding
    return np.asarray(np.all((indices >= -0.5 - tolerance) & (indices < np.array(shape) - 0.5 + tolerance), axis=-1))


def _spline(channel: Array, order: int) -> Array:
    if order <= 1:
        return channel
    return np.asarray(ndimage.spline_filter(channel.astype(np.float64), order, mode=_mode(order)))


def _limits(channel: Array) -> tuple[Any, Any]:
    """Range of the finite values, which interpolation must not leave."""
    finite = channel if np.issubdtype(channel.dtype, np.integer) else channel[np.isfinite(channel)]
    return (finite.min(), finite.max()) if finite.size else (-np.inf, np.inf)


def _as_fill(fill: Any, dtype: np.dtype[Any]) -> Array:
    """The fill in the type of the image; refused where that type cannot hold it."""
    wanted: Array = np.asarray(fill, dtype=np.float64)
    if np.issubdtype(dtype, np.integer):
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        if not np.all((wanted >= low) & (wanted <= high)):
            raise InvalidInputError(f"{dtype} pixels cannot be filled with {fill}; their values lie in {low} to {high}")
    return wanted.astype(dtype)


def _mode(order: int) -> str:
    return "nearest" if order <= 1 else "mirror"  # the boundary under which the B-spline coefficients are exact


def _as_dtype(values: Array, dtype: np.dtype[Any]) -> Array:
    return (np.rint(values) if np.issubdtype(dtype, np.integer) else values).astype(dtype)
