"""Tasks done by an existing Dask cluster: the same work on one machine or a thousand."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from modalign import __version__
from modalign.batch.work import Item, Outcome, failure, finish, perform
from modalign.errors import BatchError, ModalignError

if TYPE_CHECKING:
    from distributed import Client, Future

PATIENCE = 10.0
"""Seconds to wait for a scheduler to answer, and for its first worker."""
AHEAD = 4
"""Tasks handed over for every thread of the cluster: enough that none waits, few enough to forget little."""
POLL = 1.0
"""Seconds after which to see whether the scheduler is still there."""


@dataclass(frozen=True)
class Cluster:
    """The workers of a Dask scheduler; they must see the files of the manifest and the output folder by these paths."""

    address: str
    """Address of the scheduler, such as tcp://host:8786."""

    def __str__(self) -> str:
        return f"the workers of the Dask scheduler at {self.address}; their memory limits are those they were given"

    def run(self, items: Sequence[Item], out: Path) -> Iterator[Outcome]:
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
        try:
            client = Client(self.address, timeout=PATIENCE)
        except (OSError, ValueError, TypeError) as error:
            raise BatchError(f"no Dask scheduler answers at {self.address}; start one, or name another") from error
        try:
            yield client
        finally:
            with suppress(Exception):  # the scheduler may be gone
                client.close(timeout=PATIENCE)


def _checked(client: "Client", out: Path) -> int:
    """Threads of the cluster, once it is sure that its workers can do the work."""
    from distributed import TimeoutError as NoWorkers

    with suppress(NoWorkers, OSError):
        client.wait_for_workers(1, timeout=PATIENCE)
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


def _done(client: "Client", items: Sequence[Item], out: Path, ahead: int) -> Iterator[Outcome]:
    """Keep the cluster busy, and collect."""
    waiting = iter(items)
    running: dict[Future, Item] = {}
    while True:
        for item in islice(waiting, ahead - len(running)):
            running[_submitted(client, item, out)] = item
        if not running:
            return
        for future in _ended(client, running):
            yield _outcome(future, running.pop(future), out)


def _submitted(client: "Client", item: Item, out: Path) -> "Future":
    key = f"modalign-{uuid4().hex}"
    return client.submit(_work, item, str(out), key=key, pure=False)


def _work(item: Item, out: str) -> Outcome | str:
    """Runs on a worker: the outcome, or why the others would fail as well."""
    try:
        return perform(item, Path(out))
    except ModalignError as error:
        return str(error)


def _ended(client: "Client", running: dict["Future", Item]) -> list["Future"]:
    """The futures that have ended, at least one; or an error, if the scheduler has."""
    from distributed import wait

    while True:
        if client.status != "running":
            raise BatchError(
                f"the Dask scheduler went away with {len(running)} tasks under way; what is done is kept: start it "
                "again and add --resume"
            )
        with suppress(TimeoutError, OSError):
            wait(list(running), timeout=POLL, return_when="FIRST_COMPLETED")
        ended = [future for future in running if future.status in ("finished", "error")]
        if ended:
            return ended


def _outcome(future: "Future", item: Item, out: Path) -> Outcome:
    if future.status == "error":
        error = future.exception()
        reason = "workers died over it again and again, most often for want of memory"
        return finish(item, out, failure(f"{reason} ({type(error).__name__})"))
    told = future.result()
    if isinstance(told, str):
        raise BatchError(told)
    return told  # type: ignore[no-any-return]
