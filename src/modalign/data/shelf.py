"""Where the pixels of a training wait: in memory as far as they fit, and else in files that are read as needed."""

import os
import tempfile
from contextlib import suppress
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from modalign.data.pairs import Pair
from modalign.errors import InvalidInputError, OutputError

Array = np.ndarray
GIB = 2**30
SHARE = 0.25
"""Of the memory of the machine that is used by default."""


def machine_memory() -> float:
    """Memory of this machine in GiB, or what its control group lets this process use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    with suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()) / GIB)
    return total


def mapped(folder: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Shaped[Array, "*shape"]:
    """An array in a nameless file, which is gone with the array, however the process ends.

    Raises:
        OutputError: The folder cannot be written to, or has no room.
    """
    need = prod(shape) * np.dtype(dtype).itemsize
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, max(need, 1))  # or a full disk would kill the process later on
            return np.asarray(np.memmap(file, dtype, "r+", shape=shape))
    except OSError as error:
        room = f"{need / GIB:.1f} GiB are needed there for a while"
        raise OutputError(folder, f"cannot be written to ({error.strerror}); {room}") from error


class Shelf:
    """Keeps arrays: the first ones in memory, up to a limit, and the others in files.

    Attributes:
        on_disk: Bytes that are kept in files so far.
    """

    def __init__(self, folder: Path | None = None, gib: float | None = None) -> None:
        """Take a folder for the files, the system's by default, and the limit, by default a share of the memory."""
        if gib is not None and not gib >= 0:
            raise InvalidInputError(f"what is kept in memory is at least 0 GiB, not {gib:g}")
        self._folder = Path(tempfile.gettempdir()) if folder is None else folder
        self._left = GIB * (SHARE * machine_memory() if gib is None else gib)
        self.on_disk = 0

    def put(self, array: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
        """The same array, or one with the same content in a file."""
        if array.nbytes <= self._left:
            self._left -= array.nbytes
            return array
        kept = mapped(self._folder, array.shape, array.dtype)
        kept[...] = array
        self.on_disk += array.nbytes
        return kept

    def put_pair(self, pair: Pair) -> Pair:
        """A pair whose pixels are kept."""
        fixed, moving = (image.with_data(self.put(image.data), image.channels) for image in (pair.fixed, pair.moving))
        return replace(pair, fixed=fixed, moving=moving)
