"""Pixels that do not fit into memory wait in files, and nobody notices."""

import gc
from pathlib import Path

import numpy as np
import pytest

from modalign.data import shelf as shelf_module
from modalign.data.pairs import Pair
from modalign.data.shelf import GIB, Shelf, machine_memory, mapped
from modalign.errors import InvalidInputError, OutputError
from modalign.geometry import Grid
from modalign.image import Image


def test_what_does_not_fit_waits_in_a_file_and_stays_the_same(tmp_path: Path) -> None:
    arrays = [np.random.default_rng(k).standard_normal((1, 30, 40)).astype(np.float32) for k in range(3)]
    shelf = Shelf(tmp_path, 1.5 * arrays[0].nbytes / GIB)
    kept = [shelf.put(array) for array in arrays]
    assert kept[0] is arrays[0]
    assert shelf.on_disk == 2 * arrays[0].nbytes
    for one, other in zip(kept, arrays, strict=True):
        assert type(one) is np.ndarray
        np.testing.assert_array_equal(one, other)
    assert not list(tmp_path.iterdir()), "the files have no names"


def test_a_pair_keeps_all_but_the_place_of_its_pixels(tmp_path: Path) -> None:
    grid = Grid((20, 30), (0.5, 0.5), unit="micrometer")
    rng = np.random.default_rng(0)
    images = [Image(rng.integers(0, 255, (n, 20, 30)).astype(np.uint8), grid, mask=grid_mask(grid)) for n in (3, 1)]
    pair = Shelf(tmp_path, 0).put_pair(Pair("a", *images))
    for one, other in zip((pair.fixed, pair.moving), images, strict=True):
        np.testing.assert_array_equal(one.data, other.data)
        np.testing.assert_array_equal(one.valid, other.valid)
        assert (one.grid, one.channels, one.data.dtype) == (other.grid, other.channels, other.data.dtype)


def grid_mask(grid: Grid) -> np.ndarray:
    mask = np.ones(grid.shape, dtype=bool)
    mask[:4] = False
    return mask


def test_space_on_disk_is_given_back(tmp_path: Path) -> None:
    array = mapped(tmp_path, (1000, 1000), np.dtype(np.float32))
    array[...] = 1
    held = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    assert held
    del array
    gc.collect()
    assert not [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]


def test_no_room_and_no_sense_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(InvalidInputError, match="at least 0 GiB"):
        Shelf(tmp_path, -1.0)
    with pytest.raises(OutputError, match="No such file"):
        mapped(tmp_path / "absent", (3,), np.dtype(np.uint8))
    monkeypatch.setattr(shelf_module.os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"No space left.*GiB are needed"):
        Shelf(tmp_path, 0).put(np.ones(9))


def test_the_limit_is_that_of_this_machine() -> None:
    assert 0.1 < machine_memory() < 1e5
