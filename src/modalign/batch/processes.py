"""Tasks done by processes of this machine, which may die and are replaced."""

import os
import pickle
import signal
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from threading import Thread
from typing import Any

from modalign.batch.work import Item, Outcome, give_up, perform
from modalign.data.shelf import machine_memory
from modalign.errors import BatchError, InvalidInputError, ModalignError
from modalign.io.files import one_line

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

    def run(self, items: Sequence[Item], out: Path) -> Generator[Outcome, None, None]:
        """Do the tasks; outcomes come as they end.

        A worker that dies costs its task one of two attempts, and no other task anything.

        Raises:
            BatchError: The workers cannot start, or the results cannot be written.
        """
        crew = _Crew(self, out)
        try:
            yield from crew.outcomes(deque(items))
        finally:
            crew.end()


class _Crew:
    """The workers, and what their deaths have cost."""

    def __init__(self, options: Processes, out: Path) -> None:
        self._options, self._out = options, out
        self._workers: list[_Worker] = []
        self._deaths = Counter[str]()
        self._failed_starts = 0

    def outcomes(self, todo: deque[Item]) -> Generator[Outcome, None, None]:
        """Keep the workers busy, and collect."""
        for _ in range(min(self._options.workers, len(todo))):
            self._workers.append(_Worker(self._options, self._out))
        while todo or any(worker.item for worker in self._workers):
            for worker in self._workers:
                if todo and worker.item is None and worker.is_ready:
                    worker.give(todo.popleft())
            for worker in self._talking():
                outcome = worker.take()
                if worker.is_dead:
                    outcome = self._replaced(worker, todo)
                if outcome is not None:
                    yield outcome

    def _talking(self) -> "list[_Worker]":
        """The workers that have something to say; a dead one has as well."""
        pipes = {worker.pipe: worker for worker in self._workers if worker.item or not worker.is_ready}
        return [pipes[pipe] for pipe in wait(list(pipes))]  # type: ignore[index]

    def _replaced(self, dead: "_Worker", todo: deque[Item]) -> Outcome | None:
        """Have another worker for a dead one; its task is tried again, or ends here."""
        self._failed_starts = 0 if dead.is_ready else self._failed_starts + 1
        if self._failed_starts >= ATTEMPTS:
            raise BatchError(f"the workers cannot start: the last one ended {dead.end}; use fewer, or free memory")
        self._workers[self._workers.index(dead)] = _Worker(self._options, self._out)
        if dead.item is None:
            return None
        self._deaths[dead.item.name] += 1
        if self._deaths[dead.item.name] >= ATTEMPTS:
            advice = "most often for want of memory; crop the images, or use fewer workers"
            return give_up(dead.item, self._out, f"its worker ended {dead.end}, {advice}")
        todo.append(dead.item)
        return None

    def end(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.join()


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
        with _threads(options.threads), _interrupts_kept_away():
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
            return None
        if isinstance(said, _Stop):
            raise BatchError(said.reason)
        self.is_ready, self.item = True, None
        return said if isinstance(said, Outcome) else None

    @property
    def end(self) -> str:
        """How the process ended."""
        code = self.process.exitcode or 0
        return f"by signal {signal.Signals(-code).name}" if code < 0 else f"with status {code}"

    def stop(self) -> None:
        """Tell the process to end; what it was writing stays under a temporary name, which the next attempt removes."""
        self.pipe.close()
        if self.item is not None or not self.is_ready:
            self.process.terminate()

    def join(self) -> None:
        """Wait until the process has ended."""
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(pipe: Connection, out: str, memory: int) -> None:
    """The life of a worker: tasks come in, outcomes go out, until nobody is there any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that gives the tasks decides
    Thread(target=_end_with_parent, daemon=True).start()
    limit_memory(memory)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send("ready")
        while True:
            pipe.send(_answer(pipe.recv_bytes(), Path(out)))


def _answer(message: bytes, out: Path) -> Outcome | _Stop:
    try:
        item = pickle.loads(message)
    except Exception as error:  # what cannot be imported here cannot be for any task
        return _Stop(f"the workers cannot load the tasks ({type(error).__name__}: {one_line(error)})")
    try:
        return perform(item, out)
    except ModalignError as error:
        return _Stop(str(error))


def _end_with_parent() -> None:
    """End this process at once when the one that gives the tasks has been killed: nobody would know of its work."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def limit_memory(most: int) -> None:
    """Let allocations beyond so many bytes fail in this process, where the system can do that."""
    try:
        import resource
    except ImportError:  # not on this system
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


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


@contextmanager
def _interrupts_kept_away() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal; those that are started here never see it, not even at first."""
    ensure_running()  # multiprocessing would start this helper beside the first worker, and let the signal through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
