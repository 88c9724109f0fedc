"""One-channel pictures of a colour image that tell more than its luminance: how much light is absorbed, and which."""

from typing import Literal

import numpy as np
from jaxtyping import Float

from modalign.image import Image
from modalign.local_features.channels import projected

Array = np.ndarray
Colour = Literal["auto", "luminance", "hue"]
"""How a colour image becomes one channel: its luminance, its :func:`hue`, or whichever tells more."""

WHITE_PERCENTILE = 99.0
"""Unabsorbed light in each channel is the value that this percentage of the valid pixels do not exceed."""
DARKEST = 1 / 255
"""Transmitted light, as a fraction of the unabsorbed, that counts as none."""


def optical_density(image: Image) -> Image:
    """The negative decimal logarithm of the transmitted light, in each channel (law of Beer and Lambert).

    What two dyes absorb adds up in it, so the colours of a stained section lie in a plane.
    """
    white = np.percentile(image.data[:, image.valid].astype(np.float32), WHITE_PERCENTILE, axis=1)
    share = image.data.astype(np.float32) / np.maximum(white, 1e-6).reshape(-1, *(1,) * image.ndim).astype(np.float32)
    return image.with_data(-np.log10(np.clip(share, np.float32(DARKEST), 1)), image.channels)


def hue(image: Image) -> Image:
    """Which light is absorbed, whatever the amount: the second principal axis of the optical density.

    The first axis is how much is absorbed, by all dyes together; the second tells one dye from the other.
    """
    density = optical_density(image)
    axis = _principal_axes(density.data[:, density.valid])[1]
    return projected(density, axis[None])


def _principal_axes(values: Float[Array, "channels pixels"]) -> Float[Array, "channels channels"]:
    """Orthonormal rows, strongest first, each with a positive last entry."""
    vectors = np.linalg.eigh(np.cov(values.astype(np.float64)))[1].T[::-1]
    return np.asarray(np.where(vectors[:, -1:] < 0, -vectors, vectors))
