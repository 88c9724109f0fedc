"""How well label maps agree."""

import numpy as np
from jaxtyping import Integer

from modalign.errors import InvalidInputError

Array = np.ndarray


def dice(fixed: Integer[Array, "*spatial"], warped: Integer[Array, "*spatial"]) -> float:
    """Mean Dice coefficient of the labels above 0 that occur in either map; 1 where none does.

    A label that only one map has counts as 0. Source: Dice, Ecology 26(3), 1945.
    """
    if fixed.shape != warped.shape:
        raise InvalidInputError(f"label maps of {fixed.shape} and {warped.shape} cannot be compared")
    labels = np.union1d(np.unique(fixed), np.unique(warped))
    values = [_dice(fixed == label, warped == label) for label in labels[labels > 0]]
    return float(np.mean(values)) if values else 1.0


def _dice(a: Array, b: Array) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())
