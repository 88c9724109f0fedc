from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modalign.data.pairs import Pair, PairFiles, apart, find_pairs, load_pairs, read_pair_table, split_pairs
from modalign.errors import InvalidInputError, PairingError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.io import write_image


@pytest.fixture
def folders(tmp_path: Path, pairs: list[Pair]) -> tuple[Path, Path]:
    for pair in pairs:
        write_image(tmp_path / "a" / f"{pair.name}.png", pair.fixed)
        write_image(tmp_path / "b" / f"{pair.name}.ome.tif", pair.moving)
    return tmp_path / "a", tmp_path / "b"


def test_same_stems_are_pairs(folders: tuple[Path, Path]) -> None:
    found = find_pairs(*folders)
    assert [entry.name for entry in found] == ["p0", "p1", "p2", "p3"]
    assert found[2] == PairFiles("p2", folders[0] / "p2.png", folders[1] / "p2.ome.tif")


def test_hidden_and_foreign_files_do_not_count(folders: tuple[Path, Path]) -> None:
    (folders[0] / ".DS_Store").write_text("x")
    (folders[0] / "notes.txt").write_text("x")
    assert len(find_pairs(*folders)) == 4


def test_masks_are_found_and_honoured(folders: tuple[Path, Path], tmp_path: Path) -> None:
    mask = np.zeros((1, 96, 112), dtype=np.uint8)
    mask[:, 10:] = 255
    write_image(tmp_path / "m" / "p1.png", Image(mask, Grid((96, 112))))
    pairs = load_pairs(find_pairs(*folders, tmp_path / "m"))
    assert pairs[0].fixed.valid.all()
    np.testing.assert_array_equal(pairs[1].fixed.valid, mask[0] > 0)


def test_the_same_stem_twice_is_refused(folders: tuple[Path, Path], pairs: list[Pair]) -> None:
    write_image(folders[0] / "p1.tif", pairs[1].fixed)
    with pytest.raises(PairingError, match="same stem"):
        find_pairs(*folders)


def test_pictures_are_the_stored_ones(folders: tuple[Path, Path], pairs: list[Pair]) -> None:
    loaded = load_pairs(find_pairs(*folders))
    for one, other in zip(loaded, pairs, strict=True):
        np.testing.assert_array_equal(one.fixed.data, other.fixed.data)
        np.testing.assert_array_equal(one.moving.data, other.moving.data)


@pytest.mark.parametrize("text", ["fixed\na.png\n", "fixed,moving\n"])
def test_a_table_needs_its_columns_and_a_row(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(PairingError, match="'fixed' and 'moving'"):
        read_pair_table(tmp_path / "t.csv")


def test_an_empty_cell_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("fixed,moving\na.png,b.png\nc.png,\n")
    with pytest.raises(PairingError, match="line 3"):
        read_pair_table(tmp_path / "t.csv")


def test_pairs_must_have_one_size(make_pair: Callable[..., Pair]) -> None:
    one, other = make_pair(0), make_pair(0, (50, 60))
    with pytest.raises(InvalidInputError, match="same size"):
        Pair("x", one.fixed, other.moving)


@pytest.mark.parametrize(
    ("count", "fraction", "kept"), [(1, 0.5, 0), (2, 0.2, 1), (4, 0.9, 3), (4, 0.0, 0), (10, 0.2, 2)]
)
def test_split_is_disjoint_and_keeps_something_to_train_on(
    make_pair: Callable[..., Pair], count: int, fraction: float, kept: int
) -> None:
    pairs = [make_pair(k, (20, 20)) for k in range(count)]
    train, validation = split_pairs(pairs, fraction, seed=0)
    assert len(validation) == kept
    names = [p.name for p in train + validation]
    assert sorted(names) == sorted(p.name for p in pairs)
    again = split_pairs(pairs, fraction, seed=0)
    assert [p.name for p in again[1]] == [p.name for p in validation]


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 3.0])
def test_impossible_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(InvalidInputError, match="fraction"):
        split_pairs([], fraction, 0)


@pytest.mark.parametrize(
    ("moving", "told"),
    [
        (Grid((8, 9), (2.0, 3.0), unit="millimeter"), ""),
        (Grid((8, 9), (2000.0, 3000.0), unit="micrometer"), ""),
        (Grid((8, 9), (2.0, 3.0), (1.0, -2.0), unit="millimeter"), ""),
        (Grid((8, 9), (9.0, 9.0)), ""),
        (Grid((8, 9), (2.0, 2.0), unit="millimeter"), "pixels of 2 × 3 and of 2 × 2 millimeter"),
        (Grid((8, 9), (2.0, 3.0), (0.0, 30.0), unit="millimeter"), "up to 10 pixels apart"),
        (Grid((8, 9), (2.0, 3.0), direction=((-1.0, 0.0), (0.0, 1.0)), unit="millimeter"), "14 pixels apart"),
    ],
)
def test_what_files_say_against_a_pair_is_told(moving: Grid, told: str) -> None:
    fixed = Grid((8, 9), (2.0, 3.0), unit="millimeter")
    images = (Image(np.zeros((1, 8, 9), dtype=np.float32), grid) for grid in (fixed, moving))
    found = apart(Pair("a", *images))
    assert told in found
    assert bool(told) == bool(found)
