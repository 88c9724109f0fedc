"""A Dask cluster of separate processes gives the same bytes, and neither dead workers nor a dead scheduler cost any."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import cheap_tasks
import pytest
from cheap_tasks import Cheap, Unloadable, done_by, is_alive, items, records_in, strays_in, until
from cheap_tasks import cheap_tasks as tasks_of

from modalign.batch import cluster
from modalign.batch.cluster import Cluster
from modalign.batch.processes import Processes
from modalign.batch.work import Item
from modalign.cli.main import main
from modalign.data.pairs import Pair
from modalign.errors import BatchError
from modalign.io import read_json, write_image

pytest.importorskip("distributed", reason="the extra 'dask' is not installed: pip install 'modalign[dask]'")

COUNT = 12


@dataclass(frozen=True)
class Started:
    """A scheduler in a process of its own; workers have processes of theirs."""

    address: str
    scheduler: subprocess.Popen[bytes]


@contextmanager
def started(folder: Path, workers: int, *, nanny: bool = False) -> Iterator[Started]:
    """A scheduler and workers, as a user starts them."""
    folder.mkdir()
    paths = os.pathsep.join([str(Path(cheap_tasks.__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "DASK_DISTRIBUTED__COMM__RETRY__COUNT": "0"}
    told = folder / "scheduler.json"
    log = (folder / "log.txt").open("wb")
    program = [sys.executable, "-m"]
    quiet = ["--host", "127.0.0.1", "--no-dashboard"]

    def start(*words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([*program, *words, *quiet], env=environment, stdout=log, stderr=log, cwd=folder)
        stack.callback(process.wait)
        stack.callback(process.kill if not nanny else process.terminate)
        return process

    with log, ExitStack() as stack:
        scheduler = start("distributed.cli.dask_scheduler", "--port", "0", "--scheduler-file", str(told))
        until(lambda: told.is_file() and told.read_text().rstrip().endswith("}"))
        address = read_json(told)["address"]
        for number in range(workers):
            kind = "--nanny" if nanny else "--no-nanny"
            place = ["--local-directory", str(folder / f"worker{number}")]
            start("distributed.cli.dask_worker", address, "--nthreads", "1", kind, "--death-timeout", "120", *place)
        _await_workers(address, workers)
        yield Started(address, scheduler)


def _await_workers(address: str, number: int) -> None:
    from distributed import Client

    if number:
        with Client(address, timeout=60) as client:
            client.wait_for_workers(number, timeout=120)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """Two workers that are started again when they die."""
    with started(tmp_path_factory.mktemp("dask") / "cluster", 2, nanny=True) as running:
        yield running


@pytest.fixture
def free_address() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def test_same_bytes_as_with_processes(
    real: Started, tmp_path: Path, stage: Path, undisturbed: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    outcomes = done_by(Cluster(real.address), tasks_of(COUNT, stage), tmp_path / "out")
    assert len(outcomes) == COUNT
    assert records_in(tmp_path / "out") == undisturbed
    assert strays_in(tmp_path / "out") == []
    assert capfd.readouterr() == ("", "")


def test_misbehaving_tasks_fail_alone(
    real: Started, tmp_path: Path, stage: Path, undisturbed: dict[str, bytes]
) -> None:
    done_by(Cluster(real.address), tasks_of(COUNT, stage, {1: "stumble", 5: "refuse"}), tmp_path / "out")
    found = records_in(tmp_path / "out")
    assert b"ZeroDivisionError" in found.pop("p001")
    assert b"cannot be compared" in found.pop("p005")
    assert found.items() <= undisturbed.items()
    assert len(found) == COUNT - 2


def test_killed_worker_costs_nothing(real: Started, tmp_path: Path, stage: Path, undisturbed: dict[str, bytes]) -> None:
    def kill() -> None:
        sign = stage / "p003.pid"
        until(lambda: sign.exists() and sign.read_text() != "")
        os.kill(int(sign.read_text()), signal.SIGKILL)
        (stage / "go").touch()

    killing = Thread(target=kill, daemon=True)
    killing.start()
    done_by(Cluster(real.address), tasks_of(COUNT, stage, {3: "hold"}), tmp_path / "out")
    killing.join(10)
    assert records_in(tmp_path / "out") == undisturbed
    assert strays_in(tmp_path / "out") == []


def test_task_that_kills_every_worker_fails_alone(
    real: Started, tmp_path: Path, stage: Path, undisturbed: dict[str, bytes]
) -> None:
    outcomes = done_by(Cluster(real.address), tasks_of(COUNT, stage, {2: "die"}), tmp_path / "out")
    assert outcomes["p002"].status == "failed"
    assert "workers died over it again and again" in outcomes["p002"].record["reasons"][0]
    found = records_in(tmp_path / "out")
    assert found.pop("p002") != undisturbed["p002"]
    assert found.items() <= undisturbed.items()
    assert len(found) == COUNT - 1
    assert strays_in(tmp_path / "out") == []


def test_full_disk_stops_with_one_message(tmp_path: Path, stage: Path, undisturbed: dict[str, bytes]) -> None:
    (stage / "full").touch()
    with (
        started(tmp_path / "cluster", 1) as own,
        pytest.raises(BatchError, match=r"p001.*cannot be written \(File too large\)"),
    ):
        done_by(Cluster(own.address), tasks_of(4, stage, {1: "fill_disk"}), tmp_path / "out")
    assert records_in(tmp_path / "out").items() <= undisturbed.items()
    assert "p001" not in records_in(tmp_path / "out")


def test_killed_scheduler_is_told_and_resuming_completes(
    tmp_path: Path,
    stage: Path,
    undisturbed: dict[str, bytes],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with started(tmp_path / "cluster", 2) as own:
        signs = [stage / "p004.pid", stage / "p005.pid"]

        def kill() -> None:
            until(lambda: all(sign.exists() and sign.read_text() for sign in signs))
            own.scheduler.kill()

        killing = Thread(target=kill, daemon=True)
        killing.start()
        with pytest.raises(BatchError, match=r"the Dask scheduler went away with .* add --resume") as caught:
            done_by(Cluster(own.address), tasks_of(COUNT, stage, {4: "hold", 5: "hold"}), tmp_path / "out")
        killing.join(10)
        assert "\n" not in str(caught.value)
    assert not any(is_alive(int(sign.read_text())) for sign in signs)
    before = records_in(tmp_path / "out")
    assert not {"p004", "p005"} & before.keys()
    assert before.items() <= undisturbed.items()
    (stage / "go").touch()
    done_by(Processes(1), tasks_of(COUNT, stage, {4: "hold", 5: "hold"}), tmp_path / "out")
    assert records_in(tmp_path / "out") == undisturbed
    assert strays_in(tmp_path / "out") == []
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def first_of(address: str, tmp_path: Path) -> object:
    return next(Cluster(address).run(items([Cheap("p")]), tmp_path))


def test_scheduler_that_does_not_answer(
    free_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    with pytest.raises(BatchError, match=rf"no Dask scheduler answers at {free_address}; start one, or name another"):
        first_of(free_address, tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("address", ["nonsense", "tcp://", "http://127.0.0.1:1", "tcp://no.such.host.invalid:8786"])
def test_addresses_that_make_no_sense(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    with pytest.raises(BatchError, match="no Dask scheduler answers at"):
        first_of(address, tmp_path)


def test_cluster_without_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_FOR_WORKERS", 0.5)
    with started(tmp_path / "cluster", 0) as own, pytest.raises(BatchError, match="has no workers; start some"):
        first_of(own.address, tmp_path)


def test_workers_with_another_version(real: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for portrait, message in (
        (cheap_tasks.portrait_of_old_modalign, r"has modalign 0.0.7 with torch .*install the same versions"),
        (cheap_tasks.portrait_of_old_torch, r"with torch 1.0, here are"),
        (cheap_tasks.portrait_of_none, r"cannot import modalign .*No module named 'modalign'.*install it there"),
    ):
        monkeypatch.setattr(cluster, "_self_portrait", portrait)
        with pytest.raises(BatchError, match=message):
            first_of(real.address, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_output_folder_that_workers_do_not_see(real: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_self_portrait", cheap_tasks.portrait_elsewhere)
    with pytest.raises(BatchError, match="does not see the output folder; name one on a shared file system"):
        first_of(real.address, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tasks_that_workers_cannot_load(real: Started, tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="No module named 'elsewhere'"):
        list(Cluster(real.address).run([Item(Unloadable("p"), "0")], tmp_path))


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BatchError, match=r"pip install 'modalign\[dask\]'"):
        first_of("tcp://127.0.0.1:1", tmp_path)


def test_verb_gives_the_same_bytes_on_workers_that_run_in_another_folder(
    real: Started, tmp_path: Path, make_pair: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_pair(1, (70, 80)).fixed
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, image)
    (tmp_path / "pairs.csv").write_text("fixed,moving\na.png,b.png\nb.png,none.png\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = []
    for out, words in (("here", ()), ("there", ("--dask", real.address))):
        command = ["batch", "pairs.csv", "--out", out, "--engine", "phase-correlation", "--keep", "transform", *words]
        assert main(command) == 3  # for the missing file
        found.append(records_in(tmp_path / out))
    assert len(found[0]) == 2
    assert b"accepted" in found[0]["a__b"]
    assert found[0] == found[1]
