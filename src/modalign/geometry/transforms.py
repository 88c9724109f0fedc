"""Transforms of world points: rigid, similarity, affine, and chains of them, in any number of dimensions.

A transform maps points ``(n, ndim)`` in array axis order, in world units. Its direction is in the name of the variable
that holds it (``fixed_to_moving``); ``a @ b`` applies ``b`` first.
"""

from dataclasses import dataclass
from functools import cached_property, reduce
from typing import ClassVar, Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Float

from modalign.errors import InvalidInputError, NotInvertibleError

Array = np.ndarray
Vector = tuple[float, ...]
Matrix = tuple[tuple[float, ...], ...]


@runtime_checkable
class Transform(Protocol):
    """A map of world points. Laws: ``(a @ b)(x) == a(b(x))`` and ``t.inverse()(t(x)) == x``."""

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        ...

    def map_points(self, points: Float[Array, "*points ndim"]) -> Float[Array, "*points ndim"]:
        """Map points, given and returned in array axis order and world units."""
        ...

    def inverse(self) -> "Transform":
        """The transform that undoes this one; raises NotInvertibleError where there is none."""
        ...

    def __matmul__(self, other: "Transform") -> "Transform": ...


class Linear:
    """A transform ``x -> linear @ x + offset``; the common part of the three groups below.

    Each group says how it stores its parameters and what its inverse is; composing two members gives the smallest
    group that holds the result.
    """

    rank: ClassVar[int]
    """How large the group is: a composition belongs to the larger of the two groups."""

    @property
    def linear(self) -> Float[Array, "ndim ndim"]:
        """The square matrix, array axis order."""
        raise NotImplementedError

    @property
    def offset(self) -> Float[Array, " ndim"]:
        """Where the origin of the world goes."""
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.offset)

    @final
    @property
    def matrix(self) -> Float[Array, "homogeneous homogeneous"]:
        """Homogeneous matrix, array axis order."""
        matrix = np.eye(self.ndim + 1)
        matrix[:-1, :-1], matrix[:-1, -1] = self.linear, self.offset
        return matrix

    @final
    def map_points(self, points: Float[Array, "*points ndim"]) -> Float[Array, "*points ndim"]:
        """Map points, given and returned in array axis order and world units."""
        if points.shape[-1] != self.ndim:
            raise InvalidInputError(f"a {self.ndim}D transform cannot map points with {points.shape[-1]} coordinates")
        return np.asarray(points @ self.linear.T + self.offset)

    def inverse(self) -> "Linear":
        """The transform that undoes this one."""
        raise NotImplementedError

    @final
    def __matmul__(self, other: Transform) -> Transform:
        if not isinstance(other, Linear):
            return Chain((self,)) @ other
        _check_same_ndim(self, other)
        group = max(type(self), type(other), key=lambda kind: kind.rank)
        return group.from_matrix(self.matrix @ other.matrix)

    @classmethod
    def from_matrix(cls, matrix: Float[Array, "homogeneous homogeneous"]) -> "Linear":
        """The member of this group with the given homogeneous matrix (array axis order)."""
        raise NotImplementedError

    @final
    @property
    def is_mirrored(self) -> bool:
        """Whether the transform turns left hands into right hands."""
        return bool(np.linalg.det(self.linear) < 0)


