"""OME-Zarr: a folder of chunks. Versions 0.4 and 0.5 are read, 0.5 is written.

Source: the specification of next-generation file formats of the Open Microscopy Environment, versions 0.4 and 0.5.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modalign.errors import InvalidInputError, UnreadableFileError, UnsupportedFormatError
from modalign.geometry import Grid
from modalign.geometry.grid import Unit
from modalign.image import Image
from modalign.io.decoded import GRID_NAMESPACE, NO_SIZE, Decoded
from modalign.io.files import atomic_folder
from modalign.io.units import parse_unit

Array = np.ndarray
MARKERS = ("zarr.json", ".zgroup", ".zattrs")
"""A folder with one of these files is a Zarr group."""
VERSION = "0.5"
CHUNK = {2: 512, 3: 64}
"""Side of the chunks that are written."""
SMALLEST = 128
"""Levels are halved until the longest side is no longer than this."""


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a Zarr group."""
    return any((folder / marker).is_file() for marker in MARKERS)


def read_ome_zarr(path: Path, ndim: int | None = None) -> Decoded:  # noqa: ARG001 - one signature for all readers
    """Read the finest level of an OME-Zarr image with its scale and translation.

    Raises:
        UnreadableFileError: Damaged, or not an OME-Zarr image.
        UnsupportedFormatError: Several times, or axes in an order that no image has.
    """
    import zarr

    try:
        group = zarr.open_group(str(path), mode="r")
        attributes = dict(group.attrs)
        image = _multiscales(path, attributes)
        level = image["datasets"][0]
        stored: Any = group[level["path"]]
        data = np.asarray(stored[...])
    except (KeyError, IndexError, TypeError, ValueError, FileNotFoundError, RuntimeError) as error:
        raise UnreadableFileError(path, f"is damaged, or no OME-Zarr image ({error!r})") from error
    axes = _axes(path, image, data.ndim)
    data, kept = _channels_first(path, data, axes)
    grid, found = _grid(data.shape[1:], image, level, axes, kept)
    exact = attributes.get(GRID_NAMESPACE)
    if isinstance(exact, Mapping):
        stated = _exact_grid(path, grid, exact)
        if _agrees(stated, *_placement(image, level, kept)):  # else another program has changed the image since
            grid = stated
    return Decoded(data, grid, _names(attributes, len(data)), found)


def write_ome_zarr(path: Path, image: Image) -> None:
    """Write an OME-Zarr image, version 0.5, with levels of half the size, and the exact grid as an attribute.

    The translation is that of the first pixel; other programs understand it as long as the axes are not turned.
    """
    import zarr

    axes = [{"name": "c", "type": "channel"}, *(_axis(name, image.grid.unit) for name in "zyx"[-image.ndim :])]
    with atomic_folder(path, marker="zarr.json") as temporary:
        group = zarr.open_group(str(temporary), mode="w", zarr_format=3)
        datasets = []
        for number, (data, factors) in enumerate(_levels(image)):
            chunks = (1, *(min(CHUNK[image.ndim], n) for n in data.shape[1:]))
            group.create_array(str(number), data=data, chunks=chunks)
            datasets.append({"path": str(number), "coordinateTransformations": _placed(image.grid, factors)})
        multiscales = [{"axes": axes, "datasets": datasets, "name": "image"}]
        omero = {"channels": [{"label": name} for name in image.channels]}
        group.attrs["ome"] = {"version": VERSION, "multiscales": multiscales, "omero": omero}  # type: ignore[dict-item]
        group.attrs[GRID_NAMESPACE] = {
            "origin": list(image.grid.origin),
            "direction": [list(row) for row in image.grid.direction],
            "spacing": list(image.grid.spacing),
            "unit": image.grid.unit,
        }


