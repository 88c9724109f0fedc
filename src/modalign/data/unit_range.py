"""Intensities from 0 to 1 between the percentiles of the image itself, as deformable registration compares them."""

from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from scipy import ndimage

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
    """Each channel from 0 to 1; pixels that are not valid have the value of the nearest one that is."""
    low, high = (limit.reshape(-1, *(1,) * image.ndim) for limit in limits)
    scaled = (nearest_filled(image).data - low) / np.maximum(high - low, 1e-12)
    return np.asarray(np.clip(scaled, 0, 1), np.float32)


def nearest_filled(image: Image) -> Image:
    """The image with the nearest valid value where it is not valid, so that interpolation draws in nothing foreign.

    (Zeros beside a bright tissue are an edge, stronger than all others, which every descent would hold on to.)
    """
    if image.valid.all() or not image.valid.any():
        return image
    nearest = ndimage.distance_transform_edt(~image.valid, return_distances=False, return_indices=True)
    return image.with_data(image.data[(slice(None), *nearest)])
