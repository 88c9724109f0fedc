"""Tasks done by processes of this machine, which may die and are replaced."""

import os
import signal
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from modalign.batch.work import Item, Outcome, failure, finish, perform
from modalign.errors import BatchError, InvalidInputError, ModalignError

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
"""What libraries read their number of threads from when they start."""
ATTEMPTS = 2
"""A task whose worker died so many times is not tried again."""
SHARE_OF_MEMORY = 0.8
"""Part of the memory of the machine that all workers together may use."""
LEAST_MEMORY = 1.5
"""GiB that a worker needs to load its libraries and two images."""


@dataclass(frozen=True)
class Processes:
    """Workers on this machine, each with memory and threads of its own."""

    workers: int = 1
    """Number of processes."""
    threads: int = 1
    """Threads of each."""
    max_memory: float | None = None
    """GiB that each may use; by default its share of four fifths of the machine."""

    def __post_init__(self) -> None:
        if self.workers < 1 or self.threads < 1:
            raise InvalidInputError("workers and threads must be at least 1")
        if self.max_memory is not None and not self.max_memory >= LEAST_MEMORY:
            raise InvalidInputError(f"a worker needs at least {LEAST_MEMORY:g} GiB of memory, not {self.max_memory:g}")

    @property
    def memory(self) -> float:
        """GiB that each worker may use."""
        return self.max_memory or max(SHARE_OF_MEMORY * machine_memory() / self.workers, LEAST_MEMORY)

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        number = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        return f"{number} on this machine, {threads} and at most {self.memory:.1f} GiB each"

    def run(self, items: Sequence[Item], out: Path) -> Iterator[Outcome]:
        """Do the tasks; outcomes come as they end.

        A worker that dies costs its task one of two attempts, and no other task anything.

        Raises:
            BatchError: The workers cannot start, or the results cannot be written.
        """
        todo, deaths = deque(items), Counter[str]()
        crew = [_Worker(self, out) for _ in range(min(self.workers, len(items)))]
        try:
            while todo or any(worker.item for worker in crew):
                for worker in crew:
                    if todo and worker.item is None and worker.is_ready:
                        worker.give(todo.popleft())
                for number in _waiting(crew):
                    worker = crew[number]
                    outcome = worker.take()
                    if outcome is not None:
                        yield outcome
                    if worker.is_dead:
                        item, crew[number] = worker.item, _Worker(self, out)
                        deaths.update([item.name] if item else [])
                        if item and deaths[item.name] < ATTEMPTS:
                            todo.append(item)
                        elif item:
                            yield finish(item, out, failure(worker.cause_of_death))
        finally:
            for worker in crew:
                worker.stop()


def _waiting(crew: Sequence["_Worker"]) -> list[int]:
    """The workers that have something to say; a dead one has as well."""
    pipes = {worker.pipe: number for number, worker in enumerate(crew) if worker.item or not worker.is_ready}
    return [pipes[pipe] for pipe in wait(list(pipes))]  # type: ignore[index]


@dataclass(frozen=True)
class _Stop:
    """What a worker says when the other tasks would fail as well."""

    reason: str


class _Worker:
    """One process, and the task that it has."""

    def __init__(self, options: Processes, out: Path) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        limit = int(options.memory * 2**30)
        self.process = context.Process(target=_serve, args=(theirs, str(out), limit), daemon=True)
        with _threads(options.threads):
            self.process.start()
        theirs.close()
        self.item: Item | None = None
        self.is_ready = self.is_dead = False

    def give(self, item: Item) -> None:
        """Hand over a task; that the worker is dead shows when its answer is taken."""
        self.item = item
        with suppress(OSError):
            self.pipe.send(item)

    def take(self) -> Outcome | None:
        """What the worker has to say: that it is ready, the end of its task, or nothing because it died."""
        try:
            said: Any = self.pipe.recv()
        except (EOFError, OSError):
            self.is_dead = True
            self.process.join()
            if not self.is_ready:
                raise BatchError(f"a worker could not start ({self.cause_of_death})") from None
            return None
        if isinstance(said, _Stop):
            raise BatchError(said.reason)
        self.is_ready, self.item = True, None
        return said if isinstance(said, Outcome) else None

    @property
    def cause_of_death(self) -> str:
        """What is known of the end of the process."""
        code = self.process.exitcode or 0
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        return f"its worker ended {how}, most often for want of memory; crop the images, or use fewer workers"

    def stop(self) -> None:
        """End the process; what it was writing stays under a temporary name, which the next attempt removes."""
        self.pipe.close()
        if self.item is not None or not self.is_ready:
            self.process.terminate()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(pipe: Connection, out: str, memory: int) -> None:
    """The life of a worker: tasks come in, outcomes go out, until nobody is there any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that gives the tasks decides
    limit_memory(memory)
    with suppress(EOFError, BrokenPipeError):
        pipe.send("ready")
        while True:
            item = pipe.recv()
            try:
                said: object = perform(item, Path(out))
            except ModalignError as error:
                said = _Stop(str(error))
            pipe.send(said)


def limit_memory(most: int) -> None:
    """Let allocations beyond so many bytes fail in this process, where the system can do that."""
    try:
        import resource
    except ImportError:  # not on this system
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def machine_memory() -> float:
    """Memory of this machine in GiB, or what its control group lets this process use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    with suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()) / 2**30)
    return total


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """The environment that a worker is born into."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(number)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
