"""The store that needs no server: a folder with an inverted index in pieces, and their table in SQLite.

Each piece is a file with the postings of some images: for every word, which of them have it, and how much. A search
looks at the postings of its own words alone. Pieces are never changed; images that are added make a new one, which
takes in those before it that are not much larger, so that there are few. The table says which pieces and images count,
and changes in one transaction: whatever else a killed process leaves behind is not in it, and removed by the next one
that writes.
"""

import json
import sqlite3
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse

from modalign.errors import NoIndexError, OutputError, SearchError
from modalign.io import make_folder, map_arrays, write_arrays, write_bytes, write_text
from modalign.retrieval.definition import Definition
from modalign.retrieval.store import Condition, Entry, Fact, Hit, check_search, latest, ranked

Array = np.ndarray
VERSION = 1
CARD, WORDS, TABLE = "index.json", "vocabulary.safetensors", "index.sqlite"
"""The files of an index beside its pieces; the first is the last to be written when it is made."""
PIECES = "[0-9]*.safetensors"
PATIENCE = 60.0
"""Seconds to wait for another process that writes."""
TAKEN_IN = 2
"""A new piece takes in those before it with up to so many times its images."""
SCHEMA = """
CREATE TABLE facts_of_store (version INTEGER);
CREATE TABLE pieces (number INTEGER PRIMARY KEY, images INTEGER, checksum INTEGER);
CREATE TABLE images (name TEXT PRIMARY KEY, piece INTEGER, place INTEGER, facts TEXT) WITHOUT ROWID;
CREATE INDEX places ON images (piece, place);
"""


@dataclass(frozen=True, eq=False)
class _Piece:
    """Postings of some images, memory-mapped, and which of the images still count."""

    number: int
    postings: sparse.csc_array
    counts: Bool[Array, " images"]

    def scores(self, query: sparse.csr_array) -> Float[Array, " images"]:
        """Inner products with all its images; 0 for those that do not count."""
        found = np.asarray(self.postings[:, query.indices] @ query.data)
        return np.where(self.counts, found, 0)


