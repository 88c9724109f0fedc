"""Sums and means over a box of pixels around each pixel, by additions of whole shifted arrays.

A sum over n neighbours takes about log₂ n additions: of pairs, of pairs of pairs, and so on. The library's pooling goes
box by box, and its way back pixel by pixel: several times slower on a CPU.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def box_sum(values: Float[Tensor, "n c *spatial"], window: int, step: int = 1) -> Float[Tensor, "n c *boxes"]:
    """The sum over a box around each pixel, of what of it lies inside the image.

    Args:
        values: On the pixels.
        window: Side of the box in pixels, odd.
        step: Boxes lie around each so many-th pixel along each axis, from the first on.
    """
    summed: Tensor = _BoxSum.apply(values, window, step)  # type: ignore[no-untyped-call]
    return summed


def box_mean(values: Float[Tensor, "n c *spatial"], window: int, step: int = 1) -> Float[Tensor, "n c *boxes"]:
    """The mean over a box around each pixel, of what of it lies inside the image; see :func:`box_sum`."""
    return box_sum(values, window, step) * _shares(values.shape[2:], window, step, values.device)


class _BoxSum(torch.autograd.Function):
    """The way back of a sum over boxes is a sum over boxes: each pixel is in those that lie around it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, window: int, step: int) -> Tensor:
        ctx.form = values.shape, window, step
        for axis in range(2, values.ndim):
            boxes = (slice(None),) * axis + (slice(None, None, step),)
            values = _runs(values, axis, window)[boxes]
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        shape, window, step = ctx.form
        (values,) = gradients
        for axis in range(2, values.ndim):
            values = _runs(_apart(values, axis, step, shape[axis]), axis, window)
        return values, None, None


def _runs(values: Tensor, axis: int, window: int) -> Tensor:
    """The sum of so many neighbours around each entry along an axis, zeros beyond the ends."""
    ends: Sequence[int] = (0, 0) * (values.ndim - 1 - axis) + (window // 2,) * 2
    run, length, count = functional.pad(values, ends), 1, values.shape[axis]
    start, total = 0, None
    while True:  # the window is a sum of powers of two: each has its run of so many neighbours
        if window & length:
            part = run.narrow(axis, start, count)
            total = part if total is None else total + part
            start += length
        if 2 * length > window:
            assert total is not None
            return total
        shorter = run.shape[axis] - length
        run = run.narrow(axis, 0, shorter) + run.narrow(axis, length, shorter)
        length *= 2


def _apart(values: Tensor, axis: int, step: int, length: int) -> Tensor:
    """Entries along an axis so many places apart, with zeros between them."""
    if step == 1:
        return values
    spread = values.new_zeros(*values.shape[:axis], length, *values.shape[axis + 1 :])
    spread[(slice(None),) * axis + (slice(None, None, step),)] = values
    return spread


@lru_cache(maxsize=32)
def _shares(shape: torch.Size, window: int, step: int, device: torch.device) -> Float[Tensor, "1 1 *boxes"]:
    """One part in as many as there are pixels in each box."""
    with torch.inference_mode(mode=False):  # what is kept must serve those who need a gradient, too
        return 1 / box_sum(torch.ones(1, 1, *shape, device=device), window, step)
