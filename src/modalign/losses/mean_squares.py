"""The mean squared difference: for images of one modality with the same brightness."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from modalign.losses.similarity import Maps, weighted_mean


@dataclass(frozen=True)
class MeanSquares:
    """``(1/P) Σ_p (w_p − f_p)²``, the mean over channels."""

    def describe(self, image: Float[Tensor, "1 channels *spatial"]) -> Maps:
        """The image itself."""
        return (image,)

    def compare(self, warped: Maps, fixed: Maps, mask: Float[Tensor, "1 1 *spatial"]) -> Float[Tensor, ""]:
        """See :class:`Similarity`."""
        return weighted_mean((warped[0] - fixed[0]).square(), mask)
