"""DeepSim: how unlike the features are that a frozen network finds in two images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from modalign.errors import InvalidInputError
from modalign.losses.similarity import Maps, on_grid_of, weighted_mean

Extractor = Callable[[Tensor], Sequence[Tensor]]
"""Feature maps ``(1, channels, *spatial)`` of an image, finest first; coarser ones have fewer pixels."""
LEAST_NORM = 1e-6
"""Of a squared feature vector."""
LEAST_VARIANCE = 1e-6
"""Of a channel; one that varies less says nothing."""


def own_channels(image: Float[Tensor, "1 c *spatial"]) -> Sequence[Tensor]:
    """The extractor of images that are features already, such as a CoMIR with several channels.

    (The inner layers of a CoMIR's two networks share nothing, and cannot be compared.)
    """
    return (image,)


@dataclass(frozen=True)
class DeepSim:
    """``1 − (1/L) Σ_l (1/|Ω_l|) Σ_p cos(F_p^l(w), F_p^l(f))`` (Czolbe et al., MIDL 2021, equation 1)."""

    extractor: Extractor
    """Its weights do not change; the gradient flows through it to the image."""
    levels: tuple[int, ...] = ()
    """Which of its maps take part, counted from 0; all by default."""
    is_centered: bool = False
    """Take the mean over the channels from each feature vector first: correlation in place of the cosine."""
    is_standardised: bool = False
    """Bring each channel to mean 0 and deviation 1 over the valid pixels first: for channels that are mostly on one
    side of 0, whose vectors would all point the same way, however unlike the images."""

    def describe(self, image: Float[Tensor, "1 channels *spatial"]) -> Maps:
        """Feature vectors of length one; those that are to be standardised, which needs the mask, as they are.

        Raises:
            InvalidInputError: The extractor has no such level.
        """
        found = list(self.extractor(image))
        chosen = self.levels or tuple(range(len(found)))
        if not found or max(chosen) >= len(found) or min(chosen) < 0:
            asked = " ".join(map(str, chosen))
            raise InvalidInputError(
                f"the extractor has {len(found)} maps, counted from 0, and the maps {asked} were asked for"
            )
        maps = [found[level] for level in chosen]
        if self.is_centered:
            maps = [features - features.mean(1, keepdim=True) for features in maps]
        return tuple(maps if self.is_standardised else map(_unit, maps))

    def compare(self, warped: Maps, fixed: Maps, mask: Float[Tensor, "1 1 *spatial"]) -> Float[Tensor, ""]:
        """See :class:`Similarity`; features that were warped are brought to length one again."""
        alike = []
        for w, f in zip(warped, fixed, strict=True):
            seen = on_grid_of(mask, f)
            if self.is_standardised:
                w, f = _standardised(w, seen), _unit(_standardised(f, seen))
            alike.append(weighted_mean((_unit(w) * f).sum(1, keepdim=True), seen))
        return 1 - sum(alike[1:], alike[0]) / len(alike)


def _unit(features: Float[Tensor, "1 c *spatial"]) -> Float[Tensor, "1 c *spatial"]:
    return features / features.square().sum(1, keepdim=True).clamp(min=LEAST_NORM).sqrt()


def _standardised(features: Float[Tensor, "1 c *spatial"], mask: Float[Tensor, "1 1 *spatial"]) -> Tensor:
    over, count = tuple(range(2, features.ndim)), mask.sum().clamp(min=1)
    around = features - (features * mask).sum(over, keepdim=True) / count
    variance = (around.square() * mask).sum(over, keepdim=True) / count
    return around / variance.clamp(min=LEAST_VARIANCE).sqrt()
