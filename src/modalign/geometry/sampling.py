"""Taking the values of an array at the places where the pixels of another grid lie, block by block.

A block is a box of pixels of the fixed grid, a window the box of pixels of the moving array that it needs: one slice an
axis each. The places are computed in the same way whatever the block, so results do not depend on how they are cut up.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import product
from math import floor, prod
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy.typing import DTypeLike

from modalign.geometry.grid import Grid
from modalign.geometry.transforms import Linear, Transform, simplified

Array = np.ndarray
Block = tuple[slice, ...]
Read = Callable[[Block], Shaped[Array, "channels *window"]]
"""Gives the values of a window of the moving array."""
BLOCK_POINTS = 1 << 16
"""Output points handled at a time: their coordinates and weights stay in the cache of the processor."""
WINDOW_POINTS = 1 << 20
"""Moving pixels that a block may need; it is cut up where it needs more. Bounds the memory, whatever the transform."""
TOLERANCE = 1e-9
"""In pixels: points on the border must not fall out through rounding."""
BEFORE, AFTER = (0, 0, 2, 2), (1, 1, 3, 3)
"""Pixels that interpolation needs around the one at the rounded-down place, by its order 0 to 3, mirrored or not."""
BEYOND = (0.0, 0.0, 0.5, 0.5)
"""How far beyond the outermost pixel centres a place may lie; elsewhere the border pixel is repeated there."""


class Room:
    """Arrays that serve again for every block: to be given fresh memory takes longer than to compute what it holds."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, np.dtype[Any]], Array] = {}

    def array(self, name: str, shape: Sequence[int], dtype: DTypeLike = float) -> Array:
        """An array whose content is that of any array of this name and type before."""
        key, size = (name, np.dtype(dtype)), prod(shape)
        if key not in self._arrays or self._arrays[key].size < size:
            self._arrays[key] = np.empty(size, dtype)
        return self._arrays[key][:size].reshape(shape)


@dataclass(frozen=True)
class IndexMap:
    """Where the pixels of ``fixed`` lie in the array of ``moving``, in fractional indices."""

    moving: Grid
    fixed: Grid
    fixed_to_moving: Transform

    @cached_property
    def matrix(self) -> Float[Array, "rows columns"] | None:
        """Homogeneous matrix from fixed to moving indices; ``None`` where the transform is not linear."""
        transform = simplified(self.fixed_to_moving)
        if not isinstance(transform, Linear):
            return None
        return np.asarray(np.linalg.inv(self.moving.matrix) @ transform.matrix @ self.fixed.matrix)

    def places(self, block: Block, room: Room) -> list[Float[Array, "*block"]]:
        """The moving index of each pixel of a block, one array a moving axis."""
        axes = [np.arange(part.start, part.stop, dtype=float) for part in block]
        if self.matrix is not None:
            return self._linear_places(axes, room)
        indices = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        places = self.moving.world_to_index(self.fixed_to_moving.map_points(self.fixed.index_to_world(indices)))
        return list(np.moveaxis(places, -1, 0))

    def _linear_places(self, axes: Sequence[Array], room: Room) -> list[Array]:
        """Sums of one term an axis, which grow from the first axis to the full block only in the last addition."""
        ndim, places = len(axes), []
        for number, (*factors, offset) in enumerate(np.asarray(self.matrix)[:-1]):
            terms = [
                (factor * axis).reshape(-1, *(1,) * (ndim - 1 - k))
                for k, (factor, axis) in enumerate(zip(factors, axes, strict=True))
            ]
            first = reduce(np.add, terms[1:-1], terms[0] + offset)
            place = room.array(f"place {number}", [len(axis) for axis in axes])
            places.append(np.add(first, terms[-1] if ndim > 1 else 0.0, out=place))
        return places

    def reach(self, block: Block) -> tuple[list[float], list[float]] | None:
        """Smallest and largest place of a block along each moving axis, from its corners; only for linear maps.

        Rounding keeps the order of numbers, so the same sums as in the block, of its ends, are its extremes.
        """
        if self.matrix is None:
            return None
        low, high = [], []
        for *factors, offset in self.matrix.tolist()[:-1]:
            least = most = offset
            for factor, part in zip(factors, block, strict=True):
                ends = factor * part.start, factor * (part.stop - 1)
                least, most = least + min(ends), most + max(ends)
            low.append(least)
            high.append(most)
        return low, high

    def parts(self, block: Block, points: int = BLOCK_POINTS) -> Iterator[Block]:
        """The block cut into parts of at most ``points`` pixels that need no more than ``WINDOW_POINTS`` others."""
        sizes = [part.stop - part.start for part in block]
        if prod(sizes) <= 1 or (prod(sizes) <= points and self._needs(block) <= WINDOW_POINTS):
            yield block
            return
        axis = sizes.index(max(sizes))
        middle = block[axis].start + sizes[axis] // 2
        for half in (slice(block[axis].start, middle), slice(middle, block[axis].stop)):
            yield from self.parts((*block[:axis], half, *block[axis + 1 :]), points)

    def _needs(self, block: Block) -> float:
        reach = self.reach(block)
        if reach is None:
            return 0
        return prod(2 + max(0, min(b, n) - max(a, 0)) for a, b, n in zip(*reach, self.moving.shape, strict=True))


