"""Training batches: windows cut from pairs, augmented, standardised, and turned."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from modalign.data.augmentation import Augmentation
from modalign.data.intensity import IntensityScaling
from modalign.data.pairs import Pair
from modalign.data.patches import PatchSampler, PatchSource, window_size
from modalign.data.shelf import Shelf
from modalign.geometry import GroupElement
from modalign.nn.layers import MEMORY_FORMATS
from modalign.representation import ComirCard

Batch = tuple[Float[Tensor, "n fixed_channels *spatial"], Float[Tensor, "n moving_channels *spatial"]]


@dataclass(frozen=True)
class BatchSource:
    """Draws batches of augmented patches, ready for the networks; the same generator, the same batch.

    Attributes:
        sampler: Cuts windows from the pairs.
        scalings: How the intensities of the fixed and of the moving modality are standardised.
        augmentation: Random changes of the patches.
        patch: Side of a patch in pixels.
        spacing: Pixel size along each axis.
    """

    sampler: PatchSampler
    scalings: tuple[IntensityScaling, IntensityScaling]
    augmentation: Augmentation
    patch: int
    spacing: tuple[float, ...]

    @classmethod
    def of(
        cls, pairs: Sequence[Pair], card: ComirCard, patch: int, augmentation: Augmentation, shelf: Shelf
    ) -> "BatchSource":
        """The source for some pairs, scaled as the card says."""
        window = window_size(patch, card.ndim, augmentation.largest_scale)
        scalings = card.fixed.scaling, card.moving.scaling
        sources = tuple(PatchSource.from_pair(pair, *scalings, window, shelf.put) for pair in pairs)
        return cls(PatchSampler(sources, window), scalings, augmentation, patch, card.pixel_size)

    def draw(self, count: int, generator: np.random.Generator, device: torch.device) -> Batch:
        """Aligned patches of both modalities, on a device."""
        windows = [torch.from_numpy(w).to(device) for w in self.sampler.draw(count, generator)]
        chance = torch.Generator().manual_seed(int(generator.integers(2**62)))
        patches = self.augmentation.geometry(windows[0], windows[1], self.patch, chance, self.spacing)
        fixed, moving = (
            _standardised(self.augmentation.intensity(unit, chance), scaling)
            for unit, scaling in zip(patches, self.scalings, strict=True)
        )
        return fixed, moving


def turned(batch: Tensor, turns: Sequence[GroupElement]) -> Tensor:
    """Every sample of a batch ``(n, channels, *spatial)`` under its own rotation of the grid."""
    return torch.stack([turn.act(sample) for turn, sample in zip(turns, batch, strict=True)])


def without_rim(batch: Tensor, rim: int) -> Tensor:
    """The samples of a batch ``(n, channels, *spatial)`` without so many pixels at all sides."""
    return batch[(slice(None), slice(None), *(slice(rim, n - rim) for n in batch.shape[2:]))]


def random_shifts(count: int, patch: int, ndim: int, generator: np.random.Generator) -> list[tuple[int, ...]]:
    """Shifts in random directions, by one pixel to an eighth of a patch."""
    directions = generator.standard_normal((count, ndim))
    lengths = generator.uniform(1, max(patch / 8, 1), (count, 1))
    steps = np.rint(lengths * directions / np.abs(directions).max(axis=1, keepdims=True)).astype(int)
    return [tuple(map(int, step)) for step in steps]


def _standardised(unit: Tensor, scaling: IntensityScaling) -> Tensor:
    shape = (-1, *(1,) * (unit.ndim - 2))
    mean, std = (unit.new_tensor(values).reshape(shape) for values in (scaling.mean, scaling.std))
    return ((unit - mean) / std).contiguous(memory_format=MEMORY_FORMATS[unit.ndim - 2])
