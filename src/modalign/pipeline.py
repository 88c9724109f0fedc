"""The product in twenty lines: represent two images, register the representations, judge, apply to the original."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from modalign.geometry import Grid, Transform
from modalign.image import Image
from modalign.registration import Auto, Judge, Registrar, Registration, register
from modalign.representation.encoder import Encoder, Identity, Model

Interpolation = Literal["nearest", "linear", "cubic"]
ORDERS: dict[Interpolation, int] = {"nearest": 0, "linear": 1, "cubic": 3}


@dataclass(frozen=True)
class Alignment:
    """What :func:`align` found.

    Attributes:
        registration: The transform with its verdict.
        fixed: Representation of the fixed image, on its grid.
        moving: Representation of the moving image, on its grid.
        warped: The original moving image on the grid of the fixed one; ``None`` where the registration was refused.
    """

    registration: Registration
    fixed: Image
    moving: Image
    warped: Image | None


def align(
    fixed: Image,
    moving: Image,
    method: Registrar = Auto(),  # noqa: B008 - frozen options
    *,
    model: Model | None = None,
    encoders: tuple[Encoder, Encoder] | None = None,
    interpolation: Interpolation = "linear",
) -> Alignment:
    """Align two images of one place.

    Args:
        fixed: The image that stays.
        moving: The image to bring onto it; may differ in size, pixel size and modality.
        method: How the representations are registered.
        model: Represents both images and knows how sure to be of a result; raw intensities by default.
        encoders: Used in place of those of the model, for instance on another device.
        interpolation: How the original moving image is sampled, once.

    Raises:
        DimensionError: The method does not exist for these dimensions.
        InvalidInputError: The images differ in dimensions, or one holds complex numbers.
        ModelError: An encoder does not fit its image.
    """
    encoders = encoders or (model.encoders() if model else (Identity(), Identity()))
    representations = encoders[0].encode(fixed), encoders[1].encode(moving)
    registration = register(*representations, method)
    judge = Judge.of_model(model.calibration) if model else Judge()
    registration = judge.judge(registration, *representations, (fixed, moving))
    found = registration.fixed_to_moving
    warped = None if found is None else warp(moving, fixed.grid, found, interpolation=interpolation)
    return Alignment(registration, *representations, warped)


def warp(
    moving: Image,
    fixed: Grid,
    fixed_to_moving: Transform,
    *,
    interpolation: Interpolation = "linear",
    fill: Sequence[float] | None = None,
) -> Image:
    """The original moving image on another grid: one interpolation; dtype, channels and range are kept.

    Args:
        moving: The image to sample.
        fixed: The grid to sample it on.
        fixed_to_moving: Maps world points of the fixed grid to the moving image.
        interpolation: Nearest for labels, linear or cubic for intensities.
        fill: One value a channel outside the moving image; by default :func:`background`.
    """
    outside = background(moving) if fill is None else np.array(fill, dtype=float)
    return moving.resampled(fixed, fixed_to_moving, order=ORDERS[interpolation], fill=outside)


def background(image: Image) -> np.ndarray:
    """What the image shows where there is nothing, a channel: white for bright colour images, 0 for all others.

    A colour image of integers is bright where the median along its border is in the upper half of its range.
    """
    nothing = np.zeros(len(image.data))
    colour = [i for i, name in enumerate(image.channels) if name in ("red", "green", "blue")]
    if len(colour) < 3 or not np.issubdtype(image.data.dtype, np.integer):
        return nothing
    white = np.iinfo(image.data.dtype).max
    border = np.ones(image.grid.shape, dtype=bool)
    border[(slice(1, -1),) * image.ndim] = False
    if np.median(image.data[colour][:, border]) > white / 2:
        nothing[colour] = white
    return nothing
