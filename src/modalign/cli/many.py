"""What the verbs share that do many tasks in one folder: who does them, where to go on, and how it is told."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalign.batch.cluster import Cluster
from modalign.batch.processes import Processes
from modalign.batch.run import Executor, Rerun, Shard, open_folder, run_tasks, sorted_out
from modalign.batch.work import Outcome, Task
from modalign.cli.console import progress, remembered_interrupts


@dataclass(frozen=True, kw_only=True)
class Many:
    """Options of a verb that does many tasks."""

    out: Path
    """Folder for the results."""
    resume: bool = False
    """Go on where an earlier run was interrupted; what is done with the same inputs and options is not done again."""
    workers: int = 1
    """Processes on this machine."""
    threads: int = 1
    """Threads of each process."""
    max_memory: float | None = None
    """GiB that each process may use; by default its share of four fifths of the machine."""
    dask: str | None = None
    """Address of the scheduler of a Dask cluster that does the work instead."""
    shard: str = "1/1"
    """Only a part: every N-th beginning with the I-th, as I/N, for array jobs that share the output folder."""
    json: bool = False
    """Print the numbers as one JSON object."""

    @property
    def executor(self) -> Executor:
        """Who does the work."""
        return Cluster(self.dask) if self.dask else Processes(self.workers, self.threads, self.max_memory)


def do_tasks(
    command: Many, tasks: Sequence[Task], about: Mapping[str, Any], *, what: str, rerun: Rerun, goes_on: bool
) -> set[str]:
    """Do those tasks of this job that are not done, with progress over all of them.

    Args:
        command: Options of the verb.
        tasks: The tasks of all shards.
        about: What tells the folder from that of other work.
        what: The tasks in one word, such as ``"pairs"``.
        rerun: Which finished tasks are done again.
        goes_on: Whether the folder may hold results already.

    Returns:
        Names of the tasks of this shard.

    Raises:
        BatchError: The folder belongs to other work, or the work cannot start or go on.
    """
    executor = command.executor
    mine = Shard.parse(command.shard).of_tasks(tasks)
    folder = open_folder(command.out, tasks, about, resume=goes_on, mine=mine)
    with progress("look     ") if goes_on else nullcontext(_silent) as advance:
        known, todo = sorted_out(mine, folder, rerun, lambda done: advance(done, "what is done already"))
    counts = Counter[str]()
    try:
        print(f"{len(tasks)} {what}, {len(known)} done before, {len(todo)} to do by {executor}", file=sys.stderr)
        with progress("register ") as advance, remembered_interrupts() as check:

            def tell(outcome: Outcome, number: int) -> None:
                check()
                counts[outcome.status] += 1
                advance(number / len(todo), f"{number} of {len(todo)}: {_counted(counts)}")

            run_tasks(todo, folder, executor, tell)
            check()
    except KeyboardInterrupt:
        print(f"{counts.total()} of {len(todo)} {what} were done and are kept: add --resume to go on", file=sys.stderr)
        raise
    return {task.name for task in mine}


def _silent(_fraction: float, _text: str) -> None:
    """No progress: there is nothing to look at in a new folder."""


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[status]} {status}" for status in sorted(counts)) or "none"
