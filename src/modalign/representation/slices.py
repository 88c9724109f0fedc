"""Volumes represented slice by slice, which is how 2D representations have been used on them so far."""

from dataclasses import dataclass

import numpy as np

from modalign.errors import InvalidInputError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.representation.encoder import Encoder

VOLUMES = frozenset({3})
"""Numbers of dimensions that have slices."""


@dataclass(frozen=True)
class SliceWise:
    """Every slice across the first axis of a volume, encoded as an image of its own.

    Neighbouring slices know nothing of each other, and rotations out of the plane change what the encoder sees; the
    published 3D results of CoMIR are of this kind (Lu et al., PLOS ONE 17(11), 2022).
    """

    encoder: Encoder
    """Encodes images of one dimension less."""

    def encode(self, image: Image) -> Image:
        """The representation of a volume ``(z, y, x)``, float32, on its grid and with its mask.

        Raises:
            InvalidInputError: The image has no slices.
        """
        if image.ndim not in VOLUMES:
            raise InvalidInputError(f"{image!r} has no slices; encode it as it is")
        plane = Grid(image.grid.shape[1:], image.grid.spacing[1:], unit=image.grid.unit)
        slices = [
            self.encoder.encode(Image(image.data[:, k], plane, image.channels)) for k in range(image.grid.shape[0])
        ]
        return image.with_data(np.stack([one.data for one in slices], axis=1), slices[0].channels)
