"""A trained feature extractor and the folder that holds it: what deep similarities see in an image."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from modalign.geometry.grid import Unit
from modalign.nn.bundle import FORMAT, load_network, read_once, save_networks
from modalign.nn.feature_net import FeatureNet, FeatureNetOptions, FrozenExtractor

FeatureTask: TypeAlias = Literal["segmentation", "autoencoder"]
METHOD, VERSION, HOW = "features", 1, "modalign train features"


@dataclass(frozen=True)
class FeatureCard:
    """Everything about a feature extractor but its weights; the content of ``model.json``.

    Attributes:
        task: ``segmentation``, trained with labels, or ``autoencoder``, trained without.
        ndim: 2 for images, 3 for volumes.
        channels: Names of the channels of its images.
        classes: How many classes it tells apart; for an auto-encoder 0.
        network: Its form.
        pixel_size: Pixel size of the training images along each axis.
        unit: Its unit; ``"pixel"`` where unknown.
        training: Data, licence, options, and how well it did.
    """

    task: FeatureTask
    ndim: int
    channels: tuple[str, ...]
    classes: int
    network: FeatureNetOptions
    pixel_size: tuple[float, ...]
    unit: Unit
    training: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The saved form."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "method": METHOD,
            "task": self.task,
            "ndim": self.ndim,
            "channels": list(self.channels),
            "classes": self.classes,
            "widths": list(self.network.widths),
            "pixel_size": list(self.pixel_size),
            "unit": self.unit,
            "training": dict(self.training),
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "FeatureCard":
        """The card from its saved form."""
        return cls(
            saved["task"],
            saved["ndim"],
            tuple(saved["channels"]),
            saved["classes"],
            FeatureNetOptions(tuple(saved["widths"])),
            tuple(saved["pixel_size"]),
            saved["unit"],
            saved["training"],
        )

    def build(self) -> FeatureNet:
        """The network, freshly initialised."""
        is_segmentation = self.task == "segmentation"
        outputs = self.classes if is_segmentation else len(self.channels)
        return FeatureNet(self.network, self.ndim, len(self.channels), outputs, has_skips=is_segmentation)


@dataclass(frozen=True, eq=False)
class FeatureModel:
    """A trained network with its card."""

    card: FeatureCard
    network: FeatureNet

    def extractor(self) -> FrozenExtractor:
        """Its encoder, as :class:`modalign.losses.DeepSim` takes it."""
        return FrozenExtractor(self.network)

    def save(self, folder: Path) -> None:
        """Write the model folder, all or nothing.

        Raises:
            OutputError: The folder cannot be written.
        """
        save_networks(folder, self.card.to_dict(), {"network": self.network})

    @classmethod
    def load(cls, folder: Path) -> "FeatureModel":
        """Read a model folder.

        Raises:
            ModelError: The folder or a file in it is missing, damaged, foreign, or made by a newer version.
        """
        return cls(*load_network(folder, METHOD, VERSION, HOW, FeatureCard.from_dict))


load_extractor: Callable[[Path], FrozenExtractor] = read_once(lambda folder: FeatureModel.load(folder).extractor())
"""The extractor of a model folder, see :meth:`FeatureModel.load`; read once as long as the folder does not change."""
