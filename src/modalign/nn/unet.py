"""A light U-Net: the default representation network, small enough to train on a CPU in minutes."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modalign.errors import InvalidInputError
from modalign.nn.layers import AVERAGE_POOL, BatchNorm, conv1, conv3, double, run

WIDTHS = {2: (8, 16, 32, 128), 3: (8, 16, 32)}
"""By the number of dimensions; a volume is small against the reach of many levels."""


@dataclass(frozen=True)
class UNetOptions:
    """A light U-Net (after Ronneberger et al., MICCAI 2015).

    Two convolutions a block, but one at full resolution, where most of the time would go and little is gained.
    """

    widths: tuple[int, ...] = ()
    """Channels at each resolution level, finest first; by default 8 16 32 128, and 8 16 32 for volumes."""

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.widths):
            raise InvalidInputError(f"the widths of a U-Net are positive, not {self.widths}")

    def resolved(self, ndim: int) -> "UNetOptions":
        """The options with the widths that are used in so many dimensions, for a model to remember."""
        return self if self.widths else UNetOptions(WIDTHS[ndim])

    def build(self, ndim: int, in_channels: int, out_channels: int) -> "UNet":
        """The network for images of ``ndim`` dimensions."""
        return UNet(self.resolved(ndim), ndim, in_channels, out_channels)


class UNet(nn.Module):
    """See :class:`UNetOptions`. Average pooling, nearest up-sampling, reflected borders, no activation at the end.

    Averaging and nearest up-sampling commute with rotations of the grid, so that only the kernels have to learn
    equivariance.
    """

    def __init__(self, options: UNetOptions, ndim: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        widths = options.widths
        levels = len(widths)
        self.recomputes = False
        self.stride = 2 ** (levels - 1)
        self.radius = _radius(levels)
        depths = (1, *(2,) * (levels - 1))
        entering = (in_channels, *widths[:-1])
        self.down = nn.ModuleList(_block(ndim, *block) for block in zip(entering, widths, depths, strict=True))
        self.up = nn.ModuleList(
            _block(ndim, fine + coarse, fine, depth)
            for (fine, coarse), depth in zip(pairwise(widths), depths, strict=False)
        )
        self.pool = AVERAGE_POOL[ndim](2)
        self.head = conv1(ndim, widths[0], out_channels)

    def forward(self, x: Float[Tensor, "n inputs *spatial"]) -> Float[Tensor, "n outputs *spatial"]:
        """Map images to latents of the same size, which must be a multiple of ``stride``."""
        skips = [run(self, self.down[0], x)]
        for block in self.down[1:]:
            skips.append(run(self, block, self.pool(skips[-1])))
        x = skips.pop()
        for block, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = run(self, block, torch.cat([double(x), skip], dim=1))
        result: Tensor = self.head(x)
        return result


def _block(ndim: int, inputs: int, outputs: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, *(outputs,) * (depth - 1)):
        layers += [
            conv3(ndim, channels, outputs, bias=False, padding_mode="reflect"),
            BatchNorm(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def _radius(levels: int) -> int:
    """Reach of the network in pixels: 3-wide convolutions on the way down and up, pooling and up-sampling."""
    if levels == 1:
        return 1
    reach = (2 << (levels - 1)) + 2  # the coarsest block, and one convolution down and one up at full resolution
    for level in range(levels - 1):
        reach += 1 << level  # one cell of the coarser grid
    for level in range(1, levels - 1):
        reach += 4 << level  # two convolutions down and two up
    return reach