@final
@dataclass(frozen=True)
class Rigid(Linear):
    """Rotation (or reflection) and translation: distances are kept.

    Attributes:
        rotation: Orthogonal matrix; determinant −1 where the image is mirrored.
        translation: World units.
    """

    rotation: Matrix
    translation: Vector
    rank: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _freeze(self, "rotation", "translation")
        _check_linear(self.linear, self.offset)
        if not np.allclose(self.linear @ self.linear.T, np.eye(self.ndim), atol=1e-6):
            raise InvalidInputError("the matrix of a rigid transform must be orthogonal; use Similarity or Affine")

    @cached_property
    def linear(self) -> Float[Array, "ndim ndim"]:
        """The square matrix, array axis order."""
        return np.array(self.rotation)

    @cached_property
    def offset(self) -> Float[Array, " ndim"]:
        """Where the origin of the world goes."""
        return np.array(self.translation)

    def inverse(self) -> "Rigid":
        """The transform that undoes this one; exact, by transposition."""
        return Rigid(as_rows(self.linear.T), tuple(-self.linear.T @ self.offset))

    @classmethod
    def from_matrix(cls, matrix: Float[Array, "homogeneous homogeneous"]) -> "Rigid":
        """The rigid transform nearest to a homogeneous matrix (array axis order)."""
        u, _, vt = np.linalg.svd(matrix[:-1, :-1])
        return cls(as_rows(u @ vt), tuple(matrix[:-1, -1]))

    @classmethod
    def about(
        cls, center: Float[Array, " ndim"], rotation: Float[Array, "ndim ndim"], shift: Float[Array, " ndim"]
    ) -> "Rigid":
        """Rotate about ``center``, then move by ``shift`` (both in world units)."""
        return cls(as_rows(rotation), tuple(center + shift - rotation @ center))


@final
@dataclass(frozen=True)
class Similarity(Linear):
    """Rotation (or reflection), one positive scale for all axes, and translation: shapes are kept."""

    rotation: Matrix
    scale: float
    translation: Vector
    rank: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _freeze(self, "rotation", "translation")
        Rigid(self.rotation, self.translation)  # the same conditions hold
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise InvalidInputError(f"the scale of a similarity must be a positive number, not {self.scale}")

    @cached_property
    def linear(self) -> Float[Array, "ndim ndim"]:
        """The square matrix, array axis order."""
        return self.scale * np.array(self.rotation)

    @cached_property
    def offset(self) -> Float[Array, " ndim"]:
        """Where the origin of the world goes."""
        return np.array(self.translation)

    def inverse(self) -> "Similarity":
        """The transform that undoes this one; exact, by transposition."""
        rotation = np.array(self.rotation).T
        return Similarity(as_rows(rotation), 1 / self.scale, tuple(-rotation @ self.offset / self.scale))

    @classmethod
    def from_matrix(cls, matrix: Float[Array, "homogeneous homogeneous"]) -> "Similarity":
        """The similarity nearest to a homogeneous matrix (array axis order)."""
        u, singular_values, vt = np.linalg.svd(matrix[:-1, :-1])
        return cls(as_rows(u @ vt), float(singular_values.mean()), tuple(matrix[:-1, -1]))


@final
@dataclass(frozen=True)
class Affine(Linear):
    """Any invertible linear map and translation, as a homogeneous matrix in array axis order."""

    homogeneous: Matrix
    rank: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _freeze(self, "homogeneous")
        full = np.array(self.homogeneous)
        if full.ndim != 2 or full.shape[0] != full.shape[1] or full.shape[0] < 2:
            raise InvalidInputError(f"an affine transform needs a square homogeneous matrix, not shape {full.shape}")
        _check_linear(self.linear, self.offset)
        if not np.allclose(full[-1], np.eye(len(full))[-1]):
            raise InvalidInputError(f"the last row of an affine matrix must be (0, …, 0, 1), not {full[-1]}")

    @cached_property
    def linear(self) -> Float[Array, "ndim ndim"]:
        """The square matrix, array axis order."""
        return np.array(self.homogeneous)[:-1, :-1]

    @cached_property
    def offset(self) -> Float[Array, " ndim"]:
        """Where the origin of the world goes."""
        return np.array(self.homogeneous)[:-1, -1]

    def inverse(self) -> "Affine":
        """The transform that undoes this one; raises NotInvertibleError where there is none."""
        if np.linalg.cond(self.linear) > 1e12:
            raise NotInvertibleError("this affine transform flattens space and cannot be undone")
        linear = np.linalg.inv(self.linear)
        return Affine(_homogeneous(linear, -linear @ self.offset))

    @classmethod
    def from_matrix(cls, matrix: Float[Array, "homogeneous homogeneous"]) -> "Affine":
        """The affine transform with the given homogeneous matrix (array axis order)."""
        return cls(as_rows(matrix))


