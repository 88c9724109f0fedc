"""The store on a server: PostgreSQL with pgvector, for indexes that many machines share.

Histograms are sparse vectors, and a search compares all that its conditions allow, on the server. Beside them lie short
dense rows; where an index of them was built, :meth:`PostgresStore.search_approximately` looks at few images only. An
addition is one transaction. The tables lie in the current schema of the address, so ``?options=-csearch_path%3Dname``
chooses one.
"""

import json
import math
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from psycopg import sql
from scipy import sparse

from modalign.errors import InvalidInputError, NoIndexError, SearchError
from modalign.retrieval.definition import Definition
from modalign.retrieval.postgres_connection import Link, Server
from modalign.retrieval.postgres_dense import projected
from modalign.retrieval.store import Condition, Entry, Fact, Hit, check_search, latest, ranked

Array = np.ndarray
VERSION = 1
MOST_FILLED, MOST_WORDS = 16_000, 1_000_000_000
"""Limits of pgvector: words of one image, and of all."""
AT_ONCE = 1000
"""Images that are brought into the form of the server together."""
LEAST_ROWS = 4000
"""Fewer images are compared one by one: that is as fast."""
LEAST_SHARE = 0.05
"""So are the images that conditions allow where they are a smaller share: the index of the dense rows finds none."""
LEAST_CANDIDATES, CANDIDATES_A_HIT = 100, 10
SAMPLED_PAGES = 1000
MOST_EF_SEARCH = 1000
"""Limit of pgvector."""

LOCK = "SELECT pg_advisory_xact_lock(hashtext('modalign_index'))"
INDEX_TABLE = """
CREATE TABLE IF NOT EXISTS modalign_index (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), version int NOT NULL, card text NOT NULL,
  vocabulary bytea NOT NULL)
"""
IMAGES_TABLE = sql.SQL("""
CREATE TABLE IF NOT EXISTS modalign_images (
  name text COLLATE "C" PRIMARY KEY, facts jsonb NOT NULL, embedding halfvec(256), words sparsevec({}) NOT NULL
) WITH (toast_tuple_target = 8160)
""")
"""Rows of up to a page are kept whole: a search reads all, and parts that lie elsewhere take long to fetch."""
NEW_TABLE = """
CREATE TEMPORARY TABLE IF NOT EXISTS modalign_new (LIKE modalign_images) ON COMMIT DELETE ROWS
"""
TAKE_IN = """
INSERT INTO modalign_images SELECT * FROM modalign_new ORDER BY name
ON CONFLICT (name) DO UPDATE SET facts = EXCLUDED.facts, embedding = EXCLUDED.embedding, words = EXCLUDED.words
"""
"""All writers take rows in the same order, so none waits for one that waits for it."""
REMOVE = """
DELETE FROM modalign_images WHERE name IN (
  SELECT name FROM modalign_images WHERE name = ANY(%s::text[]) ORDER BY name FOR UPDATE)
"""
SEARCH = sql.SQL("""
SELECT name, words <#> %s::sparsevec AS distance, facts FROM modalign_images
WHERE {} ORDER BY distance, name LIMIT %s
""")
DENSE_INDEX = """
CREATE INDEX IF NOT EXISTS modalign_images_embedding ON modalign_images USING hnsw (embedding halfvec_ip_ops)
"""
DENSE_STATE = """
SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('modalign_images_embedding') AND indisvalid),
  (SELECT count(*) FROM (SELECT FROM modalign_images LIMIT %s) AS first),
  pg_relation_size('modalign_images') / current_setting('block_size')::int
"""
SAMPLE = sql.SQL("""
SELECT count(*) FILTER (WHERE {}), count(*) FROM modalign_images TABLESAMPLE SYSTEM (%s) REPEATABLE (0)
""")
DENSE_SETTINGS = """
SELECT set_config('hnsw.ef_search', %s::text, true), (
  SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true) FROM pg_extension
  WHERE extname = 'vector' AND string_to_array(extversion, '.')::int[] >= '{0,8}')
"""
SEARCH_DENSE = sql.SQL("""
SELECT name, words <#> %s::sparsevec, facts FROM (
  SELECT name, words, facts FROM modalign_images WHERE {} ORDER BY embedding <#> %s::halfvec LIMIT %s) AS near
""")
TEST = {
    float: "CASE jsonb_typeof(facts -> %s::text) WHEN 'number' THEN (facts ->> %s::text)::float8 {} %s::float8"
    " WHEN 'string' THEN {} ELSE false END",
    str: "CASE jsonb_typeof(facts -> %s::text) WHEN 'string' THEN (facts ->> %s::text) COLLATE \"C\" {} %s::text"
    " WHEN 'number' THEN {} ELSE false END",
}
"""By the kind of a value: twice the name of the fact, the relation, and whether it holds for the other kind."""


