"""Which descriptors of two images belong together."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Integer, Shaped, UInt8

Array = np.ndarray
Descriptors = Float[Array, "points numbers"]
"""One row of unit length a point: the inner product is the similarity."""

BLOCK_MATCHES = 1 << 24
"""Similarities of descriptors computed at a time."""


@dataclass(frozen=True, eq=False)
class KeyPoints:
    """Where key points lie, in world units, and what they look like."""

    points: Float[Array, "points ndim"]
    descriptors: Descriptors = field(repr=False)

    def __len__(self) -> int:
        return len(self.points)


def hellinger(descriptors: Descriptors) -> Descriptors:
    """Rows that are not negative, such that Euclidean distance is the Hellinger distance of what was given.

    Source: RootSIFT, Arandjelović and Zisserman, CVPR 2012.
    """
    return np.asarray(np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6)))


def unit_length(descriptors: Descriptors) -> Descriptors:
    """Rows scaled to length 1."""
    return np.asarray(descriptors / np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-12))


def from_bits(packed: UInt8[Array, "points bytes"]) -> Descriptors:
    """Binary descriptors as ±1, scaled to length 1: squared distances are then proportional to Hamming distances."""
    signs = np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
    return np.asarray(signs / np.float32(np.sqrt(max(signs.shape[1], 1))))


def mutual_neighbours(
    fixed: Float[Array, "n numbers"], moving: Float[Array, "m numbers"], ratio: float = 1.0
) -> Integer[Array, "matches 2"]:
    """Indices of descriptors that are each other's nearest.

    Args:
        fixed: Descriptors of unit length.
        moving: The same of the other image.
        ratio: A match must also be nearer than this fraction of the distance to the second nearest, as seen from the
            fixed image.
    """
    if len(fixed) < 2 or len(moving) < 2:
        return np.zeros((0, 2), dtype=int)
    best_of_moving, owner = np.full(len(moving), -np.inf, dtype=np.float32), np.zeros(len(moving), dtype=int)
    nearest, passes = np.zeros(len(fixed), dtype=int), np.ones(len(fixed), dtype=bool)
    for block in _blocks(len(fixed), len(moving)):
        similarity = fixed[block] @ moving.T
        top = similarity.argmax(0)
        highest = similarity[top, np.arange(len(moving))]
        better = highest > best_of_moving
        best_of_moving[better], owner[better] = highest[better], top[better] + block.start
        nearest[block] = similarity.argmax(1)
        if ratio < 1:
            second, first = np.partition(similarity, -2, axis=1)[:, -2:].T
            passes[block] = 1 - first < ratio**2 * (1 - second)  # squared distances are 2 − 2 similarity
    chosen = np.flatnonzero((owner[nearest] == np.arange(len(fixed))) & passes)
    return np.column_stack([chosen, nearest[chosen]])


def look_alikes(
    fixed: Float[Array, "n numbers"], moving: Float[Array, "m numbers"], count: int
) -> Integer[Array, "pairs 2"]:
    """Indices of every fixed descriptor and each of the ``count`` moving ones nearest to it."""
    count = min(count, len(moving))
    nearest = np.zeros((len(fixed), count), dtype=int)
    for block in _blocks(len(fixed), len(moving)):
        similarity = fixed[block] @ moving.T
        for rank in range(count):  # for few ranks faster than a partition
            nearest[block, rank] = similarity.argmax(1)
            similarity[np.arange(len(similarity)), nearest[block, rank]] = -np.inf
    return np.column_stack([np.repeat(np.arange(len(fixed)), count), nearest.ravel()])


def _blocks(rows: int, columns: int) -> list[slice]:
    """Slices of the rows, so that a block of the matrix has at most :data:`BLOCK_MATCHES` entries."""
    step = max(1, BLOCK_MATCHES // max(columns, 1))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def first_of_each(places: Shaped[Array, "matches coordinates"]) -> Integer[Array, " places"]:
    """Indices of the first match of each place, in order: a key point with several orientations counts once.

    Args:
        places: Coordinates of both points of each match, in pixels; equal if they agree rounded to whole pixels.
    """
    _, first = np.unique(np.rint(places), axis=0, return_index=True)
    return np.sort(first)
