"""Reading OME-Zarr, a folder of chunks, in versions 0.4 and 0.5: as a whole, or in windows.

Source: the specification of next-generation file formats of the Open Microscopy Environment, versions 0.4 and 0.5.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from modalign.errors import InvalidInputError, UnreadableFileError, UnsupportedFormatError
from modalign.geometry import Grid
from modalign.geometry.grid import Unit
from modalign.io.decoded import GRID_NAMESPACE, NO_SIZE, Decoded
from modalign.io.files import one_line
from modalign.io.units import parse_unit

Array = np.ndarray
Window = tuple[slice, ...]
MARKERS = ("zarr.json", ".zgroup", ".zattrs")
"""A folder with one of these files is a Zarr group."""
DIMENSIONS = (2, 3)


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a Zarr group."""
    return any((folder / marker).is_file() for marker in MARKERS)


class ZarrReader:
    """An OME-Zarr image of which windows are read: the chunks that a window touches, and no others.

    Made by :func:`open_ome_zarr`. What windows hold is what :func:`read_ome_zarr` reads.

    Attributes:
        grid: Grid of the whole image.
        channels: One name a channel.
        dtype: Type of the pixels.
        pixel_size_from: Where the pixel size was found, as a phrase for people.
    """

    def __init__(self, path: Path, stored: Any, names: Sequence[str], decoded: Decoded) -> None:
        """Take the stored array, the names of its axes, and what it holds but for the pixels."""
        self._path, self._stored, self._names = path, stored, names
        self.grid: Grid = decoded.grid
        self.channels = decoded.channels or tuple(f"channel_{i}" for i in range(len(decoded.data)))
        self.dtype = np.dtype(f"{decoded.data.dtype.kind}{decoded.data.dtype.itemsize}")
        self.pixel_size_from = decoded.pixel_size_from

    def __enter__(self) -> "ZarrReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is kept open."""

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels in memory."""
        return len(self.channels) * prod(self.grid.shape) * self.dtype.itemsize

    def blocks(self) -> Iterator[Window]:
        """Windows that cover the image, for reading all of it with little memory: each of whole chunks."""
        shape, chunks = self.grid.shape, self._stored.chunks[-self.grid.ndim :]
        for start in product(*(range(0, n, step) for n, step in zip(shape, chunks, strict=True))):
            yield tuple(slice(s, min(s + step, n)) for s, step, n in zip(start, chunks, shape, strict=True))

    def read(self, window: Window, channels: slice = slice(None)) -> Shaped[Array, "channels *window"]:
        """The pixels of a window, one slice an axis with start and stop inside the image.

        Raises:
            UnreadableFileError: The file is damaged there.
        """
        spatial = iter((*(slice(0, 1),) * (_spatial(self._names) - len(window)), *window))
        index = tuple(0 if n == "t" else channels if n == "c" else next(spatial) for n in self._names)
        with _damage(self._path):
            data = np.asarray(self._stored[index], dtype=self.dtype)
        data = data if "c" in self._names else data[None][channels]
        return data.reshape(len(data), *data.shape[-len(window) :])


def open_ome_zarr(path: Path, describe: Callable[[Decoded], Decoded] = lambda decoded: decoded) -> ZarrReader:
    """Open the finest level of an OME-Zarr image, with its scale and translation.

    Args:
        path: The folder.
        describe: Checks and completes what was found; gets the image with pixels that take no memory.

    Raises:
        UnreadableFileError: Damaged, or not an OME-Zarr image.
        UnsupportedFormatError: Several times, or axes in an order that no image has.
    """
    import zarr

    with _damage(path):
        group = zarr.open_group(str(path), mode="r")
        attributes = dict(group.attrs)
        image = _multiscales(path, attributes)
        level = image["datasets"][0]
        stored: Any = group[level["path"]]
        shape, chunks = stored.shape, stored.nchunks_initialized
    axes = _axes(path, image, len(shape))
    names = _ordered(path, shape, axes)
    if not chunks:
        raise UnreadableFileError(path, f"holds no pixels: none of its {stored.nchunks} chunks is there")
    kept = [number for number, name in enumerate(names) if name not in "tc"]
    count = shape[names.index("c")] if "c" in names else 1
    grid, found = _grid(tuple(shape[k] for k in kept), image, level, axes, kept)
    exact = attributes.get(GRID_NAMESPACE)
    if isinstance(exact, Mapping):
        stated = _exact_grid(path, grid, exact)
        if _agrees(stated, *_placement(image, level, kept)):  # else another program has changed the image since
            grid = stated
    empty = np.broadcast_to(np.zeros((), stored.dtype), (count, *grid.shape))  # takes no memory
    return ZarrReader(path, stored, names, describe(Decoded(empty, grid, _names(attributes, count), found)))


def read_ome_zarr(path: Path, ndim: int | None = None) -> Decoded:  # noqa: ARG001 - one signature for all readers
    """Read an OME-Zarr image as a whole; errors as :func:`open_ome_zarr`."""
    found: list[Decoded] = []

    def noted(decoded: Decoded) -> Decoded:
        found.append(decoded)
        return decoded

    reader = open_ome_zarr(path, noted)
    return found[0].with_data(reader.read(tuple(slice(0, n) for n in reader.grid.shape)))


def _reason(error: Exception) -> str:
    """What an error of Zarr means, as far as that is known."""
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    if isinstance(error, FileNotFoundError):
        return "its metadata are missing"
    if isinstance(error, ValueError) and "Expecting" in str(error):
        return "its metadata are no JSON"
    return one_line(str(error))


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """What Zarr raises for damaged or foreign folders, as our error."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, OSError, RuntimeError) as error:
        raise UnreadableFileError(path, f"is damaged, or no OME-Zarr image ({_reason(error)})") from error


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


def _ordered(path: Path, shape: Sequence[int], axes: list[dict[str, Any]]) -> list[str]:
    """The names of the axes, in the one order that is read."""
    names = [str(axis["name"]) for axis in axes]
    if "t" in names and shape[names.index("t")] != 1:
        times = shape[names.index("t")]
        raise UnsupportedFormatError(path, f"has {times} times along its axis t; save one of them as its own image")
    spatial = list("zyx")[-_spatial(names) :]
    orders = [[*lead, *spatial] for lead in ([], ["c"], ["t"], ["t", "c"])]
    if _spatial(names) not in DIMENSIONS or names not in orders:
        raise UnsupportedFormatError(path, f"has the axes {', '.join(names)}; t, c, z, y, x in this order are read")
    return names


def _spatial(names: Sequence[str]) -> int:
    """How many of the axes are spatial."""
    return sum(name not in ("t", "c") for name in names)


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
