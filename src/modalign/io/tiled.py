"""Reading windows of a large TIFF: only the tiles or strips that a window touches are decoded, and few are kept."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from modalign.errors import UnreadableFileError
from modalign.geometry import Grid
from modalign.io.decoded import Decoded
from modalign.io.tiff import channels_first, damage_as_unreadable, named, only_series

Array = np.ndarray
Window = tuple[slice, ...]
KEPT_BYTES = 1 << 25
"""Of decoded tiles that are kept because neighbouring windows need them again."""
_JPEG = frozenset({6, 7, 33007, 34892})


class Piece(NamedTuple):
    """A part of a plane: where its first pixel lies in the plane, and its pixels ``(y, x, samples)``."""

    y: int
    x: int
    pixels: Array


Pieces = Callable[[int, int, slice, slice], Iterator[Piece]]
"""The pieces that together hold a window ``(y, x)`` of a page and one of its planes."""


class TiledReader:
    """A TIFF of which windows are read; what they hold is what :func:`modalign.io.read_image` reads.

    Made by :func:`modalign.io.open_tiled`, which says what can be read in this way. Use it as a context, or close it.

    Attributes:
        grid: Grid of the whole image.
        channels: One name a channel.
        dtype: Type of the pixels.
    """

    def __init__(self, path: Path, tiff: Any, decoded: Decoded, source: Array, pieces: Pieces) -> None:
        """Take an open file, what it holds but for the pixels, and page, plane and sample of each channel and slice."""
        self._path, self._tiff, self._source, self._pieces = path, tiff, source, pieces
        self.grid: Grid = decoded.grid
        self.channels = decoded.channels or tuple(f"channel_{i}" for i in range(len(decoded.data)))
        self.dtype = np.dtype(f"{decoded.data.dtype.kind}{decoded.data.dtype.itemsize}")
        self.pixel_size_from = decoded.pixel_size_from

    def __enter__(self) -> "TiledReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels in memory."""
        return len(self.channels) * prod(self.grid.shape) * self.dtype.itemsize

    def blocks(self) -> Iterator[Window]:
        """Windows that cover the image, for reading all of it with little memory."""
        return blocks_of(self.grid.shape)

    def read(self, window: Window, channels: slice = slice(None)) -> Shaped[Array, "channels *window"]:
        """The pixels of a window, one slice an axis with start and stop inside the image.

        Raises:
            UnreadableFileError: The file is damaged there.
        """
        *slices, rows, columns = window
        source = self._source[(channels, *slices)]
        result = np.empty((*source.shape[:-1], rows.stop - rows.start, columns.stop - columns.start), self.dtype)
        wanted: dict[tuple[int, int], list[tuple[tuple[int, ...], int]]] = {}
        for place in np.ndindex(*source.shape[:-1]):
            page, plane, sample = source[place].tolist()
            wanted.setdefault((page, plane), []).append((place, sample))
        for (page, plane), uses in wanted.items():
            for piece in self._pieces(page, plane, rows, columns):
                height, width = piece.pixels.shape[:2]
                y, x = piece.y - rows.start, piece.x - columns.start
                for place, sample in uses:
                    result[place][y : y + height, x : x + width] = piece.pixels[..., sample]
        return result


def open_reader(path: Path, describe: Callable[[Decoded], Decoded]) -> TiledReader | None:
    """A reader for a TIFF; ``None`` for files that have to be read as a whole, as :func:`modalign.io.open_tiled` says.

    Args:
        path: The file.
        describe: Checks and completes what was found; gets the image with pixels that take no memory.

    Raises:
        UnreadableFileError: Damaged or truncated.
        UnsupportedFormatError: As :func:`modalign.io.read_image`.
    """
    import tifffile

    with ExitStack() as stack:
        with damage_as_unreadable(path):
            reader = _reader(path, stack.enter_context(tifffile.TiffFile(path)), describe)
        if reader is not None:
            stack.pop_all()  # the reader closes the file
    return reader


