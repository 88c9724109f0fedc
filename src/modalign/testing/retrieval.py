"""The laws of a store of histograms.

A store passes if a subclass of :class:`StoreLaws` does, whose fixture ``places`` tells where a new one is made::

    class TestMyStore(StoreLaws):
        @pytest.fixture
        def places(self, tmp_path):
            return [str(tmp_path / "index")]
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from scipy import sparse

from modalign.errors import InvalidInputError, SearchError
from modalign.retrieval import (
    Condition,
    Definition,
    Entry,
    Fact,
    Hit,
    Recipe,
    Rings,
    Sift,
    Store,
    Vocabulary,
    make_store,
    open_store,
)

WORDS = 200
STAINS = ("HE", "SHG", "PAS")


def definition(words: int = WORDS, seed: int = 0) -> Definition:
    """A definition with a made-up vocabulary."""
    rng = np.random.default_rng(seed)
    return Definition(Recipe(Sift()), Vocabulary(rng.random((words, 8), np.float32), np.ones(words, np.float32)))


def histograms(count: int, seed: int = 0, filled: int = 12) -> list[sparse.csr_array]:
    """Histograms of unit length with so many words each."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        row = np.zeros(WORDS, dtype=np.float32)
        row[rng.choice(WORDS, filled, replace=False)] = rng.random(filled) + 0.1
        made.append(sparse.csr_array((row / np.linalg.norm(row))[None]))
    return made


