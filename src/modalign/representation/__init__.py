"""Representations: an image in, an image on the same grid out."""

from modalign.representation.comir import ComirCard, ComirEncoder, ComirModel, Modality, Side
from modalign.representation.encoder import Encoder, Identity, Model

__all__ = ["ComirCard", "ComirEncoder", "ComirModel", "Encoder", "Identity", "Modality", "Model", "Side"]
