"""CoMIR: a pair of networks whose outputs look alike for both modalities, and the folder that holds them.

Source: Pielawski et al., CoMIR: Contrastive Multimodal Image Representation for Registration, NeurIPS 2020.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from modalign.data.intensity import IntensityScaling
from modalign.errors import FileError, InvalidInputError, ModelError
from modalign.geometry import Grid, identity
from modalign.geometry.grid import Unit
from modalign.image import Image
from modalign.io import read_json
from modalign.nn import Network, build_network, network_from_dict, network_to_dict
from modalign.nn.bundle import FORMAT, USES, load_weights, save_networks
from modalign.representation.pixel_size import brought_to, working_grid
from modalign.representation.tiling import encode_tiled

Side = Literal["fixed", "moving"]
VERSION = 1
NOT_FINITE = "the representation is no longer finite: the networks have diverged; train with a smaller learning rate"
LEAST_CONTRAST = 0.08
"""An image with less than this fraction of the contrast of the training images has another range of intensities."""
OTHER_HISTOGRAM = 0.25
"""Mean distance of histogram quantiles (0 to 1) from which on an image may belong to the other modality."""


@dataclass(frozen=True)
class Modality:
    """One side of a model.

    Attributes:
        name: What the user calls the modality.
        channels: Names of its channels.
        scaling: How its intensities are scaled.
        network: Its network.
    """

    name: str
    channels: tuple[str, ...]
    scaling: IntensityScaling
    network: Network

    def to_dict(self) -> dict[str, Any]:
        """The saved form."""
        return {
            "name": self.name,
            "channels": list(self.channels),
            "scaling": self.scaling.to_dict(),
            "network": network_to_dict(self.network),
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "Modality":
        """The modality from its saved form."""
        return cls(
            saved["name"],
            tuple(saved["channels"]),
            IntensityScaling.from_dict(saved["scaling"]),
            network_from_dict(saved["network"]),
        )


@dataclass(frozen=True)
class ComirCard:
    """Everything about a model but its weights; the content of ``model.json``.

    Attributes:
        fixed: The first modality.
        moving: The second modality.
        ndim: 2 for images, 3 for volumes.
        latent_channels: Channels of the representation.
        pixel_size: Pixel size of the training images, along each axis.
        unit: Its unit; ``"pixel"`` where unknown.
        training: What the model was trained on and how well it did: data, licence, options, validation.
        calibration: How to turn scores into probabilities; ``None`` until calibrated.
    """

    fixed: Modality
    moving: Modality
    ndim: int
    latent_channels: int
    pixel_size: tuple[float, ...]
    unit: Unit
    training: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None

    def side(self, side: Side) -> Modality:
        """One of the two modalities."""
        return self.fixed if side == "fixed" else self.moving

    def to_dict(self) -> dict[str, Any]:
        """The saved form."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "method": "comir",
            "ndim": self.ndim,
            "latent_channels": self.latent_channels,
            "pixel_size": list(self.pixel_size),
            "unit": self.unit,
            "modalities": {side: self.side(side).to_dict() for side in get_args(Side)},
            "training": dict(self.training),
            "calibration": self.calibration,
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "ComirCard":
        """The card from its saved form.

        Raises:
            InvalidInputError: It is not a card of a CoMIR model, or of a newer version.
        """
        if saved.get("format") != FORMAT or saved.get("method") != "comir":
            hint = USES.get(str(saved.get("method")), "")
            raise InvalidInputError(f"this is not the card of a modalign CoMIR model{hint}")
        if saved["version"] > VERSION:
            raise InvalidInputError(f"the model has version {saved['version']}; this modalign reads up to {VERSION}")
        modalities = saved["modalities"]
        return cls(
            Modality.from_dict(modalities["fixed"]),
            Modality.from_dict(modalities["moving"]),
            saved["ndim"],
            saved["latent_channels"],
            tuple(saved["pixel_size"]),
            saved["unit"],
            saved["training"],
            saved["calibration"],
        )