def _multiscales(path: Path, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The description of the image, which version 0.5 keeps one level deeper."""
    where: Any = attributes.get("ome", attributes)
    images = where.get("multiscales") if isinstance(where, Mapping) else None
    if not images:
        raise UnreadableFileError(path, "is a Zarr group without an image; name the group inside it that has one")
    return dict(images[0])


def _axes(path: Path, image: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in image.get("axes", list("tczyx")[-count:])]
    if len(axes) != count:
        raise UnreadableFileError(path, f"has {count} axes, but names {len(axes)}")
    return [dict(axis) for axis in axes]


def _channels_first(path: Path, data: Array, axes: list[dict[str, Any]]) -> tuple[Array, list[int]]:
    """Pixels as ``(channels, *spatial)``, and the numbers of the spatial axes in the file."""
    names = [str(axis["name"]) for axis in axes]
    if "t" in names:
        where = names.index("t")
        if data.shape[where] != 1:
            raise UnsupportedFormatError(
                path, f"has {data.shape[where]} times along its axis t; save one of them as its own image"
            )
        data = data.take(0, axis=where)
    present = [name for name in names if name != "t"]
    spatial = [name for name in present if name != "c"]
    if (
        spatial != list("zyx")[-len(spatial) :]
        or len(spatial) not in CHUNK
        or present not in (spatial, ["c", *spatial])
    ):
        raise UnsupportedFormatError(path, f"has the axes {', '.join(names)}; t, c, z, y, x in this order are read")
    return (data if "c" in present else data[None]), [names.index(name) for name in spatial]


def _grid(
    shape: tuple[int, ...], image: Mapping[str, Any], level: Mapping[str, Any], axes: Sequence[Mapping[str, Any]],
    kept: Sequence[int],
) -> tuple[Grid, str]:  # fmt: skip
    scale, origin = _placement(image, level, kept)
    units = {parse_unit(str(axes[k].get("unit", ""))) for k in kept}
    unit: Unit | None = units.pop() if len(units) == 1 else None
    if unit is None or not any(step.get("type") == "scale" for step in _steps(image, level)):
        return Grid(shape), NO_SIZE
    return Grid(shape, tuple(scale.tolist()), tuple(origin.tolist()), unit=unit), "OME-Zarr metadata"


def _steps(image: Mapping[str, Any], level: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*level.get("coordinateTransformations", []), *image.get("coordinateTransformations", [])]


def _placement(image: Mapping[str, Any], level: Mapping[str, Any], kept: Sequence[int]) -> tuple[Array, Array]:
    """Scale and translation along the spatial axes: those of the level first, then those of the image."""
    scale, origin = np.ones(len(kept)), np.zeros(len(kept))
    for step in _steps(image, level):
        if step.get("type") == "scale":
            factors = np.array([step["scale"][k] for k in kept], dtype=float)
            scale, origin = scale * factors, origin * factors
        elif step.get("type") == "translation":
            origin = origin + [step["translation"][k] for k in kept]
    return scale, origin


def _agrees(stated: Grid, scale: Array, origin: Array) -> bool:
    tolerance = 1e-3 * min(stated.spacing)
    return np.allclose(stated.spacing, scale, rtol=1e-5) and np.allclose(stated.origin, origin, atol=tolerance)


def _exact_grid(path: Path, grid: Grid, saved: Mapping[str, Any]) -> Grid:
    try:
        direction = tuple(tuple(map(float, row)) for row in saved["direction"])
        return Grid(grid.shape, tuple(saved["spacing"]), tuple(saved["origin"]), direction, saved["unit"])
    except (KeyError, TypeError, ValueError, InvalidInputError) as error:
        raise UnreadableFileError(path, f"has a damaged attribute {GRID_NAMESPACE} ({error!r})") from error


def _names(attributes: Mapping[str, Any], count: int) -> tuple[str, ...]:
    where: Any = attributes.get("ome", attributes)
    channels = (where.get("omero") or {}).get("channels", [])
    names = tuple(str(channel.get("label", "")) for channel in channels)
    return names if len(names) == count and all(names) else ()


def _axis(name: str, unit: Unit) -> dict[str, str]:
    return {"name": name, "type": "space", **({} if unit == "pixel" else {"unit": unit})}


def _levels(image: Image) -> Iterator[tuple[Array, tuple[int, ...]]]:
    """The pixels, then levels of half the size along the axes that are longer than the smallest, with their factors."""
    data, factors = image.data, (1,) * image.ndim
    yield data, factors
    while max(data.shape[1:]) > SMALLEST:
        halves = tuple(2 if n > SMALLEST // 2 else 1 for n in data.shape[1:])
        data = _coarser(data, halves, labels=image.channels == ("labels",))
        factors = tuple(f * h for f, h in zip(factors, halves, strict=True))
        yield data, factors


def _coarser(data: Array, halves: tuple[int, ...], *, labels: bool) -> Array:
    """Every second pixel of labels, means of two along each axis of intensities; the last odd one is left out."""
    if labels:
        return data[(slice(None), *(slice(None, None, step) for step in halves))]
    kept = data[(slice(None), *(slice(0, n // h * h) for n, h in zip(data.shape[1:], halves, strict=True)))]
    split = [part for n, h in zip(kept.shape[1:], halves, strict=True) for part in (n // h, h)]
    means = kept.reshape(len(kept), *split).mean(axis=tuple(range(2, 2 * len(halves) + 1, 2)), dtype=np.float64)
    return np.asarray((np.rint(means) if data.dtype.kind in "iu" else means).astype(data.dtype))


def _placed(grid: Grid, factors: tuple[int, ...]) -> list[dict[str, Any]]:
    """Scale and translation of a level: the first pixel of a coarse level has its centre further in."""
    scale = [s * f for s, f in zip(grid.spacing, factors, strict=True)]
    shift = [o + s * (f - 1) / 2 for o, s, f in zip(grid.origin, grid.spacing, factors, strict=True)]
    return [{"type": "scale", "scale": [1.0, *scale]}, {"type": "translation", "translation": [0.0, *shift]}]
