"""The physical grid that an array of pixels or voxels lies on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from modalign.errors import InvalidInputError

Unit = Literal["pixel", "nanometer", "micrometer", "millimeter", "meter"]
Array = np.ndarray

METERS: dict[str, float] = {"nanometer": 1e-9, "micrometer": 1e-6, "millimeter": 1e-3, "meter": 1.0}


@dataclass(frozen=True)
class Grid:
    """A regular grid in world space; integer indices are pixel **centres**.

    All vectors are in array order, ``(y, x)`` or ``(z, y, x)``:
    ``world = origin + direction @ (spacing * index)``.

    Attributes:
        shape: Number of pixels along each axis.
        spacing: Distance between neighbouring pixel centres along each axis, in ``unit``.
        origin: World position of the centre of the first pixel.
        direction: Orthogonal matrix as nested tuples; column ``j`` is the world direction of array axis ``j``.
        unit: The length unit of the world; ``"pixel"`` where the pixel size is unknown.

    Raises:
        InvalidInputError: A vector has the wrong length, a size is not positive, or the direction is not orthogonal.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...] = ()
    origin: tuple[float, ...] = ()
    direction: tuple[tuple[float, ...], ...] = ()
    unit: Unit = "pixel"

    def __post_init__(self) -> None:
        ndim = len(self.shape)
        fill = object.__setattr__  # frozen: the only way to normalise the fields on construction
        fill(self, "shape", tuple(int(n) for n in self.shape))
        fill(self, "spacing", tuple(float(s) for s in self.spacing) or (1.0,) * ndim)
        fill(self, "origin", tuple(float(o) for o in self.origin) or (0.0,) * ndim)
        rows = self.direction if len(self.direction) else np.eye(ndim)
        fill(self, "direction", tuple(tuple(float(v) for v in row) for row in rows))
        self._check(ndim)

    def _check(self, ndim: int) -> None:
        if not ndim or any(n < 1 for n in self.shape):
            raise InvalidInputError(f"a grid needs at least one pixel along every axis, not shape {self.shape}")
        if {len(self.spacing), len(self.origin), len(self.direction)} != {ndim}:
            raise InvalidInputError(
                f"spacing, origin and direction need {ndim} entries each for shape {self.shape}, "
                f"not {len(self.spacing)}, {len(self.origin)} and {len(self.direction)}"
            )
        if not all(np.isfinite(s) and s > 0 for s in self.spacing):
            raise InvalidInputError(f"pixel sizes must be positive numbers, not {self.spacing}")
        if not np.all(np.isfinite(self.origin)):
            raise InvalidInputError(f"the origin must be finite, not {self.origin}")
        axes = np.array(self.direction)
        if axes.shape != (ndim, ndim) or not np.allclose(axes @ axes.T, np.eye(ndim), atol=1e-3):
            raise InvalidInputError(f"the direction matrix must be orthogonal, not {self.direction}")
        if self.unit not in get_args(Unit):
            raise InvalidInputError(f"unknown length unit {self.unit!r}; known are {', '.join(get_args(Unit))}")

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.shape)

    @property
    def matrix(self) -> Float[Array, "homogeneous homogeneous"]:
        """Homogeneous matrix from index to world coordinates, array axis order."""
        matrix = np.eye(self.ndim + 1)
        matrix[:-1, :-1] = np.array(self.direction) * self.spacing
        matrix[:-1, -1] = self.origin
        return matrix

    def index_to_world(self, indices: Float[Array, "*points ndim"]) -> Float[Array, "*points ndim"]:
        """World coordinates of (fractional) array indices, both in array axis order."""
        matrix = self.matrix
        return np.asarray(indices @ matrix[:-1, :-1].T + matrix[:-1, -1])

    def world_to_index(self, points: Float[Array, "*points ndim"]) -> Float[Array, "*points ndim"]:
        """Fractional array indices of world coordinates, both in array axis order."""
        matrix = self.matrix
        return np.asarray((points - matrix[:-1, -1]) @ np.linalg.inv(matrix[:-1, :-1]).T)

    @property
    def corners(self) -> Float[Array, "corners ndim"]:
        """World positions of the centres of the corner pixels."""
        return self.index_to_world(np.array(list(product(*((0.0, n - 1.0) for n in self.shape)))))

    @property
    def points(self) -> Float[Array, "*spatial ndim"]:
        """World positions of all pixel centres; computed at each call."""
        return self.index_to_world(np.moveaxis(np.indices(self.shape, dtype=float), 0, -1))

    @property
    def center(self) -> Float[Array, " ndim"]:
        """World position of the middle of the grid."""
        return self.index_to_world((np.array(self.shape, dtype=float) - 1) / 2)

    @property
    def extent(self) -> tuple[float, ...]:
        """Physical length along each array axis: pixels times pixel size."""
        return tuple(n * s for n, s in zip(self.shape, self.spacing, strict=True))

    def resized(self, spacing: Sequence[float]) -> "Grid":
        """A grid over the same field of view (same outer borders) with another pixel size.

        The field is rounded to whole pixels and kept centred.
        """
        shape = tuple(max(1, round(e / s)) for e, s in zip(self.extent, spacing, strict=True))
        return self.centered(shape, spacing)

    def centered(self, shape: Sequence[int], spacing: Sequence[float] | None = None) -> "Grid":
        """A grid of another shape (and pixel size) around the same centre."""
        spacing = self.spacing if spacing is None else spacing
        half = np.array(self.direction) @ ((np.array(shape) - 1) / 2 * np.array(spacing))
        return replace(self, shape=tuple(shape), spacing=tuple(spacing), origin=tuple(self.center - half))

    def cropped(self, start: Sequence[int], shape: Sequence[int]) -> "Grid":
        """The part of the grid that begins at index ``start``; it may reach beyond the borders."""
        origin = self.index_to_world(np.array(start, dtype=float))
        return replace(self, shape=tuple(shape), origin=tuple(origin))

    def in_unit(self, unit: Unit) -> "Grid":
        """The same grid with its lengths in another physical unit.

        Raises:
            InvalidInputError: One of the two units is ``"pixel"``, which has no length.
        """
        if unit == self.unit:
            return self
        if "pixel" in (unit, self.unit):
            raise InvalidInputError(f"cannot convert from {self.unit} to {unit}: a pixel has no known length")
        factor = METERS[self.unit] / METERS[unit]
        spacing, origin = (tuple(factor * v for v in values) for values in (self.spacing, self.origin))
        return replace(self, spacing=spacing, origin=origin, unit=unit)

    def without_unit(self) -> "Grid":
        """The same array of pixels with unit pixel size at the origin: space as a file without metadata has it."""
        return Grid(self.shape)
