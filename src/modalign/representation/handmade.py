"""Representations made by hand: what people used before they were learned, and so a baseline for those that are."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from modalign.errors import InvalidInputError
from modalign.image import Image
from modalign.representation.encoder import Encoder

Array = np.ndarray


@dataclass(frozen=True)
class GradientMagnitude:
    """How steep the intensities are, whichever way they go: the same where a modality only inverts the contrast."""

    sigma_pixels: float = 1.5
    """Standard deviation of the smoothing before."""

    def __post_init__(self) -> None:
        _check_positive(self.sigma_pixels)

    def encode(self, image: Image) -> Image:
        """One channel, float32: the root mean square over the channels, each scaled to unit variance."""
        image = image.without_alpha().without_gaps()
        steep = [ndimage.gaussian_gradient_magnitude(channel, self.sigma_pixels) for channel in _standardised(image)]
        return image.with_data(np.sqrt(np.mean(np.square(steep), axis=0))[None].astype(np.float32), ("gradient",))


@dataclass(frozen=True)
class SelfSimilarity:
    """How much each place resembles its neighbours, which modalities share even where their intensities do not.

    The modality independent neighbourhood descriptor in its self-similarity context: distances between small patches
    around pairs of neighbours of a pixel, but not to the pixel itself. Every channel belongs to one pair of axes'
    neighbours, so rotated images have other channels: for small rotations only.

    Source: Heinrich et al., MICCAI 2013, equations 3 and 4; as in the authors' code the smallest distance is taken off
    all of a pixel, and the variance, their mean, is clipped to a thousandth to a thousandfold of its own mean.
    """

    distance_pixels: int = 2
    """How far the neighbours are."""
    sigma_pixels: float = 1.0
    """Standard deviation of the window of a patch."""

    def __post_init__(self) -> None:
        _check_positive(self.sigma_pixels)
        if self.distance_pixels < 1:
            raise InvalidInputError(f"neighbours are at least one pixel away, not {self.distance_pixels}")

    def encode(self, image: Image) -> Image:
        """A channel for each of the 4 (2D) or 12 (3D) pairs of neighbours, float32, from 0 to 1."""
        image = image.without_alpha().without_gaps()
        channels = _standardised(image)
        distances = np.stack([self._distance(channels, a, b) for a, b in _neighbours(image.ndim)])
        distances -= distances.min(0)
        variance = distances.mean(0)
        center = max(float(variance.mean()), 1e-12)
        similar = np.exp(-distances / np.clip(variance, 1e-3 * center, 1e3 * center)).astype(np.float32)
        names = tuple(f"similarity {k}" for k in range(len(similar)))
        return image.with_data(similar, names)

    def _distance(
        self, channels: Float[Array, "c *spatial"], a: Float[Array, " ndim"], b: Float[Array, " ndim"]
    ) -> Float[Array, "*spatial"]:
        step = self.distance_pixels
        total = np.zeros(channels.shape[1:])
        for channel in channels:
            here, there = (ndimage.shift(channel, step * way, order=0, mode="nearest") for way in (a, b))
            total += ndimage.gaussian_filter(np.square(here - there), self.sigma_pixels)
        return total


def _neighbours(ndim: int) -> list[tuple[Float[Array, " ndim"], Float[Array, " ndim"]]]:
    """Pairs of direct neighbours that are neighbours of each other across a corner."""
    ways = [sign * unit for unit in np.eye(ndim) for sign in (-1.0, 1.0)]
    return [(a, b) for a, b in combinations(ways, 2) if a @ b == 0]


def _standardised(image: Image) -> Float[Array, "c *spatial"]:
    """The channels with mean 0 and variance 1 over the valid pixels; what is not valid is 0."""
    data, valid = image.data.astype(np.float64), image.valid
    values = data[:, valid] if valid.any() else data.reshape(len(data), -1)
    wide = (slice(None), *(None,) * image.ndim)
    scaled = (data - values.mean(1)[wide]) / np.maximum(values.std(1), 1e-9)[wide]
    return np.asarray(np.where(valid, scaled, 0.0))


def _check_positive(sigma: float) -> None:
    if not sigma > 0:
        raise InvalidInputError(f"a standard deviation must be positive, not {sigma}")


HANDMADE: Mapping[str, Encoder] = {"gradient": GradientMagnitude(), "self-similarity": SelfSimilarity()}
"""The hand-made representations by name."""
