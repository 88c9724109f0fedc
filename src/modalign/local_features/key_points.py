"""Key points of any OpenCV detector: where they lie in the world, and rows that describe them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from math import ceil
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from modalign.errors import InvalidInputError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.local_features.matching import Descriptors, KeyPoints, from_bits, hellinger, unit_length

Array = np.ndarray
Points = Float[Array, "points ndim"]
Detector = Literal["sift", "asift", "orb", "brisk", "akaze", "kaze"]

PERCENTILES = (0.5, 99.5)
"""Intensities between these percentiles of the valid pixels are spread over 0 to 255."""
ORB_SCALE = 1.2
"""Size of a pyramid level of ORB relative to the next."""


@dataclass(frozen=True)
class KeyPointOptions:
    """What finds and describes key points; the options are those of :class:`modalign.registration.Features`.

    ``share`` is how much of what is found is kept, the strongest.
    """

    detector: Detector
    features: int
    contrast_threshold: float
    scales_per_octave: int
    sigma: float
    octave_sides: tuple[int, int] = (0, 1_000_000)
    hellinger: bool = True
    share: float = 1.0


def key_points(image: Image, options: KeyPointOptions) -> KeyPoints:
    """The strongest key points whose neighbourhood is valid."""
    found, descriptors = DETECTORS[options.detector](_opencv(), options).detectAndCompute(_as_bytes(image), None)
    if descriptors is None:
        return KeyPoints(np.zeros((0, image.ndim)), np.zeros((0, 1), dtype=np.float32))
    points = np.array([key.pt[::-1] for key in found], dtype=float)
    sizes = np.array([key.size for key in found])
    points += _pyramid_shift(found, options.detector)
    keep = _clear_of_mask(image, points, sizes) & _in_octaves(found, image.grid, options)
    strength = np.where(keep, [key.response for key in found], -np.inf)
    most = min(options.features, ceil(options.share * int(keep.sum())))
    strongest = np.sort(np.argsort(-strength, kind="stable")[:most])
    return KeyPoints(image.grid.index_to_world(points[strongest]), _comparable(descriptors[strongest], options))


def mirrored_key_points(image: Image, options: KeyPointOptions) -> KeyPoints:
    """Key points of the mirror image, where they lie in the image itself."""
    mask = None if image.mask is None else image.mask[..., ::-1]
    keys = key_points(Image(image.data[..., ::-1], image.grid, image.channels, mask), options)
    indices = image.grid.world_to_index(keys.points)
    indices[:, -1] = image.grid.shape[-1] - 1 - indices[:, -1]
    return KeyPoints(image.grid.index_to_world(indices), keys.descriptors)


def _comparable(descriptors: Float[Array, "n k"] | UInt8[Array, "n k"], options: KeyPointOptions) -> Descriptors:
    if descriptors.dtype == np.uint8:
        return from_bits(descriptors)
    sift = options.detector in ("sift", "asift")
    return hellinger(descriptors) if sift and options.hellinger else unit_length(descriptors)


def _opencv() -> Any:
    return import_module("cv2")


def _sift(cv2: Any, options: KeyPointOptions) -> Any:
    return cv2.SIFT_create(
        nfeatures=ceil(options.features / options.share),
        nOctaveLayers=options.scales_per_octave,
        contrastThreshold=options.contrast_threshold,
        sigma=options.sigma,
        enable_precise_upscale=True,  # else key points are off by a quarter pixel
    )


def _made(cv2: Any, name: str, **settings: Any) -> Any:
    """A detector of the main or the extra modules of OpenCV."""
    for module in (cv2, getattr(cv2, "xfeatures2d", None)):
        if hasattr(module, f"{name}_create"):
            return getattr(module, f"{name}_create")(**settings)
    raise InvalidInputError(
        f"OpenCV {cv2.__version__} has no {name}; it has {', '.join(available_detectors())} (releases before 5.0, and "
        "those with the extra modules, have more)"
    )


def available_detectors() -> tuple[str, ...]:
    """The detectors that the installed OpenCV has."""
    modules = [module for module in (_opencv(), getattr(_opencv(), "xfeatures2d", None)) if module is not None]
    return tuple(name for name, needed in NEEDS.items() if any(hasattr(m, f"{needed}_create") for m in modules))


NEEDS: Mapping[Detector, str] = {
    "sift": "SIFT",
    "asift": "AffineFeature",
    "orb": "ORB",
    "brisk": "BRISK",
    "akaze": "AKAZE",
    "kaze": "KAZE",
}
"""What OpenCV calls a detector."""

DETECTORS: Mapping[Detector, Callable[[Any, KeyPointOptions], Any]] = {
    "sift": _sift,
    "asift": lambda cv2, options: _made(cv2, "AffineFeature", backend=_sift(cv2, options)),
    "orb": lambda cv2, options: _made(cv2, "ORB", nfeatures=options.features, scaleFactor=ORB_SCALE, fastThreshold=5),
    "brisk": lambda cv2, _: _made(cv2, "BRISK", thresh=10),
    "akaze": lambda cv2, _: _made(cv2, "AKAZE", threshold=0.0001),
    "kaze": lambda cv2, _: _made(cv2, "KAZE", threshold=0.0001),
}
"""How a detector is made. Thresholds are low: representations and fluorescence are fainter than photographs."""


def _as_bytes(image: Image) -> UInt8[Array, "y x"]:
    values = image.data[0]
    low, high = np.percentile(values[image.valid], PERCENTILES)
    scaled = np.clip((values - low) / max(float(high - low), 1e-12), 0, 1) * 255
    scaled[~image.valid] = np.median(scaled[image.valid])
    return np.ascontiguousarray(np.rint(scaled), dtype=np.uint8)


def _octaves(found: Any) -> Float[Array, " points"]:
    """Pyramid level of each key point; OpenCV packs that of SIFT into the lowest byte, with a sign."""
    return (np.array([key.octave for key in found], dtype=int).astype(np.int8)).astype(float)


def _in_octaves(found: Any, grid: Grid, options: KeyPointOptions) -> Bool[Array, " points"]:
    if options.detector != "sift":
        return np.ones(len(found), dtype=bool)
    scale = 2.0 ** _octaves(found)
    smallest, largest = options.octave_sides
    return np.asarray((min(grid.shape) / scale >= smallest) & (max(grid.shape) / scale <= largest))


def _pyramid_shift(found: Any, detector: Detector) -> Float[Array, "points 1"]:
    """OpenCV maps ORB's pixels from a level of the pyramid by their corners, not by their centres."""
    shift = (ORB_SCALE ** _octaves(found) - 1) / 2 if detector == "orb" else np.zeros(len(found))
    return np.asarray(shift[:, None])


def _clear_of_mask(image: Image, points: Points, sizes: Float[Array, " points"]) -> Bool[Array, " points"]:
    """Which key points do not see the border of the mask."""
    if image.mask is None:
        return np.ones(len(points), dtype=bool)
    cv2 = _opencv()
    distance = cv2.distanceTransform(image.mask.astype(np.uint8), cv2.DIST_L2, 5)
    nearest = np.clip(np.rint(points).astype(int), 0, np.array(distance.shape) - 1)
    return np.asarray(distance[tuple(nearest.T)] > sizes)
