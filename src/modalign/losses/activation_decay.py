"""A penalty that keeps the scale of unbounded latents in check."""

from jaxtyping import Float
from torch import Tensor


def activation_decay(
    a: Float[Tensor, "n channels *spatial"], b: Float[Tensor, "n channels *spatial"], power: int
) -> Float[Tensor, ""]:
    """``mean |z|^power`` over the latents of both modalities.

    Source: the released CoMIR code (Pielawski et al., NeurIPS 2020), without its additive constant.
    """
    total = a.abs().pow(power).sum() + b.abs().pow(power).sum()
    return total / (a.numel() + b.numel())
