"""Writing large images tile by tile, with levels of lower resolution, as TIFF or OME-TIFF.

Level L is the image reduced 2^L times along y and x, by halving the level before: the mean of two by two pixels, so
that pixel x of it lies at ``(x + 0.5)·2^L − 0.5`` of the full image. Slices are not reduced.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from jaxtyping import Shaped

from modalign.geometry import Grid
from modalign.image import Image
from modalign.io.files import atomic_path
from modalign.io.tiff_writing import BIG, Plan, failure_as_output_error, plan, resolution

Array = np.ndarray
Compression = Literal["zstd", "zlib", "none"]
Window = tuple[slice, ...]
Render = Callable[[slice, Window], Shaped[Array, "channels *window"]]
"""Gives some channels of a window of the image."""
TILE = 512
"""Side of a tile, in pixels."""
SMALLEST = 2048
"""Levels are added until both sides of an image are at most this long, in pixels."""
_ENCODERS: dict[Compression, dict[str, Any]] = {
    "zstd": {"compression": "zstd", "compressionargs": {"level": 1}},
    "zlib": {"compression": "zlib", "compressionargs": {"level": 1}},
    "none": {},
}


def write_pyramid(
    path: str | Path,
    render: Render,
    description: Image,
    *,
    compression: Compression = "zlib",
    nearest: bool = False,
    levels: int | None = None,
    advance: Callable[[float], None] = lambda _: None,
) -> None:
    """Write a TIFF or OME-TIFF of tiles, and its levels of lower resolution, without ever holding the image.

    Metadata are those of :func:`modalign.io.write_image`. Memory is that of a few tiles; half the image in each
    direction is kept in a temporary file beside. Nothing half-written is left behind.

    Args:
        path: Ends in a suffix of TIFF or OME-TIFF.
        render: Asked for each tile once, in the order of the file: by page, then row, then column.
        description: Grid, channel names and type of the image; its pixels are not looked at and may be a broadcast 0.
        compression: Without loss in any case; see docs/large-images.md.
        nearest: Reduce by picking pixels, as is right for labels, and not by their mean.
        levels: Number of levels of lower resolution; by default until the image is at most :data:`SMALLEST` long.
        advance: Told the finished fraction of the work.

    Raises:
        UnsupportedFormatError: OME-TIFF does not hold such pixels.
        OutputError: The place cannot be written to.
    """
    import tifffile

    path = Path(path)
    planned = plan(path, description)
    levels = _levels(description.grid.shape) if levels is None else levels
    layout = _Layout(planned, description, levels)
    with (
        atomic_path(path) as temporary,
        failure_as_output_error(path),
        tifffile.TiffWriter(temporary, ome=planned.ome, bigtiff=layout.nbytes > BIG) as writer,
        ExitStack() as spools,
    ):
        tiles = _first_level(layout, render)
        for level in range(levels + 1):
            file = spools.enter_context(tempfile.TemporaryFile(dir=temporary.parent))
            spool = _Spool(layout, level, file) if level < levels else None
            told = _told(_kept(tiles, spool, nearest), layout, level, advance)
            writer.write((layout.as_stored(tile) for tile in told), **layout.options(level, compression))
            if spool is not None:
                tiles = spool.tiles()


def _levels(shape: Sequence[int]) -> int:
    """How many times an image is halved."""
    return next(level for level in range(64) if max(ceil(n / 2**level) for n in shape[-2:]) <= SMALLEST)


@dataclass(frozen=True)
class _Layout:
    """The pages and tiles of an image in a file."""

    plan: Plan
    image: Image
    levels: int

    @property
    def is_colour(self) -> bool:
        """Whether the channels of a pixel are stored together."""
        return self.plan.data.ndim == self.image.ndim + 1 and len(self.image.data) == self.plan.data.shape[-1] > 1

    @property
    def pages(self) -> list[tuple[slice, Window]]:
        """Channels and slices of each page."""
        number = len(self.image.data)
        channels = [slice(0, number)] if self.is_colour else [slice(c, c + 1) for c in range(number)]
        slices = product(*(range(n) for n in self.image.grid.shape[:-2]))
        return list(product(channels, (tuple(slice(z, z + 1) for z in place) for place in slices)))

    @property
    def samples(self) -> int:
        """Channels a page."""
        return len(self.image.data) if self.is_colour else 1

    @property
    def nbytes(self) -> int:
        """Bytes of all levels without compression, at most."""
        return 4 * self.plan.data.nbytes // 3 + (1 << 20)

    def size(self, level: int) -> tuple[int, int]:
        """Pixels along y and x of a level."""
        height, width = (ceil(n / 2**level) for n in self.image.grid.shape[-2:])
        return height, width

    def tiles(self, level: int) -> Iterator[tuple[int, int]]:
        """First pixel of each tile of a page of a level."""
        height, width = self.size(level)
        return product(range(0, height, TILE), range(0, width, TILE))

    def as_stored(self, tile: Array) -> Array:
        """A tile ``(channels, y, x)`` as it is written."""
        if not self.is_colour:
            return np.asarray(tile[0])
        stored = np.empty((*tile.shape[1:], len(tile)), tile.dtype)
        for number, channel in enumerate(tile):  # quicker than one transposed copy
            stored[..., number] = channel
        return stored

    def options(self, level: int, compression: Compression) -> dict[str, Any]:
        """Arguments that tell tifffile about a level."""
        lead = self.plan.data.shape[: -3 if self.is_colour else -2]
        shape = (*lead, *self.size(level), *((self.samples,) if self.is_colour else ()))
        dtype = self.image.data.dtype
        encoder = _ENCODERS[compression]
        predictor = {"predictor": 2} if encoder and dtype.kind in "iu" and dtype.itemsize <= 4 else {}
        first = {"subifds": self.levels or None, "metadata": self.plan.notes}
        later = {"subfiletype": 1, "metadata": None if self.plan.ome else {"axes": self.plan.notes["axes"]}}
        place = resolution(self.image.grid, 2**level)
        common = {"shape": shape, "dtype": dtype, "tile": (TILE, TILE), "maxworkers": 1, **self.plan.colours, **place}
        return {**common, **encoder, **predictor, **(later if level else first)}


def _first_level(layout: _Layout, render: Render) -> Iterator[Array]:
    height, width = layout.size(0)
    for channels, slices in layout.pages:
        for y, x in layout.tiles(0):
            window = (*slices, slice(y, min(y + TILE, height)), slice(x, min(x + TILE, width)))
            tile = render(channels, window)
            yield tile.reshape(len(tile), *tile.shape[-2:])


def _kept(tiles: Iterator[Array], spool: "_Spool | None", nearest: bool) -> Iterator[Array]:
    """The tiles, half of each going into the spool."""
    for tile in tiles:
        if spool is not None:
            spool.put(_picked(tile, spool.level) if nearest else halved(tile))
        yield tile


def _told(tiles: Iterator[Array], layout: _Layout, level: int, advance: Callable[[float], None]) -> Iterator[Array]:
    """The tiles, told of as they go by; lower levels are quicker."""
    share = [4.0**-k * (1.0 if k == 0 else 0.3) for k in range(layout.levels + 1)]
    number = len(layout.pages) * len(list(layout.tiles(level)))
    for count, tile in enumerate(tiles, 1):
        advance((sum(share[:level]) + share[level] * count / number) / sum(share))
        yield tile


class _Spool:
    """Halved tiles in a temporary file, from which the tiles of the next level are put together."""

    def __init__(self, layout: _Layout, level: int, file: IO[bytes]) -> None:
        self._layout, self.level, self._file = layout, level, file
        self._shape = (layout.samples, TILE // 2, TILE // 2)
        self._dtype = layout.image.data.dtype

    def put(self, tile: Array) -> None:
        """Add a halved tile; tiles at the border may be smaller than others."""
        if tile.shape != self._shape:
            tile = np.pad(tile, [(0, n - m) for n, m in zip(self._shape, tile.shape, strict=True)])
        self._file.write(np.ascontiguousarray(tile).data)

    def tiles(self) -> Iterator[Array]:
        """The tiles of the next level, in the order of the file."""
        rows, columns = (ceil(n / TILE) for n in self._layout.size(self.level))
        height, width = self._layout.size(self.level + 1)
        for page, (y, x) in product(range(len(self._layout.pages)), list(self._layout.tiles(self.level + 1))):
            tile = np.zeros((self._shape[0], 2, TILE // 2, 2, TILE // 2), self._dtype)
            for down, right in product((0, 1), repeat=2):
                row, column = 2 * (y // TILE) + down, 2 * (x // TILE) + right
                if row < rows and column < columns:
                    tile[:, down, :, right] = self._get((page * rows + row) * columns + column)
            yield tile.reshape(-1, TILE, TILE)[:, : height - y, : width - x]

    def _get(self, number: int) -> Array:
        nbytes = prod(self._shape) * self._dtype.itemsize
        self._file.seek(number * nbytes)
        return np.frombuffer(self._file.read(nbytes), self._dtype).reshape(self._shape)


def halved(tile: Shaped[Array, "channels y x"]) -> Shaped[Array, "channels half_y half_x"]:
    """The mean of two by two pixels; of an odd last row or column, the mean of what there is.

    Means of integers are rounded, halves upwards.
    """
    tile = np.pad(tile, [(0, 0), *((0, n % 2) for n in tile.shape[1:])], mode="edge") if _is_odd(tile) else tile
    kind, size = tile.dtype.kind, tile.dtype.itemsize
    if kind == "f" or size > 4:
        wide = np.dtype(f"f{max(4, size)}") if kind == "f" else np.dtype(float)
        mean = _pair_sums(tile, wide) / 4
        return (mean if kind == "f" else np.rint(mean)).astype(tile.dtype)
    sums = _pair_sums(tile, np.dtype(f"{kind}{2 * size}"))
    sums += 2
    sums >>= 2
    return sums.astype(tile.dtype)


def _is_odd(tile: Array) -> bool:
    return any(n % 2 for n in tile.shape[1:])


def _pair_sums(tile: Array, wide: np.dtype[Any]) -> Array:
    rows = np.add(tile[:, 0::2], tile[:, 1::2], dtype=wide)
    return np.asarray(rows[..., 0::2] + rows[..., 1::2])


def _picked(tile: Array, level: int) -> Array:
    """Every other pixel; which one alternates, so that after all levels it is near the middle of what it covers."""
    first = (level + 1) % 2
    rows, columns = (np.minimum(np.arange(first, n + first, 2), n - 1) for n in tile.shape[1:])
    return np.asarray(tile[:, rows][:, :, columns])


def header(grid: Grid, channels: tuple[str, ...], dtype: np.dtype[Any]) -> Image:
    """An image without pixels, as :func:`write_pyramid` needs it; takes no memory."""
    return Image(np.broadcast_to(np.zeros((), dtype), (len(channels), *grid.shape)), grid, channels)
