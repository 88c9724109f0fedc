"""The product in twenty lines: represent two images, register the representations, judge, apply to the original."""

from dataclasses import dataclass

from modalign.errors import InvalidInputError
from modalign.image import Image
from modalign.registration import Auto, Judge, Registrar, Registration, refined_on_originals, register
from modalign.registration.engine import other_size
from modalign.representation.encoder import Encoder, Identity, Model
from modalign.warping import Interpolation, background, warp

__all__ = ["Alignment", "Interpolation", "align", "background", "warp"]


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
    refine_on_originals: bool = True,
) -> Alignment:
    """Align two images of one place.

    Args:
        fixed: The image that stays.
        moving: The image to bring onto it; may differ in size, pixel size and modality.
        method: How the representations are registered.
        model: Represents both images and knows how sure to be of a result; raw intensities by default.
        encoders: Used in place of those of the model, for instance on another device.
        interpolation: How the original moving image is sampled, once.
        refine_on_originals: Refine the result on the originals if these tell it more exactly, see
            :func:`modalign.registration.refined_on_originals`.

    Raises:
        DimensionError: The method does not exist for these dimensions.
        InvalidInputError: The images differ in dimensions, or hundredfold in size, or one holds complex numbers.
        ModelError: An encoder does not fit its image.
    """
    if reason := other_size(fixed.grid, moving.grid):
        raise InvalidInputError(reason)
    encoders = encoders or (model.encoders() if model else (Identity(), Identity()))
    representations = encoders[0].encode(fixed), encoders[1].encode(moving)
    registration = register(*representations, method)
    if refine_on_originals:
        registration = refined_on_originals(registration, fixed, moving)
    judge = Judge.of_model(model.calibration) if model else Judge()
    registration = judge.judge(registration, *representations, (fixed, moving))
    found = registration.fixed_to_moving
    warped = None if found is None else warp(moving, fixed.grid, found, interpolation=interpolation)
    return Alignment(registration, *representations, warped)
