"""A network that tells the velocity between two images at once, and the folder that holds it.

Source: Balakrishnan et al., VoxelMorph: A Learning Framework for Deformable Medical Image Registration, IEEE TMI 2019;
the network itself is MONAI's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from modalign.errors import InvalidInputError
from modalign.geometry.grid import METERS, Unit
from modalign.nn.bundle import FORMAT, load_network, read_once, save_networks
from modalign.nn.layers import MEMORY_FORMATS

WIDTHS = {2: (16, 32, 32, 32, 32, 32), 3: (8, 16, 16, 16, 16, 16)}
"""By the number of dimensions: channels on the way down and on the way up, level by level."""
SMALL = 1e-2
"""Times the usual weights of the last layer: training begins close to no deformation."""
METHOD, VERSION, HOW = "deform", 1, "modalign train deform"


@dataclass(frozen=True)
class DeformNetOptions:
    """The form of the network."""

    widths: tuple[int, ...] = ()
    """Channels on the way down and on the way up, level by level; by default 16 32, 32 32, 32 32, and half as many for
    volumes."""

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.widths) or len(self.widths) % 2:
            raise InvalidInputError(f"the widths of the network are pairs of positive numbers, not {self.widths}")

    def resolved(self, ndim: int) -> "DeformNetOptions":
        """The options with the widths that are used in so many dimensions, for a model to remember."""
        return self if self.widths else DeformNetOptions(WIDTHS[ndim])


class DeformNet(nn.Module):
    """The velocity that brings a moving image onto a fixed one.

    Half the difference of what the network says of the two images and of the same images exchanged: that exchanges into
    its opposite, whose flow is the inverse, and equal images have none (as in Greer et al., Inverse consistency by
    construction for multistep deep registration, MICCAI 2023).
    """

    def __init__(self, options: DeformNetOptions, ndim: int, channels: int) -> None:
        from monai.networks.nets.voxelmorph import VoxelMorphUNet

        super().__init__()
        widths = options.resolved(ndim).widths
        self.ndim, self.channels, self.stride = ndim, channels, 2 ** (len(widths) // 2)
        self.unet = VoxelMorphUNet(ndim, 2 * channels, widths[1], widths, (widths[0], widths[0]))
        self.unet.to(memory_format=MEMORY_FORMATS[ndim])  # type: ignore[call-overload]  # stub lacks it
        with torch.no_grad():
            last = [module for module in self.unet.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)][-1]
            last.weight.mul_(SMALL)
            if last.bias is not None:
                last.bias.zero_()

    def forward(
        self, fixed: Float[Tensor, "1 c *spatial"], moving: Float[Tensor, "1 c *spatial"]
    ) -> Float[Tensor, "1 ndim *spatial"]:
        """The velocity, in pixels; the images have any one size, and intensities from 0 to 1."""
        shape = fixed.shape[2:]
        beyond = [ceil(n / self.stride) * self.stride - n for n in shape]
        widened = [part for more in reversed(beyond) for part in (0, more)]
        ways = torch.cat([torch.cat([moving, fixed], 1), torch.cat([fixed, moving], 1)])
        ways = functional.pad(ways, widened, mode="replicate").contiguous(memory_format=MEMORY_FORMATS[self.ndim])
        there, back = self.unet(ways)
        velocity: Tensor = (there - back)[None] / 2
        return velocity[(slice(None), slice(None), *(slice(n) for n in shape))]


@dataclass(frozen=True)
class DeformCard:
    """Everything about a network that deforms but its weights; the content of ``model.json``.

    Attributes:
        ndim: 2 for images, 3 for volumes.
        channels: How many channels its images have.
        network: Its form.
        pixel_size: Of the images that it was trained on, the same along all axes.
        unit: Its unit; ``"pixel"`` where unknown.
        training: Data, licence, options, and how well it did.
    """

    ndim: int
    channels: int
    network: DeformNetOptions
    pixel_size: float
    unit: Unit
    training: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The saved form."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "method": METHOD,
            "ndim": self.ndim,
            "channels": self.channels,
            "widths": list(self.network.widths),
            "pixel_size": self.pixel_size,
            "unit": self.unit,
            "training": dict(self.training),
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "DeformCard":
        """The card from its saved form."""
        network = DeformNetOptions(tuple(saved["widths"]))
        return cls(saved["ndim"], saved["channels"], network, saved["pixel_size"], saved["unit"], saved["training"])

    def build(self) -> DeformNet:
        """The network, freshly initialised."""
        return DeformNet(self.network, self.ndim, self.channels)

    def pixel_size_in(self, unit: Unit) -> float | None:
        """The pixel size in another unit; ``None`` where one of the two is not a length."""
        if unit == self.unit:
            return self.pixel_size
        if "pixel" in (unit, self.unit):
            return None
        return self.pixel_size * METERS[self.unit] / METERS[unit]


@dataclass(frozen=True, eq=False)
class DeformModel:
    """A trained network with its card."""

    card: DeformCard
    network: DeformNet

    def check(self, channels: int, ndim: int) -> None:
        """Refuse images that are not what the network was trained on.

        Raises:
            InvalidInputError: They have other channels or dimensions.
        """
        if (channels, ndim) != (self.card.channels, self.card.ndim):
            raise InvalidInputError(
                f"the network is for {self.card.ndim}D images with {self.card.channels} "
                f"channel{'s' * (self.card.channels > 1)}; what is compared is {ndim}D with {channels}"
            )

    def save(self, folder: Path) -> None:
        """Write the model folder, all or nothing.

        Raises:
            OutputError: The folder cannot be written.
        """
        save_networks(folder, self.card.to_dict(), {"network": self.network})

    @classmethod
    def load(cls, folder: Path) -> "DeformModel":
        """Read a model folder.

        Raises:
            ModelError: The folder or a file in it is missing, damaged, foreign, or made by a newer version.
        """
        card, network = load_network(folder, METHOD, VERSION, HOW, DeformCard.from_dict)
        return cls(card, network.eval().requires_grad_(requires_grad=False))


load_deform_model: Callable[[Path], DeformModel] = read_once(DeformModel.load)
"""The network of a model folder, see :meth:`DeformModel.load`; read once as long as the folder does not change."""
