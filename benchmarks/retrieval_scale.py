"""The stores of an index measured: speed and memory with many images, kills, writers at once, and real patches.

    python benchmarks/retrieval_scale.py synthetic --out results/retrieval_scale
    python benchmarks/retrieval_scale.py kills --out results/retrieval_scale
    python benchmarks/retrieval_scale.py writers --out results/retrieval_scale
    python benchmarks/retrieval_scale.py patches --out results/retrieval_scale

The stores are a folder, and PostgreSQL with pgvector from the wheel that the tests use. Synthetic histograms have some
300 of 20,000 words, drawn by Zipf's law, with tf-idf weights, and come in families of 20 noisy copies; queries are one
more copy. Every measurement is made by a fresh process. Rows are kept as CSV, and printed as Markdown. Set ``TMPDIR``
to choose where the stores lie while they are measured.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import tyro
from cpu_time import seconds
from datasets import data_root, require_data
from scipy import sparse

from modalign.data.collection import find_members
from modalign.errors import NoIndexError
from modalign.geometry import Grid, Rigid, rotation_matrix
from modalign.image import Image
from modalign.io import image_files, read_image, read_table, write_image, write_table
from modalign.retrieval import (
    Condition,
    Definition,
    Describing,
    Entry,
    FolderStore,
    Index,
    Recipe,
    Sift,
    Store,
    Vocabulary,
    VocabularyOptions,
    make_store,
    open_store,
)

T = TypeVar("T")
Array = np.ndarray
Row = dict[str, Any]
StoreName = Literal["folder", "postgresql"]
WORDS, DRAWN, OFFSET = 20_000, 340, 50
"""Words, how many of them are drawn for an image, and by how much ranks are shifted in Zipf's law."""
FAMILY, KEPT, NOISE = 20, 0.7, 0.3
"""Copies of a family, the share of words that a copy has of it, and the spread of the logarithm of their weights."""
BLOCK, FAMILIES = 1000, 50
"""Images that are made and added at a time, and their families."""
FIRST = 10
"""Hits of a query."""
ASKED = 30
"""Queries of each of the processes that ask at once."""
SLOW = 0.5
"""Seconds; where queries take longer, fewer are asked."""
FILTERS: Mapping[str, tuple[str, ...]] = {"all": (), "50 %": ("stain=HE",), "0.1 %": ("case=7",)}
SETTINGS = ("shared_buffers=512MB", "max_wal_size=4GB", "max_parallel_workers_per_gather=0")
"""Of the server. One process answers a query, so that times compare with those of a folder."""
SIDE = 128
"""Of tiles and patches, pixels."""
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Study:
    """What all have in common."""

    out: Path
    """Folder for the results."""
    seed: int = 0
    """Of all that is random."""


@dataclass(frozen=True, kw_only=True)
class Synthetic(Study):
    """Synthetic histograms: adding, memory, and queries of one client and of many."""

    stores: tuple[StoreName, ...] = ("folder", "postgresql")
    """Which stores."""
    images: tuple[int, ...] = (1000, 10_000, 100_000)
    """How many, a multiple of 1000."""
    shards: int = 1
    """Shards of a folder; the memory that adding takes grows with the size of a shard."""
    clients: int = 8
    """Processes that ask at once."""


@dataclass(frozen=True, kw_only=True)
class Kills(Study):
    """Building and extending an index of a folder, killed again and again."""

    kills: int = 20
    """How many kills."""
    workers: int = 2
    """Processes that describe images."""
    images: int = 120
    """Images that the index is built of."""
    more: int = 40
    """Images that are added to it."""


@dataclass(frozen=True, kw_only=True)
class Writers(Study):
    """Two processes that add to one store at once, some of the names in common."""

    stores: tuple[StoreName, ...] = ("postgresql", "folder")
    """Which stores."""
    images: int = 2000
    """Images that each adds."""
    common: int = 200
    """How many of them both add."""


@dataclass(frozen=True, kw_only=True)
class Patches(Study):
    """Patches of real images: time of each step, and how many rotated ones find themselves."""

    patches: int = 10_000
    """How many."""
    learnt: int = 2000
    """From how many of them the vocabulary is learnt."""
    words: int = WORDS
    """Most words."""
    iterations: int = VocabularyOptions.iterations
    """Rounds of k-means."""
    asked: int = 50
    """Queries."""


