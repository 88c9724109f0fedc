"""A batch from beginning to end: what is done is kept, the rest is done, and every outcome is told."""

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from modalign.batch.work import FAILED, Item, Outcome, Task, done, record_of
from modalign.errors import BatchError, InvalidInputError
from modalign.io import make_folder, read_json, write_json

MARKER = "batch.json"
"""Tells what an output folder holds."""
TASKS = "pairs"
"""Folder in the output folder in which every task has its own."""
RERUN: Mapping[str, frozenset[str]] = {
    "nothing": frozenset(),
    "failed": frozenset({FAILED, "refused"}),
    "unsure": frozenset({FAILED, "refused", "unsure"}),
}
Rerun = Literal["nothing", "failed", "unsure"]


@runtime_checkable
class Executor(Protocol):
    """Who does the work: processes of this machine, or a cluster."""

    def run(self, items: Sequence[Item], out: Path) -> Generator[Outcome, None, None]:
        """Do the tasks; outcomes come as they end, in any order."""


@dataclass(frozen=True)
class Shard:
    """Every n-th task, for array jobs: number 1 of 4, 2 of 4 and so on."""

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise InvalidInputError(f"a shard is I/N with I from 1 to N, not {self.number}/{self.of}")

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard of a text such as ``2/4``."""
        number, slash, of = text.partition("/")
        if not (slash and number.strip().isdecimal() and of.strip().isdecimal()):
            raise InvalidInputError(f"a shard is I/N, such as 2/4, not {text!r}")
        return cls(int(number), int(of))

    def of_tasks(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """The tasks of this shard."""
        return tasks[self.number - 1 :: self.of]


def open_folder(
    out: Path, tasks: Sequence[Task], about: Mapping[str, Any], *, resume: bool, mine: Sequence[Task] | None = None
) -> Path:
    """The output folder, new or of the same batch.

    Args:
        out: The output folder.
        tasks: All tasks that its results may belong to.
        about: What kind of batch it is; must have the key ``kind``, and ``plan`` where only one plan fits the folder.
        resume: Whether it may hold results of ``mine``.
        mine: The tasks to do now, all by default; others may be doing the rest at the same time.

    Raises:
        BatchError: It holds something else, or results of these tasks although ``resume`` is not set.
        OutputError: It cannot be written to.
    """
    make_folder(out)
    marker = out / MARKER
    if marker.is_file():
        there = {path.name for path in (out / TASKS).glob("*")}
        _check_same(out, read_json(marker), there & {task.name for task in tasks} or not there, about)
        if not resume and there & {task.name for task in (tasks if mine is None else mine)}:
            raise BatchError(f"{out} holds results of an earlier run: add --resume to go on, or name a new folder")
    elif any(path for path in out.iterdir() if not path.name.startswith(".")):
        raise BatchError(f"{out} holds files of something else; name a new or empty folder")
    write_json(marker, dict(about))
    return make_folder(out / TASKS)


def _check_same(out: Path, before: Any, has_common: object, about: Mapping[str, Any]) -> None:
    if not isinstance(before, dict) or before.get("kind") != about["kind"]:
        raise BatchError(f"{out} holds results of something else than this {about['kind']}; name a new folder")
    if before.get("plan") != about.get("plan"):
        raise BatchError(f"{out} holds results of another plan; name a new folder for this one")
    if not has_common:
        raise BatchError(f"{out} holds results of other pairs, none of which is listed here; name a new folder")


def sorted_out(
    tasks: Sequence[Task], folder: Path, rerun: Rerun, advance: Callable[[float], None]
) -> tuple[list[Outcome], list[Item]]:
    """What is done already, and what is to do: tasks without a result of the same inputs and configuration.

    Args:
        tasks: The tasks.
        folder: Folder of their folders.
        rerun: Which results are to be made again although nothing has changed.
        advance: Called with the finished fraction.
    """
    known, todo = [], []
    with ThreadPoolExecutor(4) as pool:
        for number, (task, digest) in enumerate(zip(tasks, pool.map(lambda task: task.digest(), tasks), strict=True)):
            item = Item(task, digest)
            before = done(item, folder)
            if before is None or before.status in RERUN[rerun]:
                todo.append(item)
            else:
                known.append(before)
            advance((number + 1) / len(tasks))
    return known, todo


def run_tasks(
    items: Sequence[Item], folder: Path, executor: Executor, advance: Callable[[Outcome, int], None]
) -> list[Outcome]:
    """Do the tasks.

    Args:
        items: What is to do.
        folder: Folder of their folders.
        executor: Who does it.
        advance: Called with every outcome as it comes, and how many there are.

    Raises:
        BatchError: The work cannot start or go on; what is done is kept.
    """
    outcomes: list[Outcome] = []
    if not items:
        return outcomes
    with closing(executor.run(items, folder)) as ending:  # nobody works on after an interruption
        for outcome in ending:
            outcomes.append(outcome)
            advance(outcome, len(outcomes))
    return outcomes


def records(tasks: Sequence[Task], folder: Path) -> list[dict[str, Any]]:
    """The records of all tasks that have one, in the order of the tasks: also of those that other shards have done."""
    found = (record_of(folder / task.name) for task in tasks)
    return [record for record in found if record is not None]
