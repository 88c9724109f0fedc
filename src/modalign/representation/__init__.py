"""Representations: an image in, an image on the same grid out."""

from modalign.representation.comir import ComirCard, ComirEncoder, ComirModel, Modality, Side
from modalign.representation.encoder import Encoder, Identity, Model
from modalign.representation.features import FeatureCard, FeatureModel, load_extractor

__all__ = [
    "ComirCard",
    "ComirEncoder",
    "ComirModel",
    "Encoder",
    "FeatureCard",
    "FeatureModel",
    "Identity",
    "Modality",
    "Model",
    "Side",
    "load_extractor",
]
