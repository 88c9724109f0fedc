"""What a representation is, and the simplest one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from modalign.image import Image

FLOAT32_SAFE = 1e18
"""Numbers whose square float32 can hold as well."""


@runtime_checkable
class Encoder(Protocol):
    """Turns an image into an image on the same grid. Law: ``encode(image).grid == image.grid``."""

    def encode(self, image: Image) -> Image:
        """The representation of an image, float32, with the same grid and mask."""
        ...


@runtime_checkable
class Model(Protocol):
    """Encoders of two modalities that belong together, with what is known about them."""

    @property
    def calibration(self) -> Mapping[str, Any] | None:
        """What the verdict knows about this model; ``None`` until calibrated."""
        ...

    def encoders(self) -> tuple[Encoder, Encoder]:
        """The encoders of the fixed and of the moving modality."""
        ...


@dataclass(frozen=True)
class Identity:
    """The representation that changes nothing: raw intensities, the baseline of every comparison."""

    def encode(self, image: Image) -> Image:
        """The same intensities as float32."""
        opaque = image.without_alpha()
        data = opaque.data
        if data.dtype == np.float64:  # whose numbers may be larger than float32 can hold
            peak = np.abs(data[np.isfinite(data)]).max(initial=0.0)
            data = data / peak if peak > FLOAT32_SAFE else data
        return opaque.with_data(data.astype(np.float32), opaque.channels)