class PostgresStore:
    """See the module. Any number of processes may search and write at the same time."""

    def __init__(self, uri: str) -> None:
        """Open a store at an address such as ``postgresql://user:password@host:5432/database``.

        Raises:
            SearchError: There is none, it is damaged or of a newer version, or the server cannot be used.
        """
        self._server = Server(uri)
        try:
            self.definition = _read_definition(self._server)
        except BaseException:
            self.close()
            raise

    @classmethod
    def made(cls, uri: str, definition: Definition) -> "PostgresStore":
        """Make a store, or open one of the same definition.

        Raises:
            SearchError: There is one of another definition, or the server cannot be used.
        """
        if definition.words > MOST_WORDS:
            raise SearchError(f"a server keeps histograms of at most {MOST_WORDS} words; this has {definition.words}")
        _make(uri, definition)
        store = cls(uri)
        if not store.definition.same_as(definition):
            store.close()
            raise SearchError(
                f"{store.where} is an index of another model, describer or vocabulary; name a new database or schema"
            )
        return store

    @property
    def where(self) -> str:
        """Host, port and database."""
        return self._server.where

    def add(self, entries: Sequence[Entry]) -> None:
        """See :class:`modalign.retrieval.Store`. Where the server is lost meanwhile, it is safe to add them again."""
        new = list(latest(entries, self.definition.words).values())
        if not new:
            return
        with self._server.writing() as link:
            link.execute(NEW_TABLE)
            with link.cursor() as cursor, cursor.copy("COPY modalign_new FROM STDIN (FORMAT binary)") as copy:
                for block in _copied(new):
                    copy.write(block)
            link.execute(TAKE_IN)

    def remove(self, names: Collection[str]) -> int:
        """See :class:`modalign.retrieval.Store`."""
        with self._server.writing() as link:
            return link.execute(REMOVE, [list(names)]).rowcount

    def search(self, histogram: sparse.csr_array, count: int, where: Sequence[Condition] = ()) -> list[Hit]:
        """See :class:`modalign.retrieval.Store`."""
        check_search(histogram, count, self.definition.words)
        tests, values = _tests(where)
        return _hits(self._server.ask(SEARCH.format(tests), [_words_text(histogram), *values, count]), count)

    def build_dense_index(self, megabytes: int = 512) -> None:
        """Build what :meth:`search_approximately` uses; it takes long, and nothing can be added meanwhile.

        Images that are added later are taken in as they come. It may be called again: what is there stays.

        Args:
            megabytes: Memory of the server to build it in; more than 1 a thousand images is not of use.

        Raises:
            SearchError: The server refuses.
        """
        with self._server.writing() as link:
            link.execute("SELECT set_config('maintenance_work_mem', %s, true)", [f"{megabytes}MB"])
            link.execute(DENSE_INDEX)

    def search_approximately(
        self,
        histogram: sparse.csr_array,
        count: int,
        where: Sequence[Condition] = (),
        candidates: int | None = None,
    ) -> list[Hit]:
        """As :meth:`search`, without looking at all images: scores are exact, but some of the best may be missing.

        Where there are few images, conditions allow few of them, or no dense index was built, it looks at all.

        Args:
            histogram: ``(1, words)``.
            count: Hits at most.
            where: What facts must be.
            candidates: Images whose scores are computed; ``None`` for 10 a hit, and 100 at least.

        Raises:
            InvalidInputError: The histogram has another number of words, or there is room for no hit or candidate.
            SearchError: The store cannot be read.
        """
        check_search(histogram, count, self.definition.words)
        if candidates is not None and candidates < 1:
            raise InvalidInputError("a search needs at least one candidate")
        most = max(count, candidates or max(LEAST_CANDIDATES, CANDIDATES_A_HIT * count))
        rows = self._server.read(lambda link: _near(link, histogram, most, where))
        # where it found too few, conditions may have hidden the best from it
        return self.search(histogram, count, where) if len(rows) < most else _hits(rows, count)

    def facts(self, names: Collection[str]) -> dict[str, Mapping[str, Fact]]:
        """See :class:`modalign.retrieval.Store`."""
        query = "SELECT name, facts FROM modalign_images WHERE name = ANY(%s::text[])"
        return dict(self._server.ask(query, [list(names)]))

    def names(self) -> list[str]:
        """See :class:`modalign.retrieval.Store`."""
        return [name for (name,) in self._server.ask("SELECT name FROM modalign_images ORDER BY name")]

    def __len__(self) -> int:
        return int(self._server.ask("SELECT count(*) FROM modalign_images")[0][0])

    def close(self) -> None:
        """Let go of the connection; a later call makes a new one."""
        self._server.close()