@final
@dataclass(frozen=True)
class Chain:
    """Several transforms applied one after the other, in the order of the tuple.

    Linear neighbours are merged by ``@``, so a chain only holds what cannot be written as one matrix, or what the user
    asked to keep apart.
    """

    transforms: tuple[Transform, ...]

    def __post_init__(self) -> None:
        if not self.transforms:
            raise InvalidInputError("a chain needs at least one transform")
        for transform in self.transforms:
            _check_same_ndim(self.transforms[0], transform)

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return self.transforms[0].ndim

    def map_points(self, points: Float[Array, "*points ndim"]) -> Float[Array, "*points ndim"]:
        """Map points through every transform in turn."""
        return reduce(lambda mapped, transform: transform.map_points(mapped), self.transforms, points)

    def inverse(self) -> "Chain":
        """The chain of the inverses in reverse order."""
        return Chain(tuple(transform.inverse() for transform in reversed(self.transforms)))

    def __matmul__(self, other: Transform) -> "Chain":
        before = other.transforms if isinstance(other, Chain) else (other,)
        return Chain((*before, *self.transforms))

    def simplified(self) -> Transform:
        """The chain with linear neighbours merged; a single transform where all are linear."""
        merged: list[Transform] = []
        for transform in self.transforms:
            if merged and isinstance(transform, Linear) and isinstance(merged[-1], Linear):
                merged[-1] = transform @ merged[-1]
            else:
                merged.append(transform)
        return merged[0] if len(merged) == 1 else Chain(tuple(merged))


def simplified(transform: Transform) -> Transform:
    """A transform with its linear parts merged where they follow each other: linear itself where all are."""
    return transform.simplified() if isinstance(transform, Chain) else transform


def identity(ndim: int) -> Rigid:
    """The transform that moves nothing."""
    return Rigid(as_rows(np.eye(ndim)), (0.0,) * ndim)


def rotation_matrix(ndim: int, degrees: float, axes: tuple[int, int] = (-2, -1)) -> Float[Array, "ndim ndim"]:
    """Rotation in the plane of two array axes.

    A positive angle turns ``axes[1]`` towards ``-axes[0]``: counter-clockwise on the screen for ``(y, x)``, where y
    points down.
    """
    first, second = (axis % ndim for axis in axes)
    matrix = np.eye(ndim)
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix[first, first] = matrix[second, second] = cosine
    matrix[first, second], matrix[second, first] = -sine, sine
    return matrix


def as_rows(matrix: Float[Array, "rows columns"]) -> Matrix:
    """A matrix as nested tuples, the form in which grids and transforms store it."""
    return tuple(tuple(float(value) for value in row) for row in matrix)


def _homogeneous(linear: Array, offset: Array) -> Matrix:
    matrix = np.eye(len(offset) + 1)
    matrix[:-1, :-1], matrix[:-1, -1] = linear, offset
    return as_rows(matrix)


def _freeze(transform: object, *names: str) -> None:
    """Turn array-like fields of a frozen dataclass into nested tuples of floats, so that it hashes and compares."""
    for name in names:
        values = np.asarray(getattr(transform, name), dtype=float)
        frozen = as_rows(values) if values.ndim == 2 else tuple(float(value) for value in values)
        object.__setattr__(transform, name, frozen)


def _check_linear(linear: Array, offset: Array) -> None:
    if linear.shape != (len(offset), len(offset)):
        raise InvalidInputError(f"a transform with {len(offset)} shifts needs a square matrix, not {linear.shape}")
    if not (np.all(np.isfinite(linear)) and np.all(np.isfinite(offset))):
        raise InvalidInputError("a transform must consist of finite numbers")


def _check_same_ndim(a: Transform, b: Transform) -> None:
    if a.ndim != b.ndim:
        raise InvalidInputError(f"cannot combine a {a.ndim}D and a {b.ndim}D transform")
