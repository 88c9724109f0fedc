"""Where training patches may be cut from aligned pairs, and cutting them with room to turn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, sqrt

import numpy as np
from jaxtyping import Float, Integer
from scipy import ndimage

from modalign.data.intensity import IntensityScaling
from modalign.data.pairs import Pair
from modalign.errors import TrainingError

Array = np.ndarray
LATTICE = 4
"""Candidate centres lie this many pixels apart: fine enough to be everywhere, coarse enough to be few."""
LEAST_CONTRAST = 0.15
"""A patch needs this fraction of the contrast that lively places of its image have, in both modalities."""


def window_size(patch: int, ndim: int, largest_scale: float) -> int:
    """Side of the window in which a patch can be turned by any angle and enlarged without leaving it."""
    return ceil(patch * sqrt(ndim) * largest_scale) + 2


@dataclass(frozen=True)
class PatchSource:
    """One aligned pair, scaled to unit values, with the places where patches may be centred.

    Attributes:
        name: Name of the pair.
        fixed: ``(channels, *spatial)`` float32 in 0 to 1.
        moving: Likewise, on the same grid.
        centers: ``(places, ndim)`` indices of pixels whose whole window lies inside the image and the mask.
    """

    name: str
    fixed: Float[Array, "fixed_channels *spatial"]
    moving: Float[Array, "moving_channels *spatial"]
    centers: Integer[Array, "places ndim"]

    @classmethod
    def from_pair(
        cls,
        pair: Pair,
        fixed: IntensityScaling,
        moving: IntensityScaling,
        window: int,
        keep: Callable[[Array], Array] = lambda array: array,
    ) -> "PatchSource":
        """Scale a pair and list the places for windows of a given side.

        A turned patch stays within the ball around its centre, so the ball must lie inside the mask. Places without
        contrast in either modality (bare glass, empty resin) are left out as long as others remain: all empty patches
        look alike and would be false negatives.
        """
        unit_fixed, unit_moving = (
            scaling.adapted(image).to_unit(image.data)
            for scaling, image in ((fixed, pair.fixed), (moving, pair.moving))
        )
        room = _room(pair.fixed.valid & pair.moving.valid)
        candidates = _lattice(room.shape)
        candidates = candidates[room[tuple(candidates.T)] > window / 2]
        contrast = np.minimum(_contrast(unit_fixed, window, candidates), _contrast(unit_moving, window, candidates))
        lively = candidates[contrast >= LEAST_CONTRAST]
        return cls(pair.name, keep(unit_fixed), keep(unit_moving), lively if len(lively) else candidates)

    def window(self, center: Integer[Array, " ndim"], size: int) -> tuple[Array, Array]:
        """The windows of both modalities around a place."""
        start = center - size // 2
        cut = (slice(None), *(slice(s, s + size) for s in start))
        return self.fixed[cut], self.moving[cut]


@dataclass(frozen=True)
class PatchSampler:
    """Draws batches of aligned windows from several pairs, each pair equally often."""

    sources: tuple[PatchSource, ...]
    window: int

    def draw(self, count: int, generator: np.random.Generator) -> tuple[Array, Array]:
        """Windows of both modalities, ``(count, channels, *window)`` float32; the same generator, the same windows."""
        chosen = generator.integers(len(self.sources), size=count)
        windows = []
        for index in chosen:
            source = self.sources[index]
            windows.append(source.window(source.centers[generator.integers(len(source.centers))], self.window))
        fixed, moving = zip(*windows, strict=True)
        return np.stack(fixed), np.stack(moving)


def largest_patch(pairs: Sequence[Pair], wanted: int, stride: int, largest_scale: float) -> int:
    """The largest patch size up to the wanted one that the network takes and whose window fits into every pair.

    It is a multiple of the stride of the network; a window fits where it lies in the valid part.

    Raises:
        TrainingError: The wanted patch has less than two network strides, or not even those fit into the pair that is
            named.
    """
    patch = wanted // stride * stride
    if patch < 2 * stride:
        raise TrainingError(f"patches of {wanted} pixels are too small for the network, which needs {2 * stride}")
    for pair in pairs:
        room = _room(pair.fixed.valid & pair.moving.valid).max()
        fitting = floor((2 * (room - LATTICE) - 3) / (sqrt(pair.fixed.ndim) * largest_scale))
        patch = min(patch, fitting // stride * stride)
        if patch < 2 * stride:
            raise TrainingError(
                f"pair {pair.name!r} is too small: its valid part has room for patches of {max(fitting, 0)} pixels, "
                f"and the network needs {2 * stride}. Use larger images, or a network with fewer levels."
            )
    return patch


def _room(valid: Array) -> Array:
    """Distance of each pixel to the nearest invalid one or to the image border, per axis (a cube fits inside)."""
    padded = np.pad(valid, 1)
    return np.asarray(ndimage.distance_transform_cdt(padded, metric="chessboard")[(slice(1, -1),) * valid.ndim])


def _lattice(shape: tuple[int, ...]) -> Integer[Array, "places ndim"]:
    axes = [np.arange(LATTICE // 2, n, LATTICE) for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(shape))


def _contrast(unit: Array, window: int, places: Integer[Array, "places ndim"]) -> Float[Array, " places"]:
    """Local standard deviation over half a window, relative to lively places (90th percentile) of the image."""
    if not len(places):
        return np.zeros(0)
    size = max(3, window // 2)
    variance = np.zeros(unit.shape[1:], dtype=np.float32)
    for channel in unit:
        mean = ndimage.uniform_filter(channel, size, mode="nearest")
        variance += np.maximum(ndimage.uniform_filter(channel**2, size, mode="nearest") - mean**2, 0)
    deviation = np.sqrt(variance)[tuple(places.T)]
    return np.asarray(deviation / max(float(np.percentile(deviation, 90)), 1e-6), dtype=float)
