"""Writing TIFF and OME-TIFF, compressed without loss."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from modalign.errors import OutputError, UnsupportedFormatError
from modalign.geometry import Grid
from modalign.geometry.grid import METERS
from modalign.image import Image
from modalign.io.decoded import GRID_NAMESPACE, RGB, RGBA
from modalign.io.files import atomic_path
from modalign.io.names import suffix

OME_TYPES = frozenset({"int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64"})
"""Pixel types of the OME data model (schema 2016-06) that images can have."""
BIG = 2**32 - 2**26
"""Bytes from which on the 64 bit variant of TIFF is needed, with room for metadata."""
_OME_UNITS = {"nanometer": "nm", "micrometer": "µm", "millimeter": "mm", "meter": "m", "pixel": "pixel"}


def write_tiff(path: Path, image: Image) -> None:
    """Write OME-TIFF where the name ends in ``.ome.tif`` or ``.ome.tiff``, else TIFF.

    RGB and RGBA of 8 or 16 bits are stored as colours, anything else as one page a channel and slice. A plain TIFF
    notes axes, grid and channel names as JSON in its description, and the pixel size in the resolution tags too. An
    OME-TIFF has the position of every plane for other programs, and origin and direction in an annotation, because OME
    has no word for directions.
    """
    import tifffile

    data, ome, notes, colours = plan(path, image)
    with atomic_path(path) as temporary, failure_as_output_error(path):
        tifffile.imwrite(
            temporary,
            data,
            ome=ome,
            bigtiff=data.nbytes > BIG,
            compression="zlib",
            metadata=notes,
            **colours,
            **resolution(image.grid),
        )


@contextmanager
def failure_as_output_error(path: Path) -> Iterator[None]:
    """Turn what tifffile raises into an error about the file.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise OutputError(path, f"cannot be written as TIFF ({error})") from error


class Plan(NamedTuple):
    """How an image is stored: the array in file order, whether as OME, metadata, and how its colours are understood."""

    data: np.ndarray
    ome: bool
    notes: dict[str, Any]
    colours: dict[str, Any]


def plan(path: Path, image: Image) -> Plan:
    """How :func:`write_tiff` stores an image.

    Raises:
        UnsupportedFormatError: OME-TIFF does not hold such pixels.
    """
    ome = suffix(path).startswith(".ome")
    if ome and image.data.dtype.name not in OME_TYPES:
        raise UnsupportedFormatError(path, f"OME-TIFF holds no {image.data.dtype} pixels; write .tif")
    data, axes, colours = _laid_out(image)
    return Plan(data, ome, _ome_notes(image, axes) if ome else _plain_notes(image, axes), colours)


def _laid_out(image: Image) -> tuple[np.ndarray, str, dict[str, Any]]:
    """The array in file order, its axes, and how its colours are to be understood."""
    spatial = "ZYX"[-image.ndim :]
    if image.channels in (RGB, RGBA) and image.data.dtype.name in ("uint8", "uint16"):
        extra = {"extrasamples": ["unassalpha"]} if image.channels == RGBA else {}
        return np.moveaxis(image.data, 0, -1), spatial + "S", {"photometric": "rgb", **extra}
    if len(image.data) == 1:
        return image.data[0], spatial, {"photometric": "minisblack"}
    return image.data, "C" + spatial, {"photometric": "minisblack"}


def _plain_notes(image: Image, axes: str) -> dict[str, Any]:
    grid = image.grid
    sizes = {"spacing": list(grid.spacing), "unit": grid.unit}
    return {"axes": axes, **sizes, **_place(grid), "channels": list(image.channels)}


def _place(grid: Grid) -> dict[str, Any]:
    """Origin and direction; nothing where they are those of an array that lies at zero."""
    if grid == Grid(grid.shape, grid.spacing, unit=grid.unit):
        return {}
    return {"origin": list(grid.origin), "direction": [list(row) for row in grid.direction]}


def _ome_notes(image: Image, axes: str) -> dict[str, Any]:
    notes: dict[str, Any] = {"axes": axes}
    if not axes.endswith("S"):
        notes["Channel"] = {"Name": list(image.channels)}
    for axis, spacing in zip("ZYX"[-image.ndim :], image.grid.spacing, strict=True):
        notes[f"PhysicalSize{axis}"] = spacing
        notes[f"PhysicalSize{axis}Unit"] = _OME_UNITS[image.grid.unit]
    if image.grid.unit == "pixel" and set(image.grid.spacing) == {1.0}:
        notes = _without_sizes(notes)
    return {**notes, **_ome_place(image, axes)}


def _ome_place(image: Image, axes: str) -> dict[str, Any]:
    grid, place = image.grid, _place(image.grid)
    if not place:
        return {}
    corners = [(*start, 0.0, 0.0) for start in product(*map(range, grid.shape[:-2]))]
    planes = [grid.index_to_world(np.array(corner)) for corner in corners] * (len(image.data) if axes[0] == "C" else 1)
    positions: dict[str, Any] = {}
    for axis, values in zip("ZYX"[-image.ndim :], np.transpose(planes).tolist(), strict=True):
        positions |= {f"Position{axis}": values, f"Position{axis}Unit": [_OME_UNITS[grid.unit]] * len(planes)}
    noted = {"unit": grid.unit, **{key: json.dumps(value) for key, value in place.items()}}
    return {"Plane": positions, "MapAnnotation": {"Namespace": GRID_NAMESPACE, "Value": noted}}


def _without_sizes(notes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in notes.items() if not key.startswith("PhysicalSize")}


def resolution(grid: Grid, factor: int = 1) -> dict[str, Any]:
    """Pixels per centimetre along x and y, ``factor`` times larger ones; nothing where the pixel size is unknown."""
    if grid.unit == "pixel":
        return {}
    per_y, per_x = (0.01 / (factor * METERS[grid.unit] * spacing) for spacing in grid.spacing[-2:])
    return {"resolution": (per_x, per_y), "resolutionunit": "CENTIMETER"}
