"""Local features: points of an image and what it looks like around them, for registration and for retrieval.

They know images and grids, and nothing of what they are used for.
"""

from modalign.local_features.key_points import Detector, KeyPointOptions, available_detectors, key_points
from modalign.local_features.matching import KeyPoints
from modalign.local_features.surroundings import Described, Places, Surroundings, described

__all__ = [
    "Described",
    "Detector",
    "KeyPointOptions",
    "KeyPoints",
    "Places",
    "Surroundings",
    "available_detectors",
    "described",
    "key_points",
]
