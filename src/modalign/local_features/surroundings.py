"""What surrounds points of an image: its channels on circles, or spheres, about corners or the nodes of a grid."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Integer
from scipy import ndimage

from modalign.geometry import Grid
from modalign.image import Image
from modalign.local_features.matching import KeyPoints

Array = np.ndarray
Points = Float[Array, "points ndim"]
Places = Literal["corners", "grid"]
Rings = Float[Array, "points channels rings directions"]
"""Values of the image around points, at several distances in the same directions."""

LEAST_COVER = 0.6
"""Points with a smaller share of their surroundings inside the image and its mask are dropped."""
GRADIENT_BLUR, TENSOR_BLUR = 1.0, 1.5
"""Standard deviations, in pixels, of the smoothing before the gradients and of their products."""
LEAST_BLUR = 0.6
"""Of the values, in pixels."""
GOLDEN = np.pi * (3 - np.sqrt(5))
"""The angle by which a spiral of evenly spread points on a sphere turns from each to the next."""


@dataclass(frozen=True)
class Surroundings:
    """Which points are described, and by what around them.

    Attributes:
        points: The strongest corners, or all nodes of a regular grid.
        count: Most points.
        step: Least distance between corners, or step of the grid, pixels.
        radius: The largest distance from a point, pixels.
        rings: Number of distances.
        degrees: Angle between neighbouring directions.
    """

    points: Places
    count: int
    step: int
    radius: float
    rings: int
    degrees: float

    def directions(self, ndim: int) -> Float[Array, "directions ndim"]:
        """Evenly spread unit vectors along the axes of the pixels."""
        return _SPREAD[ndim](np.deg2rad(self.degrees))


@dataclass(frozen=True, eq=False)
class Described:
    """Points of an image in world units, what surrounds them, and the grid of the image."""

    points: Points
    rings: Rings = field(repr=False)
    directions: Float[Array, "directions ndim"] = field(repr=False)
    grid: Grid

    def seen(self, turn: Float[Array, "ndim ndim"] | None = None) -> KeyPoints:
        """The points with one row for each descriptor.

        Args:
            turn: Orthogonal matrix along the axes of the pixels: what lies in a direction after it is taken for what
                lies in that direction.
        """
        rings = self.rings if turn is None else self.rings[..., self._nearest(self.directions @ turn.T)]
        return KeyPoints(self.points, rings.reshape(len(rings), int(np.prod(rings.shape[1:]))))

    def _nearest(self, vectors: Float[Array, "n ndim"]) -> Integer[Array, " n"]:
        return np.asarray((vectors @ self.directions.T).argmax(axis=1))


def described(image: Image, options: Surroundings, scale: float = 1.0) -> Described:
    """Points of an image and what surrounds them.

    Args:
        image: On square pixels.
        options: Which points, and what of their surroundings.
        scale: The distances are larger by this factor.
    """
    values, valid = _standardised(image), image.valid.astype(np.float32)
    places = {"corners": _corners, "grid": _lattice}[options.points](values, valid, options)
    directions = options.directions(image.ndim)
    rings, cover = _sampled(values, valid, places, scale, options, directions)
    keep = cover.mean(axis=(1, 2)) >= LEAST_COVER
    points = image.grid.index_to_world(places[keep])
    return Described(points, _normalised(rings[keep], cover[keep]), directions, image.grid)


def _circle(step: float) -> Float[Array, "directions 2"]:
    angles = 2 * np.pi * np.arange(round(2 * np.pi / step)) / round(2 * np.pi / step)
    return np.column_stack([np.sin(angles), np.cos(angles)])


def _sphere(step: float) -> Float[Array, "directions 3"]:
    """A spiral from pole to pole.

    Source: Swinbank and Purser, Quarterly Journal of the Royal Meteorological Society 132, 2006.
    """
    count = round(4 * np.pi / step**2)
    height = 1 - (2 * np.arange(count) + 1) / count
    around, across = GOLDEN * np.arange(count), np.sqrt(1 - height**2)
    return np.column_stack([height, across * np.sin(around), across * np.cos(around)])


_SPREAD: dict[int, Callable[[float], Array]] = {2: _circle, 3: _sphere}


def _standardised(image: Image) -> Float[Array, "channels *spatial"]:
    """Values less the mean of their channel, by one scale for all channels; 0 under the mask."""
    valid = image.valid
    values = image.data[:, valid]
    centered = np.where(valid, image.data - values.mean(axis=1).reshape(-1, *(1,) * image.ndim), 0)
    deviation = np.sqrt((centered**2).sum() / values.size)
    return np.asarray(centered / max(float(deviation), 1e-12), dtype=np.float32)


def _corners(
    values: Float[Array, "channels *spatial"], valid: Float[Array, "*spatial"], options: Surroundings
) -> Float[Array, "corners ndim"]:
    """The strongest local maxima of the smallest eigenvalue of the structure tensor, to a part of a pixel."""
    ndim = valid.ndim
    slopes = [np.gradient(_blurred(channel, GRADIENT_BLUR)) for channel in values]
    tensor = np.empty((ndim, ndim, *valid.shape), dtype=np.float32)
    for i, j in zip(*np.triu_indices(ndim), strict=True):
        tensor[i, j] = tensor[j, i] = _blurred(sum(slope[i] * slope[j] for slope in slopes), TENSOR_BLUR)
    strength = _LEAST_EIGENVALUE[ndim](tensor)
    inside = ndimage.minimum_filter(valid, 3, mode="constant") > 0  # the border of the mask is no corner
    highest = ndimage.maximum_filter(strength, 2 * options.step + 1, mode="nearest") <= strength
    corners = np.argwhere(highest & inside & (strength > 1e-6 * strength.max()))
    strongest = np.argsort(-strength[tuple(corners.T)], kind="stable")[: options.count]
    corners = corners[strongest]
    return np.asarray(corners + np.column_stack([_vertex(strength, corners, axis) for axis in range(ndim)]))


def _smaller_of_two(tensor: Float[Array, "2 2 *spatial"]) -> Float[Array, "*spatial"]:
    return np.asarray((tensor[0, 0] + tensor[1, 1]) / 2 - np.hypot((tensor[0, 0] - tensor[1, 1]) / 2, tensor[0, 1]))


def _smallest(tensor: Float[Array, "ndim ndim *spatial"]) -> Float[Array, "*spatial"]:
    return np.asarray(np.linalg.eigvalsh(np.moveaxis(tensor, (0, 1), (-2, -1)))[..., 0])


_LEAST_EIGENVALUE: dict[int, Callable[[Array], Array]] = {2: _smaller_of_two, 3: _smallest}


def _vertex(
    strength: Float[Array, "*spatial"], corners: Integer[Array, "corners ndim"], axis: int
) -> Float[Array, " corners"]:
    """Where the parabola through a maximum and its neighbours along an axis has its top, at most half a step away."""
    step = np.eye(strength.ndim, dtype=int)[axis]
    before, here, after = (strength[tuple((corners + k * step).T)] for k in (-1, 0, 1))
    bend = np.minimum(before - 2 * here + after, -1e-12)
    return np.asarray(np.clip((before - after) / (2 * bend), -0.5, 0.5))


def _lattice(
    values: Float[Array, "channels *spatial"],  # noqa: ARG001 - as for corners
    valid: Float[Array, "*spatial"],
    options: Surroundings,
) -> Float[Array, "nodes ndim"]:
    """Valid nodes of a regular grid, as dense as the step and the number of points allow."""
    step = max(float(options.step), float((valid.size / options.count) ** (1 / valid.ndim)))
    axes = [np.arange((n - 1) % step / 2, n, step) for n in valid.shape]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, valid.ndim)
    return np.asarray(nodes[valid[tuple(np.rint(nodes).astype(int).T)] > 0])


def _sampled(
    values: Float[Array, "channels *spatial"],
    valid: Float[Array, "*spatial"],
    places: Float[Array, "points ndim"],
    scale: float,
    options: Surroundings,
    directions: Float[Array, "directions ndim"],
) -> tuple[Rings, Float[Array, "points rings directions"]]:
    """Values around places, blurred as much as the samples lie apart, and which of them are valid."""
    radii = scale * options.radius * np.arange(1, options.rings + 1) / options.rings
    rings = np.zeros((len(places), len(values), options.rings, len(directions)), dtype=np.float32)
    cover = np.zeros((len(places), options.rings, len(directions)), dtype=np.float32)
    for ring, radius in enumerate(radii):
        blur = max(np.deg2rad(options.degrees) * radius / 2, LEAST_BLUR)
        around = np.moveaxis(places[:, None] + radius * directions, -1, 0)
        weight = _blurred(valid, blur)
        cover[:, ring] = _looked_up(weight, around) > 0.5
        for channel, image in enumerate(values):
            rings[:, channel, ring] = _looked_up(_blurred(image, blur) / np.maximum(weight, 1e-3), around)
    return rings, cover


def _blurred(array: Float[Array, "*spatial"], sigma: float) -> Float[Array, "*spatial"]:
    """Gaussian smoothing along every axis."""
    cv2: Any = import_module("cv2")
    *rest, last = array.shape
    kernel = cv2.getGaussianKernel(round(8 * sigma + 1) | 1, sigma, cv2.CV_32F)
    one = np.ones(1, dtype=np.float32)
    result: Array = cv2.sepFilter2D(array.reshape(-1, last).astype(np.float32), -1, kernel, one)
    for axis, n in enumerate(rest):
        slabs = result.reshape(int(np.prod(rest[:axis])), n, -1)
        result = np.stack([cv2.sepFilter2D(slab, -1, one, kernel) for slab in slabs])
    return result.reshape(array.shape)


def _looked_up(image: Float[Array, "*spatial"], around: Float[Array, "ndim n k"]) -> Float[Array, "n k"]:
    """Linear interpolation, 0 outside."""
    return np.asarray(ndimage.map_coordinates(image, around, order=1, mode="grid-constant", output=np.float32))


def _normalised(rings: Rings, cover: Float[Array, "points rings directions"]) -> Rings:
    """Valid values less their mean, of unit length; every ring counts by its distance."""
    weight = (cover * np.arange(1, cover.shape[1] + 1)[:, None])[:, None]
    mean = (rings * weight).sum((2, 3), keepdims=True) / np.maximum(weight.sum((2, 3), keepdims=True), 1e-6)
    centered = (rings - mean) * np.sqrt(weight)
    length = np.sqrt((centered**2).sum((1, 2, 3), keepdims=True))
    return np.asarray(centered / np.maximum(length, 1e-6), dtype=np.float32)
