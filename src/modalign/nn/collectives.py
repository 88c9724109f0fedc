"""Sums and gatherings over all devices through which gradients flow."""

from typing import Any

import torch
from torch import Tensor, distributed


def is_distributed() -> bool:
    """Whether several processes train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def summed(x: Tensor) -> Tensor:
    """The sum over all devices, on each of them."""
    result: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return result


def gathered(x: Tensor) -> Tensor:
    """The rows ``(n, …)`` of all devices, in order of their ranks, on each of them: ``(n · devices, …)``."""
    result: Tensor = _Gathering.apply(x)  # type: ignore[no-untyped-call]
    return result


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        total = x.detach().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(None, gradients[0].contiguous())


class _Gathering(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.count = len(x)
        everyone = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
        distributed.all_gather(everyone, x.detach().contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        start = distributed.get_rank() * ctx.count
        return _Sum.forward(None, gradients[0].contiguous())[start : start + ctx.count]
