"""A network whose encoder tells what is where: a U-Net that segments, or an auto-encoder without skip connections.

Source: Czolbe et al., Semantic similarity metrics for learned image registration, MIDL 2021, section 3.2.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from modalign.errors import InvalidInputError
from modalign.nn.layers import CONV, MEMORY_FORMATS, BatchNorm, conv1, conv3, double

WIDTHS = {2: (16, 32, 64), 3: (16, 32, 32)}
"""By the number of dimensions: small enough to run forward and back in every step of a registration on a CPU."""
SLOPE = 0.2
"""Of the leaky rectifiers."""
MODES = {2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class FeatureNetOptions:
    """The form of the network."""

    widths: tuple[int, ...] = ()
    """Channels of the stages of the encoder, each at half the resolution of the one before; by default 16 32 64, and
    16 32 32 for volumes. The published networks have 64 128 256."""

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.widths):
            raise InvalidInputError(f"the widths of a network are positive, not {self.widths}")

    def resolved(self, ndim: int) -> "FeatureNetOptions":
        """The options with the widths that are used in so many dimensions, for a model to remember."""
        return self if self.widths else FeatureNetOptions(WIDTHS[ndim])


class FeatureNet(nn.Module):
    """Encoder and decoder; with skip connections for segmentation, without for an auto-encoder.

    Each stage of the encoder is batch normalisation, a 4-wide convolution with stride 2 and a 3-wide one.
    """

    def __init__(
        self, options: FeatureNetOptions, ndim: int, in_channels: int, out_channels: int, *, has_skips: bool
    ) -> None:
        super().__init__()
        widths = options.resolved(ndim).widths
        self.ndim, self.in_channels, self.has_skips, self.stride = ndim, in_channels, has_skips, 2 ** len(widths)
        entering = (in_channels, *widths)
        self.encoder = nn.ModuleList(_stage(ndim, *channels) for channels in pairwise(entering))
        leaving = [*reversed(widths), max(widths[0] // 2, 1)]
        skips = [n if has_skips else 0 for n in reversed(entering[:-1])]
        self.decoder = nn.ModuleList(
            nn.Sequential(conv3(ndim, coarse + skip, fine), nn.LeakyReLU(SLOPE))
            for coarse, skip, fine in zip(leaving[:-1], skips, leaving[1:], strict=True)
        )
        self.head = nn.Sequential(
            conv3(ndim, leaving[-1], leaving[-1]), nn.LeakyReLU(SLOPE), conv1(ndim, leaving[-1], out_channels)
        )
        self.to(memory_format=MEMORY_FORMATS[ndim])  # type: ignore[call-overload]  # stub lacks it

    def features(self, image: Float[Tensor, "n c *spatial"]) -> list[Tensor]:
        """The maps of the stages of the encoder, finest first, and the probabilities of the classes if it segments.

        (The paper compares the stages alone; the probabilities add what is where at full resolution.) The image may
        have any size: one that is no multiple of the stride is stretched to the next one first, so that every map
        covers exactly the field of view of the image.
        """
        shape = [ceil(n / self.stride) * self.stride for n in image.shape[2:]]
        if list(image.shape[2:]) != shape:
            image = functional.interpolate(image, size=shape, mode=MODES[self.ndim], align_corners=False)
        maps = self._encoded(image)
        return [*maps, self._decoded(image, maps).softmax(1)] if self.has_skips else maps

    def forward(self, image: Float[Tensor, "n c *spatial"]) -> Float[Tensor, "n outputs *spatial"]:
        """Scores of the classes, or the image again; sizes must be multiples of ``stride``."""
        return self._decoded(image, self._encoded(image))

    def _decoded(self, image: Tensor, maps: Sequence[Tensor]) -> Tensor:
        x, skips = maps[-1], [*reversed(maps[:-1]), image]
        for block, skip in zip(self.decoder, skips, strict=True):
            x = block(torch.cat([double(x), skip], dim=1) if self.has_skips else double(x))
        result: Tensor = self.head(x)
        return result

    def _encoded(self, image: Tensor) -> list[Tensor]:
        image = image.contiguous(memory_format=MEMORY_FORMATS[self.ndim])
        maps: list[Tensor] = []
        for stage in self.encoder:
            maps.append(stage(maps[-1] if maps else image))
        return maps


class FrozenExtractor:
    """The encoder of a trained network as what :class:`modalign.losses.DeepSim` compares: its weights do not change."""

    def __init__(self, network: FeatureNet) -> None:
        self.network = network.eval().requires_grad_(requires_grad=False)

    def __call__(self, image: Float[Tensor, "1 c *spatial"]) -> Sequence[Tensor]:
        """The feature maps of an image; see :meth:`check`."""
        self.check(image.shape[1], image.ndim - 2)
        return self.network.features(image)

    def on(self, device: torch.device) -> "FrozenExtractor":
        """One that computes on a device; this one stays where it is."""
        return FrozenExtractor(deepcopy(self.network).to(device))

    def check(self, channels: int, ndim: int) -> None:
        """Refuse images that are not what the network was trained on.

        Raises:
            InvalidInputError: They have other channels or dimensions.
        """
        wanted = self.network.in_channels, self.network.ndim
        if (channels, ndim) != wanted:
            raise InvalidInputError(
                f"the feature extractor is for {wanted[1]}D images with {wanted[0]} channel{'s' * (wanted[0] > 1)}; "
                f"what is compared is {ndim}D with {channels}"
            )


def _stage(ndim: int, inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        BatchNorm(inputs),
        CONV[ndim](inputs, outputs, 4, stride=2, padding=1),
        nn.LeakyReLU(SLOPE),
        conv3(ndim, outputs, outputs),
        nn.LeakyReLU(SLOPE),
    )
