"""Writing OME-Zarr, version 0.5, while it is computed: chunk by chunk, with levels of half the size.

Source: the specification of next-generation file formats of the Open Microscopy Environment, version 0.5.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from modalign.geometry import Grid
from modalign.geometry.grid import Unit
from modalign.image import Image
from modalign.io.decoded import GRID_NAMESPACE
from modalign.io.files import atomic_folder
from modalign.io.pyramid import Render, Window

Array = np.ndarray
VERSION = "0.5"
CHUNK = {2: 512, 3: 64}
"""Side of the chunks that are written."""
SMALLEST = 128
"""Levels are halved until the longest side is no longer than this."""
ALL = {"write_empty_chunks": True}
"""Or an image of zeros would have no chunk, and look like one that was copied in part."""
BATCH = 2
"""So many chunks along each axis are computed at a time."""


def write_ome_zarr(path: Path, image: Image) -> None:
    """Write an image that is in memory, see :func:`write_zarr_pyramid`."""
    labels = image.channels == ("labels",)
    write_zarr_pyramid(path, lambda channels, window: image.data[(channels, *window)], image, nearest=labels)


def write_zarr_pyramid(
    path: str | Path,
    render: Render,
    description: Image,
    *,
    nearest: bool = False,
    advance: Callable[[float], None] = lambda _: None,
) -> None:
    """Write an OME-Zarr image with levels of half the size, without ever holding it in memory.

    The exact grid goes into an attribute of its own: the translation of the format is that of the first pixel, and
    other programs understand it as long as the axes are not turned. Nothing half-written is left behind.

    Args:
        path: The folder.
        render: Asked for the windows of the image, each once.
        description: Grid, channel names and type of the image; its pixels are not looked at and may be a broadcast 0.
        nearest: Reduce by picking pixels, as is right for labels, and not by their mean.
        advance: Told the finished fraction of the work.

    Raises:
        OutputError: The place cannot be written to.
    """
    import zarr

    grid = description.grid
    axes = [{"name": "c", "type": "channel"}, *(_axis(name, grid.unit) for name in "zyx"[-grid.ndim :])]
    steps = _steps(grid.shape)
    total = sum(prod(shape) for shape, _ in steps)
    done, datasets, source = 0, [], render
    with atomic_folder(Path(path), marker="zarr.json") as temporary:
        group = zarr.open_group(str(temporary), mode="w", zarr_format=3)
        for number, (shape, factors) in enumerate(steps):
            chunks = (1, *(min(CHUNK[grid.ndim], n) for n in shape))
            whole = (len(description.data), *shape)
            kind = description.data.dtype
            level = group.create_array(str(number), shape=whole, chunks=chunks, dtype=kind, config=ALL)  # type: ignore[arg-type]
            for window in _windows(shape):
                level[(slice(None), *window)] = source(slice(None), window)
                done += prod(part.stop - part.start for part in window)
                advance(done / total)
            datasets.append({"path": str(number), "coordinateTransformations": _placed(grid, factors)})
            if number + 1 < len(steps):
                halves = tuple(b // a for a, b in zip(factors, steps[number + 1][1], strict=True))
                source = _coarser(level, halves, nearest=nearest)
        multiscales = [{"axes": axes, "datasets": datasets, "name": "image"}]
        omero = {"channels": [{"label": name} for name in description.channels]}
        group.attrs["ome"] = {"version": VERSION, "multiscales": multiscales, "omero": omero}  # type: ignore[dict-item]
        group.attrs[GRID_NAMESPACE] = {
            "origin": list(grid.origin),
            "direction": [list(row) for row in grid.direction],
            "spacing": list(grid.spacing),
            "unit": grid.unit,
        }


def _axis(name: str, unit: Unit) -> dict[str, str]:
    return {"name": name, "type": "space", **({} if unit == "pixel" else {"unit": unit})}


def _steps(shape: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The shape of each level and by what it is reduced: axes longer than the smallest are halved each time."""
    steps = [(tuple(shape), (1,) * len(shape))]
    while max(steps[-1][0]) > SMALLEST:
        size, factors = steps[-1]
        halves = [2 if n > SMALLEST // 2 else 1 for n in size]
        smaller = tuple(n // h for n, h in zip(size, halves, strict=True))  # the last odd pixel is left out
        steps.append((smaller, tuple(f * h for f, h in zip(factors, halves, strict=True))))
    return steps


def _windows(shape: Sequence[int]) -> Iterator[Window]:
    side = BATCH * CHUNK[len(shape)]
    for start in product(*(range(0, n, side) for n in shape)):
        yield tuple(slice(s, min(s + side, n)) for s, n in zip(start, shape, strict=True))


def _coarser(level: Any, halves: tuple[int, ...], *, nearest: bool) -> Render:
    """Reads windows of the next level: every second pixel of labels, means of two along each axis of intensities."""

    def render(channels: slice, window: Window) -> Array:
        wide = tuple(slice(part.start * h, part.stop * h) for part, h in zip(window, halves, strict=True))
        data = np.asarray(level[(channels, *wide)])
        if nearest:
            return data[(slice(None), *(slice(None, None, h) for h in halves))]
        split = [part for n, h in zip(data.shape[1:], halves, strict=True) for part in (n // h, h)]
        means = data.reshape(len(data), *split).mean(axis=tuple(range(2, 2 * len(halves) + 1, 2)), dtype=np.float64)
        return np.asarray((np.rint(means) if data.dtype.kind in "iu" else means).astype(data.dtype))

    return render


def _placed(grid: Grid, factors: tuple[int, ...]) -> list[dict[str, Any]]:
    """Scale and translation of a level: the first pixel of a coarse level has its centre further in."""
    scale = [s * f for s, f in zip(grid.spacing, factors, strict=True)]
    shift = [o + s * (f - 1) / 2 for o, s, f in zip(grid.origin, grid.spacing, factors, strict=True)]
    return [{"type": "scale", "scale": [1.0, *scale]}, {"type": "translation", "translation": [0.0, *shift]}]
