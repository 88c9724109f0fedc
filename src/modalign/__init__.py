"""modalign: align images of different modalities through a learned shared representation."""

__version__ = "0.1.0"
