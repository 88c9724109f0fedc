"""The store on a server obeys the laws, survives kills of client and server, and says what is wrong in one line."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from postgres_server import PASSWORD, PostgresServer
from scipy import sparse

from modalign.errors import InvalidInputError, SearchError
from modalign.retrieval import Condition, Entry, FolderStore, Hit, Store, make_store, open_store, postgres
from modalign.retrieval.postgres_connection import check_server, check_vector
from modalign.testing.retrieval import (
    StoreLaws,
    check_same,
    definition,
    entries,
    exact,
    histograms,
)


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """For tests that leave it running."""
    made = PostgresServer("fsync=off")
    yield made
    made.close()


@pytest.fixture
def database(server: PostgresServer) -> Iterator[str]:
    """A new database, with four schemas."""
    made = server.new_database("s0", "s1", "s2", "s3")
    yield made
    server.drop(made)


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgresServer]:
    """For tests that kill it; what it told to have written must be on the disk."""
    made = PostgresServer()
    yield made
    made.close()


@pytest.fixture
def opened() -> Iterator[Callable[[Store], Store]]:
    """Closes stores at the end."""
    stores = list[Store]()

    def keep(store: Store) -> Store:
        stores.append(store)
        return store

    yield keep
    for store in stores:
        store.close()


class TestPostgres(StoreLaws):
    @pytest.fixture
    def places(self, server: PostgresServer, database: str) -> list[str]:
        return [server.uri(database)]


class TestShardsOfPostgres(StoreLaws):
    @pytest.fixture
    def places(self, server: PostgresServer, database: str) -> list[str]:
        return [server.uri(database, schema=f"s{k}") for k in range(3)]

    def check_whole(self, names: Sequence[str], told: int) -> None:
        """Each shard takes its part of an addition whole, or not at all."""
        assert {f"{seed}-{k:04d}" for seed in range(told + 1) for k in range(6)} <= set(names)
        assert {int(name.split("-")[0]) for name in names} <= set(range(told + 2))


def check_ranking(found: Sequence[Hit], wanted: Sequence[Hit]) -> None:
    """Fail unless the scores agree, and the names wherever scores do not nearly tie."""
    scores = np.array([hit.score for hit in wanted])
    np.testing.assert_allclose([hit.score for hit in found], scores, rtol=1e-4)
    apart = np.flatnonzero(np.diff(scores) < -1e-4 * scores[:-1]) + 1
    for part in np.split(np.arange(len(scores)), apart)[:-1]:  # the last may tie with what there was no room for
        assert {found[k].name for k in part} == {wanted[k].name for k in part}


FILTERS = {"all": [], "half": ["number<1000"], "one in a thousand": ["number>=1998"]}


def test_the_ranking_is_that_of_a_folder_after_reopening_and_after_the_server_was_killed(
    mortal: PostgresServer, tmp_path: Path, opened: Callable[[Store], Store]
) -> None:
    kept = [Entry(e.name, e.histogram, {"number": float(k)}) for k, e in enumerate(entries(2000))]
    uri = mortal.uri(mortal.new_database())
    folder = opened(FolderStore.made(tmp_path / "index", definition()))
    store = opened(make_store([uri], definition()))
    for each in (folder, store):
        each.add(kept)

    def check(store: Store) -> None:
        for texts in FILTERS.values():
            where = [Condition.parsed(text) for text in texts]
            for query in histograms(3, seed=42):
                check_ranking(store.search(query, 20, where), folder.search(query, 20, where))

    check(store)
    check(opened(open_store([uri])))
    mortal.kill()
    mortal.start()
    check(store)
    check(opened(open_store([uri])))


def test_without_one_of_two_servers_a_search_says_so_and_with_it_again_all_is_as_before(
    server: PostgresServer, database: str, mortal: PostgresServer, opened: Callable[[Store], Store]
) -> None:
    kept, query = entries(200), histograms(1, seed=9)[0]
    single = opened(make_store([server.uri(database, schema="s0")], definition()))
    places = [mortal.uri(mortal.new_database()), server.uri(database, schema="s1")]
    shards = opened(make_store(places, definition()))
    for store in (single, shards):
        store.add(kept)
    check_same(shards.search(query, 10), single.search(query, 10))
    mortal.kill()
    try:
        for act in (lambda: shards.search(query, 10), lambda: shards.add(entries(9, 5)), lambda: open_store(places)):
            with pytest.raises(SearchError, match=r"^the server of the index cannot be reached: /.*") as told:
                act()
            assert "\n" not in str(told.value)
    finally:
        mortal.start()
    shards.remove([entry.name for entry in entries(9, 5)])  # all or none holds for each shard
    check_same(shards.search(query, 10), single.search(query, 10))


WRITES = """
import sys
import numpy as np
from modalign.retrieval import open_store
from modalign.testing.retrieval import entries
store, rng = open_store([sys.argv[1]]), np.random.default_rng(int(sys.argv[2]))
kept = entries(60, 3)
sys.stdin.read(1)
for _ in range(15):
    store.add([kept[k] for k in rng.permutation(60)[:40]])
    store.remove([kept[k].name for k in rng.permutation(60)[:5]])
