"""What every registration method asks of a pair of images before it starts."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

from modalign.errors import DimensionError, InvalidInputError
from modalign.image import Image
from modalign.registration.registrar import Registrar

LEAST_SIDE = 8
"""Pixels along the shortest axis: below this no method has anything to hold on to."""


def check_dimensions(
    method: Registrar, fixed: Image, moving: Image, alternatives: Sequence[str] = ("see modalign.registration.METHODS",)
) -> None:
    """Refuse images of different dimensions, or of dimensions in which a method does not exist.

    A method does not know the others, so its own answer can only point to their list.
    """
    if fixed.ndim != moving.ndim:
        raise InvalidInputError(f"a {fixed.ndim}D fixed image cannot be registered with a {moving.ndim}D moving image")
    if fixed.ndim not in method.ndims:
        raise DimensionError(method.name, fixed.ndim, alternatives)


def check_pair(method: Registrar, fixed: Image, moving: Image) -> None:
    """Refuse images that a method cannot register; the first thing every method does.

    Raises:
        DimensionError: The method does not exist for the number of dimensions of the images.
        InvalidInputError: The images differ in dimensions, are tiny, empty, constant, complex, or not finite where
            they are valid.
    """
    check_dimensions(method, fixed, moving)
    for role, image in (("fixed", fixed), ("moving", moving)):
        _check_content(role, image)


def _check_content(role: str, image: Image) -> None:
    if min(image.grid.shape) < LEAST_SIDE:
        raise InvalidInputError(f"the {role} image is too small: {image!r}; at least {LEAST_SIDE} pixels along an axis")
    if np.iscomplexobj(image.data):
        raise InvalidInputError(f"the {role} image holds complex numbers; give their real part or magnitude")
    if not image.valid.any():
        raise InvalidInputError(f"the mask of the {role} image leaves no valid pixel")
    if not all(_is_finite(channel, image.mask) for channel in image.data):
        raise InvalidInputError(f"the {role} image holds values that are not finite; mask them or fill them in")
    if all(_is_constant(channel, image.mask) for channel in image.data):
        raise InvalidInputError(f"the {role} image is constant where it is valid: there is nothing to align")


def _is_finite(channel: Shaped[np.ndarray, "*spatial"], mask: Shaped[np.ndarray, "*spatial"] | None) -> bool:
    finite = np.isfinite(channel)
    return bool(finite.all() if mask is None else finite[mask].all())


def _is_constant(channel: Shaped[np.ndarray, "*spatial"], mask: Shaped[np.ndarray, "*spatial"] | None) -> bool:
    values = channel if mask is None else channel[mask]
    return bool(values.min() == values.max())
