"""How far a representation is from those of the training images: a guard against images of another kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from modalign.geometry import as_rows
from modalign.image import Image

Array = np.ndarray
QUANTILES = np.linspace(0.05, 0.95, 10)


@dataclass(frozen=True)
class LatentStatistics:
    """Quantiles of the latents of one modality over the training images.

    Attributes:
        quantiles: Mean over the images, a row a channel.
        usual: Largest distance of a training image from the others.
    """

    quantiles: tuple[tuple[float, ...], ...]
    usual: float

    @classmethod
    def fit(cls, representations: Sequence[Image]) -> "LatentStatistics":
        """The statistics of some representations; one is enough, but then nothing is known about what is usual."""
        rows = np.array([_quantiles(image) for image in representations])
        mean = rows.mean(0)
        count = len(rows)
        others = [(mean * count - row) / max(count - 1, 1) for row in rows] if count > 1 else [mean]
        usual = max(_distance(row, other) for row, other in zip(rows, others, strict=True))
        return cls(as_rows(mean), usual)

    def distance(self, representation: Image) -> float:
        """Mean distance of the quantiles from those of training, in units of their range."""
        return _distance(_quantiles(representation), np.array(self.quantiles))

    def novelty(self, representation: Image) -> float:
        """The distance in units of what is usual, which is never taken as less than a tenth of the range."""
        return self.distance(representation) / max(self.usual, 0.1)

    def to_dict(self) -> dict[str, Any]:
        """The saved form."""
        return {"quantiles": [list(row) for row in self.quantiles], "usual": self.usual}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "LatentStatistics":
        """The statistics from their saved form."""
        return cls(as_rows(np.array(saved["quantiles"])), float(saved["usual"]))


def _quantiles(image: Image) -> Float[Array, "channels quantiles"]:
    return np.asarray(np.quantile(image.data[:, image.valid], QUANTILES, axis=1).T)


def _distance(a: Float[Array, "channels quantiles"], b: Float[Array, "channels quantiles"]) -> float:
    spread = max(float((b[:, -1] - b[:, 0]).mean()), float(np.finfo(np.float32).tiny))
    return float(np.abs(a - b).mean() / spread)
