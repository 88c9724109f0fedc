"""What a deformation makes small, by its name: the similarities of :mod:`modalign.losses` with their usual weights."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from modalign.errors import InvalidInputError

if TYPE_CHECKING:
    from modalign.losses import Similarity

SimilarityName: TypeAlias = Literal["mse", "ncc", "nmi", "mind", "deepsim"]
WEIGHTS: Mapping[SimilarityName, float] = MappingProxyType(
    {"mse": 0.02, "ncc": 0.4, "nmi": 0.2, "mind": 0.2, "deepsim": 0.3}
)
"""Of the regulariser beside each similarity, whose numbers are not of one size."""
CHANNELS_WEIGHT = 4.0
"""Beside ``deepsim`` of the channels themselves: those of two modalities, which never agree as well."""


def usual_weight(name: SimilarityName, features: str) -> float:
    """The weight of the regulariser where none is chosen."""
    return CHANNELS_WEIGHT if name == "deepsim" and not features else WEIGHTS[name]


def check_similarity(name: SimilarityName, features: str, maps: tuple[int, ...]) -> None:
    """Refuse names that there are not, and features that nothing would look at.

    Raises:
        InvalidInputError: The name is unknown, or features go with another similarity than ``deepsim``.
    """
    if name not in WEIGHTS:
        raise InvalidInputError(f"unknown similarity {name!r}; known are {', '.join(WEIGHTS)}")
    if (features or maps) and name != "deepsim":
        raise InvalidInputError(f"features and their maps are for the similarity deepsim, not {name}")


def similarity_of(
    name: SimilarityName, features: str, channels: int, ndim: int, maps: tuple[int, ...] = ()
) -> "Similarity":
    """The similarity for images with so many channels and dimensions.

    Args:
        name: Which.
        features: Folder of the feature extractor; empty for none.
        channels: Of the images.
        ndim: Of the images.
        maps: Which maps of the extractor are compared; by default all.

    Raises:
        ModelError: The folder of features holds no feature extractor.
        InvalidInputError: The extractor is for other channels or dimensions; or there is none, and the images have only
            one channel, whose vectors have no direction.
    """
    from modalign.losses import DeepSim, LocalNcc, MeanSquares, MindSsc, NormalizedMI, own_channels

    kinds: dict[SimilarityName, Any] = {"mse": MeanSquares, "ncc": LocalNcc, "nmi": NormalizedMI, "mind": MindSsc}
    if name != "deepsim":
        made: Similarity = kinds[name]()
        return made
    if features:
        from modalign.representation.features import load_extractor

        extractor = load_extractor(Path(features))
        extractor.check(channels, ndim)
        return DeepSim(extractor, maps)
    if channels < 2:
        raise InvalidInputError(
            "the similarity deepsim compares feature vectors, and an image of one channel has none: name a feature "
            "extractor (--features, made by 'modalign train features'), or represent the images by a model with "
            "several channels ('modalign train … --latent-channels 8')"
        )
    return DeepSim(own_channels, maps, is_standardised=True)
