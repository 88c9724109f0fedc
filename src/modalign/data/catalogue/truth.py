"""How the published tables tell a displacement: where the corners of the displaced patch lie in the other one."""

from collections.abc import Mapping
from itertools import count, takewhile

import numpy as np
from jaxtyping import Float

from modalign.data.displacement import DisplacedPair
from modalign.errors import InvalidInputError, UnreadableFileError
from modalign.geometry import Rigid
from modalign.geometry.fits import fit_rigid
from modalign.image import Image

Array = np.ndarray
AXES = "XYZ"
"""The tables count axes in this order, arrays in the opposite one."""


def displacement(row: Mapping[str, str], ndim: int) -> Rigid:
    """The transform that was applied: from coordinates of the displaced patch to those of the undisplaced image.

    Raises:
        UnreadableFileError: The row lacks corners.
        InvalidInputError: The corners do not tell a rigid transform.
    """
    return fit_rigid(_corners(row, "Ref", ndim), _corners(row, "Trans", ndim))


def displaced_pair(fixed: Image, moving: Image, row: Mapping[str, str], specimen: str, draw: int = 0) -> DisplacedPair:
    """A pair whose moving image was displaced as a row of a table tells; angles and shifts are those of the row.

    The displaced patch was sampled at the transformed coordinates, so that ``fixed_to_moving`` is the inverse.
    """
    applied = displacement(row, fixed.ndim)
    return DisplacedPair(
        fixed, moving, applied.inverse(), _angles(row, fixed.ndim), _shift(row, fixed.ndim), specimen, draw
    )


def _corners(row: Mapping[str, str], which: str, ndim: int) -> Float[Array, "corners ndim"]:
    """Corners in array axis order; the tables name them X1_Ref, Y1_Ref, …, as many as there are."""
    axes = AXES[:ndim][::-1]
    numbers = takewhile(lambda k: row.get(f"X{k}_{which}"), count(1))
    try:
        corners = np.array([[float(row[f"{axis}{k}_{which}"]) for axis in axes] for k in numbers])
    except (KeyError, ValueError) as error:
        raise UnreadableFileError(f"row {row.get('Filename', '')}", f"lacks a corner ({error})") from error
    if len(corners) < ndim + 1:
        raise InvalidInputError(f"row {row.get('Filename', '')!r} tells only {len(corners)} corners of a patch")
    return corners


def _angles(row: Mapping[str, str], ndim: int) -> tuple[float, ...]:
    names = [f"AngleDegree{axis}" for axis in AXES[:ndim]] if "AngleDegreeX" in row else ["AngleDegree"]
    return tuple(float(row.get(name) or "nan") for name in names)


def _shift(row: Mapping[str, str], ndim: int) -> tuple[float, ...]:
    return tuple(float(row.get(f"T{axis.lower()}") or "nan") for axis in AXES[:ndim][::-1])
