"""Correlation in a window around each pixel: for one modality whose brightness and contrast vary over the image."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from modalign.errors import InvalidInputError
from modalign.losses.boxes import box_sum
from modalign.losses.similarity import Maps, weighted_mean

FLAT = 1e-5
"""Added to the product of the variances: windows without contrast correlate with nothing. For images from 0 to 1."""

LEAST_VALID = 1e-4
"""Pixels of a box; with fewer it has no moments."""


@dataclass(frozen=True)
class LocalNcc:
    """``1 − mean_p cov_p² / (var_p(w) · var_p(f))`` over boxes around p (Avants et al., Medical Image Analysis 2008).

    The moments are those of the valid pixels in the box.
    """

    window: int = 9
    """Side of the box, pixels; odd."""
    step: int = 2
    """A box around each so many-th pixel along each axis: boxes overlap so much that the others tell nothing new."""

    def __post_init__(self) -> None:
        if self.window < 3 or self.window % 2 == 0:
            raise InvalidInputError(f"the window of a local correlation is an odd number from 3 on, not {self.window}")
        if not 1 <= self.step <= self.window // 2:
            raise InvalidInputError(f"boxes of {self.window} pixels are 1 to {self.window // 2} apart, not {self.step}")

    def describe(self, image: Float[Tensor, "1 channels *spatial"]) -> Maps:
        """The image itself."""
        return (image,)

    def compare(self, warped: Maps, fixed: Maps, mask: Float[Tensor, "1 1 *spatial"]) -> Float[Tensor, ""]:
        """See :class:`Similarity`."""
        w, f = warped[0], fixed[0]
        valid_w, valid_f = w * mask, f * mask
        count, *still = self._sums(mask.expand_as(f), valid_f, valid_f * f)  # apart: no gradient goes back to them
        share = 1 / count.clamp(min=LEAST_VALID)
        mean_f, mean_ff = (total * share for total in still)
        mean_w, mean_ww, mean_wf = (total * share for total in self._sums(valid_w, valid_w * w, valid_w * f))
        covariance = mean_wf - mean_w * mean_f
        variances = (mean_ww - mean_w * mean_w).clamp(min=0) * (mean_ff - mean_f * mean_f).clamp(min=0)
        centers = mask[(slice(None), slice(None), *(slice(None, None, self.step),) * (mask.ndim - 2))]
        return 1 - weighted_mean(covariance.square() / (variances + FLAT * FLAT), centers)

    def _sums(self, *values: Tensor) -> list[Tensor]:
        """Over the boxes, all in one go."""
        return list(torch.chunk(box_sum(torch.cat(values), self.window, self.step), len(values)))
