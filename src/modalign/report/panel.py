"""Several labelled pictures in one."""

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np

from modalign.errors import InvalidInputError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.report.overlay import RGB, picture, section

GAP = 8
"""Pixels between pictures and around them."""
LABEL = 28
"""Height of the line above a picture that its label stands in, pixels."""
DPI = 128
"""Pixels per inch; a power of two, so that whole pixels survive the conversion to inches and back."""


def panel(images: Mapping[str, Image], *, columns: int | None = None, width: int = 320) -> Image:
    """Pictures side by side, each under its label, as one 8-bit RGB image with a white background.

    A picture is shown with square world units. Images that are not 8-bit RGB yet are rendered by
    :func:`~modalign.report.picture`; of a volume the middle section is shown.

    Args:
        images: The pictures under their labels, in reading order.
        columns: Pictures in a row; by default all of them.
        width: Width of one picture, pixels.

    Raises:
        InvalidInputError: There are no pictures, or a size is not positive.
    """
    columns = len(images) if columns is None else columns
    if not images or columns < 1 or width < 1:
        raise InvalidInputError(f"a panel of {len(images)} pictures in {columns} columns of {width} pixels is empty")
    flat = [_flat(image) for image in images.values()]
    rows = [flat[start : start + columns] for start in range(0, len(flat), columns)]
    labels = list(images)
    return _drawn(rows, [labels[start : start + columns] for start in range(0, len(labels), columns)], width)


def _flat(image: Image) -> Image:
    """The middle section, as a picture."""
    for _ in image.grid.shape[:-2]:
        image = section(image)
    return image if image.channels == RGB and image.data.dtype == np.uint8 else picture(image)


def _drawn(rows: Sequence[Sequence[Image]], labels: Sequence[Sequence[str]], width: int) -> Image:
    from matplotlib.figure import Figure

    heights = [max(_height(image, width) for image in row) for row in rows]
    total = (sum(heights) + len(rows) * (LABEL + GAP) + GAP, max(map(len, rows)) * (width + GAP) + GAP)
    figure = Figure(figsize=(total[1] / DPI, total[0] / DPI), dpi=DPI)
    top = GAP
    for row, names, height in zip(rows, labels, heights, strict=True):
        for column, (image, name) in enumerate(zip(row, names, strict=True)):
            left, bottom = GAP + column * (width + GAP), total[0] - top - LABEL - _height(image, width)
            box = (left / total[1], bottom / total[0], width / total[1], _height(image, width) / total[0])
            axes = figure.add_axes(box)
            axes.imshow(np.moveaxis(image.data, 0, -1), aspect="auto", interpolation="antialiased")
            axes.set_axis_off()
            axes.set_title(name, fontsize=10, pad=5)
        top += LABEL + height + GAP
    content = BytesIO()
    figure.savefig(content, format="rgba", dpi=DPI)
    pixels = np.frombuffer(content.getvalue(), np.uint8).reshape(*total, -1)[..., : len(RGB)]
    return Image(np.ascontiguousarray(np.moveaxis(pixels, -1, 0)), Grid(total), RGB)


def _height(image: Image, width: int) -> int:
    """Height in the panel, pixels, that keeps the world proportions of a picture."""
    return max(1, round(width * image.grid.extent[0] / image.grid.extent[1]))