@dataclass(frozen=True)
class Visit:
    """What a block needs to be sampled.

    Attributes:
        places: Moving indices within the moving array, one array an axis; anything inside where a point is outside.
        inside: Which points are inside; ``None`` where all are, and none lies on the last pixel or beyond its centre.
        low: Smallest place along each axis.
        high: Largest place along each axis.
    """

    places: list[Array]
    inside: Bool[Array, "*block"] | None
    low: Sequence[float]
    high: Sequence[float]

    def window(self, shape: Sequence[int], order: int) -> Block:
        """The pixels that interpolation of an order needs, at least two along each axis where there are two."""
        starts = [floor(first) - BEFORE[order] for first in self.low]
        stops = [floor(last) + AFTER[order] + 1 for last in self.high]
        return tuple(
            slice(max(0, min(start, n - 2)), min(n, stop)) for start, stop, n in zip(starts, stops, shape, strict=True)
        )


def visit(where: IndexMap, block: Block, room: Room, order: int = 1) -> Visit | None:
    """How to sample a block; ``None`` where all of it lies outside the moving array."""
    last = [n - 1.0 for n in where.moving.shape]
    reach = where.reach(block)
    if reach is not None:
        if any(b < -0.5 - TOLERANCE or a >= n + 0.5 + TOLERANCE for a, b, n in zip(*reach, last, strict=True)):
            return None
        if all(a >= 0 and b < n for a, b, n in zip(*reach, last, strict=True)):
            return Visit(where.places(block, room), None, *reach)
    return _across_the_border(where.places(block, room), last, BEYOND[order])


def _across_the_border(places: list[Array], last: Sequence[float], beyond: float) -> Visit | None:
    """The visit of a block of which a part may be outside."""
    each = [(p >= -0.5 - TOLERANCE) & (p < n + 0.5 + TOLERANCE) for p, n in zip(places, last, strict=True)]
    inside = np.asarray(reduce(np.logical_and, each))
    if not inside.any():
        return None
    ends = [(-beyond, n + beyond) for n in last]
    low = [float(np.clip(place[inside].min(), *end)) for place, end in zip(places, ends, strict=True)]
    high = [float(np.clip(place[inside].max(), *end)) for place, end in zip(places, ends, strict=True)]
    places = [np.where(inside, np.clip(place, a, b), a) for place, a, b in zip(places, low, high, strict=True)]
    return Visit(places, inside, low, high)


def coverage(where: IndexMap, points: int = BLOCK_POINTS) -> Bool[Array, "*fixed_spatial"]:
    """Which pixels of the fixed grid lie inside the moving array."""
    result, room = np.zeros(where.fixed.shape, dtype=bool), Room()
    for block in where.parts(whole(where.fixed.shape), points):
        seen = visit(where, block, room)
        if seen is not None:
            result[block] = True if seen.inside is None else seen.inside
    return result


def whole(shape: Sequence[int]) -> Block:
    """The block that is all of an array."""
    return tuple(slice(0, n) for n in shape)


def sample(
    read: Read,
    where: IndexMap,
    block: Block,
    order: int,
    out: Array,
    *,
    room: Room,
    limits: Sequence[tuple[Any, Any]] = (),
) -> None:
    """Sample one block into an array, whose pixels outside the moving one stay as they are.

    Args:
        read: The moving array; for cubic interpolation, its B-spline coefficients.
        where: The two grids and the transform between them.
        block: What to sample; one of ``where.parts``, so that the memory is bounded.
        order: 0 nearest neighbour, 1 linear, 3 cubic B-spline.
        out: ``(channels, *block)``, of the type of the image: values are rounded where that is of integers.
        room: Serves for all blocks.
        limits: For each channel the range to which cubic values, which may overshoot, are cut.
    """
    seen = visit(where, block, room, order)
    if seen is None:
        return
    window = seen.window(where.moving.shape, order)
    starts = [part.start for part in window]
    # infinity times a weight of zero is no number, as it should be
    with np.errstate(invalid="ignore", over="ignore"):
        for channel, sampled in enumerate(_SAMPLERS[order](read(window), seen, starts, room)):
            values = np.clip(sampled, *limits[channel]) if limits else sampled
            _store(values, out[channel], seen.inside)


def _store(values: Array, out: Array, inside: Array | None) -> None:
    if np.issubdtype(out.dtype, np.integer) and not np.issubdtype(values.dtype, np.integer):
        values = np.rint(values, out=values)
        if out.dtype.itemsize > 4:  # a floating-point number next to the largest integer may be larger than it
            info = np.iinfo(out.dtype)
            values = np.clip(values, float(info.min), np.nextafter(float(info.max), 0))
    np.copyto(out, values, casting="unsafe", where=True if inside is None else inside)


