"""Procedural tissue: one random structure as H&E bright field and as second-harmonic signal."""

from modalign.data.tissue.generator import LABELS, Tissue, TissueOptions, tissue

__all__ = ["LABELS", "Tissue", "TissueOptions", "tissue"]
