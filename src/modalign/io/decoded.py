"""What a file reader hands back: pixels in array order, before anything is demanded of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from modalign.geometry import Grid

RGB = ("red", "green", "blue")
RGBA = (*RGB, "alpha")
NAMES: dict[int, tuple[str, ...]] = {1: (), 2: ("gray", "alpha"), 3: RGB, 4: RGBA}
"""Names of the samples of one pixel in formats that hold pictures, by their number."""
NO_SIZE = "the file gives none"
GRID_NAMESPACE = "modalign/grid"
"""Of the annotation in OME metadata that holds origin and direction."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """The content of an image file.

    Attributes:
        data: ``(channels, *spatial)``, dtype as stored.
        grid: Grid of the spatial axes.
        channels: Names of the channels; empty where the file has none.
        pixel_size_from: Where the pixel size was found, as a phrase for people.
    """

    data: np.ndarray = field(repr=False)
    grid: Grid
    channels: tuple[str, ...] = ()
    pixel_size_from: str = NO_SIZE

    def with_data(self, data: np.ndarray) -> "Decoded":
        """The same with other pixels."""
        return replace(self, data=data)


TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
"""EXIF and TIFF orientation -> whether to swap y and x, then flip y, then flip x, to show the picture upright."""


def upright(data: np.ndarray, orientation: int) -> np.ndarray:
    """An array ``(..., y, x)`` turned as its EXIF or TIFF orientation (1-8) says."""
    swap, flip_y, flip_x = TURNS.get(orientation, (False, False, False))
    turned = data.swapaxes(-2, -1) if swap else data
    return turned[..., :: -1 if flip_y else 1, :: -1 if flip_x else 1]


def dump_names(names: Sequence[str]) -> str:
    """Channel names as one line of text."""
    return json.dumps(list(names))


def load_names(text: str) -> tuple[str, ...]:
    """Channel names from one line of text; empty where it is not such a line."""
    try:
        return tuple(str(name) for name in json.loads(text))
    except (ValueError, TypeError):
        return ()