@dataclass(frozen=True, eq=False)
class ComirModel:
    """A trained pair of networks with its card."""

    card: ComirCard
    networks: Mapping[Side, nn.Module]

    @classmethod
    def untrained(cls, card: ComirCard) -> "ComirModel":
        """Freshly initialised networks for a card."""
        return cls(card, {side: _network(card, side) for side in get_args(Side)})

    @property
    def calibration(self) -> Mapping[str, Any] | None:
        """What the verdict knows about this model; ``None`` until calibrated."""
        return self.card.calibration

    def channels(self) -> tuple[int, int]:
        """How many channels the images of the fixed and of the moving modality have."""
        return len(self.card.fixed.channels), len(self.card.moving.channels)

    def fingerprint(self) -> str:
        """Hash of what its representations depend on: the card without training and calibration, and the weights."""
        card = {k: v for k, v in self.card.to_dict().items() if k not in ("training", "calibration")}
        told = hashlib.sha256(json.dumps(card, sort_keys=True).encode())
        for side in get_args(Side):
            for value in self.networks[side].state_dict().values():
                told.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
        return told.hexdigest()

    def encoders(self, *, device: str | torch.device = "cpu") -> tuple["ComirEncoder", "ComirEncoder"]:
        """The encoders of the fixed and of the moving modality."""
        return self.encoder("fixed", device=device), self.encoder("moving", device=device)

    def encoder(self, side: Side, *, device: str | torch.device = "cpu", tile: int | None = None) -> "ComirEncoder":
        """The encoder of one modality; see :class:`ComirEncoder`.

        Raises:
            InvalidInputError: The device does not exist here, or the tile has no pixels.
        """
        if tile is not None and tile < 1:
            raise InvalidInputError(f"a tile needs at least one pixel a side, not {tile}")
        try:
            network = self.networks[side].to(torch.device(device)).eval()
        except (RuntimeError, AssertionError) as error:  # what torch raises for unknown and for absent devices
            reason = str(error).splitlines()[0]
            raise InvalidInputError(f"cannot compute on device {device!r} ({reason}); 'cpu' always works") from error
        return ComirEncoder(self.card, side, network, torch.device(device), tile)

    def save(self, folder: Path) -> None:
        """Write the model folder: ``model.json`` and one safetensors file a modality, all or nothing.

        Raises:
            OutputError: The folder cannot be written.
        """
        save_networks(folder, self.card.to_dict(), {str(side): network for side, network in self.networks.items()})

    @classmethod
    def load(cls, folder: Path) -> "ComirModel":
        """Read a model folder.

        Raises:
            ModelError: The folder or a file in it is missing, damaged, foreign, or made by a newer version.
        """
        if not (folder / "model.json").is_file():
            raise ModelError(f"{folder}: not a model folder (it has no model.json); make one with 'modalign train'")
        try:
            card = ComirCard.from_dict(read_json(folder / "model.json"))
            return cls(card, {side: _load(folder, card, side) for side in get_args(Side)})
        except (FileError, InvalidInputError) as error:
            raise ModelError(f"{folder}: cannot load this model: {error}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{folder}: model.json is incomplete or damaged ({error!r})") from error


@dataclass(frozen=True, eq=False)
class ComirEncoder:
    """The representation of one modality by its CoMIR network.

    Images whose pixel size is known and differs from that of the training images are brought to it before, and their
    representation back to the grid of the image afterwards. The result does not depend on the tile size.
    """

    card: ComirCard
    side: Side
    network: nn.Module
    device: torch.device
    tile: int | None = None
    doubts: bool = True
    """Whether images without contrast, or plainly of another modality, are refused."""

    def encode(self, image: Image) -> Image:
        """The latents of an image, float32, on its grid and with its mask, without the pixels that are not finite.

        Raises:
            ModelError: The image has other channels or dimensions than the model, or is plainly of another modality.
        """
        image = image.without_alpha().without_gaps()
        self.check(image)
        grid = self.working_grid(image.grid)
        working = image if grid == image.grid else brought_to(image, grid)
        scaled = self.card.side(self.side).scaling.adapted(image).apply(working.data)
        latents = encode_tiled(self.network, scaled, device=self.device, tile=self.tile)  # type: ignore[arg-type]
        if not np.all(np.isfinite(latents)):
            raise ModelError(NOT_FINITE)
        names = tuple(f"latent_{i}" for i in range(len(latents)))
        encoded = Image(latents, working.grid, names)
        if working.grid != image.grid:
            encoded = encoded.resampled(image.grid, identity(image.ndim))
        return image.with_data(encoded.data, names)

    def working_grid(self, grid: Grid) -> Grid:
        """The grid at the pixel size of the model on which an image is represented."""
        return working_grid(grid, self.card.pixel_size, self.card.unit)

    def check(self, image: Image) -> None:
        """Refuse images that are not what the model was trained on.

        Raises:
            ModelError: The image has other channels or dimensions than the model, or is plainly of another modality.
        """
        modality = self.card.side(self.side)
        if image.ndim != self.card.ndim:
            raise ModelError(f"the model is for {self.card.ndim}D images; this one is {image.ndim}D")
        if len(image.data) != len(modality.channels):
            raise ModelError(
                f"the {self.side} side of the model ({modality.name}) takes images with {len(modality.channels)} "
                f"channels ({', '.join(modality.channels)}); this one has {len(image.data)} "
                f"({', '.join(image.channels)}).{self._swapped(image)}"
            )
        if not self.doubts:
            return
        if modality.scaling.contrast(image) < LEAST_CONTRAST:
            raise ModelError(
                f"this image has almost no contrast in the range of intensities ({min(modality.scaling.low):g} to "
                f"{max(modality.scaling.high):g}) of the {modality.name} images that the {self.side} side of the model "
                f"was trained on.{self._swapped(image) or ' Check its modality, bit depth and intensity range.'}"
            )
        if modality.scaling.distance(image) > OTHER_HISTOGRAM and self._swapped(image):
            raise ModelError(
                f"the intensities of this image are unlike the {modality.name} images that the {self.side} side of the "
                f"model was trained on.{self._swapped(image)}"
            )

    def _swapped(self, image: Image) -> str:
        """Advice if the image would suit the other side of the model."""
        own, other = self.card.side(self.side), self.card.side("moving" if self.side == "fixed" else "fixed")
        if len(image.data) != other.scaling.channels:
            return ""
        same = len(image.data) == own.scaling.channels
        fits = not same or other.scaling.distance(image) < own.scaling.distance(image) / 4
        return f" It looks like {other.name}: are the two images swapped?" if fits else ""


def _network(card: ComirCard, side: Side) -> nn.Module:
    modality = card.side(side)
    return build_network(modality.network, card.ndim, len(modality.channels), card.latent_channels)


def _load(folder: Path, card: ComirCard, side: Side) -> nn.Module:
    network = _network(card, side)
    load_weights(folder, side, network)
    return network