def _make(uri: str, definition: Definition) -> None:
    """The tables, and the definition in them, where there are none."""
    server = Server(uri)
    try:
        server.provide_vector()
        with server.writing() as link:
            link.execute(LOCK)
            link.execute(INDEX_TABLE)
            link.execute(IMAGES_TABLE.format(sql.Literal(definition.words)))
            insert = "INSERT INTO modalign_index VALUES (true, %s, %s, %s) ON CONFLICT DO NOTHING"
            link.execute(insert, [VERSION, *definition.packed])
    finally:
        server.close()


def _read_definition(server: Server) -> Definition:
    found = server.ask("SELECT to_regclass(quote_ident(current_schema()) || '.modalign_index')::text")
    row = server.read(_index_row) if found[0][0] else None
    if row is None:
        raise NoIndexError(server.where)
    version, card, vocabulary = row
    if version != VERSION:
        raise SearchError(f"{server.where} is an index of version {version}; this program knows version {VERSION}")
    return Definition.unpacked(card, vocabulary, server.where)


def _index_row(link: Link) -> tuple[Any, ...] | None:
    return link.execute("SELECT version, card, vocabulary FROM modalign_index", binary=True).fetchone()


def _tests(where: Sequence[Condition]) -> tuple[sql.Composable, list[Any]]:
    """SQL that holds for the images that fit all conditions, and its parameters."""
    tests = [_test(condition) for condition in where]
    values = [value for condition in where for value in (condition.key, condition.key, _value(condition))]
    return sql.SQL(" AND ").join(tests) if tests else sql.SQL("true"), values


def _test(condition: Condition) -> sql.Composable:
    relation, others = sql.SQL(condition.relation), sql.SQL("true" if condition.relation == "!=" else "false")
    return sql.SQL(TEST[str if isinstance(condition.value, str) else float]).format(relation, others)


def _value(condition: Condition) -> Fact | None:
    """What nothing compares with is NULL: to the server, NaN is the largest number."""
    odd = not isinstance(condition.value, str) and math.isnan(condition.value)
    return None if odd else condition.value


