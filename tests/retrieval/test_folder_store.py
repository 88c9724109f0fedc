"""The store in a folder obeys the laws, keeps few files, and says what is damaged."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from modalign.errors import InvalidInputError, OutputError, SearchError
from modalign.retrieval import Condition, Entry, FolderStore, make_store, open_store
from modalign.testing.retrieval import StoreLaws, definition, entries, histograms


class TestFolder(StoreLaws):
    @pytest.fixture
    def places(self, tmp_path: Path) -> list[str]:
        return [str(tmp_path / "index")]


class TestShardsOfFolders(StoreLaws):
    @pytest.fixture
    def places(self, tmp_path: Path) -> list[str]:
        return [str(tmp_path / f"shard-{k}") for k in range(3)]

    def check_whole(self, names: list[str], told: int) -> None:
        """Each shard takes its part of an addition whole, or not at all."""
        assert {f"{seed}-{k:04d}" for seed in range(told + 1) for k in range(6)} <= set(names)
        assert {int(name.split("-")[0]) for name in names} <= set(range(told + 2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of 20 images, closed."""
    store = FolderStore.made(tmp_path / "index", definition())
    store.add(entries(20))
    store.close()
    return tmp_path / "index"


def test_pieces_are_taken_in_by_later_ones(folder: Path) -> None:
    store = FolderStore(folder)
    for seed in range(1, 25):
        store.add(entries(3, seed))
    store.close()
    pieces = sorted(path.stem for path in folder.glob("0*.safetensors"))
    assert len(pieces) <= 6
    with sqlite3.connect(folder / "index.sqlite") as table:
        assert [f"{row[0]:08d}" for row in table.execute("SELECT number FROM pieces ORDER BY number")] == pieces
    table.close()


@pytest.mark.parametrize("text", ["", "stain", "=HE", "stain==HE", "a b=3", "stain=", "'; DROP TABLE images; --=1"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no condition"):
        Condition.parsed(text)


def test_odd_names_and_facts_are_refused() -> None:
    (histogram,) = histograms(1)
    for name in ("", " a", "a\0b"):
        with pytest.raises(InvalidInputError):
            Entry(name, histogram)
    for make in (lambda: Entry("a", histogram, {"a b": 1}), lambda: Condition("a'b", "=", 1)):
        with pytest.raises(InvalidInputError, match="no name for a fact"):
            make()


def test_another_version_is_refused(folder: Path) -> None:
    with sqlite3.connect(folder / "index.sqlite") as table:
        table.execute("UPDATE facts_of_store SET version = 99")
    table.close()
    with pytest.raises(SearchError, match="version 99"):
        FolderStore(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda card: card | {"version": 99}, "version 99"),
        (lambda card: card | {"format": "another"}, "not an index of modalign"),
        (lambda card: card | {"checksum": 1}, "vocabulary of .* is damaged or of another index"),
        (lambda card: {"format": "modalign.index", "version": 1}, "description of .* is damaged"),
        (lambda card: card | {"recipe": {"describer": {"name": "nobody"}}}, "description of .* is damaged"),
        (lambda card: [], "description of .* is damaged"),
    ],
)
def test_an_odd_description_is_refused(folder: Path, change: Callable[[dict], object], says: str) -> None:
    card = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(change(card)))
    with pytest.raises(SearchError, match=says):
        FolderStore(folder)


def test_the_vocabulary_of_another_index_is_refused(folder: Path, tmp_path: Path) -> None:
    FolderStore.made(tmp_path / "other", definition(seed=5)).close()
    (folder / "vocabulary.safetensors").write_bytes((tmp_path / "other" / "vocabulary.safetensors").read_bytes())
    with pytest.raises(SearchError, match="of another index"):
        FolderStore(folder)
    (folder / "vocabulary.safetensors").unlink()
    with pytest.raises(SearchError, match="cannot be read"):
        FolderStore(folder)


def test_without_its_table_it_is_no_empty_index(folder: Path) -> None:
    (folder / "index.sqlite").unlink()
    with pytest.raises(SearchError, match=r"index.sqlite is missing"):
        FolderStore(folder)
    assert not (folder / "index.sqlite").exists()


def test_damage_is_named(folder: Path) -> None:
    (piece,) = folder.glob("0*.safetensors")
    whole = piece.read_bytes()
    query = histograms(1)[0]

    def searched() -> None:
        store = FolderStore(folder)
        try:
            store.search(query, 3)
        finally:
            store.close()

    for content in (whole[:-10], whole[:200] + b"\xff" + whole[201:], b""):
        piece.write_bytes(content)
        with pytest.raises(SearchError, match=rf"{piece.name} is damaged"):
            searched()
    piece.unlink()
    with pytest.raises(SearchError, match=rf"{piece.name} is missing"):
        searched()
    (folder / "index.sqlite").write_bytes(b"no data base at all" * 100)
    with pytest.raises(SearchError, match=r"index.sqlite cannot be opened"):
        searched()


def test_a_place_without_an_index_and_one_of_something_else_are_named(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="holds no index"):
        open_store([str(tmp_path / "nothing")])
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "diary.txt").write_text("")
    with pytest.raises(OutputError, match="holds something else"):
        make_store([str(tmp_path)], definition())


def test_what_are_not_all_shards_of_one_index_is_refused(tmp_path: Path) -> None:
    places = [str(tmp_path / f"shard-{k}") for k in range(3)]
    others = [str(tmp_path / f"other-{k}") for k in range(3)]
    make_store(places, definition()).close()
    make_store(others, definition(seed=5)).close()
    for some in (places[:1], places[:2], places[::-1], [places[0], places[2]]):
        with pytest.raises(SearchError, match=r"hold shard \d of 3.*: name all shards of an index, in the order"):
            open_store(some)
    with pytest.raises(SearchError, match="not shards of one index"):
        open_store([*places[:2], others[2]])
    with pytest.raises(SearchError, match="named twice"):
        make_store([str(tmp_path / "a"), str(tmp_path / "a")], definition())
    with pytest.raises(SearchError, match="at least one place"):
        open_store([])


def test_a_writer_keeps_no_piece_that_is_gone_and_maps_without_copies(tmp_path: Path) -> None:
    store = FolderStore.made(tmp_path / "index", definition())
    for seed in range(12):
        store.add(entries(5, seed))
    store.search(histograms(1)[0], 1)
    (again,) = list(store._mapped.values())[:1]
    assert len(store._mapped) == len(list((tmp_path / "index").glob("0*.safetensors")))
    assert not again.indices.flags.owndata
    store.close()
