"""Fuzzy sets of images: α-levels, exact distance transforms, and tables of the distance from a point to a set.

An image with values in [0, 1] is a fuzzy set; its α-cut at level i of ℓ holds the pixels of at least that level. The
distance from a point of level q to the set averages, over all α-levels, the distance to the cut where the point belongs
to its own cut, and to the complement of the cut where it does not:

    d(x, q) = 1/ℓ [ Σ_{i ≤ q} d(x, {level ≥ i}) + Σ_{i > q} d(x, {level < i}) ].

Source: Öfverstedt, Lindblad and Sladoje, IEEE TIP 28(7), 2019, sections II and IV.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, UInt8

Array = np.ndarray

PERCENTILES = (0.5, 99.5)
"""Values are stretched so that these percentiles become 0 and 1, and clipped there."""
MASKED = 255
"""Level of the pixels that belong to no set and hold no point."""


def stretched(
    values: Float[Array, "*spatial"], valid: Bool[Array, "*spatial"], levels: int
) -> Float[Array, "*spatial"]:
    """Values from 0 to ``levels``, of which the nearest whole number is the α-level; NaN where not valid."""
    low, high = np.percentile(values[valid], PERCENTILES) if valid.any() else (0.0, 0.0)
    factor = levels / (high - low) if high > low else 0.0
    return np.where(valid, np.clip((values - low) * factor, 0, levels), np.nan).astype(np.float32)


def alpha_levels(values: Float[Array, "*any"]) -> UInt8[Array, "*any"]:
    """The level of stretched values: halves are rounded up; ``MASKED`` for NaN."""
    return np.where(np.isnan(values), MASKED, np.floor(values + np.float32(0.5))).astype(np.uint8)


def distance_table(image: UInt8[Array, "*spatial"], levels: int, limit: float) -> Float[Array, "levels *spatial"]:
    """The distance from a point of each level, 0 to ``levels``, at each pixel to the fuzzy set of an image.

    Args:
        image: Level of each pixel, or ``MASKED``.
        levels: Number of α-levels above zero.
        limit: No distance to a cut counts as more, in pixels; it is also the distance to an empty cut.
    """
    table = np.zeros((levels + 1, *image.shape), dtype=np.float32)
    work = np.empty((2, *image.shape), dtype=np.float32)
    for i in range(levels, 0, -1):
        np.add(table[i], _distance(image, 0, i, limit, work), out=table[i - 1])
    near = np.zeros(image.shape, dtype=np.float32)
    for i in range(1, levels + 1):
        near += _distance(image, i, MASKED, limit, work)
        table[i] += near
    table /= np.float32(levels)
    return table


def _distance(
    image: UInt8[Array, "*spatial"], low: int, high: int, limit: float, work: Float[Array, "2 *spatial"]
) -> Float[Array, "*spatial"]:
    """Distance of each pixel to the next one with ``low <= level < high``, in pixels, clipped; a view of ``work``."""
    from modalign.registration.distance_kernels import across_rows, along_rows

    squared, other = work
    along_rows(image.reshape(-1, image.shape[-1]), low, high, limit, squared.reshape(-1, image.shape[-1]))
    for axis in range(image.ndim - 1):
        lines = (math.prod(image.shape[:axis]), image.shape[axis], math.prod(image.shape[axis + 1 :]))
        across_rows(squared.reshape(lines), other.reshape(lines))
        squared, other = other, squared
    np.sqrt(squared, out=squared)
    return np.asarray(np.minimum(squared, np.float32(limit), out=squared))
