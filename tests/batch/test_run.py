"""Only what is missing or changed is done, in a folder that holds nothing else."""

import json
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import pytest
from cheap_tasks import Cheap, cheap_tasks, items, records_in

from modalign.batch.run import Rerun, Shard, open_folder, records, run_tasks, sorted_out
from modalign.batch.work import Item, Outcome, done, perform
from modalign.errors import BatchError, InvalidInputError, ModalignError

COUNT = 7


class Here:
    """Does the tasks in this process."""

    def run(self, items: Sequence[Item], out: Path) -> Generator[Outcome, None, None]:
        yield from (perform(item, out) for item in items)


def run(out: Path, tasks: Sequence[Cheap], rerun: Rerun = "nothing", *, resume: bool = True) -> list[str]:
    """The names of the tasks that were done now."""
    folder = open_folder(out, tasks, {"kind": "test"}, resume=resume)
    known, todo = sorted_out(tasks, folder, rerun, lambda _: None)
    now = [outcome.name for outcome in run_tasks(todo, folder, Here(), lambda *_: None)]
    assert sorted([*now, *(outcome.name for outcome in known)]) == sorted(task.name for task in tasks)
    return now


@pytest.fixture
def out(tmp_path: Path, stage: Path) -> Path:
    """The folder of a batch of seven tasks: the fifth is unsure, the second fails."""
    run(tmp_path / "out", cheap_tasks(COUNT, stage, {1: "refuse"}), resume=False)
    return tmp_path / "out"


def test_nothing_is_done_twice(out: Path, stage: Path) -> None:
    before = records_in(out)
    assert run(out, cheap_tasks(COUNT, stage)) == []
    assert records_in(out) == before


def test_what_is_missing_damaged_or_changed_is_done(out: Path, stage: Path) -> None:
    (out / "pairs" / "p000" / "result.json").unlink()
    (out / "pairs" / "p002" / "result.json").write_text('{"name": "p002", "dig', encoding="utf-8")
    (out / "pairs" / "p005").rename(out / "pairs" / "p006b")
    (out / "pairs" / "p006b" / "result.json").rename(out / "pairs" / "p006" / "result.json")
    tasks = cheap_tasks(COUNT + 1, stage)
    tasks[3] = Cheap("p003", number=33)
    assert run(out, tasks) == ["p000", "p002", "p003", "p005", "p006", "p007"]


@pytest.mark.parametrize(("rerun", "expected"), [("failed", ["p001"]), ("unsure", ["p001", "p004"])])
def test_rerun_takes_what_is_not_trusted(rerun: Rerun, expected: list[str], out: Path, stage: Path) -> None:
    assert run(out, cheap_tasks(COUNT, stage), rerun) == expected
    assert records(cheap_tasks(COUNT, stage), out / "pairs")[1]["status"] == "accepted"


def test_what_is_done_again_leaves_nothing_of_the_time_before(out: Path, stage: Path) -> None:
    old = out / "pairs" / "p002" / "drawn.txt"
    kept = out / "pairs" / "p002" / "notes"
    kept.mkdir()
    assert old.is_file()
    tasks = cheap_tasks(COUNT, stage, {2: "stumble"})
    tasks[2] = Cheap("p002", "stumble", number=22)
    assert run(out, tasks) == ["p002"]
    assert not old.exists()
    assert kept.is_dir()
    assert (out / "pairs" / "p002" / "error.txt").is_file()
    run(out, cheap_tasks(COUNT, stage))
    assert old.is_file()
    assert not (out / "pairs" / "p002" / "error.txt").exists()


def test_record_is_the_last_file_and_the_first_to_go(tmp_path: Path, stage: Path) -> None:
    class Watching(Cheap):
        def run(self, folder: Path) -> dict[str, object]:
            assert list(folder.iterdir()) == []
            return {"status": "accepted", "reasons": []}

    item = items([Cheap("p", "nothing", stage)])[0]
    perform(item, tmp_path)
    assert done(item, tmp_path) is not None
    assert perform(Item(Watching("p"), "other"), tmp_path).status == "accepted"
    assert done(item, tmp_path) is None


@pytest.mark.parametrize("of", [1, 2, 3, COUNT, COUNT + 2])
def test_shards_make_up_the_whole(of: int, stage: Path) -> None:
    tasks = cheap_tasks(COUNT, stage)
    parts = [Shard.parse(f"{i + 1}/{of}").of_tasks(tasks) for i in range(of)]
    assert sorted(task.name for part in parts for task in part) == [task.name for task in tasks]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/", "-1/2", "1/0", "1.5/2"])
def test_other_shards_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="I/N"):
        Shard.parse(text)


def test_shards_share_a_folder_without_asking(tmp_path: Path, stage: Path) -> None:
    tasks = cheap_tasks(4, stage)
    for number in (1, 2):
        mine = Shard(number, 2).of_tasks(tasks)
        folder = open_folder(tmp_path / "out", tasks, {"kind": "test"}, resume=False, mine=mine)
        run_tasks(items(mine), folder, Here(), lambda *_: None)
    assert len(records(tasks, tmp_path / "out" / "pairs")) == 4
    with pytest.raises(BatchError, match="--resume"):
        open_folder(tmp_path / "out", tasks, {"kind": "test"}, resume=False, mine=mine)


def foreign(path: Path) -> None:
    path.mkdir()
    (path / "thesis.docx").touch()


def damaged(path: Path) -> None:
    path.mkdir()
    (path / "batch.json").write_text("{", encoding="utf-8")


def of(content: object, *names: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        for name in names or ("p000",):
            (path / "pairs" / name).mkdir(parents=True)
        (path / "batch.json").write_text(json.dumps(content), encoding="utf-8")

    return make


@pytest.mark.parametrize(
    ("make", "resume", "message"),
    [
        (foreign, True, "files of something else"),
        (damaged, True, r"batch.json: is not valid JSON"),
        (of({"kind": "test"}), False, "add --resume to go on, or name a new folder"),
        (of({"kind": "benchmark"}), True, "something else than this test"),
        (of([]), True, "something else than this test"),
        (of({"kind": "test", "plan": "abc"}), True, "another plan"),
        (of({"kind": "test"}, "x", "y"), True, "other pairs, none of which is listed here"),
        (Path.touch, True, "is a file, where a folder is to be written"),
    ],
)
def test_folders_of_something_else_are_refused_and_untouched(
    make: Callable[[Path], None], resume: bool, message: str, tmp_path: Path, stage: Path
) -> None:
    make(tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ModalignError, match=message) as caught:
        open_folder(tmp_path / "out", cheap_tasks(3, stage), {"kind": "test"}, resume=resume)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_interrupted_before_the_first_result_needs_no_resume(tmp_path: Path, stage: Path) -> None:
    for _ in range(2):
        open_folder(tmp_path / "out", cheap_tasks(3, stage), {"kind": "test"}, resume=False)


def test_interruption_while_looking_hashes_no_more_files(tmp_path: Path) -> None:
    looked: list[str] = []

    class Slow(Cheap):
        def digest(self) -> str:
            looked.append(self.name)
            time.sleep(0.002)
            return super().digest()

    def interrupt(fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sorted_out([Slow(f"p{i}") for i in range(1000)], tmp_path, "nothing", interrupt)
    assert len(looked) < 500
