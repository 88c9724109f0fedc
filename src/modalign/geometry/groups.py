"""Finite rotation groups: the rotations that map a grid onto itself, as tables that act without interpolation.

In 2D these are C2, C4 and D4 (with reflections); in 3D V4, C4 and D4 about an axis, and O, all 24 of the cube.
Which of them is exact for an image depends on its pixel size and shape: see :func:`grid_rotations` and
``docs/equivariance.md``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from modalign.errors import InvalidInputError

GroupName = Literal["C1", "C2", "C4", "D4", "V4", "C4z", "C4y", "C4x", "D4z", "D4y", "D4x", "O"]
"""The letter after C4 and D4 names the axis of the quarter turns in 3D."""
SAME_SPACING = 0.01
"""Pixel sizes that differ by less than this fraction are taken for equal: over 64 pixels they part by half of one."""


@dataclass(frozen=True)
class GroupElement:
    """A signed permutation of the spatial axes: output axis ``i`` is input axis ``permutation[i]``, maybe reversed.

    It acts on NumPy arrays and torch tensors alike, without interpolation.
    """

    permutation: tuple[int, ...]
    flipped: tuple[bool, ...]

    @property
    def matrix(self) -> Float[np.ndarray, "ndim ndim"]:
        """The matrix that takes input coordinates about the centre to output coordinates."""
        matrix = np.zeros((len(self.permutation),) * 2)
        for axis, (source, flip) in enumerate(zip(self.permutation, self.flipped, strict=True)):
            matrix[axis, source] = -1.0 if flip else 1.0
        return matrix

    def act(self, array: Any) -> Any:
        """Apply to the trailing spatial axes of an array or tensor ``(..., *spatial)``."""
        ndim = len(self.permutation)
        leading = array.ndim - ndim
        order = (*range(leading), *(leading + source for source in self.permutation))
        turned = array.permute(order) if hasattr(array, "permute") else array.transpose(order)
        axes = tuple(leading + axis for axis, flip in enumerate(self.flipped) if flip)
        if not axes:
            return turned
        return turned.flip(axes) if hasattr(turned, "permute") else np.flip(turned, axes)

    def __matmul__(self, other: "GroupElement") -> "GroupElement":
        """The element that acts as ``other`` first, then this one."""
        order = tuple(other.permutation[source] for source in self.permutation)
        flips = (flip != other.flipped[s] for flip, s in zip(self.flipped, self.permutation, strict=True))
        return GroupElement(order, tuple(flips))

    def inverse(self) -> "GroupElement":
        """The element that undoes this one."""
        order = tuple(self.permutation.index(axis) for axis in range(len(self.permutation)))
        return GroupElement(order, tuple(self.flipped[axis] for axis in order))


@dataclass(frozen=True)
class RotationGroup:
    """A finite group of signed permutations of the axes.

    Attributes:
        name: Its name.
        elements: All of them, the identity first.
    """

    name: GroupName
    elements: tuple[GroupElement, ...]

    def __len__(self) -> int:
        return len(self.elements)

    def draw(self, count: int, generator: np.random.Generator) -> list[GroupElement]:
        """So many independent elements, each of them equally likely.

        Drawing quarter turns about each axis in turn would not do: its 64 outcomes meet the 24 rotations of the cube
        two, three or four times.
        """
        return [self.elements[k] for k in generator.integers(len(self.elements), size=count)]


@cache
def axis_rotations(ndim: int) -> tuple[GroupElement, ...]:
    """All rotations that map the axes of an isotropic ``ndim``-dimensional grid onto themselves, the identity first.

    4 elements in 2D (the group C4 of the CoMIR paper, Pielawski et al. 2020, section 3), 24 in 3D (the group O).
    """
    return tuple(element for element in _signed_permutations(ndim) if np.linalg.det(element.matrix) > 0)


@cache
def rotation_group(name: GroupName, ndim: int) -> RotationGroup:
    """A group by its name.

    Raises:
        InvalidInputError: There is no such group for so many dimensions; the message names those that there are.
    """
    members = _tables(ndim)
    if name not in members:
        raise InvalidInputError(f"there is no group {name} in {ndim}D; there are {', '.join(members)}")
    return RotationGroup(name, members[name])


def grid_rotations(spacing: tuple[float, ...], shape: tuple[int, ...] | None = None) -> RotationGroup:
    """The largest group of rotations that map a grid onto itself.

    Args:
        spacing: Pixel size along each axis.
        shape: Pixels along each axis; only axes that agree in it may be exchanged. ``None`` where the shape does not
            matter, as for patches with equal sides.
    """
    ndim = len(spacing)
    sides = shape or (1,) * ndim

    def fits(element: GroupElement) -> bool:
        return all(
            abs(spacing[axis] / spacing[source] - 1) < SAME_SPACING and sides[axis] == sides[source]
            for axis, source in enumerate(element.permutation)
        )

    exact = frozenset(filter(fits, axis_rotations(ndim)))
    name = next(name for name, members in _tables(ndim).items() if frozenset(members) == exact)
    return RotationGroup(name, _tables(ndim)[name])


def _tables(ndim: int) -> dict[GroupName, tuple[GroupElement, ...]]:
    """All groups of a number of dimensions."""
    rotations = axis_rotations(ndim)
    still = tuple(range(ndim))
    flips = tuple(element for element in rotations if element.permutation == still)
    tables: dict[GroupName, tuple[GroupElement, ...]] = {"C1": rotations[:1]}
    for axis, letter in enumerate("zyx"[-ndim:] if ndim > len("yx") else ""):
        about = tuple(element for element in rotations if element.permutation[axis] == axis)
        quarter_turns = tuple(element for element in about if not element.flipped[axis])
        named: tuple[GroupName, ...] = tuple(g for g in get_args(GroupName) if g in (f"C4{letter}", f"D4{letter}"))
        tables |= dict(zip(named, (quarter_turns, about), strict=True))
    whole: dict[int, dict[GroupName, tuple[GroupElement, ...]]] = {
        2: {"C2": flips, "C4": rotations, "D4": tuple(_signed_permutations(2))},
        3: {"V4": flips, "O": rotations},
    }
    return tables | whole[ndim]


def _signed_permutations(ndim: int) -> Iterable[GroupElement]:
    return (
        GroupElement(order, flips)
        for order in permutations(range(ndim))
        for flips in product((False, True), repeat=ndim)
    )
