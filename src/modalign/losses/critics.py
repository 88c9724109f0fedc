"""Critics: how alike two representations are, for every pair of two batches at once.

A critic takes latents ``(n, channels, *spatial)`` and ``(m, channels, *spatial)`` and returns similarities ``(n, m)``;
larger means more alike. Below, ``x`` and ``y`` are one latent of each batch, ``P`` is the number of positions and ``C``
the number of channels. All critics are means over positions, so that the temperature does not depend on patch size.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

Latents: TypeAlias = Float[Tensor, "n channels *spatial"]
Critic: TypeAlias = Callable[[Tensor, Tensor], Tensor]
CriticName = Literal["mse", "l1", "l2", "cosine", "map-cosine", "correlation"]


def standardised(latents: Float[Tensor, "n channels *spatial"]) -> Float[Tensor, "n channels *spatial"]:
    """Each latent with the mean of every channel removed, and unit variance over all its numbers.

    What is left is what correlation sees: two standardised latents have the mean squared difference ``2·(1 − r)``,
    where ``r`` is their :func:`correlation`.
    """
    centered = latents - latents.flatten(2).mean(2)[..., *(None,) * (latents.ndim - 2)]
    deviation = centered.flatten(1).square().mean(1).add(1e-8).sqrt()
    return centered / deviation[:, *(None,) * (latents.ndim - 1)]


def negative_mse(
    a: Float[Tensor, "n channels *spatial"], b: Float[Tensor, "m channels *spatial"]
) -> Float[Tensor, "n m"]:
    """``−Σ (x − y)² / (C·P)``: the critic of the published CoMIR models (Pielawski et al., NeurIPS 2020).

    Expanded to ``2xy − x² − y²``, one matrix product instead of n·m differences.
    """
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    squares = flat_a.square().sum(1)[:, None] + flat_b.square().sum(1)[None, :]
    return (2 * flat_a @ flat_b.T - squares).clamp(max=0) / flat_a.shape[1]


def negative_l1(
    a: Float[Tensor, "n channels *spatial"], b: Float[Tensor, "m channels *spatial"]
) -> Float[Tensor, "n m"]:
    """``−Σ |x − y| / (C·P)``: the mean absolute difference."""
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    return -torch.cdist(flat_a, flat_b, p=1) / flat_a.shape[1]


def negative_l2(
    a: Float[Tensor, "n channels *spatial"], b: Float[Tensor, "m channels *spatial"]
) -> Float[Tensor, "n m"]:
    """``−(1/P) Σ_p ‖x_p − y_p‖₂``: the mean over positions of the Euclidean distance between channel vectors."""
    tiny = torch.finfo(a.dtype).tiny  # keeps the gradient of the root finite where two vectors are equal
    rows = [-((row - b).square().sum(1) + tiny).sqrt().flatten(1).mean(1) for row in a]
    return torch.stack(rows)


def channel_cosine(
    a: Float[Tensor, "n channels *spatial"], b: Float[Tensor, "m channels *spatial"]
) -> Float[Tensor, "n m"]:
    """``(1/P) Σ_p cos(x_p, y_p)``: the mean over positions of the cosine between channel vectors.

    Needs two channels or more to say anything: with one channel it only compares signs.
    """
    flat_a, flat_b = (normalize(latents, dim=1).flatten(1) for latents in (a, b))
    return flat_a @ flat_b.T / a[0, 0].numel()


def map_cosine(
    a: Float[Tensor, "n channels *spatial"], b: Float[Tensor, "m channels *spatial"]
) -> Float[Tensor, "n m"]:
    """``xy / (‖x‖·‖y‖)``: the cosine of the two whole maps, each taken as one vector of length C·P."""
    return normalize(a.flatten(1), dim=1) @ normalize(b.flatten(1), dim=1).T


def correlation(
    a: Float[Tensor, "n channels *spatial"], b: Float[Tensor, "m channels *spatial"]
) -> Float[Tensor, "n m"]:
    """Pearson's correlation of the two whole maps: the cosine after the mean of each channel is removed."""
    return map_cosine(*(latents - latents.flatten(2).mean(2)[..., *(None,) * (a.ndim - 2)] for latents in (a, b)))


CRITICS: Mapping[str, Critic] = MappingProxyType(
    {
        "mse": negative_mse,
        "l1": negative_l1,
        "l2": negative_l2,
        "cosine": channel_cosine,
        "map-cosine": map_cosine,
        "correlation": correlation,
    }
)
"""The critics by the name that options and saved models use."""
