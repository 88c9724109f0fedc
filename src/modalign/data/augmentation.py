"""Random changes of training windows: the same geometry for both modalities, separate intensities for each."""

from dataclasses import dataclass
from math import inf, log

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from modalign.errors import InvalidInputError
from modalign.geometry import random_rotations
from modalign.geometry.groups import SAME_SPACING

Windows = Float[Tensor, "n channels *spatial"]


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training patch."""

    flip: bool = True
    """Mirror patches (both modalities alike)."""
    rotate: bool = True
    """Turn patches by any angle, cut from a larger window so that no corner is empty or mirrored; only in planes of
    axes with one pixel size."""
    scale: float = 0.1
    """Enlarge or shrink by up to this fraction."""
    gamma: float = 0.7
    """Strength of random gamma curves, as a standard deviation of log gamma per modality and half of it per channel."""
    contrast: float = 0.3
    """Strength of random brightness and contrast, in units of the intensity range."""
    mixing: float = 0.25
    """Strength of random mixing between the channels of one modality (stain and colour variation)."""
    blur: float = 1.0
    """Largest standard deviation of a random Gaussian blur, in pixels; every second patch stays sharp."""
    noise: float = 0.03
    """Largest standard deviation of additive noise, in units of the intensity range."""

    def __post_init__(self) -> None:
        strengths = (self.scale, self.gamma, self.contrast, self.mixing, self.blur, self.noise)
        if not all(0 <= strength < inf for strength in strengths) or self.scale >= 1:
            raise InvalidInputError("strengths of augmentation are numbers of at least 0, and the scale is below 1")

    @property
    def largest_scale(self) -> float:
        """How much more of the image an augmented patch can show along an axis."""
        return 1 + self.scale

    def geometry(
        self,
        fixed: Float[Tensor, "n fixed_channels *window"],
        moving: Float[Tensor, "n moving_channels *window"],
        patch: int,
        generator: torch.Generator,
        spacing: tuple[float, ...] | None = None,
    ) -> tuple[Float[Tensor, "n fixed_channels *patch"], Float[Tensor, "n moving_channels *patch"]]:
        """Cut patches out of windows: turned, flipped and scaled, both modalities alike, in one interpolation.

        Args:
            fixed: Windows with equal sides.
            moving: Those of the other modality.
            patch: Side of the patches.
            generator: Of every random draw.
            spacing: Pixel size along each axis; ``None`` where it is the same along all.
        """
        count, ndim = len(fixed), fixed.ndim - 2
        matrix = torch.eye(ndim).repeat(count, 1, 1)
        if self.rotate:
            chance = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
            matrix = torch.from_numpy(_rotations(spacing or (1.0,) * ndim, count, chance)).float()
        if self.flip:
            matrix[:, :, 0] *= torch.where(torch.rand(count, 1, generator=generator) < 0.5, -1.0, 1.0)
        if self.scale:
            limit = log(1 + self.scale)
            scale = torch.exp(limit * (2 * torch.rand(count, 1, 1, generator=generator) - 1))
            matrix = matrix * scale
        matrix = matrix * (patch / fixed.shape[-1])  # both grids run from −1 to 1 over their own extent
        theta = torch.cat([matrix, torch.zeros(count, ndim, 1)], dim=2).to(fixed.device)
        grid = functional.affine_grid(theta, [count, 1, *(patch,) * ndim], align_corners=False)
        turned, with_partner = (
            functional.grid_sample(windows, grid, padding_mode="border", align_corners=False)
            for windows in (fixed, moving)
        )
        return turned, with_partner

    def intensity(self, unit: Windows, generator: torch.Generator) -> Windows:
        """Vary the intensities of one modality; values stay within 0 to 1."""
        count, channels, ndim = *unit.shape[:2], unit.ndim - 2

        def normal(*shape: int) -> Tensor:
            drawn = torch.randn(*shape, generator=generator)
            return drawn.to(unit.device).reshape(*shape, *(1,) * (unit.ndim - len(shape)))

        if self.gamma:
            exponent = self.gamma * (normal(count, 1) + 0.5 * normal(count, channels))
            unit = unit.clamp(min=1e-4) ** torch.exp(exponent.clamp(-1.5, 1.5))
        if self.mixing and channels > 1:
            mix = torch.eye(channels) + self.mixing * torch.randn(count, channels, channels, generator=generator)
            mix = mix / mix.sum(dim=2, keepdim=True).clamp(min=0.5)
            unit = torch.einsum("nij,nj...->ni...", mix.to(unit.device), unit)
        if self.blur:
            unit = _blurred(unit, self.blur, generator)
        if self.contrast:
            gain, shift = 1 + self.contrast * normal(count, 1), 0.5 * self.contrast * normal(count, 1)
            unit = (unit - 0.5) * gain.clamp(min=0.3) + 0.5 + shift
        if self.noise:
            level = self.noise * torch.rand(count, *(1,) * (ndim + 1), generator=generator)
            noise = torch.randn(unit.shape, generator=generator)
            unit = unit + (level * noise).to(unit.device)
        return unit.clamp(0, 1)


def _rotations(
    spacing: tuple[float, ...], count: int, generator: np.random.Generator
) -> Float[np.ndarray, "n ndim ndim"]:
    """Random rotations of the axes that share a pixel size, if any do; x comes first, as torch has it."""
    ndim = len(spacing)
    alike = [np.flatnonzero(np.abs(np.array(spacing) / size - 1) < SAME_SPACING) for size in spacing]
    axes = ndim - 1 - max(alike, key=len)
    matrices = np.tile(np.eye(ndim), (count, 1, 1))
    matrices[:, axes[:, None], axes] = random_rotations(len(axes), count, generator)
    return matrices


def _blurred(unit: Windows, largest: float, generator: torch.Generator) -> Windows:
    """Gaussian blur, axis by axis, with a random width for each sample; half of the samples are left sharp."""
    count, channels = unit.shape[:2]
    radius = max(1, round(2.5 * largest))
    sigma = (largest * 2 * (torch.rand(count, 1, generator=generator) - 0.5)).clamp(min=1e-3)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(unit.device)
    weights = kernel.repeat_interleave(channels, 0)
    for axis in range(2, unit.ndim):
        moved = unit.movedim(axis, -1)
        lines = moved.reshape(count * channels, -1, moved.shape[-1]).transpose(0, 1)
        padded = functional.pad(lines, (radius, radius), mode="replicate")
        blurred = functional.conv1d(padded, weights[:, None], groups=count * channels).transpose(0, 1)
        unit = blurred.reshape(moved.shape).movedim(-1, axis)
    return unit
