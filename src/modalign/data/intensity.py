"""Scaling of intensities: one rule a modality, fitted to the training images and stored in the model."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from modalign.errors import InvalidInputError
from modalign.image import Image

Array = np.ndarray
LOG_GAINS = (0.0, 5.0, 20.0, 100.0)
PERCENTILES = (0.1, 99.9)
QUANTILES = (5, 25, 50, 75, 95)
SAMPLES_PER_IMAGE = 50_000
HEADROOM = 0.5
"""Images of more than 8 bits may be brighter than the training images by this fraction of their range."""


@dataclass(frozen=True)
class IntensityScaling:
    """Maps the intensities of one modality to numbers that a network likes, the same way for every image.

    Per channel: ``v = clip((x − low) / (high − low), 0, 1)``, then ``log(1 + gain·v) / log(1 + gain)`` where the gain
    is not zero, then ``(v − mean) / std``.

    Attributes:
        low: Intensity that becomes 0, a channel.
        high: Intensity that becomes 1, a channel.
        gain: Strength of the logarithm; 0 for none. Sparse signals such as SHG need one.
        mean: Mean of the unit values over the training images, a channel.
        std: Their standard deviation, a channel.
        quantiles: Unit values at 5, 25, 50, 75 and 95 %, averaged over channels: what the modality looks like.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    gain: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    quantiles: tuple[float, ...]

    @property
    def channels(self) -> int:
        """Number of channels of the modality."""
        return len(self.low)

    @classmethod
    def fit(cls, images: Iterable[Image]) -> "IntensityScaling":
        """The scaling for a modality, from its training images (valid pixels only, evenly thinned out).

        The limits of 8-bit images are 0 and 255: what is white in another laboratory must not be cut off because the
        training images were darker. Limits of other images are the 0.1 and 99.9 percentiles of each channel, with half
        of that range on top. The gain is the one among 0, 5, 20 and 100 whose values are least skewed.

        Raises:
            InvalidInputError: The images have different channels, or are constant.
        """
        images = list(images)
        samples = [_sample(image) for image in images]
        counts = {len(sample) for sample in samples}
        if len(counts) != 1:
            raise InvalidInputError(f"the images of one modality have {sorted(counts)} channels: they must all agree")
        values = np.concatenate(samples, axis=1)
        if np.any(np.ptp(values, axis=1) == 0):
            raise InvalidInputError("the images of one modality are constant: there is nothing to learn from")
        low, high = _limits(values, eight_bit=all(image.data.dtype == np.uint8 for image in images))
        gain = min(LOG_GAINS, key=lambda candidate: _skewness(_to_unit(values, low, high, candidate)))
        unit = _to_unit(values, low, high, gain)
        return cls(
            tuple(map(float, low)),
            tuple(map(float, high)),
            gain,
            tuple(map(float, unit.mean(axis=1))),
            tuple(map(float, unit.std(axis=1) + 1e-6)),
            _quantiles(unit),
        )

    def to_unit(self, data: Shaped[Array, "channels *spatial"]) -> Float[Array, "channels *spatial"]:
        """Intensities as numbers from 0 to 1, float32."""
        return _to_unit(data, np.array(self.low), np.array(self.high), self.gain)

    def standardise(self, unit: Float[Array, "channels *spatial"]) -> Float[Array, "channels *spatial"]:
        """Unit values shifted and scaled for the network, float32."""
        shape = (-1, *(1,) * (unit.ndim - 1))
        mean, std = (np.array(values, dtype=np.float32).reshape(shape) for values in (self.mean, self.std))
        return np.asarray((unit - mean) / std)

    def apply(self, data: Shaped[Array, "channels *spatial"]) -> Float[Array, "channels *spatial"]:
        """Intensities ready for the network, float32."""
        return self.standardise(self.to_unit(data))

    def distance(self, image: Image) -> float:
        """How far the histogram of an image is from the training images: mean difference of quantiles, 0 to 1.

        Raises:
            InvalidInputError: The image has another number of channels.
        """
        if len(image.data) != self.channels:
            raise InvalidInputError(f"expected {self.channels} channels, not {len(image.data)}")
        found = _quantiles(_to_unit(_sample(image), np.array(self.low), np.array(self.high), self.gain))
        return float(np.abs(np.array(found) - self.quantiles).mean())

    def contrast(self, image: Image) -> float:
        """Contrast of an image as the network sees it, as a fraction of that of the training images."""
        unit = _to_unit(_sample(image), np.array(self.low), np.array(self.high), self.gain)
        return float((unit.std(axis=1) / self.std).mean())

    def to_dict(self) -> dict[str, Any]:
        """The saved form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "IntensityScaling":
        """The scaling from its saved form."""
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in saved.items()}
        return cls(**fields)


def _limits(values: Array, *, eight_bit: bool) -> tuple[Array, Array]:
    """Intensities that become 0 and 1, a channel."""
    if eight_bit:
        return np.zeros(len(values)), np.full(len(values), 255.0)
    low, high = np.percentile(values, PERCENTILES, axis=1)
    sparse = high <= low  # almost all pixels are equal: the few others count
    low, high = np.where(sparse, values.min(axis=1), low), np.where(sparse, values.max(axis=1), high)
    return low, high + HEADROOM * (high - low)


def _sample(image: Image) -> Float[Array, "channels samples"]:
    pixels = image.data[:, image.valid]
    if not pixels.size:
        raise InvalidInputError("an image has no valid pixel")
    return pixels[:, :: max(1, pixels.shape[1] // SAMPLES_PER_IMAGE)].astype(np.float64)


def _to_unit(data: Array, low: Array, high: Array, gain: float) -> Array:
    shape = (-1, *(1,) * (data.ndim - 1))
    scale = 1 / (high - low)
    unit = data.astype(np.float32) - low.astype(np.float32).reshape(shape)
    unit *= scale.astype(np.float32).reshape(shape)
    np.clip(unit, 0, 1, out=unit)
    return np.log1p(gain * unit) / np.float32(np.log1p(gain)) if gain else unit


def _skewness(unit: Array) -> float:
    centered = unit - unit.mean(axis=1, keepdims=True)
    deviation = centered.std(axis=1) + 1e-9
    return float(np.abs((centered**3).mean(axis=1) / deviation**3).mean())


def _quantiles(unit: Array) -> tuple[float, ...]:
    return tuple(map(float, np.percentile(unit, QUANTILES, axis=1).mean(axis=1)))
