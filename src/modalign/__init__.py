"""modalign: align images of different modalities through a learned shared representation.

The names below are the front door; everything else is imported from its own module. They are loaded when they are first
used, so that ``import modalign`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modalign.data.pairs import Pair as Pair
    from modalign.image import Image as Image
    from modalign.image import Labels as Labels
    from modalign.image import Points as Points
    from modalign.io import read_image as read_image
    from modalign.io import read_transform as read_transform
    from modalign.io import write_image as write_image
    from modalign.io import write_transform as write_transform
    from modalign.pipeline import align as align
    from modalign.pipeline import warp as warp
    from modalign.registration import Auto as Auto
    from modalign.registration import Features as Features
    from modalign.registration import FftSearch as FftSearch
    from modalign.registration import GlobalMI as GlobalMI
    from modalign.registration import MutualInformation as MutualInformation
    from modalign.registration import Registration as Registration
    from modalign.representation import ComirModel as ComirModel
    from modalign.training import ComirOptions as ComirOptions
    from modalign.training import fit_comir as fit_comir

__version__ = "0.1.0"

_HOMES = {
    "data.pairs": ("Pair",),
    "image": ("Image", "Labels", "Points"),
    "io": ("read_image", "read_transform", "write_image", "write_transform"),
    "pipeline": ("align", "warp"),
    "registration": ("FftSearch", "MutualInformation", "Registration", "Features"),
    "representation": ("ComirModel",),
    "training": ("ComirOptions", "fit_comir"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'modalign' has no attribute {name!r}")
    return getattr(import_module(f"modalign.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
