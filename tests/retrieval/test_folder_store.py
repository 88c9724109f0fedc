"""A store finds what is nearest, exactly, keeps what was added through any crash, and says what is wrong with it."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from modalign.errors import InvalidInputError, SearchError
from modalign.retrieval import Condition, Entry, FolderStore, Hit, Store

WORDS = 200


def histograms(count: int, seed: int = 0, filled: int = 12) -> list[sparse.csr_array]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        row = np.zeros(WORDS, dtype=np.float32)
        row[rng.choice(WORDS, filled, replace=False)] = rng.random(filled) + 0.1
        made.append(sparse.csr_array((row / np.linalg.norm(row))[None]))
    return made


def entries(count: int, seed: int = 0) -> list[Entry]:
    stains = ("HE", "SHG", "PAS")
    return [
        Entry(
            f"{seed}-{k:04d}",
            histogram,
            {"stain": stains[k % 3], "case": float(k // 10), "date": f"2020-01-{k % 28 + 1:02d}"},
        )
        for k, histogram in enumerate(histograms(count, seed))
    ]


def exact(kept: list[Entry], query: sparse.csr_array, count: int) -> list[Hit]:
    """By brute force."""
    scored = [(-float((entry.histogram @ query.T).toarray()[0, 0]), entry.name, entry.facts) for entry in kept]
    return [Hit(name, -score, dict(facts)) for score, name, facts in sorted(scored, key=lambda s: s[:2]) if score < 0][
        :count
    ]


def same(found: list[Hit], wanted: list[Hit]) -> None:
    assert [hit.name for hit in found] == [hit.name for hit in wanted]
    np.testing.assert_allclose([hit.score for hit in found], [hit.score for hit in wanted], rtol=1e-5)
    assert [dict(hit.facts) for hit in found] == [dict(hit.facts) for hit in wanted]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "index", WORDS)


def test_it_is_a_store(store: FolderStore) -> None:
    assert isinstance(store, Store)


def test_a_member_finds_itself_first_and_others_in_order_of_their_scores(store: FolderStore) -> None:
    kept = entries(60)
    store.add(kept)
    for entry in kept[::7]:
        found = store.search(entry.histogram, 10)
        assert found[0].name == entry.name
        assert found[0].score == pytest.approx(1, abs=1e-5)
        same(found, exact(kept, entry.histogram, 10))


def test_what_shares_no_word_is_no_hit(store: FolderStore) -> None:
    one, other = (sparse.csr_array(np.eye(WORDS, dtype=np.float32)[[k]]) for k in (3, 4))
    store.add([Entry("one", one)])
    assert [hit.name for hit in store.search(one, 5)] == ["one"]
    assert store.search(other, 5) == []
    assert store.search(sparse.csr_array((1, WORDS), dtype=np.float32), 5) == []


def test_images_come_and_go_in_any_order_and_the_answer_is_that_of_brute_force(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    store, kept = FolderStore(tmp_path / "index", WORDS), {}
    for step in range(25):
        new = entries(int(rng.integers(1, 9)), seed=step)
        if step % 4 == 3:  # other pictures under names that are there
            new = [Entry(name, entry.histogram, entry.facts) for name, entry in zip(sorted(kept), new, strict=False)]
        store.add(new)
        kept |= {entry.name: entry for entry in new}
        if step % 3 == 2:
            gone = rng.choice(sorted(kept), 3, replace=False).tolist()
            assert store.remove([*gone, "never there"]) == 3
            for name in gone:
                del kept[name]
        if step % 5 == 4:  # opened anew
            store.close()
            store = FolderStore(tmp_path / "index", WORDS)
        query = histograms(1, seed=1000 + step)[0]
        same(store.search(query, 7), exact(list(kept.values()), query, 7))
        assert store.names() == sorted(kept)
        assert len(store) == len(kept)
    pieces = list((tmp_path / "index").glob("*.safetensors"))
    assert len(pieces) <= 6, "pieces are taken in by later ones"


def test_ties_are_in_the_order_of_names(store: FolderStore) -> None:
    (same_one,) = histograms(1)
    store.add([Entry(name, same_one) for name in ("c", "a", "d", "b")])
    assert [hit.name for hit in store.search(same_one, 3)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("texts", "fits"),
    [
        (["stain=HE"], lambda facts: facts["stain"] == "HE"),
        (["stain!=HE"], lambda facts: facts["stain"] != "HE"),
        (["case = 3"], lambda facts: facts["case"] == 3),
        (["case>=2", "case<4", "stain=SHG"], lambda facts: 2 <= facts["case"] < 4 and facts["stain"] == "SHG"),
        (["date>2020-01-20"], lambda facts: facts["date"] > "2020-01-20"),
        (["owner=me"], lambda _: False),
        (["owner!=me"], lambda _: False),
    ],
)
def test_conditions_limit_a_search_and_it_stays_exact(
    store: FolderStore, texts: list[str], fits: Callable[[dict], bool]
) -> None:
    kept = entries(60)
    store.add(kept)
    query = histograms(1, seed=99)[0]
    found = store.search(query, 100, [Condition.parsed(text) for text in texts])
    same(found, exact([entry for entry in kept if fits(dict(entry.facts))], query, 100))


@pytest.mark.parametrize("text", ["", "stain", "=HE", "a b=3", "stain=", "'; DROP TABLE images; --=1"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no condition"):
        Condition.parsed(text)


def test_odd_names_facts_histograms_and_counts_are_refused(store: FolderStore) -> None:
    (histogram,) = histograms(1)
    for name in ("", " a", "a\0b"):
        with pytest.raises(InvalidInputError):
            Entry(name, histogram)
    with pytest.raises(InvalidInputError, match="no name for a fact"):
        Entry("a", histogram, {"a b": 1})
    with pytest.raises(SearchError, match="not one of the 200 words"):
        store.add([Entry("a", histogram), Entry("b", sparse.csr_array((1, 3), dtype=np.float32))])
    assert len(store) == 0, "all or none"
    with pytest.raises(InvalidInputError, match="a search needs"):
        store.search(sparse.csr_array((1, 3), dtype=np.float32), 3)
    with pytest.raises(InvalidInputError, match="room for at least one"):
        store.search(histogram, 0)


def test_another_vocabulary_or_version_is_refused(tmp_path: Path, store: FolderStore) -> None:
    store.close()
    with pytest.raises(SearchError, match="an index of 200 words, and the vocabulary has 7"):
        FolderStore(tmp_path / "index", 7)
    with sqlite3.connect(tmp_path / "index" / "index.sqlite") as table:
        table.execute("UPDATE facts_of_store SET version = 99")
    with pytest.raises(SearchError, match="version 99"):
        FolderStore(tmp_path / "index", WORDS)


def test_damage_is_named(tmp_path: Path, store: FolderStore) -> None:
    store.add(entries(20))
    store.close()
    (piece,) = (tmp_path / "index").glob("*.safetensors")
    whole = piece.read_bytes()
    query = histograms(1)[0]
    for content in (whole[:-10], whole[:200] + b"\xff" + whole[201:], b""):
        piece.write_bytes(content)
        with pytest.raises(SearchError, match=rf"{piece.name} is damaged"):
            FolderStore(tmp_path / "index", WORDS).search(query, 3)
    piece.unlink()
    with pytest.raises(SearchError, match=rf"{piece.name} is missing"):
        FolderStore(tmp_path / "index", WORDS).search(query, 3)
    (tmp_path / "index" / "index.sqlite").write_bytes(b"no data base at all" * 100)
    with pytest.raises(SearchError, match=r"index.sqlite cannot be opened"):
        FolderStore(tmp_path / "index", WORDS)


def test_another_process_sees_what_was_added_and_a_reader_what_is_there(tmp_path: Path, store: FolderStore) -> None:
    reader = FolderStore(tmp_path / "index", WORDS)
    kept: list[Entry] = []
    for seed in range(6):
        new = entries(5, seed)
        store.add(new)
        kept += new
        query = histograms(1, seed=500 + seed)[0]
        same(reader.search(query, 4), exact(kept, query, 4))


ADDS_FOR_EVER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_folder_store import WORDS, entries
from modalign.retrieval import FolderStore
store = FolderStore(Path({folder!r}), WORDS)
for seed in range({first}, 10_000):
    store.add(entries(6, seed))
    print(seed, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_told_and_leaves_nothing_half(tmp_path: Path) -> None:
    folder, rng, told = tmp_path / "index", np.random.default_rng(0), -1
    for _ in range(5):
        code = ADDS_FOR_EVER.format(tests=str(Path(__file__).parent), folder=str(folder), first=told + 1)
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            told = int(process.stdout.readline())
            time.sleep(float(rng.uniform(0, 0.15)))
            os.kill(process.pid, signal.SIGKILL)
            rest = process.stdout.read().split("\n")[:-1]
        told = int(rest[-1]) if rest else told
        store = FolderStore(folder, WORDS)
        names = store.names()
        assert len(names) % 6 == 0, "no part of an addition"
        whole = {int(name.split("-")[0]) for name in names}
        assert whole in (set(range(told + 1)), set(range(told + 2)))
        kept = [entry for seed in sorted(whole) for entry in entries(6, seed)]
        query = histograms(1, seed=77)[0]
        same(store.search(query, 5), exact(kept, query, 5))
        store.remove(["nothing"])
        table = sqlite3.connect(folder / "index.sqlite")
        numbers = {row[0] for row in table.execute("SELECT number FROM pieces")}
        assert {int(path.stem) for path in folder.glob("*.safetensors")} == numbers
        table.close()
        told = max(whole)
        store.close()


def test_facts_are_kept_as_they_are(store: FolderStore) -> None:
    told = {"patient": "Ü'\"; --", "age": 71.5, "_x1": "7"}
    (histogram,) = histograms(1)
    store.add([Entry("a b/ü.tif", histogram, told)])
    (hit,) = store.search(histogram, 1)
    assert hit.name == "a b/ü.tif"
    assert json.dumps(hit.facts) == json.dumps(told)
