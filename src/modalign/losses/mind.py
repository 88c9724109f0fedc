"""MIND-SSC: how each place resembles its surroundings, which modalities share even where their intensities do not."""

from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from modalign.errors import InvalidInputError
from modalign.losses.boxes import box_mean
from modalign.losses.similarity import Maps, weighted_mean

CONTRAST_RANGE = 1e3
"""The local noise estimate is held within this factor of its mean over the image."""


@dataclass(frozen=True)
class MindSsc:
    """Mean squared difference of self-similarity contexts (Heinrich et al., MICCAI 2013).

    The neighbours along the axes of a place are compared with each other, all pairs that do not face each other: 4 in
    the plane, 12 in space. Each distance becomes ``exp(−D / V)``, with V the mean of the distances there.
    """

    radius: int = 2
    """Half the side of the patches that are compared, pixels."""
    dilation: int = 2
    """Distance of the neighbours, pixels."""

    def __post_init__(self) -> None:
        if self.radius < 0 or self.dilation < 1:
            raise InvalidInputError(
                f"MIND needs a radius from 0 and a dilation from 1 on, not {self.radius} and {self.dilation}"
            )

    def describe(self, image: Float[Tensor, "1 channels *spatial"]) -> Maps:
        """The context of each pixel, ``(1, pairs, *spatial)``; several channels add up in the distances."""
        ndim = image.ndim - 2
        reach = self.dilation
        padded = functional.pad(image, (reach,) * (2 * ndim), mode="replicate")
        neighbours = [(axis, side) for axis in range(ndim) for side in (-1, 1)]
        moved = {one: _moved(padded, *one, reach, image.shape[2:]) for one in neighbours}
        distances = [
            (moved[one] - moved[other]).square().sum(1, keepdim=True)
            for one, other in combinations(neighbours, 2)
            if one[0] != other[0]
        ]
        patches = box_mean(torch.cat(distances, 1), 2 * self.radius + 1)
        patches = patches - patches.min(1, keepdim=True).values
        noise = patches.mean(1, keepdim=True)
        usual = noise.mean().detach().clamp(min=1e-12)
        noise = torch.minimum(torch.maximum(noise, usual / CONTRAST_RANGE), usual * CONTRAST_RANGE)
        return (torch.exp(-patches / noise),)

    def compare(self, warped: Maps, fixed: Maps, mask: Float[Tensor, "1 1 *spatial"]) -> Float[Tensor, ""]:
        """See :class:`Similarity`."""
        return weighted_mean((warped[0] - fixed[0]).square(), mask)


def _moved(padded: Tensor, axis: int, side: int, reach: int, shape: torch.Size) -> Tensor:
    """The image as its neighbour along an axis sees it."""
    for k, n in enumerate(shape):
        start = reach + (side * reach if k == axis else 0)
        padded = padded.narrow(k + 2, start, n)
    return padded