store.add([kept[k] for k in rng.permutation(60)])
store.close()
"""


def test_two_processes_that_write_the_same_names_lose_and_double_nothing(
    server: PostgresServer, database: str, opened: Callable[[Store], Store]
) -> None:
    store = opened(make_store([server.uri(database)], definition()))
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITES, server.uri(database), str(seed)], stdin=subprocess.PIPE)
        for seed in range(2)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.close()
    assert [writer.wait(100) for writer in writers] == [0, 0]
    kept, query = entries(60, 3), histograms(1, seed=7)[0]
    store.add(kept[:1])
    assert store.names() == sorted(entry.name for entry in kept)
    check_same(store.search(query, 30), exact(kept, query, 30))


ADDS_AND_GOES_ON = """
import sys
from modalign.errors import SearchError
from modalign.retrieval import open_store
from modalign.testing.retrieval import entries
store = open_store([sys.argv[1]])
for seed in range(10_000):
    try:
        store.add(entries(6, seed))
        print("added", seed, flush=True)
    except SearchError as error:
        print("failed", seed, str(error).replace(" ", "-"), flush=True)
        sys.stdin.readline()
"""


def test_what_a_server_told_to_have_added_is_there_after_it_was_killed_and_nothing_half(
    mortal: PostgresServer, opened: Callable[[Store], Store]
) -> None:
    uri = mortal.uri(mortal.new_database())
    store = opened(make_store([uri], definition()))
    command = [sys.executable, "-c", ADDS_AND_GOES_ON, uri]
    added, failed = set[int](), set[int]()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for kill in range(3):
            while len(added) < 5 * (kill + 1):
                added.add(int(process.stdout.readline().split()[1]))
            mortal.kill()
            told = process.stdout.readline().split()
            while told[0] == "added":
                added.add(int(told[1]))
                told = process.stdout.readline().split()
            assert "lost-while-it-was-written" in told[2] or "cannot-be-reached" in told[2]
            failed.add(int(told[1]))
            mortal.start()
            names = store.names()
            assert len(names) % 6 == 0
            whole = {int(name.split("-")[0]) for name in names}
            assert added <= whole <= added | failed
            process.stdin.write("\n")
            process.stdin.flush()
        process.kill()


def test_a_connection_that_is_cut_while_idle_is_made_anew_and_one_cut_in_an_addition_keeps_nothing(
    server: PostgresServer, database: str, opened: Callable[[Store], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(make_store([server.uri(database)], definition()))

    def cut() -> None:
        with server.connected() as link:
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'modalign'"
            assert link.execute(query).fetchall() == [(True,)]

    for act in (lambda: store.add(entries(5)), lambda: len(store), lambda: store.remove(["0-0000"])):
        cut()
        act()
    copied = postgres._copied

    def copied_and_cut(given: Sequence[Entry]) -> Iterator[bytes]:
        yield from copied(given)
        cut()

    with monkeypatch.context() as patch:
        patch.setattr(postgres, "_copied", copied_and_cut)
        with pytest.raises(SearchError, match=r"was lost while it was written: .*do it again"):
            store.add(entries(7, 1))
    assert store.names() == [f"0-{k:04d}" for k in range(1, 5)]


FAMILY = 24
"""Images that share most of their words."""


def families(words: int, images: int, seed: int) -> sparse.csr_array:
    """Histograms of images, one family after the other."""
    rng, made = np.random.default_rng(seed), np.zeros((images, words), dtype=np.float32)
    for number, row in enumerate(made):
        if number % FAMILY == 0:
            family, amounts = rng.choice(words, 60, replace=False), rng.random(60) + 0.2
        own = rng.permutation(60)[:40]
        row[rng.choice(words, 15, replace=False)] = rng.random(15)
        row[family[own]] += amounts[own]
    return sparse.csr_array(made / np.linalg.norm(made, axis=1, keepdims=True))


def test_the_dense_index_finds_nearly_all_and_under_narrow_conditions_all(
    server: PostgresServer, database: str, opened: Callable[[Store], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = families(3000, 5000, seed=0)
    kept = [Entry(f"{k:05d}", rows[[k]], {"number": float(k), "odd": k % 2}) for k in range(5000)]
    queries = range(7, 480, 40)
    store = opened(postgres.PostgresStore.made(server.uri(database, schema="s0"), definition(3000)))
    store.add(kept[:4500])
    with monkeypatch.context() as patch:
        patch.setattr(store, "search", _unwanted)
        with pytest.raises(AssertionError, match="an exact search"):
            store.search_approximately(rows[[0]], 10)
    for _ in range(2):
        store.build_dense_index(64)
    store.add(kept[4500:])

    def recall(*texts: str, dense: bool) -> float:
        where, share = [Condition.parsed(text) for text in texts], []
        for query in queries:
            wanted = store.search(rows[[query]], 10, where)
            with monkeypatch.context() as patch:
                if dense:
                    patch.setattr(store, "search", _unwanted)
                found = store.search_approximately(rows[[query]], 10, where)
            scores = (rows @ rows[[query]].T).toarray()[[int(hit.name) for hit in found], 0]
            np.testing.assert_allclose([hit.score for hit in found], scores, rtol=1e-4)
            share.append(len({hit.name for hit in wanted} & {hit.name for hit in found}) / len(wanted))
        return float(np.mean(share))

    assert recall(dense=True) >= 0.9
    assert recall("odd=1", dense=True) >= 0.9
    assert recall("number<480", dense=True) >= 0.9, "a tenth"
    assert recall("number<5", dense=False) == 1, "one in a thousand"
    assert recall("number<200", "odd=0", dense=False) == 1, "one in fifty"
    with pytest.raises(InvalidInputError, match="at least one candidate"):
        store.search_approximately(rows[[0]], 3, candidates=0)


def _unwanted(*_: object) -> list[Hit]:
    raise AssertionError("an exact search")


def test_what_makes_no_histogram_of_a_server_is_refused_and_the_rest_is_put_in_order(
    server: PostgresServer, database: str, opened: Callable[[Store], Store]
) -> None:
    store = opened(make_store([server.uri(database)], definition(20_000)))
    full = sparse.csr_array(np.ones((1, 20_000), dtype=np.float32))
    for act in (lambda: store.add([Entry("full", full)]), lambda: store.search(full, 3)):
        with pytest.raises(SearchError, match="20000 different words; a server keeps at most 16000"):
            act()
    jumbled = sparse.csr_array(
        (np.array([0.4, 0.0, 0.4, 0.6], dtype=np.float32), np.array([9, 3, 9, 2]), np.array([0, 4])), shape=(1, 20_000)
    )
    store.add([Entry("jumbled", jumbled)])
    (hit,) = store.search(jumbled, 3)
    assert hit.score == pytest.approx(1)
    for odd in (Entry("a", jumbled, {"x": float("nan")}), Entry("\ud800", jumbled), Entry("a", jumbled, {"x": "\0"})):
        with pytest.raises(SearchError, match=r"no server keeps|cannot be written"):
            store.add([odd])
    with pytest.raises(SearchError, match="no text that a server knows"):
        store.remove(["\ud800"])
    assert store.names() == ["jumbled"]


def test_numbers_that_are_none_and_large_ones(
    server: PostgresServer, database: str, opened: Callable[[Store], Store]
) -> None:
    store = opened(make_store([server.uri(database)], definition()))
    (row,) = histograms(1)
    told = {"large": 1e300, "small": -2.5e-300, "whole": 3.0}
    store.add([Entry("a", row, told)])
    assert store.facts(["a"]) == {"a": told}
    for text, fits in (("large=1e300", 1), ("small>=-2.5e-300", 1), ("whole<3.5", 1)):
        assert len(store.search(row, 3, [Condition.parsed(text)])) == fits, text
    for condition, fits in (
        (Condition("whole", "<", np.inf), 1),
        (Condition("whole", "<", np.nan), 0),
        (Condition("x", "!=", np.nan), 0),
    ):
        assert len(store.search(row, 3, [condition])) == fits, condition


def test_what_cannot_be_reached_is_named_without_a_password(server: PostgresServer, tmp_path: Path) -> None:
    socket = f"{server.folder}:5432"
    cases = {
        f"postgresql://me:pass%20word@/x?host={tmp_path}&port=777": rf"{tmp_path}:777/x: .*No such file",
        "postgresql://me:hidden@127.0.0.1:1/x": r"127.0.0.1:1/x: .*refused",
        server.uri("nosuch"): rf'{socket}/nosuch: .*database "nosuch" does not exist',
        server.uri(user="guarded").replace("guarded@", "guarded:hidden@"): "password authentication failed",
    }
    for uri, says in cases.items():
        for act in (lambda uri=uri: open_store([uri]), lambda uri=uri: make_store([uri], definition())):
            with pytest.raises(SearchError, match=f"^the server of the index cannot be reached: .*{says}") as told:
                act()
            assert "\n" not in str(told.value)
            assert "hidden" not in str(told.value)
            assert "pass word" not in str(told.value)
    for odd in ("me:x@hidden@a/d", "me:x/hidden@a/d", "me:hidden/x@a/d", "[hidden"):
        with pytest.raises(SearchError, match="the address of the index is none of a server") as told:
            open_store([f"postgresql://{odd}"])
        assert "hidden" not in str(told.value)


def test_places_without_an_index_or_of_another_one_are_named(server: PostgresServer, database: str) -> None:
    make_store([server.uri(database)], definition()).close()
    for schema in ("s0", "s1"):
        with pytest.raises(SearchError, match=rf"/{database} \(-csearch_path={schema}\) holds no index: make one with"):
            open_store([server.uri(database, schema=schema)])
    with pytest.raises(SearchError, match="has no schema to hold an index"):
        make_store([server.uri(database, schema="nosuch")], definition())


def test_rights_that_are_missing_are_named(server: PostgresServer, database: str) -> None:
    guarded = server.uri(database, user="guarded").replace("guarded@", f"guarded:{PASSWORD.replace(' ', '%20')}@")
    with pytest.raises(SearchError, match="may not create the extension vector: let an administrator"):
        make_store([guarded], definition())
    make_store([server.uri(database)], definition()).close()
    with pytest.raises(SearchError, match="permission denied"):
        open_store([guarded])


def test_servers_that_are_too_old_are_named() -> None:
    with pytest.raises(SearchError, match=r"^here is PostgreSQL 12.5; an index needs 13 or newer"):
        check_server(120005, "here")
    check_server(130000, "here")
    with pytest.raises(SearchError, match=r"^here has no pgvector; .* version 0.7 or newer"):
        check_vector(None, "here")
    with pytest.raises(SearchError, match=r"^here has pgvector 0.6.2; an index needs 0.7 or newer"):
        check_vector("0.6.2", "here")
    for version in ("0.7.0", "0.10.1", "1.0"):
        check_vector(version, "here")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE modalign_index SET version = 99", "is an index of version 99; this program knows version 1"),
        ("UPDATE modalign_index SET card = replace(card, '\"version\": 1', '\"version\": 9')", "version 9; this"),
        ("UPDATE modalign_index SET vocabulary = vocabulary || '\\x00'::bytea", "vocabulary of .* is damaged"),
        ("UPDATE modalign_index SET card = 'no card'", "description of .* is damaged"),
        ("DELETE FROM modalign_index", "holds no index"),
        ("DROP TABLE modalign_index", "holds no index"),
    ],
)
def test_damage_and_other_versions_are_named(server: PostgresServer, database: str, change: str, says: str) -> None:
    uri = server.uri(database)
    make_store([uri], definition()).close()
    with server.connected(database) as link:
        link.execute(change)
    with pytest.raises(SearchError, match=says):
        open_store([uri])


def test_a_table_that_went_away_is_named_and_nothing_is_done_twice(
    server: PostgresServer, database: str, opened: Callable[[Store], Store]
) -> None:
    store = opened(make_store([server.uri(database)], definition()))
    with server.connected(database) as link:
        link.execute("DROP TABLE modalign_images")
    with pytest.raises(SearchError, match=r'cannot be read: relation "modalign_images" does not exist'):
        store.names()
    with pytest.raises(SearchError, match="cannot be written"):
        store.add(entries(1))
