"""Images with fewer channels: gray, or combinations of the channels that there are."""

import numpy as np
from jaxtyping import Bool, Float, Shaped

from modalign.image import Image

Array = np.ndarray
LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in gray (ITU-R BT.601)."""
LARGEST = 1e18
"""Larger numbers are taken for this one: float32 must hold their squares as well."""


def gray(image: Image) -> Image:
    """One channel: itself, luminance of RGB, or the mean of the channels."""
    count = len(image.data)
    if count == 1:
        return image
    weights = LUMINANCE if is_rgb(image) else (1 / count,) * count
    return projected(image, np.array([weights]))


def is_rgb(image: Image) -> bool:
    """Whether the image is a colour photograph: three channels, called so or of integers."""
    return len(image.data) == len(LUMINANCE) and (
        image.channels == ("red", "green", "blue") or bool(np.issubdtype(image.data.dtype, np.integer))
    )


def projected(image: Image, axes: Float[Array, "new channels"]) -> Image:
    """The image with its channels combined: row i of ``axes`` holds the weights of new channel i."""
    data = np.zeros((len(axes), *image.grid.shape), dtype=np.float32)
    for weights, channel in zip(axes.T.astype(np.float32), image.data, strict=True):
        data += weights.reshape(-1, *(1,) * image.ndim) * masked(channel, image.valid)
    return image.with_data(data)


def masked(channel: Shaped[Array, "*spatial"], mask: Bool[Array, "*spatial"]) -> Float[Array, "*spatial"]:
    """A channel in float32, 0 where it is not valid."""
    return as_float32(np.where(mask, channel, 0))


def as_float32(channel: Shaped[Array, "*spatial"]) -> Float[Array, "*spatial"]:
    """A channel in float32; what is too large for it takes its largest values."""
    if channel.dtype == np.float64:
        channel = np.clip(channel, -LARGEST, LARGEST)
    return channel.astype(np.float32)
