"""What differs between two and three dimensions in a network: tables of torch layers keyed by ``ndim``."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from modalign.nn.collectives import is_distributed, summed

CONV: Mapping[int, type[nn.Module]] = MappingProxyType({2: nn.Conv2d, 3: nn.Conv3d})
MAX_POOL: Mapping[int, type[nn.Module]] = MappingProxyType({2: nn.MaxPool2d, 3: nn.MaxPool3d})
AVERAGE_POOL: Mapping[int, type[nn.Module]] = MappingProxyType({2: nn.AvgPool2d, 3: nn.AvgPool3d})
CHANNEL_DROPOUT: Mapping[int, type[nn.Module]] = MappingProxyType({2: nn.Dropout2d, 3: nn.Dropout3d})

MEMORY_FORMATS: Mapping[int, torch.memory_format] = MappingProxyType(
    {2: torch.channels_last, 3: torch.channels_last_3d}
)
"""Channels last: the layout in which convolutions are fastest."""


@runtime_checkable
class DenseNetwork(Protocol):
    """A fully convolutional network with what tiled inference must know about it."""

    stride: int
    """Image sizes must be multiples of this."""

    radius: int
    """An output pixel depends on no input pixel farther away than this along any axis."""

    recomputes: bool
    """Whether training saves memory by computing what is inside the blocks twice."""

    def __call__(self, x: Tensor) -> Tensor:
        """Map ``(n, inputs, *spatial)`` to ``(n, outputs, *spatial)``."""
        ...


class BatchNorm(_BatchNorm):
    """Batch normalisation for any number of dimensions, whose statistics span all devices.

    Several devices with a part of the batch each behave exactly as one device with the whole batch, on CPUs as well as
    on GPUs (torch's own synchronised version exists for GPUs only).
    """

    def _check_input_dim(self, _: Tensor) -> None:
        """Any number of dimensions will do."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(n, channels, *spatial)``."""
        if not (self.training and is_distributed()):
            normalised: Tensor = super().forward(x)
            return normalised
        axes = (0, *range(2, x.ndim))
        count = x.new_tensor([x.numel() / x.shape[1]], dtype=torch.float32)
        sums = summed(torch.cat([x.float().sum(axes), x.float().square().sum(axes), count]))
        total = sums[-1].detach()
        mean, mean_square = sums[:-1].view(2, -1) / total
        variance = mean_square - mean.square()
        self._track(mean.detach(), variance.detach() * total / (total - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shape = (1, -1, *(1,) * (x.ndim - 2))
        result: Tensor = x * scale.view(shape) + (self.bias - mean * scale).view(shape)
        return result

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]  # present whenever statistics are tracked
        self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr, arg-type]
        self.running_var.lerp_(variance, self.momentum)  # type: ignore[union-attr, arg-type]


def run(network: nn.Module, block: nn.Module, x: Tensor) -> Tensor:
    """What a block of a network makes of its input; where the network ``recomputes``, nothing inside is kept.

    What the gradient needs is then computed a second time, block by block, on the way back.
    """
    if network.recomputes and network.training:
        again: Tensor = checkpoint(block, x, use_reentrant=False)
        return again
    result: Tensor = block(x)
    return result


def conv3(ndim: int, inputs: int, outputs: int, *, bias: bool = True, padding_mode: str = "zeros") -> nn.Module:
    """A 3×3 (3×3×3) convolution that keeps the size."""
    return CONV[ndim](inputs, outputs, 3, padding=1, bias=bias, padding_mode=padding_mode)


def conv1(ndim: int, inputs: int, outputs: int, *, bias: bool = True) -> nn.Module:
    """A convolution over channels only."""
    return CONV[ndim](inputs, outputs, 1, bias=bias)


def double(x: Tensor) -> Tensor:
    """Nearest-neighbour up-sampling by two along every spatial axis."""
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")
