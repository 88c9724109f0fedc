"""Deformations: a displacement for every point of a grid, and the way back."""

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Float

from modalign.errors import InvalidInputError, NotInvertibleError
from modalign.geometry.grid import Grid
from modalign.geometry.transforms import Chain, Transform

Array = np.ndarray

EXACT = 1e-3
"""In pixels of the field: how close a point on the way back comes to the one that it started from."""
MOST_STEPS = 200
"""A field without folds needs a few dozen steps; one that folds never arrives."""


@final
@dataclass(frozen=True, eq=False)
class DisplacementField:
    """The transform ``x -> x + u(x)``, with ``u`` given at the pixels of a grid and linear between them.

    Beyond the outermost pixel centres the displacement of the border goes on (ITK has none there).

    Attributes:
        displacement: ``(ndim, *spatial)``, world vectors in array axis order, in the unit of the grid.
        grid: Where the vectors stand.

    Raises:
        InvalidInputError: The vectors do not fit the grid, or are not finite.
    """

    displacement: Float[Array, "ndim *spatial"]
    grid: Grid

    def __post_init__(self) -> None:
        if self.displacement.shape != (self.grid.ndim, *self.grid.shape):
            raise InvalidInputError(
                f"a displacement field on a grid of {self.grid.shape} has the shape "
                f"{(self.grid.ndim, *self.grid.shape)}, not {self.displacement.shape}"
            )
        if not np.all(np.isfinite(self.displacement)):
            raise InvalidInputError("a displacement field must consist of finite numbers")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DisplacementField):
            return NotImplemented
        return self.grid == other.grid and np.array_equal(self.displacement, other.displacement)

    def __hash__(self) -> int:
        return hash(self.grid)

    @classmethod
    def sampled(cls, transform: Transform, grid: Grid) -> "DisplacementField":
        """Any transform as a displacement at the pixels of a grid, in single precision."""
        points = grid.points
        moved = transform.map_points(points) - points
        return cls(np.moveaxis(moved, -1, 0).astype(np.float32), grid)

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return self.grid.ndim

    def map_points(self, points: Float[Array, "*points ndim"]) -> Float[Array, "*points ndim"]:
        """Map points, given and returned in array axis order and world units."""
        if points.shape[-1] != self.ndim:
            raise InvalidInputError(f"a {self.ndim}D transform cannot map points with {points.shape[-1]} coordinates")
        return np.asarray(points + self._at(points))

    def inverse(self) -> "InverseField":
        """The transform that undoes this one, to a thousandth of a pixel."""
        return InverseField(self)

    def __matmul__(self, other: Transform) -> Chain:
        return Chain((self,)) @ other

    def _at(self, points: Float[Array, "*points ndim"]) -> Float[Array, "*points ndim"]:
        """The displacement at points anywhere."""
        from scipy import ndimage

        indices = self.grid.world_to_index(points).reshape(-1, self.ndim).T
        parts = [ndimage.map_coordinates(part, indices, float, order=1, mode="nearest") for part in self.displacement]
        return np.stack(parts, axis=-1).reshape(points.shape)


@final
@dataclass(frozen=True)
class InverseField:
    """The transform that undoes a displacement field, found anew for each point.

    Attributes:
        field: What it undoes.
    """

    field: DisplacementField

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return self.field.ndim

    @cached_property
    def _tolerance(self) -> float:
        return EXACT * min(self.field.grid.spacing)

    def map_points(self, points: Float[Array, "*points ndim"]) -> Float[Array, "*points ndim"]:
        """Map points, given and returned in array axis order and world units.

        Each point steps against what separates its image from the point to reach, and takes half a step where that did
        not bring it nearer.

        Raises:
            NotInvertibleError: The field folds where one of the points comes from.
        """
        wanted = np.array(points, dtype=float).reshape(-1, self.ndim)
        found = wanted.copy()
        rest, step = self.field.map_points(found) - wanted, np.ones((len(wanted), 1))
        open_ = np.arange(len(wanted))
        for _ in range(MOST_STEPS):
            distance = np.linalg.norm(rest, axis=-1)
            far = distance > self._tolerance
            open_, rest, step, distance = open_[far], rest[far], step[far], distance[far]
            if not len(open_):
                return found.reshape(points.shape)
            trial = found[open_] - step * rest
            left = self.field.map_points(trial) - wanted[open_]
            nearer = np.linalg.norm(left, axis=-1) < distance
            found[open_[nearer]], rest[nearer] = trial[nearer], left[nearer]
            step = np.where(nearer[:, None], np.minimum(1.5 * step, 1.0), step / 2)
        raise NotInvertibleError(f"the displacement field folds and cannot be undone at {len(open_)} points")

    def inverse(self) -> DisplacementField:
        """The displacement field itself."""
        return self.field

    def __matmul__(self, other: Transform) -> Chain:
        return Chain((self,)) @ other
