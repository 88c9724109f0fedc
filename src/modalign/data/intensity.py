"""Scaling of intensities: one rule a modality, fitted to the training images and stored in the model."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
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
BACKGROUND = 0.25
"""Where at least this share of the pixels have the smallest value, such as the air around a head, they are nothing."""
OWN_PERCENTILES, OWN_HEADROOM = (0.5, 99.5), (0.1, 0.25)
"""The range of an image itself: percentiles of what is not background, and how much is added below and above."""


@dataclass(frozen=True)
class IntensityScaling:
    """Maps the intensities of one modality to numbers that a network likes, the same way for every image.

    Per channel: ``v = clip((x − low) / (high − low), 0, 1)``, then ``log(1 + gain·v) / log(1 + gain)`` where the gain
    is not zero, then ``(v − mean) / std``.

    With ``own_range``, as scans need whose numbers have no unit, the limits are those of each image, see
    :meth:`adapted`, and those kept here are the means over the training images.

    Attributes:
        low: Intensity that becomes 0, a channel.
        high: Intensity that becomes 1, a channel.
        gain: Strength of the logarithm; 0 for none. Sparse signals such as SHG need one.
        mean: Mean of the unit values over the training images, a channel.
        std: Their standard deviation, a channel.
        quantiles: Unit values at 5, 25, 50, 75 and 95 %, averaged over channels: what the modality looks like.
        own_range: Whether each image has limits of its own.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    gain: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    quantiles: tuple[float, ...]
    own_range: bool = False

    @property
    def channels(self) -> int:
        """Number of channels of the modality."""
        return len(self.low)

    @classmethod
    def fit(cls, images: Iterable[Image], *, own_range: bool = False) -> "IntensityScaling":
        """The scaling for a modality, from its training images (valid pixels only, evenly thinned out).

        The limits of 8-bit images are 0 and 255: what is white in another laboratory must not be cut off because the
        training images were darker. Limits of other images are the 0.1 and 99.9 percentiles of each channel, with half
        of that range on top. The gain is the one among 0, 5, 20 and 100 whose values are least skewed. With
        ``own_range`` background counts for nothing, neither for the gain nor for mean and standard deviation.

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
        if own_range:
            own = [_own_limits(sample) for sample in samples]
            low, high = (np.mean(limits, axis=0) for limits in zip(*own, strict=True))
            parts = [
                low.reshape(-1, 1) + (_foreground(sample) - a[:, None]) * ((high - low) / (b - a))[:, None]
                for sample, (a, b) in zip(samples, own, strict=True)
            ]
            values = np.concatenate(parts, axis=1)
        else:
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
            own_range,
        )

    def adapted(self, image: Image) -> "IntensityScaling":
        """The scaling for one image: this one, or with the limits of the image where it is to have its own.

        Raises:
            InvalidInputError: The image has another number of channels, or no valid pixel.
        """
        if not self.own_range:
            return self
        sample = _sample(image)
        if len(sample) != self.channels:
            raise InvalidInputError(f"expected {self.channels} channels, not {len(sample)}")
        low, high = _own_limits(sample)
        return replace(self, low=tuple(map(float, low)), high=tuple(map(float, high)))

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
        return float(np.abs(np.array(_quantiles(self._seen(image))) - self.quantiles).mean())

    def contrast(self, image: Image) -> float:
        """Contrast of an image as the network sees it, as a fraction of that of the training images."""
        return float((self._seen(image).std(axis=1) / self.std).mean())

    def _seen(self, image: Image) -> Float[Array, "channels samples"]:
        """Unit values of an image, evenly thinned out; without background where images have ranges of their own."""
        own, sample = self.adapted(image), _sample(image)
        sample = _foreground(sample) if self.own_range else sample
        return _to_unit(sample, np.array(own.low), np.array(own.high), own.gain)

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


def _foreground(sample: Float[Array, "channels samples"]) -> Float[Array, "channels kept"]:
    """The samples of which a channel is above its smallest value, where many are not; else all."""
    seen = (sample > sample.min(axis=1, keepdims=True)).any(axis=0)
    return sample[:, seen] if seen.any() and seen.mean() <= 1 - BACKGROUND else sample


def _own_limits(sample: Float[Array, "channels samples"]) -> tuple[Array, Array]:
    """Intensities of an image that become 0 and 1, a channel."""
    low, high = np.percentile(_foreground(sample), OWN_PERCENTILES, axis=1)
    range_ = np.maximum(high - low, 1e-6 * np.maximum(np.abs(high), 1e-30))
    return low - OWN_HEADROOM[0] * range_, high + OWN_HEADROOM[1] * range_


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
