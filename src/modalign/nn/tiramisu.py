"""The fully convolutional DenseNet ("tiramisu") of the CoMIR paper."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modalign.nn.layers import CHANNEL_DROPOUT, MAX_POOL, BatchNorm, conv1, conv3, double, run

BLOCKS = {2: (4,) * 6, 3: (4,) * 4}
"""By the number of dimensions: six halvings leave nothing of a patch of 32 voxels."""


@dataclass(frozen=True)
class TiramisuOptions:
    """The network of the CoMIR paper, by default with its settings for bright-field and SHG images.

    Source: Jégou et al., CVPR Workshops 2017; Pielawski et al., NeurIPS 2020, and its released code for the details:
    nearest up-sampling, compression in the transitions, no activation at the end.
    """

    first_filters: int = 32
    """Filters of the first convolution."""
    growth: int = 12
    """Feature maps that each dense layer adds."""
    down: tuple[int, ...] = ()
    """Dense layers in each block on the way down; one halving of the resolution after each block. By default 4 in each
    of 6 blocks, and of 4 for volumes."""
    bottleneck: int = 4
    """Dense layers at the coarsest resolution."""
    up: tuple[int, ...] = ()
    """Dense layers in each block on the way up, coarsest first; by default as on the way down, reversed."""
    compression: float = 0.75
    """Fraction of the feature maps that a transition down keeps."""
    dropout: float = 0.2
    """Dropout probability after each dense layer; transitions drop whole maps with probability 0.2 where not zero."""

    def resolved(self, ndim: int) -> "TiramisuOptions":
        """The options with the blocks that are used in so many dimensions, for a model to remember."""
        down = self.down or BLOCKS[ndim]
        return replace(self, down=down, up=self.up or down[::-1])

    def build(self, ndim: int, in_channels: int, out_channels: int) -> "Tiramisu":
        """The network for images of ``ndim`` dimensions."""
        return Tiramisu(self.resolved(ndim), ndim, in_channels, out_channels)


class Tiramisu(nn.Module):
    """See :class:`TiramisuOptions`."""

    def __init__(self, options: TiramisuOptions, ndim: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.stride = 2 ** len(options.down)
        self.recomputes = False
        self.radius = _radius(options)
        self.first = conv3(ndim, in_channels, options.first_filters)
        channels, skips = options.first_filters, []
        self.down, self.transitions_down = nn.ModuleList(), nn.ModuleList()
        for layers in options.down:
            self.down.append(_DenseBlock(options, ndim, channels, layers))
            skips.append(channels + layers * options.growth)
            channels = int(skips[-1] * options.compression)
            self.transitions_down.append(_transition_down(options, ndim, skips[-1], channels))
        self.bottleneck = _DenseBlock(options, ndim, channels, options.bottleneck)
        self.up, self.transitions_up = nn.ModuleList(), nn.ModuleList()
        new = options.bottleneck * options.growth
        for layers, skip in zip(options.up, reversed(skips), strict=True):
            self.transitions_up.append(nn.Sequential(conv3(ndim, new, new), nn.ReLU(inplace=True)))
            self.up.append(_DenseBlock(options, ndim, new + skip, layers))
            channels, new = new + skip, layers * options.growth
        self.head = conv1(ndim, channels + new, out_channels, bias=False)

    def forward(self, x: Float[Tensor, "n inputs *spatial"]) -> Float[Tensor, "n outputs *spatial"]:
        """Map images to latents of the same size, which must be a multiple of ``stride``."""
        x = self.first(x)
        skips = []
        for block, transition in zip(self.down, self.transitions_down, strict=True):
            x = torch.cat([x, run(self, block, x)], dim=1)
            skips.append(x)
            x = run(self, transition, x)
        x = run(self, self.bottleneck, x)
        for transition, block in zip(self.transitions_up, self.up, strict=True):
            entering = torch.cat([run(self, transition, double(x)), skips.pop()], dim=1)
            x = run(self, block, entering)
        result: Tensor = self.head(torch.cat([entering, x], dim=1))
        return result


class _DenseBlock(nn.Module):
    """Dense layers, each of which sees all maps before it; returns only the new ones."""

    def __init__(self, options: TiramisuOptions, ndim: int, channels: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                BatchNorm(channels + layer * options.growth),
                nn.ReLU(inplace=True),
                conv3(ndim, channels + layer * options.growth, options.growth),
                nn.Dropout(options.dropout),
            )
            for layer in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers:
            maps.append(layer(torch.cat(maps, dim=1)))
        return torch.cat(maps[1:], dim=1)


def _transition_down(options: TiramisuOptions, ndim: int, inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        BatchNorm(inputs),
        nn.ReLU(inplace=True),
        conv1(ndim, inputs, outputs),
        CHANNEL_DROPOUT[ndim](0.2 if options.dropout else 0.0),
        MAX_POOL[ndim](2),
    )


def _radius(options: TiramisuOptions) -> int:
    levels = len(options.down)
    reach = 1 + (options.bottleneck << levels)
    for level, (down, up) in enumerate(zip(options.down, reversed(options.up), strict=True)):
        reach += (down + up + 2) << level  # convolutions, the one after up-sampling, one coarser cell
    return reach
