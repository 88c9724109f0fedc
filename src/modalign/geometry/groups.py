"""Rotations of the grid axes onto themselves: C4 in 2D, the 24 rotations of the cube in 3D."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from typing import Any

import numpy as np
from jaxtyping import Float


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

    def inverse(self) -> "GroupElement":
        """The element that undoes this one."""
        order = tuple(self.permutation.index(axis) for axis in range(len(self.permutation)))
        return GroupElement(order, tuple(self.flipped[axis] for axis in order))


@cache
def axis_rotations(ndim: int) -> tuple[GroupElement, ...]:
    """All rotations that map the axes of an isotropic ``ndim``-dimensional grid onto themselves.

    4 elements in 2D (the group C4 of the CoMIR paper, Pielawski et al. 2020, section 3), 24 in 3D (the group O).
    The identity comes first.
    """
    signed: Iterable[GroupElement] = (
        GroupElement(order, flips)
        for order in permutations(range(ndim))
        for flips in product((False, True), repeat=ndim)
    )
    return tuple(element for element in signed if np.linalg.det(element.matrix) > 0)
