"""DeepSim: how unlike the features are that a frozen network finds in two images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from modalign.errors import InvalidInputError
from modalign.losses.similarity import Maps, on_grid_of, weighted_mean

Extractor = Callable[[Tensor], Sequence[Tensor]]
"""Feature maps ``(1, channels, *spatial)`` of an image, finest first; coarser ones have fewer pixels."""
LEAST_NORM = 1e-6
"""Of a squared feature vector."""


@dataclass(frozen=True)
class ChannelPyramid:
    """The channels of an image themselves as features, at full resolution and coarser.

    For images that are features already: representations with several channels, such as those of a CoMIR, which both
    modalities share. (The inner layers of its two networks share nothing, and cannot be compared.)
    """

    levels: int = 3
    """Resolutions, each half of the one before."""
    middle: float = 0.5
    """Of the range of the channels; from here vectors point in all directions."""

    def __call__(self, image: Float[Tensor, "1 c *spatial"]) -> Sequence[Tensor]:
        """The maps, finest first; each covers the field of view of the image."""
        maps = [image - self.middle]
        for _ in range(self.levels - 1):
            smaller = [max(n // 2, 1) for n in maps[-1].shape[2:]]
            maps.append(functional.interpolate(maps[-1], size=smaller, mode="area"))
        return maps


@dataclass(frozen=True)
class DeepSim:
    """``1 − (1/L) Σ_l (1/|Ω_l|) Σ_p cos(F_p^l(w), F_p^l(f))`` (Czolbe et al., MIDL 2021, equation 1)."""

    extractor: Extractor
    """Its weights do not change; the gradient flows through it to the image."""
    levels: tuple[int, ...] = ()
    """Which of its maps take part, counted from 0; all by default."""
    is_centered: bool = False
    """Take the mean over the channels from each feature vector first: correlation in place of the cosine."""

    def describe(self, image: Float[Tensor, "1 channels *spatial"]) -> Maps:
        """Feature vectors of length one.

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
        return tuple(_unit(features) for features in maps)

    def compare(self, warped: Maps, fixed: Maps, mask: Float[Tensor, "1 1 *spatial"]) -> Float[Tensor, ""]:
        """See :class:`Similarity`; features that were warped are brought to length one again."""
        alike = [
            weighted_mean((_unit(w) * f).sum(1, keepdim=True), on_grid_of(mask, f))
            for w, f in zip(warped, fixed, strict=True)
        ]
        return 1 - sum(alike[1:], alike[0]) / len(alike)


def _unit(features: Float[Tensor, "1 c *spatial"]) -> Float[Tensor, "1 c *spatial"]:
    return features / features.square().sum(1, keepdim=True).clamp(min=LEAST_NORM).sqrt()
