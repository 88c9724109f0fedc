"""Tasks done by an existing Dask cluster: the same work on one machine or a thousand."""

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from modalign import __version__
from modalign.batch.work import Item, Outcome, give_up, perform
from modalign.errors import BatchError, ModalignError
from modalign.io.files import one_line

if TYPE_CHECKING:
    from distributed import Client, Future

PATIENCE = 10.0
"""Seconds to wait for a scheduler to answer."""
PATIENCE_FOR_WORKERS = 30.0
"""Seconds to wait for its first worker, which may just be starting."""
AHEAD = 2
"""Tasks handed over for every thread of the cluster: enough that none waits, few enough to suspect little."""
POLL = 1.0
"""Seconds after which to see whether the scheduler is still there."""


@dataclass(frozen=True)
class Cluster:
    """The workers of a Dask scheduler; they must see the files of the manifest and the output folder by these paths."""

    address: str
    """Address of the scheduler, such as tcp://host:8786."""

    def __str__(self) -> str:
        return f"the workers of the Dask scheduler at {self.address}; their memory limits are those they were given"

    def run(self, items: Sequence[Item], out: Path) -> Generator[Outcome, None, None]:
        """Do the tasks; outcomes come as they end.

        Raises:
            BatchError: The cluster cannot be reached, has no workers, other versions or no access to the output
                folder, or went away; the results cannot be written.
        """
        with self._client() as client:
            threads = _checked(client, out.resolve())
            yield from _done(client, items, out.resolve(), AHEAD * threads)

    @contextmanager
    def _client(self) -> Iterator["Client"]:
        try:
            from distributed import Client
        except ImportError as error:
            raise BatchError("for a Dask cluster type: pip install 'modalign[dask]'") from error
        with _quiet():
            try:
                client = Client(self.address, timeout=PATIENCE)
            except Exception as error:  # an address without sense fails in many ways
                raise BatchError(f"no Dask scheduler answers at {self.address}; start one, or name another") from error
            try:
                yield client
            finally:
                with suppress(Exception):  # the scheduler may be gone
                    client.close(timeout=PATIENCE)


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of what the library says of lost connections: the error that ends the batch says it once."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]
    loud = [logger for logger in map(logging.getLogger, names) if not logger.disabled]
    for logger in loud:
        logger.disabled = True
    try:
        yield
    finally:
        for logger in loud:
            logger.disabled = False


def _checked(client: "Client", out: Path) -> int:
    """Threads of the cluster, once it is sure that its workers can do the work."""
    from distributed import TimeoutError as NoWorkers

    with suppress(NoWorkers, OSError):
        client.wait_for_workers(1, timeout=PATIENCE_FOR_WORKERS)
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        raise BatchError(f"the Dask scheduler at {client.scheduler_info()['address']} has no workers; start some")
    probe = out / f".probe-{uuid4().hex[:8]}"
    probe.touch()
    try:
        told = client.run(_self_portrait, str(probe), on_error="return")
    finally:
        probe.unlink(missing_ok=True)
    _compare(told)
    return sum(int(worker["nthreads"]) for worker in workers.values())


def _self_portrait(probe: str) -> tuple[str, str, bool]:
    """What a worker has to be asked before it gets work."""
    return version("modalign"), version("torch"), Path(probe).is_file()


def _compare(told: dict[str, Any]) -> None:
    ours = version("torch")
    for worker, answer in told.items():
        if isinstance(answer, BaseException):
            raise BatchError(
                f"the Dask worker {worker} cannot import modalign {__version__} ({answer}); install it there"
            )
        theirs, torch, sees = answer
        if theirs != version("modalign") or torch != ours:
            raise BatchError(
                f"the Dask worker {worker} has modalign {theirs} with torch {torch}, here are {version('modalign')} "
                f"and {ours}: results would depend on who computes them; install the same versions"
            )
        if not sees:
            raise BatchError(
                f"the Dask worker {worker} does not see the output folder; name one on a shared file system"
            )


def _done(client: "Client", items: Sequence[Item], out: Path, ahead: int) -> Generator[Outcome, None, None]:
    """The outcomes of all tasks.

    Dask suspects every task that a dying worker had, also those that only stood in line there: each suspect gets a
    second chance with the cluster to itself.
    """
    suspects = []
    for item, outcome in _told(client, items, out, ahead):
        if outcome is None:
            suspects.append(item)
        else:
            yield outcome
    for item, outcome in _told(client, suspects, out, 1):
        yield outcome or give_up(item, out, "workers died over it again and again, most often for want of memory")


def _told(
    client: "Client", items: Sequence[Item], out: Path, ahead: int
) -> Generator[tuple[Item, Outcome | None], None, None]:
    """Keep the cluster busy, and collect: tasks with their outcomes, or without where their workers died."""
    waiting = iter(items)
    running: dict[Future, Item] = {}
    while True:
        with _complaining_if_gone(running):
            for item in islice(waiting, ahead - len(running)):
                running[_submitted(client, item, out)] = item
            pairs = [(running.pop(future), _outcome(future)) for future in _ended(client, running)]
        if not pairs:
            return
        yield from pairs


def _submitted(client: "Client", item: Item, out: Path) -> "Future":
    key = f"modalign-{uuid4().hex}"
    return client.submit(_work, item, str(out), key=key, pure=False)


def _work(item: Item, out: str) -> Outcome | str:
    """Runs on a worker: the outcome, or why the others would fail as well."""
    try:
        return perform(item, Path(out))
    except ModalignError as error:
        return str(error)


@contextmanager
def _complaining_if_gone(running: dict["Future", Item]) -> Iterator[None]:
    from distributed import CancelledError

    try:
        yield
    except (OSError, CancelledError) as error:
        raise BatchError(
            f"the Dask scheduler went away with {len(running)} tasks under way; what is done is kept: start it again "
            "and add --resume"
        ) from error


def _ended(client: "Client", running: dict["Future", Item]) -> list["Future"]:
    """The futures that have ended, at least one if there are any.

    Raises:
        OSError: The scheduler has ended, or has forgotten them.
    """
    from distributed import wait

    while running:
        if client.status != "running":
            raise ConnectionError
        with suppress(TimeoutError):
            wait(list(running), timeout=POLL, return_when="FIRST_COMPLETED")
        states = {future.status for future in running}
        if "cancelled" in states:
            raise ConnectionError
        if states & {"finished", "error"}:
            break
    return [future for future in running if future.status in ("finished", "error")]


def _outcome(future: "Future") -> Outcome | None:
    if future.status == "error":
        error = future.exception()
        if type(error).__name__ == "KilledWorker":
            return None
        why = error.__cause__ or error
        raise BatchError(f"the Dask workers cannot do the tasks ({type(why).__name__}: {one_line(why)})")
    told = future.result()
    if isinstance(told, str):
        raise BatchError(told)
    return told  # type: ignore[no-any-return]
