"""Compiled loops over volumes; import inside functions, numba is slow to import."""

import numpy as np
from jaxtyping import Float

from modalign.registration.compiled import compiled
from modalign.registration.poses import VALID

Array = np.ndarray
EDGE = 1e-6
"""Samples may lie so many voxels outside through rounding."""


@compiled
def warp(
    stack: Float[Array, "rows d h w"], indices: Float[Array, "3 4"], warped: Float[Array, "rows depth height width"]
) -> None:
    """Write a stack (channels, the sum of their squares, mask) sampled linearly at mapped indices.

    Args:
        stack: What is sampled.
        indices: Maps homogeneous indices of ``warped`` to those of ``stack``.
        warped: All 0 before; stays so where a sample needs values from outside the mask.
    """
    rows, depth, height, width = stack.shape
    for k in range(warped.shape[1]):
        for j in range(warped.shape[2]):
            z0 = indices[0, 0] * k + indices[0, 1] * j + indices[0, 3]
            y0 = indices[1, 0] * k + indices[1, 1] * j + indices[1, 3]
            x0 = indices[2, 0] * k + indices[2, 1] * j + indices[2, 3]
            for i in range(warped.shape[3]):
                z, y, x = z0 + indices[0, 2] * i, y0 + indices[1, 2] * i, x0 + indices[2, 2] * i
                if not (-EDGE <= z <= depth - 1 + EDGE and -EDGE <= y <= height - 1 + EDGE):
                    continue
                if not -EDGE <= x <= width - 1 + EDGE:
                    continue
                a, b, c = min(int(z), depth - 1), min(int(y), height - 1), min(int(x), width - 1)
                a1, b1, c1 = min(a + 1, depth - 1), min(b + 1, height - 1), min(c + 1, width - 1)
                u, v, w = np.float32(z - a), np.float32(y - b), np.float32(x - c)
                share = np.float32(0)
                for row in range(rows - 1, -1, -1):
                    if row == rows - 2:
                        continue
                    here = stack[row]
                    near = (1 - v) * ((1 - w) * here[a, b, c] + w * here[a, b, c1]) + v * (
                        (1 - w) * here[a, b1, c] + w * here[a, b1, c1]
                    )
                    far = (1 - v) * ((1 - w) * here[a1, b, c] + w * here[a1, b, c1]) + v * (
                        (1 - w) * here[a1, b1, c] + w * here[a1, b1, c1]
                    )
                    value = (1 - u) * near + u * far
                    if row == rows - 1:
                        if value <= VALID:
                            break
                        warped[row, k, j, i] = 1
                    else:
                        warped[row, k, j, i] = value
                        share += value * value
                warped[rows - 2, k, j, i] = share


@compiled
def rank_shifts(
    cross: Float[Array, "n m l"],
    coarse: Float[Array, "blocks_n blocks_m 3 blocks_l"],
    step: int,
    ranks: Float[Array, "n m l"],
) -> None:
    """Write (cross × scale − offset) × weight at every shift.

    Args:
        cross: Sums of products at every shift.
        coarse: Scale, offset and weight at some shifts; between them linear, around the period.
        step: Distance between those shifts.
        ranks: To be written.
    """
    blocks = coarse.shape[3]
    line = np.empty((3, blocks + 1), np.float32)
    for k in range(cross.shape[0]):
        a, u = k // step, np.float32(k % step) / np.float32(step)
        a1 = (a + 1) % coarse.shape[0]
        for j in range(cross.shape[1]):
            b, v = j // step, np.float32(j % step) / np.float32(step)
            b1 = (b + 1) % coarse.shape[1]
            for row in range(3):
                for c in range(blocks):
                    near = (1 - v) * coarse[a, b, row, c] + v * coarse[a, b1, row, c]
                    far = (1 - v) * coarse[a1, b, row, c] + v * coarse[a1, b1, row, c]
                    line[row, c] = (1 - u) * near + u * far
                line[row, blocks] = line[row, 0]
            for c in range(blocks):
                for k_inside in range(step):
                    w = np.float32(k_inside) / np.float32(step)
                    i = c * step + k_inside
                    scale = (1 - w) * line[0, c] + w * line[0, c + 1]
                    offset = (1 - w) * line[1, c] + w * line[1, c + 1]
                    weight = (1 - w) * line[2, c] + w * line[2, c + 1]
                    ranks[k, j, i] = (cross[k, j, i] * scale - offset) * weight
