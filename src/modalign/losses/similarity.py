"""What a deformable registration makes small: how unlike two images are, lower is better.

A similarity first *describes* each image by one or more maps, then *compares* the maps of the two images. Where the
description only depends on the image (all but the trivial one of intensities), it can be made once, before the image is
warped, or anew of each warped image; both orders use the same two functions.
"""

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Maps: TypeAlias = Sequence[Tensor]
"""Maps of one image, each ``(1, channels, *spatial)``; coarser maps have fewer pixels over the same field of view."""


@runtime_checkable
class Similarity(Protocol):
    """How unlike two images are. Laws (tests): least where the images lie on each other; masked pixels do not count."""

    def describe(self, image: Float[Tensor, "1 channels *spatial"]) -> Maps:
        """The maps that are compared."""
        ...

    def compare(self, warped: Maps, fixed: Maps, mask: Float[Tensor, "1 1 *spatial"]) -> Float[Tensor, ""]:
        """How unlike the maps are; lower is better.

        Args:
            warped: Of the moving image, brought onto the fixed one.
            fixed: Of the fixed image.
            mask: Weights of the pixels, 0 where one of the images is not valid.
        """
        ...


def unlikeness(similarity: Similarity, warped: Tensor, fixed: Tensor, mask: Tensor | None = None) -> Tensor:
    """How unlike two images ``(1, channels, *spatial)`` are, with weights ``(1, 1, *spatial)``; lower is better."""
    weights = torch.ones_like(fixed[:, :1]) if mask is None else mask
    return similarity.compare(similarity.describe(warped), similarity.describe(fixed), weights)


def weighted_mean(values: Float[Tensor, "1 _ *spatial"], mask: Float[Tensor, "1 1 *spatial"]) -> Float[Tensor, ""]:
    """The mean over channels and pixels, with weights for the pixels; 0 where nothing counts."""
    return (values.mean(1, keepdim=True) * mask).sum() / mask.sum().clamp(min=1e-6)


def on_grid_of(mask: Float[Tensor, "1 1 *spatial"], maps: Float[Tensor, "1 _ *map"]) -> Float[Tensor, "1 1 *map"]:
    """Weights at the resolution of coarser maps: the mean over what each of their pixels covers."""
    if mask.shape[2:] == maps.shape[2:]:
        return mask
    pooled: Tensor = functional.interpolate(mask, size=maps.shape[2:], mode="area")
    return pooled
