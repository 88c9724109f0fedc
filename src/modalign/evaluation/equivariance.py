"""How well a representation follows rotations: is the encoding of a turned image the turned encoding?"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from modalign.errors import InvalidInputError
from modalign.geometry import Grid, GroupElement, Rigid, RotationGroup, as_rows, random_rotations
from modalign.image import Image
from modalign.representation.encoder import Encoder

Array = np.ndarray
RIM = 0.9
"""The comparison is made inside the largest ball of the image, this fraction of its radius: no corner leaves it."""


@dataclass(frozen=True)
class EquivarianceError:
    """Deviation from equivariance under one rotation.

    Attributes:
        rotation: Its matrix about the centre of the image, rows.
        error: Root mean square of f(g x) − g f(x), over the standard deviation of f(x).
    """

    rotation: tuple[tuple[float, ...], ...]
    error: float


def group_errors(encoder: Encoder, image: Image, group: RotationGroup) -> Iterator[EquivarianceError]:
    """The errors under the rotations of a group, which need no interpolation, but the identity.

    Raises:
        InvalidInputError: The image is not as long along all axes, so that rotations change its shape.
    """
    if len(set(image.grid.shape)) > 1:
        raise InvalidInputError(f"equivariance is measured on images with equal sides, not on {image!r}")
    encoded = encoder.encode(image).data
    for element in group.elements[1:]:
        there = encoder.encode(_turned(image, element)).data
        yield EquivarianceError(as_rows(element.matrix), _difference(there, element.act(encoded), _ball(image.grid)))


def random_errors(encoder: Encoder, image: Image, count: int, seed: int = 0) -> Iterator[EquivarianceError]:
    """The errors under random rotations of the largest ball of an image, whose surroundings hold its median.

    Image and encoding are interpolated (cubic), which is part of the error.
    """
    image = _rounded(image)
    encoded = encoder.encode(image)
    for rotation in random_rotations(image.ndim, count, np.random.default_rng(seed)):
        about = Rigid.about(image.grid.center, rotation, np.zeros(image.ndim))
        there = encoder.encode(_rounded(image.resampled(image.grid, about, order=3))).data
        expected = encoded.resampled(image.grid, about, order=3).data
        yield EquivarianceError(as_rows(rotation), _difference(there, expected, _ball(image.grid)))


def _turned(image: Image, element: GroupElement) -> Image:
    return Image(np.ascontiguousarray(element.act(image.data)), image.grid, image.channels)


def _rounded(image: Image) -> Image:
    inside = _ball(image.grid, 1.0)
    medians = np.median(image.data[:, inside], axis=1).astype(image.data.dtype)
    data = np.where(inside, image.data, medians.reshape(-1, *(1,) * image.ndim))
    return Image(data, image.grid, image.channels)


def _ball(grid: Grid, part: float = RIM) -> Bool[Array, "*spatial"]:
    axes = np.ix_(*(np.arange(n) - (n - 1) / 2 for n in grid.shape))
    squared = sum(np.square(axis * size) for axis, size in zip(axes, grid.spacing, strict=True))
    return np.asarray(np.sqrt(squared) <= part * min(grid.extent) / 2)


def _difference(
    one: Float[Array, "c *spatial"], other: Float[Array, "c *spatial"], inside: Bool[Array, "*spatial"]
) -> float:
    expected = other[:, inside]
    scale = np.sqrt(np.mean(np.var(expected, axis=1)))
    return float(np.sqrt(np.mean(np.square(one[:, inside] - expected))) / max(scale, 1e-12))