def main() -> None:
    """Measure what the command line names."""
    study = tyro.cli(Synthetic | Kills | Writers | Patches)  # type: ignore[call-overload]
    study.out.mkdir(parents=True, exist_ok=True)
    if isinstance(study, Synthetic):
        synthetic(study)
    elif isinstance(study, Kills):
        kills(study)
    elif isinstance(study, Writers):
        writers(study)
    else:
        patches(study)


# Synthetic histograms


@cache
def frequencies() -> tuple[Array, Array]:
    """The cumulative frequencies of all words, and their weights."""
    shares = 1 / (np.arange(WORDS) + OFFSET)
    shares /= shares.sum()
    return np.cumsum(shares), -np.log(1 - (1 - shares) ** DRAWN)


def drawn(rng: np.random.Generator, *shape: int) -> Array:
    """Words by Zipf's law."""
    return np.minimum(np.searchsorted(frequencies()[0], rng.random(shape)), WORDS - 1)


def bases(seed: int, block: int) -> Array:
    """The words of the families of a block."""
    return drawn(np.random.default_rng([seed, block]), FAMILIES, DRAWN)


def noisy(words: Array, rng: np.random.Generator) -> sparse.csr_array:
    """Histograms of copies: some words are others, and weights are changed."""
    mixed = np.where(rng.random(words.shape) < KEPT, words, drawn(rng, *words.shape))
    rows = np.repeat(np.arange(len(words)), words.shape[1])
    made = sparse.coo_array((np.ones(mixed.size), (rows, mixed.ravel())), shape=(len(words), WORDS)).tocsr()
    values = made.data * frequencies()[1][made.indices] * np.exp(NOISE * rng.standard_normal(made.nnz))
    lengths = np.sqrt(np.add.reduceat(values**2, made.indptr[:-1]))
    made.data = values / np.repeat(lengths, np.diff(made.indptr))
    return made.astype(np.float32)


def histograms(seed: int, block: int) -> sparse.csr_array:
    """All histograms of a block."""
    return noisy(np.repeat(bases(seed, block), FAMILY, axis=0), np.random.default_rng([seed, block, 1]))


def entries(seed: int, block: int) -> list[Entry]:
    """The images of a block, with facts."""
    made, first = histograms(seed, block), block * BLOCK
    return [Entry(name_of(first + k), row, facts_of(first + k)) for k, row in enumerate(rows_of(made))]


def rows_of(made: sparse.csr_array) -> Iterator[sparse.csr_array]:
    """Each row of its own."""
    for start, end in zip(made.indptr, made.indptr[1:], strict=False):
        row = made.data[start:end], made.indices[start:end], np.array([0, end - start], dtype=made.indptr.dtype)
        yield sparse.csr_array(row, shape=(1, made.shape[1]))


def name_of(number: int) -> str:
    """The name of an image."""
    return f"{number:08d}"


def facts_of(number: int) -> dict[str, str | float]:
    """Half of all images have a stain, one in a thousand a case."""
    return {"stain": ("HE", "SHG")[number % 2], "case": float(number % 1000), "date": f"2024-01-{number % 28 + 1:02d}"}


