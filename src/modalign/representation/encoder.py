"""What a representation is, and the simplest one."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from modalign.image import Image


@runtime_checkable
class Encoder(Protocol):
    """Turns an image into an image on the same grid. Law: ``encode(image).grid == image.grid``."""

    def encode(self, image: Image) -> Image:
        """The representation of an image, float32, with the same grid and mask."""
        ...


@dataclass(frozen=True)
class Identity:
    """The representation that changes nothing: raw intensities, the baseline of every comparison."""

    def encode(self, image: Image) -> Image:
        """The same intensities as float32."""
        opaque = image.without_alpha()
        return opaque.with_data(opaque.data.astype(np.float32), opaque.channels)