def _reader(path: Path, tiff: Any, describe: Callable[[Decoded], Decoded]) -> TiledReader | None:
    series = only_series(path, tiff)
    if not _is_plain(series, tiff):
        return None
    key, pages = series.keyframe, list(series.pages)
    _check_extents(path, pages, tiff.filehandle.size)
    numbers, axes = _page_numbers(series)
    source = channels_first(path, numbers, axes)[..., 0, 0]
    shape = (*source.shape, key.imagelength, key.imagewidth)
    empty = np.broadcast_to(np.zeros((), dtype=key.dtype), shape)  # takes no memory
    decoded = describe(named(tiff, empty, "S" in axes))
    samples = key.samplesperpixel
    apart = int(key.planarconfig) == 2
    page, sample = source // samples, source % samples
    triples = np.stack([page, sample if apart else 0 * sample, 0 * sample if apart else sample], axis=-1)
    triples = triples.reshape(len(triples), *decoded.grid.shape[:-2], 3)
    pieces = _rows(path, tiff, pages) if all(_is_raw(p, key) for p in pages) else Tiles(path, tiff, pages).pieces
    return TiledReader(path, tiff, decoded, triples, pieces)


def _is_plain(series: Any, tiff: Any) -> bool:
    """Whether pixels are stored as they are shown, page by page in this file."""
    key, pages = series.keyframe, series.pages
    lead = len(series.axes) - len(key.axes)
    return (
        all(page is not None and page.parent is tiff for page in pages)
        and series.axes[lead:] == key.axes
        and len(pages) == prod(series.shape[:lead])
        and all(page.shape == key.shape and page.dtype == key.dtype for page in pages)
        and key.photometric.name in ("MINISBLACK", "RGB", "YCBCR")
        and int(key.tags.valueof("Orientation", default=1)) == 1
        and key.dtype is not None
        and key.dtype.kind in "uif"
        and key.bitspersample == 8 * key.dtype.itemsize
        and key.imagedepth == 1
        and int(key.nodata) == 0
        and all(axis in "YXS" for axis in key.axes)
    )


def _check_extents(path: Path, pages: Sequence[Any], size: int) -> None:
    """Find out that a file was cut off before work is spent on its beginning."""
    for page in pages:
        if len(page.dataoffsets) != len(page.databytecounts) or not len(page.dataoffsets):
            raise UnreadableFileError(path, "is a damaged or incomplete TIFF (it does not tell where its pixels are)")
        ends = np.array(page.dataoffsets, dtype=np.float64) + np.array(page.databytecounts, dtype=np.float64)
        if ends.max() > size:
            raise UnreadableFileError(path, "is a damaged or incomplete TIFF (it ends before its pixels do)")


def _page_numbers(series: Any) -> tuple[Array, str]:
    """The axes of an image of which rows and columns have one pixel, and for each of its pixels page times sample."""
    key = series.keyframe
    samples = key.samplesperpixel
    sizes = [n if axis == "S" else 1 for axis, n in zip(key.axes, key.shape, strict=True)]
    lead = series.shape[: len(series.axes) - len(key.axes)]
    numbers = np.arange(prod(lead)).reshape(*lead, *(1,) * len(sizes)) * samples
    return numbers + np.arange(prod(sizes)).reshape(sizes), series.axes


def _is_raw(page: Any, key: Any) -> bool:
    """Whether the rows of a page follow each other in the file as they are."""
    counted = sum(page.databytecounts) == prod(key.shape) * key.dtype.itemsize
    return bool(not key.is_tiled and page.is_contiguous and key.is_final and counted)


