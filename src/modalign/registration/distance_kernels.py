"""Compiled passes of the exact Euclidean distance transform; import inside functions, numba is slow to import.

The squared distance to a set is separable: first the distance along the last axis, then for every other axis the lowest
of the parabolas that stand on a line (Felzenszwalb and Huttenlocher, Theory of Computing 8, 2012, section 2). Here the
parabolas are tried in the order of their distance until none can be lower, which is exact, and fast where no pixel is
far from the set: neighbouring lines are worked on together, eight to a machine instruction.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from modalign.registration.compiled import compiled

Array = np.ndarray

BLOCK = 128
"""Lines worked on together."""
UNCHECKED = 4
"""Parabolas tried between two looks at whether any can still be lower."""


@compiled
def along_rows(
    levels: UInt8[Array, "rows n"], low: int, high: int, limit: float, squared: Float[Array, "rows n"]
) -> None:
    """Write the squared distance, along each row, to the next pixel with ``low <= level < high``.

    Distances are in pixels, and none counts as more than ``limit``.
    """
    far = math.ceil(limit)
    for r in range(levels.shape[0]):
        run = far
        for x in range(levels.shape[1]):
            run = 0 if low <= levels[r, x] < high else min(run + 1, far)
            squared[r, x] = run
        for x in range(levels.shape[1] - 1, -1, -1):
            run = min(run + 1, int(squared[r, x]))
            squared[r, x] = run * run


@compiled
def across_rows(before: Float[Array, "blocks n after"], after: Float[Array, "blocks n after"]) -> None:
    """Write the lower envelope, along the middle axis, of parabolas that stand on the squared distances ``before``."""
    for b in range(before.shape[0]):
        for start in range(0, before.shape[2], BLOCK):
            stop = min(start + BLOCK, before.shape[2])
            for i in range(before.shape[1]):
                after[b, i, start:stop] = before[b, i, start:stop]
                _lower_line(before[b], i, start, stop, after[b, i, start:stop])


@compiled
def _lower_line(lines: Float[Array, "n after"], i: int, start: int, stop: int, lowest: Float[Array, " block"]) -> None:
    last = len(lines) - 1
    for k in range(1, max(i, last - i) + 1):
        height: Any = np.float32(k * k)
        if k % UNCHECKED == 1 and not _any_above(lowest, height):
            break
        _lower(lowest, lines[max(i - k, 0), start:stop], lines[min(i + k, last), start:stop], height)


@compiled
def _any_above(values: Float[Array, " block"], height: float) -> bool:
    count = np.int32(0)
    for c in range(len(values)):
        count += np.int32(values[c] > height)
    return bool(count > 0)


@compiled
def _lower(
    lowest: Float[Array, " block"], one: Float[Array, " block"], other: Float[Array, " block"], h: float
) -> None:
    """Beyond the border, the line at the border stands in: its parabola is higher than the truth, so does no harm."""
    for c in range(len(lowest)):
        value, a, b = lowest[c], one[c] + h, other[c] + h
        value = a if a < value else value
        lowest[c] = b if b < value else value