def _nearest(values: Array, seen: Visit, starts: Sequence[int], room: Room) -> Iterator[Array]:
    for place in seen.places:
        np.floor(np.add(place, 0.5, out=place), out=place)
    lower = _held(seen.places, [start + n - 1 for start, n in zip(starts, values.shape[1:], strict=True)])
    index = _flat_index(lower, starts, values.shape[1:], room)
    taken = room.array("taken", index.shape, values.dtype)
    for channel in np.ascontiguousarray(values):
        yield np.take(channel.reshape(-1), index, out=taken, mode="wrap")


def _linear(values: Array, seen: Visit, starts: Sequence[int], room: Room) -> Iterator[Array]:
    """Multilinear interpolation: for each corner of a cell, its weight times what lies there.

    In single precision for 8 bits, where its error of 1e-4 gray levels does not count; double for all others.
    """
    shape, work = values.shape[1:], np.float32 if values.dtype.itemsize == 1 else np.float64
    lower = [np.floor(place, out=room.array(f"lower {k}", place.shape)) for k, place in enumerate(seen.places)]
    if seen.inside is not None:
        lower = _held(lower, [start + max(0, n - 2) for start, n in zip(starts, shape, strict=True)])
    weights = _weights(seen.places, lower, work, room)
    index = _flat_index(lower, starts, shape, room)
    total, one, taken = (room.array(name, index.shape, work) for name in ("total", "one", "taken"))
    stored = taken if values.dtype == work else room.array("stored", index.shape, values.dtype)
    for channel in np.ascontiguousarray(values):
        for corner, (weight, offset) in enumerate(zip(weights, _offsets(shape), strict=True)):
            np.take(channel.reshape(-1)[offset:], index, out=stored, mode="wrap")
            if stored is not taken:
                np.copyto(taken, stored)
            np.multiply(taken, weight, out=one if corner else total)
            if corner:
                np.add(total, one, out=total)
        yield total


def _weights(places: Sequence[Array], lower: Sequence[Array], work: DTypeLike, room: Room) -> list[Array]:
    """Weight of each corner of a cell, in the order of :func:`_offsets`."""
    sides = []
    for axis, (place, low) in enumerate(zip(places, lower, strict=True)):
        before, after = (room.array(f"{side} {axis}", place.shape, work) for side in ("before", "after"))
        np.copyto(after, np.subtract(place, low, out=place), casting="same_kind")
        sides.append((np.subtract(1, after, out=before), after))
    weights = []
    for number, (first, *others) in enumerate(product(*sides)):
        weight = room.array(f"weight {number}", first.shape, work)
        np.copyto(weight, first) if not others else np.multiply(first, others[0], out=weight)
        for side in others[1:]:
            np.multiply(weight, side, out=weight)
        weights.append(weight)
    return weights


def _cubic(values: Array, seen: Visit, starts: Sequence[int], _: Room) -> Iterator[Array]:
    from scipy import ndimage

    local = np.stack([place - start for place, start in zip(seen.places, starts, strict=True)])
    for channel in values:
        yield ndimage.map_coordinates(channel, local, np.float64, 3, "mirror", prefilter=False)


_SAMPLERS: dict[int, Callable[[Array, Visit, Sequence[int], Room], Iterator[Array]]] = {
    0: _nearest,
    1: _linear,
    3: _cubic,
}
"""What samples the channels one by one, by the order; what it gives out may be overwritten for the next channel."""


def _held(indices: Sequence[Array], ends: Sequence[int]) -> list[Array]:
    """Indices, changed in place, that are not beyond the last along each axis."""
    return [np.minimum(index, end, out=index) for index, end in zip(indices, ends, strict=True)]


def _flat_index(indices: Sequence[Array], starts: Sequence[int], shape: Sequence[int], room: Room) -> Array:
    """Position in the flattened window; whole numbers in double precision are exact and quick to compute with.

    Overwrites the first of the indices.
    """
    flat, first = indices[0], starts[0]
    for index, start, n in zip(indices[1:], starts[1:], shape[1:], strict=True):
        flat, first = np.add(np.multiply(flat, n, out=flat), index, out=flat), first * n + start
    positions = room.array("index", flat.shape, np.intp)
    np.copyto(positions, np.subtract(flat, first, out=flat), casting="unsafe")
    return positions


def _offsets(shape: Sequence[int]) -> list[int]:
    """Distance in the flattened array from the first corner of a cell to each; none along an axis of one pixel."""
    steps = [prod(shape[axis + 1 :]) if n > 1 else 0 for axis, n in enumerate(shape)]
    return [sum(corner) for corner in product(*((0, step) for step in steps))]


def spline_coefficients(channel: Shaped[Array, "*spatial"]) -> Float[Array, "*spatial"]:
    """Coefficients of the cubic B-spline through the values, mirrored at the border, under which they are exact."""
    from scipy import ndimage

    return np.asarray(ndimage.spline_filter(channel.astype(np.float64), 3, mode="mirror"))