def _rows(path: Path, tiff: Any, pages: Sequence[Any]) -> Pieces:
    """Pieces of pages without compression, read row by row from where they lie."""
    key = pages[0].keyframe
    apart = int(key.planarconfig) == 2
    samples, dtype = 1 if apart else key.samplesperpixel, key.dtype.newbyteorder(tiff.byteorder)
    pixel = samples * dtype.itemsize
    descriptor = tiff.filehandle.fileno()

    def pieces(page: int, plane: int, rows: slice, columns: slice) -> Iterator[Piece]:
        first, count = pages[page].dataoffsets[0], (columns.stop - columns.start) * pixel
        offsets = (
            first + ((plane * key.imagelength + y) * key.imagewidth + columns.start) * pixel
            for y in range(rows.start, rows.stop)
        )
        content = b"".join(os.pread(descriptor, count, offset) for offset in offsets)
        if len(content) != count * (rows.stop - rows.start):
            raise UnreadableFileError(path, "is a damaged or incomplete TIFF (it ends before its pixels do)")
        yield Piece(
            rows.start, columns.start, np.frombuffer(content, dtype).reshape(rows.stop - rows.start, -1, samples)
        )

    return pieces


class Tiles:
    """Tiles and strips, decoded when they are needed; those used last are kept.

    Attributes:
        kept_bytes: How much is kept at present; never more than :data:`KEPT_BYTES` and one tile.
        decoded: How many have been decoded so far.
    """

    def __init__(self, path: Path, tiff: Any, pages: Sequence[Any]) -> None:
        self._path, self._tiff, self._pages = path, tiff, pages
        key = pages[0].keyframe
        self._size = (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, key.imagewidth)
        self._shape = (key.imagelength, key.imagewidth)
        self._across = ceil(key.imagewidth / self._size[1])
        self._a_plane = self._across * ceil(key.imagelength / self._size[0])
        self._kept: OrderedDict[tuple[int, int], Array] = OrderedDict()
        self.kept_bytes = 0
        self.decoded = 0

    def pieces(self, page: int, plane: int, rows: slice, columns: slice) -> Iterator[Piece]:
        """The parts of all tiles that lie in a window."""
        touched = (range(w.start // n, ceil(w.stop / n)) for w, n in zip((rows, columns), self._size, strict=True))
        for row, column in product(*touched):
            tile = self._tile(page, plane * self._a_plane + row * self._across + column)
            y, x = (number * n for number, n in zip((row, column), self._size, strict=True))
            top, left = max(rows.start, y), max(columns.start, x)
            yield Piece(top, left, tile[top - y : rows.stop - y, left - x : columns.stop - x])

    def _tile(self, page: int, number: int) -> Array:
        if (page, number) in self._kept:
            self._kept.move_to_end((page, number))
            return self._kept[page, number]
        tile = self._decode(page, number)
        self._kept[page, number] = tile
        self.kept_bytes += tile.nbytes
        while self.kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            self.kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        self.decoded += 1
        return tile

    def _decode(self, number_of_page: int, number: int) -> Array:
        """One tile as ``(y, x, samples)``, cut off at the border of the image; zeros where it was never written."""
        page = self._pages[number_of_page]
        key = page.keyframe
        offset, count = page.dataoffsets[number], page.databytecounts[number]
        y, x = number % self._a_plane // self._across * self._size[0], number % self._across * self._size[1]
        height, width = min(self._size[0], self._shape[0] - y), min(self._size[1], self._shape[1] - x)
        samples = 1 if int(key.planarconfig) == 2 else key.samplesperpixel
        if not count:
            return np.zeros((height, width, samples), key.dtype)
        with damage_as_unreadable(self._path, quiet=int(key.compression) != 1):
            self._tiff.filehandle.seek(offset)
            content = self._tiff.filehandle.read(count)
            if len(content) != count:
                raise UnreadableFileError(self._path, "is a damaged or incomplete TIFF (it ends before its pixels do)")
            jpeg = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader} if key.compression in _JPEG else {}
            tile = key.decode(content, number, **jpeg)[0]
            return np.asarray(tile).reshape(*tile.shape[-3:])[:height, :width]


def blocks_of(shape: Sequence[int], side: int = 512) -> Iterator[Window]:
    """Windows that cover an image: slice by slice, and in each from top left to bottom right."""
    sides = (1,) * (len(shape) - 2) + (side, side)
    starts = (range(0, n, step) for n, step in zip(shape, sides, strict=True))
    for start in product(*starts):
        yield tuple(slice(s, min(s + step, n)) for s, step, n in zip(start, sides, shape, strict=True))
