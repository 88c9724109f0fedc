"""Intensities from 0 to 1 between the percentiles of the image itself, as deformable registration compares them."""

from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from modalign.image import Image

Array = np.ndarray
Range: TypeAlias = tuple[Float[Array, " channels"], Float[Array, " channels"]]
PERCENTILES = (0.5, 99.5)
"""Of the valid intensities; they become 0 and 1."""


def unit_range(image: Image) -> Range:
    """What becomes 0 and 1 of each channel."""
    low, high = np.percentile(image.data[:, image.valid].astype(np.float32), PERCENTILES, axis=1)
    return low, high


def in_unit_range(image: Image, limits: Range) -> Float[Array, "channels *spatial"]:
    """Each channel from 0 to 1, and 0 where it is not valid."""
    low, high = (limit.reshape(-1, *(1,) * image.ndim) for limit in limits)
    scaled = (image.data - low) / np.maximum(high - low, 1e-12)
    return np.where(image.valid, np.clip(scaled, 0, 1), 0).astype(np.float32)
