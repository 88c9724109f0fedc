"""How well label maps agree."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import ndimage

from modalign.errors import InvalidInputError

Array = np.ndarray


def dice(fixed: Integer[Array, "*spatial"], warped: Integer[Array, "*spatial"]) -> float:
    """Mean Dice coefficient of the labels above 0 that occur in either map; 1 where none does.

    A label that only one map has counts as 0. Source: Dice, Ecology 26(3), 1945.
    """
    values = [_dice(*regions) for regions in _regions(fixed, warped)]
    return float(np.mean(values)) if values else 1.0


def hausdorff95(
    fixed: Integer[Array, "*spatial"], warped: Integer[Array, "*spatial"], spacing: Sequence[float] = ()
) -> float:
    """Mean over the labels above 0 of both maps of the 95th percentile of the distances between their surfaces.

    The distances from each surface pixel of either map to the surface of the other, together, as in Huttenlocher et
    al., IEEE TPAMI 15(9), 1993, with the percentile in place of the maximum. Labels that only one map has have no
    distance and do not count.

    Args:
        fixed: One map.
        warped: The other.
        spacing: Pixel size along each axis; the result has its unit. Pixels by default.

    Returns:
        Not a number where the maps share no label.
    """
    steps = tuple(spacing) or (1.0,) * fixed.ndim
    shared = [(one, other) for one, other in _regions(fixed, warped) if one.any() and other.any()]
    values = [np.percentile(_distances(one, other, steps), 95) for one, other in shared]
    return float(np.mean(values)) if values else float("nan")


def _regions(fixed: Array, warped: Array) -> Iterator[tuple[Bool[Array, "*box"], Bool[Array, "*box"]]]:
    """For each label above 0 of either map where it is in both, within the box that holds it in both.

    Around it the box has a rim of one pixel, so that a region has the same surface as in the whole.
    """
    if fixed.shape != warped.shape:
        raise InvalidInputError(f"label maps of {fixed.shape} and {warped.shape} cannot be compared")
    values, places = np.unique(np.stack([fixed, warped]), return_inverse=True)
    numbers = np.where(values > 0, np.cumsum(values > 0), 0)[places].reshape(2, *fixed.shape)
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        window = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box[1:])
        one, other = (labels[window] == number for labels in numbers)
        yield one, other


def _dice(a: Array, b: Array) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def _distances(a: Bool[Array, "*spatial"], b: Bool[Array, "*spatial"], spacing: Sequence[float]) -> Float[Array, " n"]:
    """From each surface pixel of one region to the surface of the other, both ways."""
    surfaces = [region & ~ndimage.binary_erosion(region) for region in (a, b)]
    away = [ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    return np.concatenate([away[1][surfaces[0]], away[0][surfaces[1]]])