def entries(count: int, seed: int = 0) -> list[Entry]:
    """Images with facts of both kinds; names and histograms of different seeds differ."""
    return [
        Entry(
            f"{seed}-{k:04d}",
            histogram,
            {"stain": STAINS[k % 3], "case": float(k // 10), "date": f"2020-01-{k % 28 + 1:02d}"},
        )
        for k, histogram in enumerate(histograms(count, seed))
    ]


def exact(kept: Sequence[Entry], query: sparse.csr_array, count: int) -> list[Hit]:
    """What a search must find, by brute force."""
    scored = [(-float((entry.histogram @ query.T).toarray()[0, 0]), entry.name, entry.facts) for entry in kept]
    best = sorted(scored, key=lambda each: each[:2])[:count]
    return [Hit(name, -score, dict(facts)) for score, name, facts in best if score < 0]


def check_same(found: Sequence[Hit], wanted: Sequence[Hit]) -> None:
    """Fail unless hits agree in order, scores and facts."""
    assert [hit.name for hit in found] == [hit.name for hit in wanted]
    np.testing.assert_allclose([hit.score for hit in found], [hit.score for hit in wanted], rtol=1e-4)
    assert [dict(hit.facts) for hit in found] == [dict(hit.facts) for hit in wanted]


Fits = Callable[[Mapping[str, Fact]], bool]
CONDITIONS: Mapping[str, tuple[list[str], Fits]] = {
    "text": (["stain=HE"], lambda facts: facts["stain"] == "HE"),
    "other text": (["stain!=HE"], lambda facts: facts["stain"] != "HE"),
    "number": (["case = 3"], lambda facts: facts["case"] == 3),
    "several": (
        ["case>=2", "case<4", "stain=SHG"],
        lambda facts: 2 <= float(facts["case"]) < 4 and facts["stain"] == "SHG",
    ),
    "date": (["date>2020-01-20"], lambda facts: str(facts["date"]) > "2020-01-20"),
    "half": (["case<3"], lambda facts: float(facts["case"]) < 3),
    "number of a text": (["stain>1"], lambda _: False),
    "no number": (["stain!=1"], lambda _: True),
    "text of a number": (["case<ten"], lambda _: False),
    "missing": (["owner=me"], lambda _: False),
    "missing, other": (["owner!=me"], lambda _: False),
}
"""Conditions, and the facts that fit them."""

ADDS_FOR_EVER = """
import sys
from modalign.retrieval import open_store
from modalign.testing.retrieval import entries
store = open_store({places!r})
for seed in range({first}, 10_000):
    store.add(entries(6, seed))
    print(seed, flush=True)
"""


class StoreLaws:
    """What every store does. Subclasses give the fixture ``places``."""

    @pytest.fixture
    def store(self, places: list[str], request: pytest.FixtureRequest) -> Store:
        """A new store."""
        made = make_store(places, definition())
        request.addfinalizer(made.close)  # noqa: PT021 - what checks types would call a generator what it yields
        return made

    def test_it_is_a_store_of_its_definition(self, store: Store) -> None:
        assert isinstance(store, Store)
        assert store.definition.same_as(definition())
        assert len(store) == 0
        assert store.names() == []

    def test_a_member_finds_itself_first_and_others_in_order_of_their_scores(self, store: Store) -> None:
        kept = entries(60)
        store.add(kept)
        for entry in kept[::7]:
            found = store.search(entry.histogram, 10)
            assert found[0].name == entry.name
            assert found[0].score == pytest.approx(1, abs=1e-5)
            check_same(found, exact(kept, entry.histogram, 10))

    def test_what_shares_no_word_is_no_hit(self, store: Store) -> None:
        one, other = (sparse.csr_array(np.eye(WORDS, dtype=np.float32)[[k]]) for k in (3, 4))
        store.add([Entry("one", one), Entry("blank", sparse.csr_array((1, WORDS), dtype=np.float32))])
        assert [hit.name for hit in store.search(one, 5)] == ["one"]
        assert store.search(other, 5) == []
        assert store.search(sparse.csr_array((1, WORDS), dtype=np.float32), 5) == []
        assert store.names() == ["blank", "one"]

    def test_images_come_and_go_in_any_order_and_the_answer_is_that_of_brute_force(self, places: list[str]) -> None:
        rng = np.random.default_rng(1)
        store, kept = make_store(places, definition()), dict[str, Entry]()
        for step in range(25):
            new = entries(int(rng.integers(1, 9)), seed=step)
            if step % 4 == 3:  # other pictures under names that are there
                new = [Entry(name, e.histogram, e.facts) for name, e in zip(sorted(kept), new, strict=False)]
            store.add(new)
            kept |= {entry.name: entry for entry in new}
            if step % 3 == 2:
                gone = rng.choice(sorted(kept), 3, replace=False).tolist()
                assert store.remove([*gone, "never there"]) == 3
                for name in gone:
                    del kept[name]
            if step % 5 == 4:
                store.close()
                store = open_store(places)
            query = histograms(1, seed=1000 + step)[0]
            check_same(store.search(query, 7), exact(list(kept.values()), query, 7))
            assert store.names() == sorted(kept)
            assert len(store) == len(kept)
        store.close()

    def test_ties_are_in_the_order_of_names(self, store: Store) -> None:
        (one,) = histograms(1)
        store.add([Entry(name, one) for name in ("c", "a", "d", "B", "b")])
        assert [hit.name for hit in store.search(one, 4)] == ["B", "a", "b", "c"]
        assert store.names() == ["B", "a", "b", "c", "d"]

    @pytest.mark.parametrize("case", CONDITIONS)
    def test_conditions_limit_a_search_and_it_stays_exact(self, store: Store, case: str) -> None:
        texts, fits = CONDITIONS[case]
        kept = entries(60)
        store.add(kept)
        query = histograms(1, seed=99)[0]
        found = store.search(query, 100, [Condition.parsed(text) for text in texts])
        check_same(found, exact([entry for entry in kept if fits(entry.facts)], query, 100))

    def test_a_condition_that_one_image_in_a_thousand_fits_finds_it(self, store: Store) -> None:
        kept = [Entry(e.name, e.histogram, {"number": float(k)}) for k, e in enumerate(entries(2000))]
        store.add(kept)
        query = histograms(1, seed=98)[0]
        for text, few in (("number<2", kept[:2]), ("number<1000", kept[:1000])):
            check_same(store.search(query, 10, [Condition.parsed(text)]), exact(few, query, 10))

    def test_facts_are_kept_as_they_are(self, store: Store) -> None:
        told: dict[str, Fact] = {"patient": "Ü'\"; --", "age": 71.5, "_x1": "7", "größe": "%s {} ?"}
        (histogram,) = histograms(1)
        store.add([Entry("a b/ü%s.tif", histogram, told), Entry("other", histogram)])
        (hit,) = store.search(histogram, 1)
        assert hit.name == "a b/ü%s.tif"
        assert dict(hit.facts) == told
        assert store.facts(["a b/ü%s.tif", "nobody"]) == {"a b/ü%s.tif": told}
        (hit,) = store.search(histogram, 3, [Condition.parsed("größe=%s {} ?")])
        assert hit.name == "a b/ü%s.tif"

    def test_odd_histograms_and_counts_are_refused_and_nothing_is_kept(self, store: Store) -> None:
        (histogram,) = histograms(1)
        with pytest.raises(SearchError, match="not one of the 200 words"):
            store.add([Entry("a", histogram), Entry("b", sparse.csr_array((1, 3), dtype=np.float32))])
        assert len(store) == 0, "all or none"
        with pytest.raises(InvalidInputError, match="a search needs"):
            store.search(sparse.csr_array((1, 3), dtype=np.float32), 3)
        with pytest.raises(InvalidInputError, match="room for at least one"):
            store.search(histogram, 0)

    def test_made_again_it_keeps_what_it_has_and_another_definition_is_refused(
        self, places: list[str], store: Store
    ) -> None:
        store.add(entries(3))
        again = make_store(places, definition())
        assert len(again) == 3
        again.close()
        own = definition()
        for other in (definition(seed=1), definition(7), Definition(Recipe(Rings()), own.vocabulary)):
            with pytest.raises(SearchError, match="another model, describer or vocabulary"):
                make_store(places, other)

    def test_what_one_adds_another_finds(self, places: list[str], store: Store) -> None:
        reader, kept = open_store(places), list[Entry]()
        for seed in range(6):
            new = entries(5, seed)
            store.add(new)
            kept += new
            query = histograms(1, seed=500 + seed)[0]
            check_same(reader.search(query, 4), exact(kept, query, 4))
        reader.close()

    def test_two_writers_at_once_lose_nothing_and_double_nothing(self, places: list[str], store: Store) -> None:
        def write(first: int) -> None:
            own = open_store(places)
            for seed in range(first, first + 6):
                own.add(entries(4, seed))
                own.add(entries(2, 99))  # both write these
            own.close()

        writers = [threading.Thread(target=write, args=(first,)) for first in (0, 50)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        kept = [entry for seed in (*range(6), *range(50, 56)) for entry in entries(4, seed)] + entries(2, 99)
        assert store.names() == sorted(entry.name for entry in kept)
        query = histograms(1, seed=70)[0]
        check_same(store.search(query, 5), exact(kept, query, 5))

    def test_a_killed_writer_loses_nothing_that_it_told_and_leaves_nothing_half(
        self, places: list[str], store: Store
    ) -> None:
        rng, told = np.random.default_rng(0), -1
        for _ in range(3):
            code = ADDS_FOR_EVER.format(places=places, first=told + 1)
            with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                told = int(process.stdout.readline())
                time.sleep(float(rng.uniform(0, 0.15)))
                os.kill(process.pid, signal.SIGKILL)
                rest = process.stdout.read().split("\n")[:-1]
            told = int(rest[-1]) if rest else told
            names = _settled(store)
            self.check_whole(names, told)
            kept = [entry for seed in range(told + 2) for entry in entries(6, seed)]
            kept = [entry for entry in kept if entry.name in set(names)]
            query = histograms(1, seed=77)[0]
            check_same(store.search(query, 5), exact(kept, query, 5))

    def check_whole(self, names: Sequence[str], told: int) -> None:
        """Fail unless all additions that were told are there, and no part of one."""
        assert len(names) % 6 == 0, "no part of an addition"
        whole = {int(name.split("-")[0]) for name in names}
        assert whole in (set(range(told + 1)), set(range(told + 2)))


def _settled(store: Store) -> list[str]:
    """The names once they no longer change: a server may end a transaction after its client has died."""
    before, names = None, store.names()
    while names != before:
        time.sleep(0.05)
        before, names = names, store.names()
    return names
