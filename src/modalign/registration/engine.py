"""What every registration method does before it starts: refuse what cannot be registered, as a value with a reason."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from modalign.errors import DimensionError, InvalidInputError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.registration.registrar import Registrar, Registration

LEAST_SIDE = 8
"""Pixels along the shortest axis: below this no method has anything to hold on to."""
MOST_APART = 300.0
"""Fields of view whose lengths differ by a larger factor are not compared."""


class Engine(ABC):
    """Base of the registration methods: a frozen dataclass of options that implements :meth:`find`.

    Images that hold nothing to align are refused here, so a method sees only images with finite, varying values and a
    mask over all others.
    """

    name: ClassVar[str]
    ndims: ClassVar[frozenset[int]]

    def register(self, fixed: Image, moving: Image) -> Registration:
        """Find the transform from world points of ``fixed`` to world points of ``moving``; see :class:`Registrar`.

        Values that are not finite count as masked.

        Raises:
            DimensionError: The method does not exist for the number of dimensions of the images.
            InvalidInputError: The images differ in dimensions, or one holds complex numbers.
        """
        check_dimensions(self, fixed, moving)
        if reason := other_size(fixed.grid, moving.grid):
            return Registration(self.name, "refused", None, (reason,))
        fixed, moving = usable(fixed), usable(moving)
        for role, image in (("fixed", fixed), ("moving", moving)):
            if reason := emptiness(image):
                return Registration(self.name, "refused", None, (f"the {role} image {reason}",))
        return self.find(fixed, moving)

    @abstractmethod
    def find(self, fixed: Image, moving: Image) -> Registration:
        """The work itself, on images that pass the checks of :meth:`register`."""


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


def usable(image: Image) -> Image:
    """The image with finite values only.

    Raises:
        InvalidInputError: The image holds complex numbers.
    """
    if np.iscomplexobj(image.data):
        raise InvalidInputError(f"{image!r} holds complex numbers; give their real part or magnitude")
    return image.without_gaps()


def other_size(fixed: Grid, moving: Grid) -> str | None:
    """Why two fields of view cannot belong together, in a sentence; else ``None``: a unit mistaken is a factor 1000."""
    if "pixel" in (fixed.unit, moving.unit) and fixed.unit != moving.unit:
        return None
    lengths = max(fixed.extent), max(moving.in_unit(fixed.unit).extent)
    if max(lengths) <= MOST_APART * min(lengths):
        return None
    one, other = (f"{length:.3g} {fixed.unit}" for length in lengths)
    return f"the fields of view are {one} and {other}: check the pixel sizes of both images and their units"


def emptiness(image: Image) -> str | None:
    """Why there is nothing to align in an image of finite values, in words that follow "the image"; else ``None``."""
    if min(image.grid.shape) < LEAST_SIDE:
        size = " × ".join(map(str, image.grid.shape))
        return f"is too small ({size} pixels); at least {LEAST_SIDE} pixels along every axis are needed"
    if not image.valid.any():
        return "has no valid pixel: everything is masked or not finite"
    values = (channel[image.valid] for channel in image.data)
    if all(bool(channel.min() == channel.max()) for channel in values):
        return "is constant where it is valid: there is nothing to align"
    return None
