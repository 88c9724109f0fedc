"""What is done many times: a task that leaves its result in a folder of its own, and what is known of it afterwards."""

import hashlib
import json
import re
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Protocol, runtime_checkable

from modalign import __version__
from modalign.errors import ModalignError, OutputError
from modalign.io import make_folder, plain, read_json, remove_leftovers, write_json, write_text
from modalign.io.files import one_line

RECORD = "result.json"
"""Name of the file with the result; written last, so that where it lies everything is there."""
TIMING = "timing.json"
"""What differs from run to run stays out of the record: the same inputs give the same record, byte for byte."""
TRACEBACK = "error.txt"
FAILED = "failed"
"""Status of a task that ended with an error; any other is the task's own."""
NO_MEMORY = re.compile(
    r"bad_alloc|out of memory|insufficient memory|(can't|unable to|failed to) allocate", re.IGNORECASE
)
"""How libraries say it that have no MemoryError."""


@runtime_checkable
class Task(Protocol):
    """Something to do many times, in other processes: its value is pickled, its work leaves files."""

    @property
    def name(self) -> str:
        """Name of its folder."""

    def digest(self) -> str:
        """Hash of all that the result depends on: the inputs and the configuration."""

    def run(self, folder: Path) -> Mapping[str, Any]:
        """Do the work, write files into the folder, and return the record with at least ``status`` and ``reasons``."""


@dataclass(frozen=True)
class Item:
    """A task with the hash of what it depends on."""

    task: Task
    digest: str

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.task.name


@dataclass(frozen=True)
class Outcome:
    """The end of one task.

    Attributes:
        name: Name of the task.
        record: What was written.
        seconds: Wall time.
    """

    name: str
    record: Mapping[str, Any]
    seconds: float

    @property
    def status(self) -> str:
        """How it ended."""
        return str(self.record["status"])


def perform(item: Item, out: Path) -> Outcome:
    """Do one task; whatever goes wrong with it becomes its record.

    The record is written last, and under its name in one step: where it lies, the task is done.

    Raises:
        OutputError: Its folder cannot be written to, which the other tasks would find as well.
    """
    folder = _emptied(out / item.name)
    wall, cpu = perf_counter(), process_time()
    try:
        record = item.task.run(folder)
    except OutputError:
        raise
    except ModalignError as error:
        record = failure(str(error))
    except Exception as error:
        record = _unexpected(error, folder)
    return finish(item, out, record, seconds=perf_counter() - wall, cpu_seconds=process_time() - cpu)


def give_up(item: Item, out: Path, reason: str) -> Outcome:
    """Write the record of a task that no worker came to the end of; what was begun of it is removed."""
    _emptied(out / item.name)
    return finish(item, out, failure(reason))


def _emptied(path: Path) -> Path:
    """The folder of a task without the files of earlier attempts; the record, which vouches for them, goes first."""
    folder = make_folder(path)
    (folder / RECORD).unlink(missing_ok=True)
    remove_leftovers(folder)
    for left in folder.iterdir():
        with suppress(OSError):  # a file system may hold on to a file that somebody has open
            left.unlink()
    return folder


def _unexpected(error: Exception, folder: Path) -> dict[str, Any]:
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
        return failure("the memory that a worker may use did not suffice; give it more, or crop the images")
    write_text(folder / TRACEBACK, "".join(traceback.format_exception(error)))
    return failure(f"an unexpected error, see {TRACEBACK}: {type(error).__name__}: {one_line(error)}")


def failure(reason: str) -> dict[str, Any]:
    """The record of a task that ended with an error."""
    return {"status": FAILED, "reasons": [reason]}


def finish(item: Item, out: Path, record: Mapping[str, Any], **timing: float) -> Outcome:
    """Write the record of a task."""
    folder = make_folder(out / item.name)
    write_json(folder / TIMING, {name: round(value, 3) for name, value in timing.items()})
    whole = plain({"name": item.name, "digest": item.digest, **record})
    write_json(folder / RECORD, whole)
    return Outcome(item.name, whole, timing.get("seconds", 0.0))


def done(item: Item, out: Path) -> Outcome | None:
    """The outcome of a task that was done before with the same inputs and configuration, and whose files are there."""
    record = record_of(out / item.name)
    if record is None or record.get("digest") != item.digest:
        return None
    if not all((out / item.name / name).is_file() for name in record.get("files", {}).values()):
        return None
    return Outcome(item.name, record, seconds_of(out / item.name))


def record_of(folder: Path) -> dict[str, Any] | None:
    """The record in the folder of a task; ``None`` where there is none that makes sense."""
    try:
        record = read_json(folder / RECORD)
    except ModalignError:
        return None
    complete = isinstance(record, dict) and {"digest", "status", "reasons"} <= record.keys()
    return record if complete and record.get("name") == folder.name else None


def seconds_of(folder: Path) -> float:
    """Wall time of a task that is done, 0 where it is not known."""
    try:
        return float(read_json(folder / TIMING)["seconds"])
    except (ModalignError, KeyError, TypeError, ValueError):
        return 0.0


def digest_of(*parts: Any) -> str:
    """Hash of values, and of the version of modalign, which may give other results."""
    text = json.dumps(plain([__version__, *parts]), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