def queries(seed: int, images: int, count: int, first: int = 0) -> list[sparse.csr_array]:
    """One more copy of families drawn at random."""
    found = []
    for number in range(first, first + count):
        rng = np.random.default_rng([seed, number, 2])
        block, family = int(rng.integers(images // BLOCK)), int(rng.integers(FAMILIES))
        found.append(noisy(bases(seed, block)[family : family + 1], rng))
    return found


def definition(seed: int) -> Definition:
    """A definition with a made-up vocabulary, as large as one of SIFT."""
    centers = np.random.default_rng(seed).random((WORDS, 128), np.float32)
    return Definition(Recipe(Sift()), Vocabulary(centers, frequencies()[1].astype(np.float32)))


# Where stores lie, and what they take


@dataclass(frozen=True)
class Place:
    """A store that is measured.

    Attributes:
        places: As a store is named.
        folder: Of its files.
        server: Process of its server; 0 for none.
    """

    places: tuple[str, ...]
    folder: Path
    server: int = 0

    def megabytes(self) -> float:
        """What its files hold, without the log of a server."""
        if not self.server:
            return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file()) / MIB
        with open_link(self.places[0]) as link:
            row = link.execute("SELECT pg_total_relation_size('modalign_images')").fetchone()
        return float(row[0]) / MIB

    def server_seconds(self) -> float:
        """CPU time of the server, of its processes that have ended too."""
        if not self.server:
            return 0.0
        ticks = sum(map(int, stat_of(self.server)[11:15]))
        ticks += sum(sum(map(int, stat_of(child)[11:13])) for child in children(self.server))
        return ticks / os.sysconf("SC_CLK_TCK")

    def server_megabytes(self) -> float:
        """Memory of all its processes; what they share counts once."""
        return sum(memory(pid, "smaps_rollup", "Pss") for pid in [self.server, *children(self.server)] if pid)


@contextmanager
def open_link(place: str) -> Iterator[Any]:
    """A connection to a server."""
    import psycopg

    with psycopg.connect(place, autocommit=True) as link:
        yield link


@contextmanager
def new_place(store: StoreName, shards: int = 1) -> Iterator[Place]:
    """Room for a store, which is gone afterwards."""
    if store == "folder":
        with tempfile.TemporaryDirectory(prefix="modalign-scale-") as folder:
            names = [str(Path(folder) / f"shard{k}") for k in range(shards)]
            yield Place(tuple(names), Path(folder))
        return
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "retrieval"))
    from postgres_server import PostgresServer

    server = PostgresServer(*SETTINGS)
    try:
        yield Place((server.uri(server.new_database()),), server.data, server.process.pid)
    finally:
        server.close()


def stat_of(pid: int) -> list[str]:
    """What Linux tells of a process, from its state on; zeros where it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["0"] * 50


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [one for one in pids if stat_of(one)[1] == str(pid)]


def memory(pid: int | str, file: str, key: str) -> float:
    """MiB of a process by a line of a file of Linux; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith(key + ":"))


