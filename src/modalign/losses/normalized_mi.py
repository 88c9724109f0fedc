"""Normalised mutual information: for two modalities whose intensities depend on each other anyhow."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from modalign.errors import InvalidInputError
from modalign.losses.similarity import Maps


@dataclass(frozen=True)
class NormalizedMI:
    """``2 − (H(w) + H(f)) / H(w, f)`` of the first channels (Studholme et al., Pattern Recognition 1999).

    Each pixel counts in all bins by a Gaussian whose full width at half maximum is one bin, so that the histogram has a
    gradient. Intensities run from 0 to 1; what lies beyond counts as that.
    """

    bins: int = 32
    """Bins along each axis of the joint histogram."""
    most_pixels: int = 20_000
    """Larger images are sampled evenly: the histogram needs no more."""

    def __post_init__(self) -> None:
        if self.bins < 4:
            raise InvalidInputError(f"mutual information needs at least 4 bins, not {self.bins}")

    def describe(self, image: Float[Tensor, "1 channels *spatial"]) -> Maps:
        """The first channel."""
        return (image[:, :1],)

    def compare(self, warped: Maps, fixed: Maps, mask: Float[Tensor, "1 1 *spatial"]) -> Float[Tensor, ""]:
        """See :class:`Similarity`."""
        step = -(-mask.numel() // self.most_pixels)
        step += step > 1 and mask.shape[-1] % step == 0  # else the samples would stand in columns
        weights = mask.flatten()[::step]
        rows, columns = (self._membership(maps[0].flatten()[::step]) for maps in (warped, fixed))
        joint = (rows * weights[:, None]).T @ columns / weights.sum().clamp(min=1e-6)
        entropies = [_entropy(joint.sum(1)), _entropy(joint.sum(0))]
        return 2 - (entropies[0] + entropies[1]) / _entropy(joint).clamp(min=1e-6)

    def _membership(self, values: Float[Tensor, " pixels"]) -> Float[Tensor, "pixels bins"]:
        """How much each pixel belongs to each bin; sums to one."""
        centers = torch.linspace(0, 1, self.bins, dtype=values.dtype, device=values.device)
        sigma = 1 / (self.bins - 1) / 2.355
        distances = (values.clamp(0, 1)[:, None] - centers) / sigma
        closeness = torch.exp(-0.5 * distances.square())
        return closeness / closeness.sum(1, keepdim=True)


def _entropy(shares: Tensor) -> Tensor:
    return -(shares * (shares + 1e-10).log()).sum()
