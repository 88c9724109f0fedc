"""The registration methods as one typed union, and what follows from it: names, saved forms, and the front door."""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any, get_args

from modalign.errors import InvalidInputError
from modalign.image import Image
from modalign.registration.alpha_amd import AlphaAmd
from modalign.registration.auto import Auto
from modalign.registration.curvealign import CurveAlign
from modalign.registration.deform import Deform
from modalign.registration.dense_descriptors import DenseDescriptors
from modalign.registration.ecc import Ecc
from modalign.registration.engine import check_dimensions
from modalign.registration.features import PRESETS, Features
from modalign.registration.fft_search import FftSearch
from modalign.registration.global_mi import GlobalMI
from modalign.registration.mutual_information import MutualInformation
from modalign.registration.phase_correlation import PhaseCorrelation
from modalign.registration.registrar import Registrar, Registration

Method = (
    Auto
    | FftSearch
    | GlobalMI
    | Features
    | DenseDescriptors
    | AlphaAmd
    | Ecc
    | MutualInformation
    | PhaseCorrelation
    | CurveAlign
    | Deform
)
"""Every registration method. A new one is one file, and its name here."""

METHODS: dict[str, type[Method]] = {kind.name: kind for kind in get_args(Method)}
"""The methods by the name under which they are saved."""

ENGINES: dict[str, Method] = {**{name: kind() for name, kind in METHODS.items()}, **PRESETS}
"""The methods with their default options, and those with named settings, by the name under which they are called."""


def register(fixed: Image, moving: Image, method: Registrar) -> Registration:
    """Find the transform from world points of ``fixed`` to world points of ``moving``.

    Images with the same number of channels are compared channel by channel (or along their common principal axis
    where a method knows one channel only); images with different channels are both reduced to gray: luminance for RGB,
    else the mean.

    Raises:
        DimensionError: The method does not exist for this number of dimensions; the message names those that do.
        InvalidInputError: The images differ in dimensions, or one holds complex numbers.
    """
    alternatives = [name for name, kind in METHODS.items() if fixed.ndim in kind.ndims]
    check_dimensions(method, fixed, moving, alternatives)
    registration = method.register(fixed, moving)
    if (fixed.grid.unit == "pixel") == (moving.grid.unit == "pixel"):
        return registration
    sizeless = "fixed" if fixed.grid.unit == "pixel" else "moving"
    note = f"the {sizeless} image has no pixel size: both were compared pixel by pixel, as if of one scale"
    return replace(registration, notes=(*registration.notes, note))


def method_to_dict(method: Method) -> dict[str, Any]:
    """The saved form of a method: ``{"name": …, "configuration": {…}}``."""
    return {"name": method.name, "configuration": asdict(method)}


def method_from_dict(saved: Mapping[str, Any]) -> Method:
    """The method with a saved form; options that are not given take their defaults.

    Raises:
        InvalidInputError: The name, an option or a value is unknown.
    """
    unknown = sorted(set(saved) - {"name", "configuration"})
    if unknown:
        raise InvalidInputError(f"a saved method has the keys name and configuration, not {', '.join(unknown)}")
    name = saved.get("name")
    if name not in METHODS:
        raise InvalidInputError(f"unknown registration method {name!r}; known are {', '.join(sorted(METHODS))}")
    kind: Any = METHODS[name]
    configuration = saved.get("configuration", {})
    known = [field.name for field in fields(kind)]
    unknown = sorted(set(configuration) - set(known))
    if unknown:
        raise InvalidInputError(f"{name} has no option {', '.join(unknown)}; known are {', '.join(known)}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in configuration.items()}
    method: Method = kind(**values)
    return method
