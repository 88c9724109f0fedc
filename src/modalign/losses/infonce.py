"""Symmetric InfoNCE over two modalities."""

from math import log

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from modalign.losses.critics import Critic


def info_nce(
    a: Float[Tensor, "n channels *spatial"],
    b: Float[Tensor, "n channels *spatial"],
    critic: Critic,
    temperature: float,
    *,
    everyone: tuple[Float[Tensor, "total channels *spatial"], Float[Tensor, "total channels *spatial"]] | None = None,
    offset: int = 0,
) -> Float[Tensor, ""]:
    """How hard it is to tell the partner of every latent from all other latents of both modalities.

    Every latent of both modalities is an anchor. With ``S_ij = critic(p_i, p_j) / temperature`` over the stacked
    latents ``p = (a, b)`` and ``i'`` the partner of ``i``, the loss is the mean over ``i`` of
    ``−S_ii' + log Σ_{j≠i} exp S_ij``. A network that has learnt nothing scores :func:`chance_level`.

    Args:
        a: Latents of the first modality.
        b: Latents of the second modality, row by row of the same places.
        critic: See :mod:`modalign.losses.critics`.
        temperature: Divides the similarities; small values make the hardest negatives count most.
        everyone: Latents of all devices, when the batch is spread over several: more negatives. Gradients must flow
            through the gathering.
        offset: Where the rows of this device begin in ``everyone``.

    Source: Pielawski et al., CoMIR, NeurIPS 2020, section 3 (with both modalities as anchors, as in the released
    code); Chen et al., SimCLR, ICML 2020, equation 1.
    """
    all_a, all_b = everyone or (a, b)
    count, total = len(a), len(all_a)
    similarities = critic(torch.cat([a, b]), torch.cat([all_a, all_b])) / temperature
    own = offset + torch.arange(count, device=a.device)
    rows = torch.arange(2 * count, device=a.device)
    itself, partner = torch.cat([own, own + total]), torch.cat([own + total, own])
    excluded = torch.zeros_like(similarities, dtype=torch.bool)
    excluded[rows, itself] = True
    return cross_entropy(similarities.masked_fill(excluded, float("-inf")), partner)


def chance_level(batch_size: int) -> float:
    """The value of :func:`info_nce` for ``batch_size`` pairs where all latents are equally alike: ln(2N − 1)."""
    return log(2 * batch_size - 1)
