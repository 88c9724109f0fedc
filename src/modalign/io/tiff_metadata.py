"""Pixel sizes and channel names in the metadata of TIFF files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

from modalign.errors import InvalidInputError
from modalign.geometry import Grid
from modalign.io.decoded import GRID_NAMESPACE, NO_SIZE
from modalign.io.units import Length, is_print_resolution, sized_grid

Found = tuple[Grid, str]
"""A grid and where its pixel size was found, as a phrase for people."""

_RESOLUTION_UNITS = {2: "inch", 3: "cm"}
"""Values of the TIFF tag ResolutionUnit (TIFF 6.0, page 38); 1 means no unit."""


def find_grid(tiff: Any, shape: Sequence[int]) -> Found:
    """The grid of a TIFF: from our own, OME or ImageJ metadata, else from the resolution tags."""
    if tiff.is_ome:
        return _from_ome(tiff.ome_metadata, shape)
    if own := own_metadata(tiff):
        return _from_own(own, shape)
    if tiff.is_imagej:
        return _from_imagej(tiff, shape)
    return _from_tags(tiff.pages[0], shape)


def channel_names(tiff: Any) -> tuple[str, ...]:
    """Names of the channels; empty where the file gives none, or not all."""
    if tiff.is_ome:
        names = [channel.get("Name", "") for channel in _pixels(tiff.ome_metadata).iterfind("{*}Channel")]
    else:
        names = [str(name) for name in own_metadata(tiff).get("channels", [])]
    return tuple(names) if all(names) and len(set(names)) == len(names) else ()


def own_metadata(tiff: Any) -> Mapping[str, Any]:
    """What :func:`modalign.io.write_image` notes in a plain TIFF; empty for files from elsewhere."""
    shaped = tiff.shaped_metadata
    return shaped[0] if shaped and "spacing" in shaped[0] else {}


def _from_own(noted: Mapping[str, Any], shape: Sequence[int]) -> Found:
    try:
        grid = Grid(tuple(shape), tuple(noted["spacing"]), unit=noted["unit"])
        return _placed(grid, noted), "the description written by modalign"
    except (InvalidInputError, KeyError, TypeError, ValueError):
        return Grid(tuple(shape)), "the description in the file makes no sense"


def _placed(grid: Grid, noted: Mapping[str, Any]) -> Grid:
    """The grid with the origin and the direction that are noted, if any."""
    direction = tuple(tuple(row) for row in noted.get("direction", grid.direction))
    return replace(grid, origin=tuple(noted.get("origin", grid.origin)), direction=direction)


def _pixels(xml: str) -> ElementTree.Element:
    found = ElementTree.fromstring(xml).find(".//{*}Pixels")
    return ElementTree.Element("Pixels") if found is None else found


def _from_ome(xml: str, shape: Sequence[int]) -> Found:
    """Pixel sizes, and the place in the world where modalign noted it.

    Positions of planes in files from elsewhere are those of a stage, whose axes and zero are its own: they are left
    alone.
    """
    pixels = _pixels(xml)
    sizes = {axis: _ome_size(pixels, axis) for axis in "ZYX"}
    sizes["Y"] = sizes["Y"] or sizes["X"]
    grid, found_in = _complete(shape, list(sizes.values()), "OME metadata")
    return _with_annotation(grid, xml), found_in


def _with_annotation(grid: Grid, xml: str) -> Grid:
    found = ElementTree.fromstring(xml).find(f".//{{*}}MapAnnotation[@Namespace='{GRID_NAMESPACE}']/{{*}}Value")
    noted = {} if found is None else {item.get("K", ""): item.text or "" for item in found}
    if noted.get("unit") != grid.unit:
        return grid
    try:
        return _placed(grid, {key: json.loads(noted[key]) for key in ("origin", "direction")})
    except (InvalidInputError, KeyError, TypeError, ValueError):
        return grid


def _ome_size(pixels: ElementTree.Element, axis: str) -> Length | None:
    value = pixels.get(f"PhysicalSize{axis}")
    return Length(_number(value), pixels.get(f"PhysicalSize{axis}Unit", "µm")) if value else None


def _from_imagej(tiff: Any, shape: Sequence[int]) -> Found:
    noted = tiff.imagej_metadata or {}
    unit = str(noted.get("unit", ""))
    per_x, per_y = tiff.pages[0].resolution
    z = noted.get("spacing")
    sizes = [Length(_number(z), unit) if z else None, *(_inverse(per, unit) for per in (per_y, per_x))]
    grid, found_in = _complete(shape, sizes, "ImageJ metadata")
    return _unless_for_print(grid, found_in) if unit.lower() in _RESOLUTION_UNITS.values() else (grid, found_in)


def _from_tags(page: Any, shape: Sequence[int]) -> Found:
    unit = _RESOLUTION_UNITS.get(int(page.resolutionunit))
    if unit is None:
        return Grid(tuple(shape)), NO_SIZE
    per_x, per_y = page.resolution
    return _unless_for_print(*_complete(shape, [None, _inverse(per_y, unit), _inverse(per_x, unit)], "resolution tags"))


def _complete(shape: Sequence[int], sizes: Sequence[Length | None], found_in: str) -> Found:
    """A grid from sizes along z, y and x, of which the last ``len(shape)`` count and all must be known."""
    needed = sizes[-len(shape) :]
    grid = sized_grid(shape, needed)
    if grid is not None and (grid.unit != "pixel" or grid.spacing != (1.0,) * grid.ndim):
        return grid, found_in
    missing = NO_SIZE if not any(needed) else f"{found_in} give it only in part or in an unknown unit"
    return Grid(tuple(shape)), missing


def _unless_for_print(grid: Grid, found_in: str) -> Found:
    if is_print_resolution(grid):
        return grid.without_unit(), f"{found_in} hold a print resolution, which is not a pixel size"
    return grid, found_in


def _inverse(pixels_per_unit: float, unit: str) -> Length | None:
    return Length(1 / pixels_per_unit, unit) if pixels_per_unit > 0 else None


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("nan")
