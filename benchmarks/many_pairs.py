"""A thousand small pairs through ``modalign batch``: throughput, memory, and what is left after everything was killed.

    python benchmarks/many_pairs.py --out results/many_pairs

One worker, two workers, Dask with a scheduler and workers of its own, and a run that is killed again and again; the
results of all must be the same byte for byte.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
import tyro

from modalign.data.displacement import DisplacementProtocol, displaced_pairs
from modalign.data.tissue import TissueOptions, tissue
from modalign.io import write_image, write_table

SIDE = 128
ENGINE = ("--engine", "sift", "--keep", "transform")
QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
KILLS = 5


@dataclass(frozen=True)
class Study:
    """What to run."""

    out: Path = field(kw_only=True)
    """Folder for the pairs and the results."""
    pairs: int = 1000
    """Number of pairs."""
    runs: tuple[str, ...] = ("1 worker", "2 workers", "local cluster", "scheduler and workers", "killed")
    """Which of the runs."""
    seconds_between_kills: float = 12.0
    """How long the run that is killed may work each time."""


def main() -> None:
    """Make the pairs, run, and compare."""
    study = tyro.cli(Study)
    manifest = study.out / "pairs.csv"
    if not manifest.is_file():
        make_pairs(study.out, study.pairs)
    ways: dict[str, Callable[[Path], float]] = {
        "1 worker": lambda out: batch(manifest, out, "--workers", "1"),
        "2 workers": lambda out: batch(manifest, out, "--workers", "2"),
        "local cluster": lambda out: through_dask(manifest, out, local_cluster),
        "scheduler and workers": lambda out: through_dask(manifest, out, lambda: cluster(study.out)),
        "killed": lambda out: killed(manifest, out, study.seconds_between_kills),
    }
    first: dict[str, bytes] = {}
    for name in study.runs:
        out = study.out / name.replace(" ", "_")
        before = os.times()
        wall = ways[name](out)
        after = os.times()
        cpu = sum(after[2:4]) - sum(before[2:4])
        found = results(out)
        first = first or found
        same = "the same" if found == first else "OTHER"
        speed = f"{len(found)} pairs, {wall:.0f} s, {len(found) / wall:.1f} pairs/s, {cpu:.0f} CPU-s"
        print(f"{name}: {speed}, {same} results", flush=True)


def make_pairs(out: Path, number: int) -> None:
    """Small displaced pairs of made-up tissue, ten a tissue, and their manifest."""
    protocol, rows = DisplacementProtocol((SIDE, SIDE), 20, 10, draws=10), []
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(-(-number // 10)):
        made = tissue(seed, TissueOptions(shape=(2 * SIDE, 2 * SIDE))).second_harmonic
        for view in displaced_pairs(made, made, protocol, str(seed)):
            name = f"{seed:03d}_{view.draw}"
            files = {"fixed": f"{name}_fixed.png", "moving": f"{name}_moving.png"}
            for role, image in (("fixed", view.fixed), ("moving", view.moving)):
                write_image(out / files[role], image.with_data((255 * image.data / image.data.max()).astype(np.uint8)))
            rows.append({"name": name, **files})
        print(f"\r{len(rows)} pairs made", end="", file=sys.stderr, flush=True)
    write_table(out / "pairs.csv", rows[:number])


def command(manifest: Path, out: Path, *options: str) -> list[str]:
    """The command that registers the pairs."""
    return [sys.executable, "-m", "modalign", "batch", str(manifest), "--out", str(out), *ENGINE, *options]


def batch(manifest: Path, out: Path, *options: str) -> float:
    """Run it to its end, telling the peak of the memory of its processes; returns the seconds that it took."""
    start = time.perf_counter()
    with log(out) as file:
        process = subprocess.Popen(command(manifest, out, "--resume", *options), stderr=file, stdout=file)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, *(resident(pid) for pid in [process.pid, *descendants(process.pid)]))
            time.sleep(0.5)
    print(f"exit status {process.returncode}, at most {peak:.0f} MB in one process")
    return time.perf_counter() - start


def through_dask(manifest: Path, out: Path, started: Callable[[], AbstractContextManager[str]]) -> float:
    """The same on a cluster of two workers; its start and its end are not counted."""
    with started() as address:
        return batch(manifest, out, "--dask", address)


@contextmanager
def local_cluster() -> Iterator[str]:
    """Two worker processes of Dask, and its scheduler in this one."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as made:
        yield made.scheduler_address


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """A Dask scheduler and two workers of one thread, each a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    scheduler = ["scheduler", "--host", address, "--no-dashboard"]
    worker = [
        "worker",
        address,
        "--nthreads",
        "1",
        "--no-dashboard",
        "--local-directory",
        str(folder / "scratch_of_dask"),
    ]
    with log(folder / "cluster") as file:
        parts = [
            subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + part[0], *part[1:]],
                stdout=file,
                stderr=file,
                env=os.environ | QUIET,
            )
            for part in (scheduler, worker, worker)
        ]
        try:
            yield address
        finally:
            for part in reversed(parts):
                part.terminate()
            for part in parts:
                part.wait(30)


def killed(manifest: Path, out: Path, seconds: float) -> float:
    """Kill a worker, then everything, again and again, then go on to the end."""
    start = time.perf_counter()
    for number in range(KILLS):
        with log(out) as file:
            words = command(manifest, out, "--resume", "--workers", "2")
            process = subprocess.Popen(words, stderr=file, stdout=file, start_new_session=True)
            time.sleep(seconds / 2)
            workers = descendants(process.pid)
            if workers:
                os.kill(workers[-1], signal.SIGKILL)
            time.sleep(seconds / 2)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        print(f"killed for the {number + 1}. time, {len(results(out))} results")
    batch(manifest, out, "--workers", "2")
    return time.perf_counter() - start


def results(out: Path) -> dict[str, bytes]:
    """What every pair left that must not depend on the run."""
    return {path.parent.name: path.read_bytes() for path in sorted(out.glob("pairs/*/result.json"))}


@contextmanager
def log(out: Path) -> Iterator[TextIO]:
    """A file for what the processes say."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / f"{out.name}.log").open("a") as file:
        yield file


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and that these started."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[1]) == pid:
            child = int(path.parent.name)
            found += [child, *descendants(child)]
    return found


def resident(pid: int) -> float:
    """Resident memory of a process, MB."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
