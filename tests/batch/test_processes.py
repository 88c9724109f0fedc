"""Workers of this machine may die, run out of memory or find the disk full: nothing is lost, and nothing else stops."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import cheap_tasks
import pytest
from cheap_tasks import Unloadable, done_by, is_alive, items, records_in, strays_in, until
from cheap_tasks import cheap_tasks as tasks_of

from modalign.batch.processes import ATTEMPTS, LEAST_MEMORY, THREADS, Processes
from modalign.batch.run import run_tasks
from modalign.batch.work import Item
from modalign.data.shelf import machine_memory
from modalign.errors import BatchError, InvalidInputError

COUNT = 12


def meanwhile(act: Callable[[], None]) -> Thread:
    thread = Thread(target=act, daemon=True)
    thread.start()
    return thread


def test_killed_worker_costs_nothing(tmp_path: Path, stage: Path, undisturbed: dict[str, bytes]) -> None:
    def kill() -> None:
        sign = stage / "p003.pid"
        until(lambda: sign.exists() and sign.read_text() != "")
        os.kill(int(sign.read_text()), signal.SIGKILL)
        (stage / "go").touch()

    killing = meanwhile(kill)
    outcomes = done_by(Processes(2), tasks_of(COUNT, stage, {3: "hold"}), tmp_path / "out")
    killing.join(10)
    assert len(outcomes) == COUNT
    assert records_in(tmp_path / "out") == undisturbed
    assert strays_in(tmp_path / "out") == []


def test_misbehaving_tasks_fail_alone(tmp_path: Path, stage: Path, undisturbed: dict[str, bytes]) -> None:
    acts = {0: "die", 2: "stumble", 4: "die_once", 5: "refuse", 7: "want_memory", 8: "want_memory_in_a_library"}
    outcomes = done_by(Processes(2, max_memory=LEAST_MEMORY), tasks_of(COUNT, stage, acts), tmp_path / "out")
    found = records_in(tmp_path / "out")
    failed = {name: outcome.record["reasons"][0] for name, outcome in outcomes.items() if outcome.status == "failed"}
    assert set(failed) == {"p000", "p002", "p005", "p007", "p008"}
    assert "SIGKILL" in failed["p000"]
    assert failed["p002"] == "an unexpected error, see error.txt: ZeroDivisionError: nobody"
    assert failed["p005"] == "these images cannot be compared"
    assert failed["p007"] == failed["p008"]
    assert "memory that a worker may use" in failed["p007"]
    told = (tmp_path / "out" / "pairs" / "p002" / "error.txt").read_text(encoding="utf-8")
    assert "Traceback" in told
    assert "in stumble" in told
    assert {name: found[name] for name in found.keys() - failed} == {
        name: undisturbed[name] for name in undisturbed.keys() - failed
    }
    assert strays_in(tmp_path / "out") == []  # in particular nothing of what was begun before a death


def test_killed_parent_takes_its_workers_along_and_resuming_completes(
    tmp_path: Path, stage: Path, undisturbed: dict[str, bytes]
) -> None:
    command = [sys.executable, cheap_tasks.__file__, str(tmp_path), str(COUNT)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as parent:
        signs = [stage / "p002.pid", stage / "p003.pid"]
        until(lambda: all(sign.exists() and sign.read_text() for sign in signs))
        workers = [int(sign.read_text()) for sign in signs]
        parent.kill()
    until(lambda: not any(map(is_alive, workers)))
    before = records_in(tmp_path / "out")
    assert set(before) == {"p000", "p001"}
    assert strays_in(tmp_path / "out") != []  # what they were writing
    (stage / "go").touch()
    done_by(Processes(2), tasks_of(COUNT, stage, {2: "hold", 3: "hold"}), tmp_path / "out")
    assert records_in(tmp_path / "out") == undisturbed
    assert strays_in(tmp_path / "out") == []


@pytest.mark.parametrize("act", ["fill_disk", "fill_disk_and_stumble"])
def test_full_disk_stops_with_one_message_and_leaves_no_half_result(
    act: str, tmp_path: Path, stage: Path, undisturbed: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    (stage / "full").touch()
    acts = {6: act}
    with pytest.raises(BatchError, match=r"p006.*cannot be written \(File too large\)"):
        done_by(Processes(2), tasks_of(COUNT, stage, acts), tmp_path / "out")
    found = records_in(tmp_path / "out")
    assert found.items() <= undisturbed.items()
    assert "p006" not in found
    assert not list((tmp_path / "out" / "pairs" / "p006").glob("[!.]*"))
    (stage / "full").unlink()
    outcomes = done_by(Processes(2), tasks_of(COUNT, stage, {6: "nothing"}), tmp_path / "out")
    assert len(outcomes) == COUNT
    assert records_in(tmp_path / "out") == undisturbed
    assert capfd.readouterr() == ("", "")


def test_nobody_works_on_after_an_interruption(tmp_path: Path, stage: Path) -> None:
    alive: list[int] = []

    def interrupt(outcome: object, number: int) -> None:
        if number < 3:  # the one that is held may not have a worker yet
            return
        until(lambda: (stage / "p001.pid").exists() and (stage / "p001.pid").read_text() != "")
        alive.append(int((stage / "p001.pid").read_text()))
        assert is_alive(alive[0])
        raise KeyboardInterrupt

    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        run_tasks(items(tasks_of(4, stage, {1: "hold"})), tmp_path / "out", Processes(2), interrupt)
    assert not is_alive(alive[0])
    assert not (tmp_path / "out" / "p001" / "result.json").exists()


def test_workers_that_cannot_load_the_tasks_say_so(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match=r"cannot load the tasks \(ModuleNotFoundError: No module named 'elsewhere'\)"):
        list(Processes().run([Item(Unloadable("p"), "0")], tmp_path))


def test_workers_that_cannot_start_end_the_batch(tmp_path: Path, stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modalign.batch.processes.get_context", lambda _: DyingContext())
    with pytest.raises(BatchError, match=r"the workers cannot start: the last one ended with status 7"):
        list(Processes(2).run(items(tasks_of(3, stage)), tmp_path))


class DyingContext:
    """Processes that end at once."""

    def __init__(self) -> None:
        from multiprocessing import get_context

        self.real = get_context("spawn")
        self.Pipe = self.real.Pipe

    def Process(self, target: object, args: object, daemon: bool) -> object:
        return self.real.Process(target=os._exit, args=(7,), daemon=daemon)


def test_threads_and_memory_reach_the_workers_and_nobody_else(tmp_path: Path, stage: Path) -> None:
    before = {name: os.environ.get(name) for name in THREADS}
    outcomes = list(Processes(1, threads=3, max_memory=2.0).run([Item(Looking("p"), "0")], tmp_path))
    assert outcomes[0].record["threads"] == dict.fromkeys(THREADS, "3")
    assert outcomes[0].record["memory"] == 2 * 2**30
    assert outcomes[0].record["has_terminal_interrupts"] is False
    assert before == {name: os.environ.get(name) for name in THREADS}


class Looking(cheap_tasks.Unloadable):
    """Tells the circumstances of its process."""

    __reduce__ = object.__reduce__

    def run(self, folder: Path) -> dict[str, object]:
        import resource

        return {
            "status": "accepted",
            "reasons": [],
            "threads": {name: os.environ.get(name) for name in THREADS},
            "memory": resource.getrlimit(resource.RLIMIT_DATA)[0],
            "has_terminal_interrupts": signal.getsignal(signal.SIGINT) != signal.SIG_IGN,
        }


def test_options_are_checked_and_told() -> None:
    with pytest.raises(InvalidInputError, match="at least 1"):
        Processes(0)
    with pytest.raises(InvalidInputError, match=r"at least 1.5 GiB of memory, not 0.25"):
        Processes(2, max_memory=0.25)
    assert str(Processes(3, 1, 2.0)) == "3 workers on this machine, 1 thread and at most 2.0 GiB each"
    assert Processes(2).memory * 2 <= max(machine_memory(), 4 * LEAST_MEMORY)
    assert ATTEMPTS == 2  # as the documentation says