def alone(work: Callable[..., T], *arguments: Any) -> T:
    """What a function returns that a fresh process calls."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """How long something takes, and what it returns."""
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


# Measurements of synthetic histograms


def synthetic(study: Synthetic) -> None:
    """All sizes and stores; the table is written after each."""
    table = study.out / "synthetic.csv"
    for images in study.images:
        for store in study.stores:
            shards = study.shards if store == "folder" else 1
            row: Row = {"store": store, "shards": shards, "images": images}
            with new_place(store, shards) as place:
                for part in (adding, reading, crowd, truth, approximate):
                    told = part(place, images, study)
                    row |= told
                    print(store, images, told, file=sys.stderr, flush=True)
            old = read_table(table) if table.is_file() else []
            rows = [r for r in old if any(str(r[key]) != str(row[key]) for key in ("store", "shards", "images"))]
            write_table(table, [*rows, row])
    rows = sorted(read_table(table), key=lambda row: (row["store"], int(row["images"])))
    for columns in (ADDING, ASKING, APPROXIMATE):
        print(markdown([row for row in rows if columns is not APPROXIMATE or row.get("dense_s")], columns) + "\n")


ADDING = {
    "store": "store",
    "shards": "shards",
    "images": "images",
    "add_s": "add, s",
    "add_cpu_s": "CPU-s, client",
    "add_server_cpu_s": "CPU-s, server",
    "slowest_add_s": "slowest 1000, s",
    "writer_peak_mb": "peak of the writer, MiB",
    "disk_mb": "on disk, MiB",
    "open_ms": "open, ms",
    "first_ms": "first query, ms",
    "start_mb": "memory before, MiB",
    "reader_mb": "after 20 queries, MiB",
    "reader_own_mb": "of it not files, MiB",
    "reader_peak_mb": "peak, MiB",
    "server_mb": "server, MiB",
}
ASKING = {
    "store": "store",
    "shards": "shards",
    "images": "images",
    "all": "p50 / p95, ms",
    "50 %": "filter of 50 %",
    "0.1 %": "filter of 0.1 %",
    "clients": "clients at once",
    "clients_per_s": "their queries/s",
    "clients_ms": "their p50 / p95, ms",
    "same_as_brute_force": "as brute force",
}
APPROXIMATE = {
    "store": "store",
    "images": "images",
    "dense_s": "dense index, s",
    "dense_cpu_s": "CPU-s",
    "disk_with_dense_mb": "on disk with it, MiB",
    **{f"near {name}": f"{name}: p50 / p95, ms" for name in FILTERS},
    **{f"recall {name}": f"{name}: recall@10" for name in FILTERS},
}


def adding(place: Place, images: int, study: Synthetic) -> Row:
    """Fill a store."""
    before = place.server_seconds()
    told = alone(filled, place, images, study.seed)
    server = {"add_server_cpu_s": round(place.server_seconds() - before, 2)} if place.server else {}
    return {**told, **server, "disk_mb": round(place.megabytes(), 1)}


def filled(place: Place, images: int, seed: int) -> Row:
    """Add images, a thousand at a time; what makes them is not counted."""
    walls, cpu = [], 0.0
    with closing(make_store(place.places, definition(seed))) as store:
        for block in range(images // BLOCK):
            new = entries(seed, block)
            before = seconds()
            walls.append(timed(lambda new=new: store.add(new))[0])
            cpu += seconds() - before
            if block % 50 == 49:
                print(f"{block + 1} blocks in {sum(walls):.0f} s", file=sys.stderr, flush=True)
    return {
        "add_s": round(sum(walls), 2),
        "add_cpu_s": round(cpu, 2),
        "slowest_add_s": round(max(walls), 2),
        "writer_peak_mb": round(memory("self", "status", "VmHWM")),
    }


def reading(place: Place, images: int, study: Synthetic) -> Row:
    """One client."""
    return alone(asked, place, images, study.seed)


def asked(place: Place, images: int, seed: int) -> Row:
    """Open a store and ask it, without and with filters."""
    some = queries(seed, images, 100)
    start = memory("self", "status", "VmRSS")
    opening, store = timed(lambda: open_store(place.places))
    first, _ = timed(lambda: store.search(some[0], FIRST))
    for query in some[:20]:
        store.search(query, FIRST)
    told = {
        "open_ms": round(1000 * opening, 1),
        "first_ms": round(1000 * first, 1),
        "start_mb": round(start),
        "reader_mb": round(memory("self", "status", "VmRSS")),
        "reader_own_mb": round(memory("self", "status", "RssAnon")),
        "reader_peak_mb": round(memory("self", "status", "VmHWM")),
        "server_mb": round(place.server_megabytes()) if place.server else "",
    }
    with closing(store):
        for name, where in FILTERS.items():
            told[name] = quantiles(latencies(store.search, some, where))
    return told


def latencies(
    search: Callable[..., Any], some: Sequence[sparse.csr_array], where: Sequence[str] = (), fewer: int = 30
) -> list[float]:
    """Seconds of each query; fewer of them where they are slow."""
    conditions, found = [Condition.parsed(text) for text in where], []
    for number, query in enumerate(some):
        if number >= fewer and np.median(found) > SLOW:
            break
        found.append(timed(lambda query=query: search(query, FIRST, conditions))[0])
    return found


def quantiles(walls: Sequence[float]) -> str:
    """Median and 95th percentile, milliseconds."""
    return " / ".join(f"{1000 * np.quantile(walls, q):.1f}" for q in (0.5, 0.95))


def crowd(place: Place, images: int, study: Synthetic) -> Row:
    """Many clients at once; they open the store one after the other, and then begin together."""
    context = get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(study.clients, context) as pool:
        turn, start = manager.Lock(), manager.Barrier(study.clients)
        work = [pool.submit(client, place, images, study.seed, number, turn, start) for number in range(study.clients)]
        times = [one.result() for one in work]
    wall = max(end for _, end, _ in times) - min(begun for begun, _, _ in times)
    walls = [wall for _, _, each in times for wall in each]
    return {"clients": study.clients, "clients_per_s": f"{len(walls) / wall:.1f}", "clients_ms": quantiles(walls)}


def client(
    place: Place, images: int, seed: int, number: int, turn: Any, start: Any
) -> tuple[float, float, list[float]]:
    """When one of many clients began and ended, and how long each query took."""
    some = queries(seed, images, ASKED, first=1000 * (number + 1))
    with turn:
        store = open_store(place.places)
        store.search(some[0], FIRST)
    start.wait()
    begun = time.monotonic()
    walls = latencies(store.search, some)
    return begun, time.monotonic(), walls


def truth(place: Place, images: int, study: Synthetic) -> Row:
    """How many of 20 queries have the answer of brute force; for 10,000 images."""
    if images != 10_000:
        return {}
    every = sparse.vstack([histograms(study.seed, block) for block in range(images // BLOCK)], format="csr")
    some, right = queries(study.seed, images, 20, first=500), 0
    with closing(open_store(place.places)) as store:
        for query in some:
            scores = (every @ query.T).toarray()[:, 0]
            best = np.argsort(-scores, kind="stable")[:FIRST]
            found = store.search(query, FIRST)
            same = [hit.name for hit in found] == [name_of(k) for k in best]
            right += same and np.allclose([hit.score for hit in found], scores[best], atol=1e-5)
    return {"same_as_brute_force": f"{right} of {len(some)}"}


def approximate(place: Place, images: int, study: Synthetic) -> Row:
    """The quick search of a server: its index, its speed, and what it misses."""
    if not place.server:
        return {}
    some, told = queries(study.seed, images, 50, first=2000), {}
    with closing(open_store(place.places)) as store:
        before = place.server_seconds()
        told["dense_s"] = round(timed(store.build_dense_index)[0], 1)
        told["dense_cpu_s"] = round(place.server_seconds() - before, 1)
        told["disk_with_dense_mb"] = round(place.megabytes(), 1)
        for name, where in FILTERS.items():
            store.search_approximately(some[0], FIRST)
            told[f"near {name}"] = quantiles(latencies(store.search_approximately, some, where))
            told[f"recall {name}"] = f"{recall(store, some[:20], where):.3f}"
    return told


def recall(store: Any, some: Sequence[sparse.csr_array], where: Sequence[str]) -> float:
    """Share of the exact hits that the quick search finds."""
    conditions, shares = [Condition.parsed(text) for text in where], []
    for query in some:
        exact = {hit.name for hit in store.search(query, FIRST, conditions)}
        near = {hit.name for hit in store.search_approximately(query, FIRST, conditions)}
        shares.append(len(exact & near) / max(len(exact), 1))
    return float(np.mean(shares))


def markdown(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A table of some columns, without those that are empty."""
    shown = {key: title for key, title in columns.items() if any(str(row.get(key, "")) for row in rows)}
    lines = [list(shown.values()), ["---"] * len(shown)]
    lines += [[str(row.get(key, "")) for key in shown] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# Kills


def kills(study: Kills) -> None:
    """Kill builds and additions at random moments, and look after each at what is there."""
    require_data()
    with tempfile.TemporaryDirectory(prefix="modalign-kills-") as folder:
        trial = Trial(study, Path(folder))
        rows = list(trial.rows())
    write_table(study.out / "kills.csv", rows)
    print(markdown(rows, {key: key.replace("_", " ") for key in rows[0]}) + "\n")
    killed = [row for row in rows if row["kill"]]
    sums = {key: sum(row[key] for row in rows) for key in ("lost", "doubled", "not_found", "missing_at_end")}
    print(f"{len(killed)} kills, {len(rows) - len(killed)} commands that came to their end; {sums}")


class Trial:
    """Commands that are killed, one after the other, on an index that goes through all of them."""

    def __init__(self, study: Kills, folder: Path) -> None:
        self.study, self.index = study, folder / "index"
        self.rng = np.random.default_rng(study.seed)
        self.sources = {"build": folder / "first", "add": folder / "second"}
        counts = {"build": study.images, "add": study.more}
        tiles = made_tiles(study.images + study.more)
        for stage, source in self.sources.items():
            source.mkdir()
            for number in range(counts[stage]):
                write_image(source / f"{stage}{number:03d}.png", next(tiles))
        found = {stage: find_members(source) for stage, source in self.sources.items()}
        self.names = {stage: {member.name for member in members} for stage, members in found.items()}
        describing = Describing(Recipe(Sift()))
        self.described = {
            member.name: describing.described(describing.represented(read_image(member.path))).descriptors
            for members in found.values()
            for member in members
        }

    def command(self, stage: str) -> list[str]:
        """The command of a stage."""
        own = ["--words", "200", "--resume"] if stage == "build" else []
        place = ["--index", str(self.index), "--workers", str(self.study.workers)]
        return [sys.executable, "-m", "modalign", "index", stage, str(self.sources[stage]), *place, *own]

    def rows(self) -> Iterator[Row]:
        """A row for each command, killed or ended; the last build and addition are left to their end."""
        whole = {stage: timed(lambda stage=stage: self.run(stage, None))[0] for stage in self.sources}
        print({stage: round(wall, 1) for stage, wall in whole.items()}, "s without kills", file=sys.stderr)
        shutil.rmtree(self.index)
        before, stage, count = set[str](), "build", 0
        while count < self.study.kills or stage != "build" or before:
            moment = self.rng.uniform(0.2, 0.95) * whole[stage] if count < self.study.kills else None
            ended, spent = self.run(stage, moment, is_writing=bool(self.rng.random() < 0.6))
            count += not ended
            if ended:
                whole[stage] = min(whole[stage], spent)
            told = self.looked(before)
            before = told.pop("names")
            missing = len(self.wanted(stage) - before) if ended else 0
            row = {"kill": "" if ended else count, "command": stage, "seconds": round(spent, 2), **told}
            print(row, file=sys.stderr, flush=True)
            yield row | {"missing_at_end": missing}
            if ended and stage == "build":
                stage = "add"
            elif ended:
                shutil.rmtree(self.index)
                before, stage = set[str](), "build"

    def wanted(self, stage: str) -> set[str]:
        """All images that are there after a stage."""
        return self.names["build"] | (self.names["add"] if stage == "add" else set())

    def run(self, stage: str, moment: float | None, is_writing: bool = False) -> tuple[bool, float]:
        """Run a command; kill it with all its workers after so many seconds, or soon after it has begun to write."""
        started, before = time.monotonic(), self.state()
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(self.command(stage), stdout=log, stderr=log, start_new_session=True)
            deadline = np.inf if moment is None or is_writing else started + moment
            while process.poll() is None and time.monotonic() < deadline:
                if is_writing and moment is not None and self.state() != before:
                    is_writing, deadline = False, time.monotonic() + self.rng.uniform(0, 0.4)
                time.sleep(0.002)
            ended = process.poll() is not None
            if not ended:
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
            log.seek(0)
            if ended and status:
                raise SystemExit(f"{stage} failed with {status}: {log.read().decode()}")
        return ended, time.monotonic() - started

    def state(self) -> set[str]:
        """The pieces of the index: others as soon as it is being written."""
        return {path.name for path in self.index.glob("*.safetensors")}

    def looked(self, before: set[str]) -> Row:
        """What is in the index: what was lost or doubled, and what does not find itself first."""
        try:
            store = open_store([str(self.index)])
        except NoIndexError:
            return {"names": set(), "images": "no index", "lost": len(before), "doubled": 0, "not_found": 0}
        with closing(store):
            names = store.names()
            count, doubled, lost = len(store), len(names) - len(set(names)), len(before - set(names))
            wrong = [name for name in names if not self.finds_itself(store, name, count)]
        return {
            "names": set(names),
            "images": count,
            "lost": lost,
            "doubled": doubled + abs(count - len(names)),
            "not_found": len(wrong),
        }

    def finds_itself(self, store: Store, name: str, count: int) -> bool:
        """Whether the histogram of an image finds it first, as the same, and nothing twice."""
        hits = store.search(store.definition.vocabulary.histogram(self.described[name]), count)
        found = [hit.name for hit in hits]
        return bool(hits) and found[0] == name and abs(hits[0].score - 1) < 1e-4 and len(found) == len(set(found))


def made_tiles(count: int) -> Iterator[Image]:
    """Tiles of gray images, none of them without contrast."""
    made = 0
    for path in image_files(data_root() / "naip_rgb_nir" / "nir"):
        image = read_image(path)
        for top in range(0, image.grid.shape[0] - SIDE + 1, SIDE):
            for left in range(0, image.grid.shape[1] - SIDE + 1, SIDE):
                tile = image.cropped((top, left), (SIDE, SIDE))
                if tile.data.std() > 5 and made < count:
                    made += 1
                    yield Image(tile.data, Grid((SIDE, SIDE)))


# Writers at once


def writers(study: Writers) -> None:
    """Two processes that write at once."""
    rows = []
    for store in study.stores:
        with new_place(store) as place:
            rows.append({"store": store, **written(place, study)})
    write_table(study.out / "writers.csv", rows)
    print(markdown(rows, {key: key.replace("_", " ") for key in rows[0]}))


def written(place: Place, study: Writers) -> Row:
    """What is there after both have ended."""
    context = get_context("spawn")
    make_store(place.places, definition(study.seed)).close()
    with context.Manager() as manager, ProcessPoolExecutor(2, context) as pool:
        start = manager.Barrier(2)
        work = [pool.submit(write, place, study, number, start) for number in range(2)]
        walls = [one.result() for one in work]
    wanted = [name_of(k) for k in range(2 * study.images - study.common)]
    with closing(open_store(place.places)) as store:
        names = store.names()
        rows = list(zip(names, rows_of(all_rows(study)), strict=False))[:: max(1, len(names) // 200)]
        first = sum(store.search(row, 1)[0].name == name for name, row in rows)
    return {
        "names": len(names),
        "exactly_the_union": names == sorted(wanted),
        "find_themselves": f"{first} of {len(rows)}",
        "seconds": " and ".join(f"{wall:.1f}" for wall in walls),
    }


def all_rows(study: Writers) -> sparse.csr_array:
    """The histograms of all images, in the order of their names."""
    count = 2 * study.images - study.common
    made = [histograms(study.seed, block) for block in range(-(-count // BLOCK))]
    return sparse.vstack(made, format="csr")[:count]


def write(place: Place, study: Writers, number: int, start: Any) -> float:
    """Add the images of one writer in an order of its own, fifty at a time; returns the seconds."""
    first = number * (study.images - study.common)
    rows = list(rows_of(all_rows(study)[first : first + study.images]))
    order = np.random.default_rng([study.seed, number]).permutation(study.images)
    new = [Entry(name_of(first + k), rows[k], facts_of(first + k)) for k in order]
    with closing(open_store(place.places)) as store:
        start.wait()
        return timed(lambda: [store.add(new[k : k + 50]) for k in range(0, len(new), 50)])[0]


# Real patches


@dataclass(frozen=True, eq=False)
class Patch:
    """A window of an image."""

    name: str
    path: Path
    corner: tuple[int, int] = field(repr=False)


SOURCES = ("naip_rgb_nir/nir", "naip_rgb_nir/rgb", "bf_shg_tma/shg", "sbs_gfp_dna/dna", "sbs_gfp_dna/gfp")
STEP = 32
"""Distance of windows, pixels."""
LEAST_FILLED = 20
"""Words of a patch that is asked for."""


def patches(study: Patches) -> None:
    """Build an index of patches step by step, and ask it with rotated ones."""
    require_data()
    some = chosen(study)
    with tempfile.TemporaryDirectory(prefix="modalign-patches-") as folder:
        row, store, filled_words = built(study, some, Path(folder) / "index")
        with closing(store):
            row |= found_again(study, [p for p in some if filled_words[p.name] >= LEAST_FILLED], store)
    write_table(study.out / "patches.csv", [row])
    print(markdown([{"what": key.replace("_", " "), "value": value} for key, value in row.items()], PAIRS))


PAIRS = {"what": "what", "value": "value"}


def chosen(study: Patches) -> list[Patch]:
    """Windows at random, as many of each source."""
    rng, found = np.random.default_rng(study.seed), []
    for source in SOURCES:
        own = [
            Patch(f"{source}/{path.stem}/{top}_{left}", path, (top, left))
            for path in image_files(data_root() / source)
            for top, left in corners(path)
        ]
        found += [own[k] for k in rng.permutation(len(own))[: study.patches // len(SOURCES)]]
    return [found[k] for k in rng.permutation(len(found))]


@cache
def opened(path: Path) -> Image:
    """An image, read once."""
    image = read_image(path)
    return Image(image.data, Grid(image.grid.shape))


def corners(path: Path) -> list[tuple[int, int]]:
    """Where its windows begin."""
    height, width = opened(path).grid.shape
    return [(y, x) for y in range(0, height - SIDE + 1, STEP) for x in range(0, width - SIDE + 1, STEP)]


def built(study: Patches, some: Sequence[Patch], folder: Path) -> tuple[Row, FolderStore, dict[str, int]]:
    """An index, how long each step took, and how many words each patch has."""
    describing, spent = Describing(Recipe(Sift(most=300))), dict.fromkeys(("describe", "learn", "count", "add"), 0.0)

    def step(name: str, work: Callable[[], T]) -> T:
        before = seconds()
        made = work()
        spent[name] += seconds() - before
        return made

    def described(patch: Patch) -> Array:
        image = opened(patch.path).cropped(patch.corner, (SIDE, SIDE))
        return describing.described(describing.represented(image)).descriptors

    rows = {p.name: step("describe", lambda p=p: described(p)) for p in some[: study.learnt]}
    print(f"{len(rows)} described", spent, sum(map(len, rows.values())), "rows", file=sys.stderr, flush=True)
    options = VocabularyOptions(study.words, study.iterations, study.seed)
    words = step("learn", lambda: Vocabulary.learnt(list(rows.values()), options))
    print("learnt", spent, len(words), file=sys.stderr, flush=True)
    store, counts = FolderStore.made(folder, Definition(describing.recipe, words)), {}
    for start in range(0, len(some), BLOCK):
        new = []
        for patch in some[start : start + BLOCK]:
            own = rows.pop(patch.name, None)
            own = step("describe", lambda p=patch: described(p)) if own is None else own
            new.append(Entry(patch.name, step("count", lambda own=own: words.histogram(own)), facts(patch)))
            counts[patch.name] = new[-1].histogram.nnz
        step("add", lambda new=new: store.add(new))
        print(f"{len(counts)} added", spent, file=sys.stderr, flush=True)
    filled_words = np.array(list(counts.values()))
    row = {
        "patches": len(some),
        "vocabulary learnt from": min(study.learnt, len(some)),
        "words": len(words),
        **{f"{name}, CPU-s": round(value, 1) for name, value in spent.items()},
        "words of a patch, mean": round(float(filled_words.mean()), 1),
        "patches without a word": int((filled_words == 0).sum()),
        "disk, MiB": round(Place((), folder).megabytes(), 1),
        "of it postings, MiB": round(sum(p.stat().st_size for p in folder.glob("[0-9]*.safetensors")) / MIB, 1),
    }
    return row, store, counts


def facts(patch: Patch) -> dict[str, str | float]:
    """What is known of a patch."""
    return {"source": patch.name.rpartition("/")[0].rpartition("/")[0], "image": patch.path.stem}


def found_again(study: Patches, some: Sequence[Patch], store: FolderStore) -> Row:
    """How many rotated patches find their own, and how long a query takes, describing and search apart."""
    index, rng = Index.of(store), np.random.default_rng([study.seed, 1])
    asked_for = [some[k] for k in rng.permutation(len(some))[: study.asked]]
    ranks, describing, searching = [], [], []
    for patch in asked_for:
        image = rotated(patch, float(rng.uniform(-180, 180)))
        wall, histogram = timed(lambda image=image: index.histogram(image))
        describing.append(wall)
        wall, hits = timed(lambda histogram=histogram: store.search(histogram, FIRST))
        searching.append(wall)
        ranks.append(next((k for k, hit in enumerate(hits) if hit.name == patch.name), None))
    return {
        "query: describing and counting, p50 / p95, ms": quantiles(describing),
        "query: search, p50 / p95, ms": quantiles(searching),
        "own patch first": f"{sum(rank == 0 for rank in ranks)} of {len(ranks)}",
        f"own patch in the first {FIRST}": f"{sum(rank is not None for rank in ranks)} of {len(ranks)}",
    }


def rotated(patch: Patch, degrees: float) -> Image:
    """The image about the middle of a patch, turned."""
    grid, turn = Grid((SIDE, SIDE)), rotation_matrix(2, degrees)
    center = np.array(patch.corner) + grid.center
    return opened(patch.path).resampled(grid, Rigid(turn, center - turn @ grid.center))


if __name__ == "__main__":
    main()
