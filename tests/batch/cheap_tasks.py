"""Tasks that cost next to nothing and misbehave on demand; other processes import this file by its name."""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from modalign.batch.processes import Processes
from modalign.batch.run import open_folder, run_tasks, sorted_out
from modalign.batch.work import Item, Outcome, digest_of
from modalign.errors import InvalidInputError
from modalign.io import atomic_path


@dataclass(frozen=True)
class Cheap:
    """Writes one file, after doing what it is named for; ``stage`` is a folder to give and await signs in."""

    name: str
    act: str = "nothing"
    stage: Path = Path()
    number: int = 0

    def digest(self) -> str:
        return digest_of(self.name, self.number)

    def run(self, folder: Path) -> Mapping[str, Any]:
        ACTS[self.act](self, folder)
        with atomic_path(folder / "drawn.txt") as temporary:
            temporary.write_text(f"{self.name} {self.number}\n" * 100, encoding="utf-8")
        status = "unsure" if self.number % 5 == 4 else "accepted"
        drawn = np.random.default_rng(self.number).standard_normal(8)
        return {"status": status, "reasons": [f"number {self.number}"], "drawn": drawn, "files": {"text": "drawn.txt"}}


def hold(task: Cheap, folder: Path) -> None:
    """Wait for the sign to go on, with a file half written; say who waits."""
    with atomic_path(folder / "half.txt") as temporary:
        temporary.write_text("half", encoding="utf-8")
        (task.stage / f"{task.name}.pid").write_text(str(os.getpid()), encoding="utf-8")
        until(lambda: (task.stage / "go").exists())
    (folder / "half.txt").unlink()


def die(task: Cheap, folder: Path) -> None:
    (folder / "begun.txt").write_text("begun", encoding="utf-8")
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(task: Cheap, folder: Path) -> None:
    sign = task.stage / f"{task.name}.died"
    if not sign.exists():
        sign.touch()
        die(task, folder)


def stumble(task: Cheap, folder: Path) -> None:
    raise ZeroDivisionError("nobody\nexpected this")


def refuse(task: Cheap, folder: Path) -> None:
    raise InvalidInputError("these images cannot be compared")


def want_memory(task: Cheap, folder: Path) -> None:
    np.ones(2**33, np.uint8)


def want_memory_in_a_library(task: Cheap, folder: Path) -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")


def fill_disk(task: Cheap, folder: Path) -> None:
    """As on a full disk, files cannot grow any more, until the sign is taken away."""
    if (task.stage / "full").exists():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def fill_disk_and_stumble(task: Cheap, folder: Path) -> None:
    fill_disk(task, folder)
    stumble(task, folder)


ACTS: Mapping[str, Callable[[Cheap, Path], None]] = {
    "nothing": lambda task, folder: None,
    **{act.__name__: act for act in (hold, die, die_once, stumble, refuse, want_memory, want_memory_in_a_library)},
    **{act.__name__: act for act in (fill_disk, fill_disk_and_stumble)},
}


@dataclass(frozen=True)
class Unloadable:
    """A task that arrives where its module is missing, or too old."""

    name: str

    def digest(self) -> str:
        return digest_of(self.name)

    def run(self, folder: Path) -> Mapping[str, Any]:
        return {"status": "accepted", "reasons": []}

    def __reduce__(self) -> Any:
        return _not_here, ()


def _not_here() -> None:
    raise ModuleNotFoundError("No module named 'elsewhere'")


def until(holds: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait until something holds; slow machines get much time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def cheap_tasks(count: int, stage: Path, acts: Mapping[int, str] | None = None) -> list[Cheap]:
    """Tasks p000, p001, …; some of them do something besides."""
    return [Cheap(f"p{i:03}", (acts or {}).get(i, "nothing"), stage, i) for i in range(count)]


def items(tasks: Sequence[Cheap]) -> list[Item]:
    return [Item(task, task.digest()) for task in tasks]


def done_by(executor: Any, tasks: Sequence[Cheap], out: Path) -> dict[str, Outcome]:
    """The outcomes of a batch from an empty folder, or the rest of one, by name."""
    folder = open_folder(out, tasks, {"kind": "test"}, resume=True)
    known, todo = sorted_out(tasks, folder, "nothing", lambda _: None)
    return {outcome.name: outcome for outcome in (*known, *run_tasks(todo, folder, executor, lambda *_: None))}


def records_in(out: Path) -> dict[str, bytes]:
    """The bytes of every record."""
    return {path.parent.name: path.read_bytes() for path in sorted(out.glob("pairs/*/result.json"))}


def strays_in(out: Path) -> list[str]:
    """Files that no finished batch has: temporary ones, and those of attempts that failed."""
    usual = {"result.json", "timing.json", "drawn.txt", "error.txt", "batch.json"}
    return [str(path) for path in out.rglob("*") if path.is_file() and path.name not in usual]


def is_alive(pid: int) -> bool:
    """Whether a process still does something; one that has ended and is not collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def portrait_of_old_modalign(probe: str) -> tuple[str, str, bool]:
    return "0.0.7", version("torch"), True


def portrait_of_old_torch(probe: str) -> tuple[str, str, bool]:
    return version("modalign"), "1.0", True


def portrait_of_none(probe: str) -> tuple[str, str, bool]:
    raise ModuleNotFoundError("No module named 'modalign'")


def portrait_elsewhere(probe: str) -> tuple[str, str, bool]:
    return version("modalign"), version("torch"), Path(probe + "-there").is_file()


if __name__ == "__main__":  # a batch in a process of its own, to be killed
    place, count = Path(sys.argv[1]), int(sys.argv[2])
    done_by(Processes(2), cheap_tasks(count, place / "stage", {2: "hold", 3: "hold"}), place / "out")