class FolderStore:
    """See the module. Any number of processes may search, and write one after the other."""

    def __init__(self, folder: Path) -> None:
        """Open a store.

        Raises:
            SearchError: There is none, or it is damaged or of a newer version.
        """
        self.folder, self.definition = folder, _read_definition(folder)
        if not (folder / TABLE).is_file():
            raise SearchError(f"{folder / TABLE} is missing, without which nobody knows the images; build it anew")
        self._table = _opened(folder)
        self._mapped: dict[int, sparse.csc_array] = {}
        self._seen: tuple[int, list[_Piece]] | None = None
        self._gone: list[int] = []

    @classmethod
    def made(cls, folder: Path, definition: Definition) -> "FolderStore":
        """Make a store, or open one of the same definition.

        Raises:
            SearchError: There is one of another definition.
            OutputError: The folder cannot be written to, or holds something else.
        """
        make_folder(folder)
        if not (folder / CARD).exists():
            check_free(folder)
            text, content = definition.packed
            write_bytes(folder / WORDS, content)
            _opened(folder).close()
            write_text(folder / CARD, text)
        store = cls(folder)
        if not store.definition.same_as(definition):
            store.close()
            raise SearchError(f"{folder} is an index of another model, describer or vocabulary; name a new folder")
        return store

    def add(self, entries: Sequence[Entry]) -> None:
        """See :class:`modalign.retrieval.Store`."""
        new = latest(entries, self.definition.words)
        if not new:
            return
        with self._writing():
            self._forget(new)
            self._take_in(list(new.values()))

    def remove(self, names: Collection[str]) -> int:
        """See :class:`modalign.retrieval.Store`."""
        with self._writing():
            return self._forget(set(names))

    def search(self, histogram: sparse.csr_array, count: int, where: Sequence[Condition] = ()) -> list[Hit]:
        """See :class:`modalign.retrieval.Store`."""
        check_search(histogram, count, self.definition.words)
        with self._reading() as pieces:
            allowed = self._allowed(where) if where else None
            scores = [piece.scores(histogram) for piece in pieces]
            if allowed is not None:
                scores = [
                    np.where(_chosen(allowed, p.number, len(s)), s, 0) for p, s in zip(pieces, scores, strict=True)
                ]
            every = np.concatenate([np.zeros(0), *scores])
            best = np.partition(every, -count)[-count] if len(every) > count else 0.0
            least = max(float(best), np.finfo(float).tiny)
            found = [
                self._hit(piece.number, int(place), float(score[place]))
                for piece, score in zip(pieces, scores, strict=True)
                for place in np.flatnonzero(score >= least)
            ]
        return ranked(found, count)

    def facts(self, names: Collection[str]) -> dict[str, Mapping[str, Fact]]:
        """See :class:`modalign.retrieval.Store`."""
        found = (self._asked("SELECT name, facts FROM images WHERE name = ?", (name,)) for name in dict.fromkeys(names))
        return {name: json.loads(told) for rows in found for name, told in rows}

    def names(self) -> list[str]:
        """See :class:`modalign.retrieval.Store`."""
        return [name for (name,) in self._asked("SELECT name FROM images ORDER BY name")]

    def __len__(self) -> int:
        return int(self._asked("SELECT count(*) FROM images")[0][0])

    def _asked(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._table.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise SearchError(f"{self.folder / TABLE} cannot be read: {error}") from error

    def close(self) -> None:
        """Let go of the files."""
        self._seen, self._mapped = None, {}
        self._table.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction, alone, after what killed ones have left is gone; afterwards what it has taken in is too."""
        self._seen, self._gone = None, []
        try:
            self._table.execute("BEGIN IMMEDIATE")
            self._sweep()
            yield
            self._table.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            self._roll_back()
            raise SearchError(f"{self.folder} cannot be written: {error}") from error
        except BaseException:
            self._roll_back()
            raise
        self._seen = None
        for number in self._gone:  # what another writer is about to name must stay, so nothing else is swept here
            self._path(number).unlink(missing_ok=True)
            self._mapped.pop(number, None)

    def _roll_back(self) -> None:
        if self._table.in_transaction:
            self._table.execute("ROLLBACK")

    def _sweep(self) -> None:
        """Remove files of pieces that the table does not name."""
        named = {self._path(number) for (number,) in self._table.execute("SELECT number FROM pieces")}
        for path in self.folder.glob(PIECES):
            if path not in named:
                path.unlink(missing_ok=True)

    def _forget(self, names: Collection[str]) -> int:
        before = self._table.total_changes
        self._table.executemany("DELETE FROM images WHERE name = ?", [(name,) for name in names])
        return self._table.total_changes - before

    def _take_in(self, entries: Sequence[Entry]) -> None:
        """One new piece of images and of the pieces before it that are not much larger."""
        rows = [entry.histogram for entry in entries]
        facts = [json.dumps(dict(entry.facts), ensure_ascii=False) for entry in entries]
        names = [entry.name for entry in entries]
        for number, images, checksum in reversed(self._rows()):
            if images > TAKEN_IN * len(names):
                break
            kept = self._table.execute(
                "SELECT name, place, facts FROM images WHERE piece = ? ORDER BY place", (number,)
            ).fetchall()
            rows.append(self._postings(number, images, checksum).tocsr()[[place for _, place, _ in kept]])
            names += [name for name, _, _ in kept]
            facts += [told for _, _, told in kept]
            self._gone.append(number)
        self._write(sparse.vstack(rows, format="csc"), names, facts)

    def _write(self, postings: sparse.csc_array, names: Sequence[str], facts: Sequence[str]) -> None:
        (last,) = self._table.execute("SELECT coalesce(max(number), 0) FROM pieces").fetchone()
        number = last + 1
        arrays = {
            # of one type, or SciPy would copy what is mapped
            "starts": postings.indptr.astype(np.int32 if postings.nnz < 2**31 else np.int64),
            "images": postings.indices.astype(np.int32 if postings.nnz < 2**31 else np.int64),
            "values": postings.data.astype(np.float32),
        }
        write_arrays(self._path(number), arrays)
        checksum = _checksum(self._path(number))
        self._table.executemany("DELETE FROM pieces WHERE number = ?", [(taken,) for taken in self._gone])
        self._table.execute("INSERT INTO pieces VALUES (?, ?, ?)", (number, len(names), checksum))
        rows = [(name, number, place, told) for place, (name, told) in enumerate(zip(names, facts, strict=True))]
        self._table.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?)", rows)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.safetensors"

    @contextmanager
    def _reading(self) -> Iterator[list[_Piece]]:
        """The pieces as they are at one moment, and the table at the same."""
        self._table.execute("BEGIN")
        try:
            try:
                pieces = self._pieces()
            except SearchError:  # a writer may have taken a piece away just before it could be opened
                self._roll_back()
                self._table.execute("BEGIN")
                pieces = self._pieces()
            yield pieces
        except sqlite3.DatabaseError as error:
            raise SearchError(f"{self.folder / TABLE} cannot be read: {error}") from error
        finally:
            self._roll_back()

    def _pieces(self) -> list[_Piece]:
        (version,) = self._table.execute("PRAGMA data_version").fetchone()
        if self._seen is None or self._seen[0] != version:
            rows = self._rows()
            self._mapped = {number: self._mapped[number] for number, _, _ in rows if number in self._mapped}
            self._seen = version, [self._piece(*row) for row in rows]
        return self._seen[1]

    def _rows(self) -> list[tuple[int, int, int]]:
        """Number, images and checksum of each piece, oldest first."""
        return self._table.execute("SELECT number, images, checksum FROM pieces ORDER BY number").fetchall()

    def _piece(self, number: int, images: int, checksum: int) -> _Piece:
        places = self._table.execute("SELECT place FROM images WHERE piece = ?", (number,)).fetchall()
        counts = np.zeros(images, dtype=bool)
        counts[[place for (place,) in places]] = True
        return _Piece(number, self._postings(number, images, checksum), counts)

    def _postings(self, number: int, images: int, checksum: int) -> sparse.csc_array:
        """The postings of a piece, read through and checked once: no piece changes, and no number comes again."""
        if number not in self._mapped:
            self._mapped[number] = self._checked(number, images, checksum)
        return self._mapped[number]

    def _checked(self, number: int, images: int, checksum: int) -> sparse.csc_array:
        path = self._path(number)
        if not path.is_file():
            raise SearchError(f"{path} is missing; build the index anew")
        if _checksum(path) != checksum:
            raise SearchError(f"{path} is damaged: its checksum is not that of the table; build the index anew")
        arrays = map_arrays(path)
        postings = (arrays["values"], arrays["images"], arrays["starts"])
        return sparse.csc_array(postings, shape=(images, self.definition.words))

    def _allowed(self, where: Sequence[Condition]) -> dict[int, Array]:
        """Places of each piece whose facts fit all conditions."""
        tests = " AND ".join(map(_test, where))
        values = [value for condition in where for value in (condition.value, *[f'$."{condition.key}"'] * 2)]
        found: dict[int, list[int]] = {}
        for piece, place in self._table.execute(f"SELECT piece, place FROM images WHERE {tests}", values):
            found.setdefault(piece, []).append(place)
        return {piece: np.array(places) for piece, places in found.items()}

    def _hit(self, number: int, place: int, score: float) -> Hit:
        query = "SELECT name, facts FROM images WHERE piece = ? AND place = ?"
        name, told = self._table.execute(query, (number, place)).fetchone()
        facts: Mapping[str, Fact] = json.loads(told)
        return Hit(name, score, facts)


def _opened(folder: Path) -> sqlite3.Connection:
    """The table, made where there is none."""
    try:
        table = sqlite3.connect(folder / TABLE, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        table.execute("PRAGMA journal_mode=WAL")
        table.execute("BEGIN IMMEDIATE")
        if not table.execute("SELECT 1 FROM sqlite_master WHERE name = 'pieces'").fetchone():
            for statement in filter(str.strip, SCHEMA.split(";")):
                table.execute(statement)
            table.execute("INSERT INTO facts_of_store VALUES (?)", (VERSION,))
        (version,) = table.execute("SELECT version FROM facts_of_store").fetchone()
        table.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        raise SearchError(f"{folder / TABLE} cannot be opened ({error}); build the index anew") from error
    if version != VERSION:
        raise SearchError(f"{folder} is an index of version {version}; this program knows version {VERSION}")
    return table


def check_free(folder: Path) -> None:
    """Refuse to make an index among other files.

    Raises:
        OutputError: The folder holds something, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(folder, "is a file; name a new folder for the index")
    there = folder.iterdir() if folder.exists() else ()
    if odd := [path.name for path in there if not path.name.startswith((".", TABLE)) and path.name != WORDS]:
        raise OutputError(folder, f"holds something else ({odd[0]}); name a new folder for the index")


def _test(condition: Condition) -> str:
    """SQL for a value and twice the place of its fact; to SQLite every text is more than any number."""
    kind = "= 'text'" if isinstance(condition.value, str) else "IN ('integer', 'real')"
    others = 1 if condition.relation == "!=" else 0
    mirrored = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(condition.relation, condition.relation)
    return f"? {mirrored} json_extract(facts, ?) AND (json_type(facts, ?) {kind} OR {others})"


def _checksum(path: Path) -> int:
    """Of the content of a file, read in blocks."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def _read_definition(folder: Path) -> Definition:
    if not (folder / CARD).is_file():
        raise NoIndexError(folder)
    try:
        text, content = (folder / CARD).read_text(encoding="utf-8"), (folder / WORDS).read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise SearchError(f"the index {folder} cannot be read: {error}; build it anew") from error
    return Definition.unpacked(text, content, str(folder))


def _chosen(allowed: Mapping[int, Array], number: int, images: int) -> Bool[Array, " images"]:
    chosen = np.zeros(images, dtype=bool)
    chosen[allowed.get(number, np.zeros(0, dtype=int))] = True
    return chosen
