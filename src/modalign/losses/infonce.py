"""Symmetric InfoNCE over two modalities."""

from collections.abc import Callable, Sequence
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
    near_misses: Float[Tensor, "anchors misses"] | None = None,
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
        near_misses: Similarities of every anchor, those of ``a`` first, to further negatives: see
            :func:`near_misses`.

    Source: Pielawski et al., CoMIR, NeurIPS 2020, section 3 (with both modalities as anchors, as in the released
    code); Chen et al., SimCLR, ICML 2020, equation 1.
    """
    all_a, all_b = everyone or (a, b)
    count, total = len(a), len(all_a)
    similarities = critic(torch.cat([a, b]), torch.cat([all_a, all_b]))
    own = offset + torch.arange(count, device=a.device)
    rows = torch.arange(2 * count, device=a.device)
    itself, partner = torch.cat([own, own + total]), torch.cat([own + total, own])
    excluded = torch.zeros_like(similarities, dtype=torch.bool)
    excluded[rows, itself] = True
    similarities = similarities.masked_fill(excluded, float("-inf"))
    if near_misses is not None:
        similarities = torch.cat([similarities, near_misses], dim=1)
    return cross_entropy(similarities / temperature, partner)


def near_misses(
    a: Float[Tensor, "n channels *spatial"],
    b: Float[Tensor, "n channels *spatial"],
    critic: Critic,
    shifts: Sequence[tuple[int, ...]],
    normalise: Callable[[Tensor], Tensor] = lambda latents: latents,
) -> Float[Tensor, "anchors misses"]:
    """Similarities of latents to their own partners, shifted: what registration must tell from being aligned.

    Strangers can be told apart by their coarse features alone; these negatives ask for features that say where exactly
    they are.

    Args:
        a: Latents of the first modality.
        b: Latents of the second modality, row by row of the same places.
        critic: See :mod:`modalign.losses.critics`.
        shifts: In pixels along each axis; as much is cut off all sides as the largest of them needs.
        normalise: Applied to what is left of the latents.

    Returns:
        Rows for the anchors of ``a`` and then of ``b``; a column a shift.
    """
    margin = max((abs(step) for shift in shifts for step in shift), default=0)

    def part(latents: Tensor, shift: tuple[int, ...]) -> Tensor:
        window = (slice(margin + s, n - margin + s) for s, n in zip(shift, latents.shape[2:], strict=True))
        return normalise(latents[(slice(None), slice(None), *window)])

    still = (0,) * (a.ndim - 2)
    columns = []
    for shift in shifts:
        pairs = ((part(one, still), part(other, shift)) for one, other in ((a, b), (b, a)))
        columns.append(torch.cat([critic(here, there).diagonal() for here, there in pairs]))
    return torch.stack(columns, dim=1)


def chance_level(batch_size: int, misses: int = 0) -> float:
    """The value of :func:`info_nce` for ``batch_size`` pairs where all latents are equally alike: ln(2N − 1 + K)."""
    return log(2 * batch_size - 1 + misses)
