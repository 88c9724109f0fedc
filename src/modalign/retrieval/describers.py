"""What an image is described by for retrieval: rows of numbers, each for a place in it; the strongest places count."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, inf
from typing import ClassVar, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
from jaxtyping import Float, Integer
from scipy import ndimage

from modalign.errors import DimensionError, InvalidInputError
from modalign.image import Image
from modalign.local_features import KeyPointOptions, KeyPoints, Surroundings, described, key_points
from modalign.local_features.channels import gray
from modalign.local_features.matching import unit_length
from modalign.retrieval.harmonics import powers

Array = np.ndarray
CELLS = 4
"""Cells along each axis of what :class:`UprightGradients` describes."""
LEAST_STRENGTH = 1e-3
"""Places weaker than this fraction of the strongest show nothing."""


@runtime_checkable
class Describer(Protocol):
    """Describes many places of an image by rows of unit length."""

    name: ClassVar[str]
    """As the command line and saved indexes call it."""
    ndims: ClassVar[frozenset[int]]
    """Numbers of dimensions for which it exists."""

    def describe(self, image: Image) -> KeyPoints:
        """The strongest places of an image.

        Raises:
            DimensionError: It does not exist for so many dimensions.
        """


@dataclass(frozen=True)
class Sift:
    """Key points of SIFT, found and described at their own scale and orientation; of several channels, in gray.

    Source: Lowe, IJCV 60(2), 2004; rows are compared by the Hellinger distance.
    """

    strongest: float = 0.8
    """This share of the key points is kept."""
    most: int = 2000
    """Most key points an image."""
    contrast_threshold: float = 0.004
    """Weaker key points are dropped."""

    name: ClassVar[str] = "sift"
    ndims: ClassVar[frozenset[int]] = frozenset({2})

    def __post_init__(self) -> None:
        _check(self.strongest, self.most)

    def describe(self, image: Image) -> KeyPoints:
        """See :class:`Describer`."""
        _check_dimensions(self, image)
        options = KeyPointOptions("sift", self.most, self.contrast_threshold, 3, 1.6, share=self.strongest)
        return key_points(gray(image), options)


@dataclass(frozen=True)
class UprightGradients:
    """Sums of gradients in 4 cells along each axis, about the nodes of a grid and in several sizes: a dense SURF.

    Each cell gives the sums of the slope along every axis and of its absolute value. Nothing is turned to an
    orientation, so images that are rotated by more than some 30° are not found by it. It stands in for the SURF of the
    publication, which used MATLAB's; SURF is not in OpenCV's usual releases.

    Source: Bay et al., Computer Vision and Image Understanding 110(3), 2008, section 4.2, on the grid of Breznik et
    al., Scientific Reports 14:18798, 2024; cells are Gaussian windows here.
    """

    strongest: float = 0.8
    """This share of the places is kept, those with the largest gradients."""
    most: int = 2000
    """Most places an image, of all sizes together."""
    step: int = 8
    """Distance of the nodes, pixels."""
    sizes: tuple[int, ...] = (32, 64, 96, 128)
    """Sides of what is described, pixels; sizes beyond the image are left out."""

    name: ClassVar[str] = "upright-gradients"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})

    def __post_init__(self) -> None:
        _check(self.strongest, self.most)
        if self.step < 1 or not self.sizes or min(self.sizes) < 2 * CELLS:
            raise InvalidInputError(f"the step is at least 1 and sizes are at least {2 * CELLS} pixels")

    def describe(self, image: Image) -> KeyPoints:
        """See :class:`Describer`."""
        _check_dimensions(self, image)
        picture = gray(image)
        values = np.where(picture.valid, picture.data[0], picture.data[0][picture.valid].mean())
        parts = [self._of_size(values, picture, size) for size in self.sizes if size <= min(image.grid.shape)]
        if not parts:
            return _nothing(image)
        places, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
        return _strongest(image, places, rows, np.linalg.norm(rows, axis=1), self.strongest, self.most)

    def _of_size(self, values: Array, image: Image, size: int) -> tuple[Array, Array]:
        """Nodes whose surroundings of one size lie in the valid part, and their rows, not yet of unit length."""
        half = size // 2
        nodes = _nodes(image.grid.shape, self.step, half)
        nodes = nodes[_clear(image, nodes, half)]
        cell = size / CELLS
        offsets = cell * (np.stack(np.meshgrid(*[np.arange(CELLS)] * image.ndim, indexing="ij"), -1) - (CELLS - 1) / 2)
        cells = np.rint(nodes[:, None] + offsets.reshape(-1, image.ndim)).astype(int)
        at = tuple(np.moveaxis(cells, -1, 0))
        smooth = ndimage.gaussian_filter(values.astype(np.float32), size / 20)
        rows = []
        for slope in np.gradient(smooth):
            rows += [ndimage.gaussian_filter(part, cell / 2)[at] for part in (slope, np.abs(slope))]
        return nodes, np.concatenate(rows, axis=1)


@dataclass(frozen=True)
class Rings:
    """All channels on circles (in volumes, spheres) about the nodes of a grid, whichever way the image is turned.

    Of every channel and circle the row holds how strongly it varies with each harmonic of the angle, which a rotation
    does not change. Where the representation is equivariant, the same place of a rotated image has the same row.

    Source: moduli of harmonics as in rotation-invariant local descriptors (for instance Kazhdan et al., Symposium on
    Geometry Processing, 2003, for spheres), of the circles of :mod:`modalign.local_features.surroundings`.
    """

    strongest: float = 0.8
    """This share of the places is kept, those with most contrast."""
    most: int = 2000
    """Most places an image."""
    step: int = 8
    """Distance of the nodes, pixels."""
    radius: float = 32.0
    """Of the outermost circle, pixels."""
    rings: int = 6
    """Circles."""
    degrees: float = 15.0
    """Angle between the points of a circle."""
    harmonics: int = 5
    """Harmonics of a circle, beside its mean."""

    name: ClassVar[str] = "rings"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})

    def __post_init__(self) -> None:
        _check(self.strongest, self.most)
        if self.step < 1 or self.rings < 1 or not 1 <= self.radius < inf or not 0 < self.degrees <= 45:
            raise InvalidInputError("step, rings and radius are at least 1, and the angle is above 0 and at most 45°")
        if not 0 <= self.harmonics < 180 / self.degrees:
            raise InvalidInputError(f"{self.harmonics} harmonics need points nearer to each other than {self.degrees}°")

    def describe(self, image: Image) -> KeyPoints:
        """See :class:`Describer`."""
        _check_dimensions(self, image)
        wanted = Surroundings("grid", image.data[0].size, self.step, self.radius, self.rings, self.degrees)
        seen = described(image, wanted)
        rows = powers(seen.rings, seen.directions, self.harmonics)
        rows = rows.reshape(len(rows), int(np.prod(rows.shape[1:])))
        places = image.grid.world_to_index(seen.points)
        return _strongest(image, places, rows, _contrast(image, places, self.radius), self.strongest, self.most)


DescriberOptions: TypeAlias = Sift | UprightGradients | Rings
DESCRIBERS: Mapping[str, type[DescriberOptions]] = {kind.name: kind for kind in get_args(DescriberOptions)}
"""Every describer by its name."""


def _check(strongest: float, most: int) -> None:
    if not 0 < strongest <= 1 or most < 1:
        raise InvalidInputError(f"keep a share above 0 and at most 1, and at least one place; not {strongest}, {most}")


def _check_dimensions(describer: Describer, image: Image) -> None:
    if image.ndim not in describer.ndims:
        others = [name for name, kind in DESCRIBERS.items() if image.ndim in kind.ndims]
        raise DimensionError(describer.name, image.ndim, others)


def _nothing(image: Image) -> KeyPoints:
    return KeyPoints(np.zeros((0, image.ndim)), np.zeros((0, 1), dtype=np.float32))


def _nodes(shape: tuple[int, ...], step: int, margin: int) -> Integer[Array, "nodes ndim"]:
    """Nodes of a grid in the middle of an image, at least so far from its border."""
    axes = [np.arange(margin + (n - 2 * margin) % step // 2, n - margin + 1, step) for n in shape]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(shape))
    return np.asarray(np.minimum(nodes, np.array(shape) - 1))


def _clear(image: Image, nodes: Integer[Array, "nodes ndim"], half: int) -> Array:
    """Which nodes see valid pixels alone."""
    if image.mask is None:
        return np.ones(len(nodes), dtype=bool)
    return np.asarray(ndimage.minimum_filter(image.mask, 2 * half + 1, mode="nearest")[tuple(nodes.T)])


def _contrast(image: Image, places: Float[Array, "places ndim"], radius: float) -> Float[Array, " places"]:
    """Standard deviation about places, of all channels."""
    at, valid = tuple(np.rint(places).astype(int).T), image.valid
    total = np.zeros(len(places))
    for channel in image.data:
        values = np.where(valid, channel - channel[valid].mean(), 0).astype(np.float32)
        mean, square = (ndimage.gaussian_filter(part, radius / 2)[at] for part in (values, values**2))
        total += np.maximum(square - mean**2, 0)
    return np.asarray(np.sqrt(total))


def _strongest(
    image: Image,
    places: Float[Array, "places ndim"] | Integer[Array, "places ndim"],
    rows: Float[Array, "places numbers"],
    strength: Float[Array, " places"],
    share: float,
    most: int,
) -> KeyPoints:
    """The strongest places with rows of unit length; those with nothing to describe are never among them."""
    usable = int((strength > LEAST_STRENGTH * max(float(strength.max(initial=0)), 1e-30)).sum())
    chosen = np.argsort(-strength, kind="stable")[: min(most, ceil(share * usable))]
    points = image.grid.index_to_world(np.asarray(places, dtype=float)[np.sort(chosen)])
    return KeyPoints(points, unit_length(rows[np.sort(chosen)].astype(np.float32)))
