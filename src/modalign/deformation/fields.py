"""Fields of vectors on a grid of pixels, as tensors ``(1, ndim, *spatial)`` in pixels, axes in array order.

A displacement ``u`` brings a moving image onto a fixed one by ``warped(x) = moving(x + u(x))``. Beyond the border the
outermost pixel goes on, for images and for fields.
"""

import math
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""torch's names for linear interpolation along so many axes."""
LARGEST_STEP = 0.5
"""In pixels: the exponential of a velocity is composed of steps of at most this length."""


def warp(
    maps: Float[Tensor, "1 c *spatial"],
    displacement: Float[Tensor, "1 ndim *spatial"],
    beyond: Literal["border", "zeros"] = "border",
) -> Tensor:
    """Maps at the displaced places of their pixels, by linear interpolation; beyond the border it goes on, or is 0."""
    shape = displacement.shape[2:]
    scale = displacement.new_tensor([2 / max(n - 1, 1) for n in reversed(shape)])
    x_first = _places(shape, displacement.device) + displacement.flip(1).movedim(1, -1) * scale
    warped: Tensor = functional.grid_sample(maps, x_first, padding_mode=beyond, align_corners=True)
    return warped


@lru_cache(maxsize=16)
def _places(shape: torch.Size, device: torch.device) -> Float[Tensor, "1 *spatial ndim"]:
    """Where the pixels are, from −1 to 1 along each axis, the last axis first."""
    axes = [torch.linspace(-1, 1, n, device=device) if n > 1 else torch.zeros(1, device=device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1)[None]


def composed(first: Float[Tensor, "1 ndim *spatial"], then: Float[Tensor, "1 ndim *spatial"]) -> Tensor:
    """The displacement of going by one field, and then by another from where one has come to."""
    return first + warp(then, first)


def exponential(velocity: Float[Tensor, "1 ndim *spatial"]) -> Float[Tensor, "1 ndim *spatial"]:
    """The displacement after flowing along a velocity for one unit of time, by scaling and squaring.

    (Arsigny et al., MICCAI 2006.) That of the opposite velocity is its inverse. Each of the small steps has an inverse
    where the velocity changes by less than twice its largest step from pixel to pixel, and so have they composed, but
    for what interpolation does to them.
    """
    longest = float(velocity.detach().abs().max())
    squarings = max(0, math.ceil(math.log2(longest / LARGEST_STEP))) if longest > LARGEST_STEP else 0
    displacement: Tensor = velocity / 2.0**squarings
    for _ in range(squarings):
        displacement = composed(displacement, displacement)
    return displacement


def on_pixels(field: Float[Tensor, "1 ndim *coarse"], shape: torch.Size) -> Float[Tensor, "1 ndim *spatial"]:
    """A field on other pixels over the same field of view, with its lengths in the new pixels."""
    if field.shape[2:] == shape:
        return field
    factors = field.new_tensor([new / old for new, old in zip(shape, field.shape[2:], strict=True)])
    resampled: Tensor = functional.interpolate(field, shape, mode=MODES[len(shape)], align_corners=False)
    resampled *= factors.view(-1, *(1,) * len(shape))
    return resampled


def diffusion(field: Float[Tensor, "1 ndim *spatial"]) -> Float[Tensor, ""]:
    """The mean squared difference between neighbouring pixels, summed over the axes: what a smooth field has little of.

    (Balakrishnan et al., IEEE TMI 2019, equation 8.)
    """
    parts = [field.diff(dim=axis).square().sum(1).mean() for axis in range(2, field.ndim) if field.shape[axis] > 1]
    return sum(parts, field.new_zeros(()))


def bending(field: Float[Tensor, "1 ndim *spatial"]) -> Float[Tensor, ""]:
    """The mean squared second difference, summed over all pairs of axes: affine fields have none.

    (Rueckert et al., IEEE TMI 1999, equation 3.)
    """
    total = field.new_zeros(())
    for first in range(2, field.ndim):
        for second in range(2, field.ndim):
            bent = field.diff(dim=first).diff(dim=second)
            if bent.numel():
                total = total + bent.square().sum(1).mean()
    return total