def _near(
    link: Link, histogram: sparse.csr_array, candidates: int, where: Sequence[Condition]
) -> list[tuple[Any, ...]]:
    """Names, negative scores and facts of images with near dense rows; fewer, or none, where that is not of use."""
    tests, values = _tests(where)
    with link.transaction():
        if not _is_dense_of_use(link, tests, values):
            return []
        link.execute(DENSE_SETTINGS, [min(candidates, MOST_EF_SEARCH)])
        row = "[" + ",".join(f"{value:.5g}" for value in projected(histogram)[0]) + "]"
        return link.execute(SEARCH_DENSE.format(tests), [_words_text(histogram), *values, row, candidates]).fetchall()


def _is_dense_of_use(link: Link, tests: sql.Composable, values: Sequence[Any]) -> bool:
    """Whether its index is there, with many images, of which conditions allow enough by a sample."""
    (there, rows, pages) = link.execute(DENSE_STATE, [LEAST_ROWS]).fetchall()[0]
    if not there or rows < LEAST_ROWS:
        return False
    percent = 100 * min(1, SAMPLED_PAGES / pages)
    (allowed, sampled) = link.execute(SAMPLE.format(tests), [*values, percent]).fetchall()[0]
    return bool(sampled and allowed >= LEAST_SHARE * sampled)


def _hits(rows: Sequence[tuple[Any, ...]], count: int) -> list[Hit]:
    return ranked([Hit(name, -distance, facts) for name, distance, facts in rows if distance < 0], count)


def _canonical(histograms: sparse.csr_array) -> sparse.csr_array:
    """Histograms whose words are in order, each of them once, and none 0, as the server wants them."""
    made = histograms.astype(np.float32, copy=True)
    made.sum_duplicates()
    made.eliminate_zeros()
    most = int(np.diff(made.indptr).max())
    if most > MOST_FILLED:
        raise SearchError(f"a histogram has {most} different words; a server keeps at most {MOST_FILLED} of an image")
    return made


def _words_text(histogram: sparse.csr_array) -> str:
    """A sparse vector as text; its first place is 1."""
    made = _canonical(histogram)
    pairs = ",".join(f"{word + 1}:{value:.9g}" for word, value in zip(made.indices, made.data, strict=True))
    return f"{{{pairs}}}/{made.shape[1]}"


def _copied(entries: Sequence[Entry]) -> Iterator[bytes]:
    """Rows of the table in the binary form of COPY."""
    yield b"PGCOPY\n\xff\r\n\0" + bytes(8)
    for start in range(0, len(entries), AT_ONCE):
        yield _block(entries[start : start + AT_ONCE])
    yield b"\xff\xff"


def _block(entries: Sequence[Entry]) -> bytes:
    made = _canonical(sparse.vstack([entry.histogram for entry in entries], format="csr"))
    rows = []
    for entry, dense, start, end in zip(entries, projected(made), made.indptr, made.indptr[1:], strict=False):
        words = _words_bytes(made.indices[start:end], made.data[start:end], made.shape[1])
        fields = [*_texts(entry), _dense_bytes(dense) if dense.any() else None, words]
        rows.append(struct.pack("!h", len(fields)) + b"".join(map(_field, fields)))
    return b"".join(rows)


def _field(content: bytes | None) -> bytes:
    return struct.pack("!i", -1) if content is None else struct.pack("!i", len(content)) + content


def _texts(entry: Entry) -> tuple[bytes, bytes]:
    """The name, and the facts as the server's JSON."""
    try:
        return entry.name.encode(), b"\x01" + json.dumps(dict(entry.facts), allow_nan=False).encode()
    except ValueError as error:
        raise SearchError(f"the image {entry.name!r} has a name or fact that no server keeps: {error}") from error


def _words_bytes(indices: Array, values: Array, words: int) -> bytes:
    """A sparse vector in binary; its first place is 0."""
    return (
        struct.pack("!iii", words, len(indices), 0) + indices.astype(">i4").tobytes() + values.astype(">f4").tobytes()
    )


def _dense_bytes(row: Array) -> bytes:
    return struct.pack("!hh", len(row), 0) + row.astype(">f2").tobytes()
