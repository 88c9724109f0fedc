"""A panel shows each picture in its place and proportions."""

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.report import panel

RGB = ("red", "green", "blue")


def plain(colour: tuple[int, int, int], shape: tuple[int, ...], spacing: tuple[float, ...] = ()) -> Image:
    data = np.broadcast_to(np.array(colour, dtype=np.uint8).reshape(3, *(1,) * len(shape)), (3, *shape))
    return Image(data.copy(), Grid(shape, spacing), RGB)


COLOURS = {"fixed": (200, 0, 0), "moving": (0, 200, 0), "overlay": (0, 0, 200)}


def boxes(shown: Image) -> dict[str, tuple[int, int, int, int]]:
    """First and last row and column of each colour."""
    found = {}
    for name, colour in COLOURS.items():
        rows, columns = np.nonzero((shown.data == np.array(colour).reshape(3, 1, 1)).all(axis=0))
        found[name] = (rows.min(), rows.max(), columns.min(), columns.max())
    return found


def test_pictures_stand_in_reading_order_with_world_proportions():
    images = {
        "fixed": plain(COLOURS["fixed"], (50, 100)),
        "moving": plain(COLOURS["moving"], (50, 50), (1.0, 2.0)),
        "overlay": plain(COLOURS["overlay"], (6, 80, 80)),
    }
    found = boxes(panel(images, columns=2, width=120))
    sizes = {name: (r1 - r0 + 1, c1 - c0 + 1) for name, (r0, r1, c0, c1) in found.items()}
    np.testing.assert_allclose(sizes["fixed"], (60, 120), atol=2)
    np.testing.assert_allclose(sizes["moving"], (60, 120), atol=2)  # half as many columns, twice as wide
    np.testing.assert_allclose(sizes["overlay"], (120, 120), atol=2)  # the middle section of a volume
    assert found["fixed"][3] < found["moving"][2]
    assert found["fixed"][0] == found["moving"][0]
    assert found["fixed"][1] < found["overlay"][0]


def test_rows_are_upright():
    data = np.zeros((3, 60, 60), dtype=np.uint8)
    data[:, :30] = np.array([200, 0, 0]).reshape(3, 1, 1)
    shown = panel({"": Image(data, Grid((60, 60)), RGB)}, width=60)
    red = (shown.data == np.array([200, 0, 0]).reshape(3, 1, 1)).all(axis=0)
    black = (shown.data == 0).all(axis=0)
    assert np.nonzero(red)[0].max() <= np.nonzero(black)[0].min()


def test_labels_are_drawn_above_the_pictures():
    image = plain(COLOURS["fixed"], (60, 60))
    with_label, without = panel({"fixed": image}, width=200), panel({"": image}, width=200)
    changed = np.nonzero((with_label.data != without.data).any(axis=0))
    top = np.nonzero((with_label.data == np.array(COLOURS["fixed"]).reshape(3, 1, 1)).all(axis=0))[0].min()
    assert 0 < changed[0].min() <= changed[0].max() < top


def test_anything_that_is_no_picture_yet_becomes_one():
    latent = Image(np.random.default_rng(0).standard_normal((5, 20, 20)), Grid((20, 20)))
    shown = panel({"latent": latent}, width=40)
    assert shown.data.dtype == np.uint8
    assert shown.channels == RGB


def test_empty_panels_are_refused():
    with pytest.raises(InvalidInputError, match="empty"):
        panel({})
    with pytest.raises(InvalidInputError, match="empty"):
        panel({"a": plain((1, 2, 3), (4, 4))}, width=0)
