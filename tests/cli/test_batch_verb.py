"""Many pairs from a table: each in a folder of its own, all in one table and on one page, interrupted and resumed."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modalign.data.pairs import Pair
from modalign.geometry import Grid, Rigid, corner_error, rotation_matrix
from modalign.image import Image
from modalign.io import read_transform, write_image

from .conftest import Ran

Run = Callable[..., Ran]
QUICK = ("--engine", "phase-correlation", "--keep", "transform")
SHIFT = np.array([3.0, -5.0])


def records(out: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(out.glob("pairs/*/result.json"))}


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def write_manifest(folder: Path, *rows: str, columns: str = "name,fixed,moving") -> Path:
    path = folder / "pairs.csv"
    path.write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def images(tmp_path: Path, make_pair: Callable[..., Pair]) -> Path:
    """A folder with shifted pairs f0.png, m0.png and so on, and with images that do not go together."""
    folder = tmp_path / "images"
    for number in range(3):
        full = make_pair(number, (110, 120)).fixed
        grid = Grid((80, 90))
        parts = (full.cropped((15, 15), grid.shape), full.cropped((18, 10), grid.shape))
        for role, part in zip("fm", parts, strict=True):
            write_image(folder / f"{role}{number}.png", Image(part.data, grid, part.channels))
    volume = np.random.default_rng(0).normal(size=(1, 20, 24, 28)).astype(np.float32)
    write_image(folder / "volume.nii.gz", Image(volume, Grid(volume.shape[1:])))
    (folder / "garbage.png").write_bytes(b"\x89PNG\r\n\x1a\nnot quite")
    return folder


GOOD = tuple(f"good {i} #1%,f{i}.png,m{i}.png" for i in range(3))
BAD = ("missing,f0.png,none.png", "garbage,garbage.png,m0.png", "flat,f0.png,volume.nii.gz")


def test_bad_pairs_are_told_and_the_others_registered(run: Run, images: Path, tmp_path: Path) -> None:
    manifest, out = write_manifest(images, *GOOD[:2], *BAD), tmp_path / "out"
    ran = run("batch", manifest, "--out", out, "--engine", "phase-correlation", "--workers", 2, "--max-memory", 2)
    assert ran.status == 3
    memory = "5 pairs, 0 done before, 5 to do by 2 workers on this machine, 1 thread and at most 2.0 GiB each"
    assert memory in ran.err
    assert ran.err.index(memory) < ran.err.index("register ")
    assert "register  100% 5 of 5: 2 accepted, 3 failed" in ran.err
    rows = table(out)
    assert [row["status"] for row in rows.values()] == ["accepted", "accepted", "failed", "failed", "failed"]
    for name, part in (("missing", "none.png: there is no such file"), ("garbage", "garbage.png"), ("flat", "D")):
        assert part in rows[name]["reason"]
        assert not (out / "pairs" / name / "error.txt").exists()
        assert {path.name for path in (out / "pairs" / name).iterdir()} == {"result.json", "timing.json"}
    grid = Grid((80, 90))
    truth = Rigid.about(grid.center, rotation_matrix(2, 0.0), -SHIFT)
    for row in list(rows.values())[:2]:
        folder = out / row["folder"]
        assert corner_error(grid, read_transform(folder / "transform.json").transform, truth) < 0.3
        assert {"report.html", "aligned.tif", "overlay.png", "timing.json"} <= {p.name for p in folder.iterdir()}
    page = (out / "index.html").read_text(encoding="utf-8")
    assert 'href="pairs/good%200%20%231%25/report.html"' in page
    assert "1 failed: " in ran.out
    again = ran.out.partition("again: ")[2].strip()
    assert again.replace("'", "&#39;") in page

    done = run(*shlex.split(again)[1:])  # the command that is suggested does what it says
    assert "2 done before, 3 to do" in done.err
    shutil.copy(images / "m0.png", images / "none.png")
    done = run("batch", manifest, "--out", out, "--engine", "phase-correlation", "--resume", "--json")
    assert "4 done before, 1 to do" in done.err
    told = json.loads(done.out)
    assert (told["pairs"], told["accepted"], told["failed"], told["not_done"]) == (5, 3, 2, 0)


def test_suggested_command_keeps_the_options_of_this_one(run: Run, images: Path, tmp_path: Path) -> None:
    manifest = write_manifest(images, *BAD[:1], GOOD[0])
    words = (manifest, "--out", tmp_path / "o u t", "--shard=1/2", *QUICK, "--interpolation", "cubic")
    ran = run("batch", *words, "--rerun", "unsure", "--resume")
    assert ran.status == 3
    assert "1 of 2 pairs are not done yet" in ran.out
    again = shlex.split(ran.out.partition("again: ")[2])
    kept = [str(manifest), "--out", str(tmp_path / "o u t"), *QUICK, "--interpolation", "cubic"]
    assert again == ["modalign", "batch", *kept, "--rerun", "failed"]


def test_shards_together_are_the_whole_and_changes_are_done_anew(run: Run, images: Path, tmp_path: Path) -> None:
    manifest = write_manifest(images, *GOOD)
    assert run("batch", manifest, "--out", tmp_path / "whole", *QUICK).status == 0
    for part in ("1/2", "2/2", "5/9"):
        ran = run("batch", manifest, "--out", tmp_path / "parts", *QUICK, "--shard", part)
        assert ran.status == 0, ran.err
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    assert len(records(tmp_path / "parts")) == 3
    assert [row["name"] for row in table(tmp_path / "parts").values()] == [f"good {i} #1%" for i in range(3)]
    again = run("batch", manifest, "--out", tmp_path / "whole", *QUICK, "--resume")
    assert "3 done before, 0 to do" in again.err
    lost = tmp_path / "whole" / "pairs" / "good 0 #1%" / "transform.json"
    lost.unlink()
    again = run("batch", manifest, "--out", tmp_path / "whole", *QUICK, "--resume")
    assert "2 done before, 1 to do" in again.err
    assert lost.is_file()
    fewer = run("batch", write_manifest(images, *GOOD[1:]), "--out", tmp_path / "whole", *QUICK, "--resume")
    assert "1 folders in" in fewer.out
    shutil.copy(images / "f0.png", images / "f1.png")
    changed = write_manifest(images, *(f"{row},--min-overlap 0.5" if "2" in row else f"{row}," for row in GOOD))
    changed.write_text(changed.read_text().replace("name,fixed,moving", "name,fixed,moving,options"))
    other = run("batch", changed, "--out", tmp_path / "whole", *QUICK, "--resume")
    assert "1 done before, 2 to do" in other.err


def interrupted(command: list[str], when: Callable[[str], bool]) -> tuple[int, str]:
    """Run a batch as in a terminal, and press Ctrl-C when a line on stderr is the one.

    The tests themselves may run as a job in the background, where Ctrl-C is ignored.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "modalign", "batch", *command],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # type: ignore[arg-type]
    )
    with process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if when(line):
                os.killpg(process.pid, signal.SIGINT)
                break
        lines += process.stderr.readlines()
        return process.wait(), "".join(lines)


def test_interrupted_run_leaves_one_line_and_is_resumed(run: Run, images: Path, tmp_path: Path) -> None:
    count, slow = 8, ("--engine", "global-mi", "--keep", "transform")  # Ctrl-C comes before all is done
    manifest = write_manifest(images, *(f"pair {i},f{i % 3}.png,m{i % 3}.png" for i in range(count)))
    command = [str(manifest), "--out", str(tmp_path / "out"), *slow, "--resume"]
    for moment in (f"pairs, 0 done before, {count} to do", "register "):  # while workers start, and with work under way
        status, err = interrupted(command, lambda line, moment=moment: moment in line)
        assert status == 130
        assert f"of {count} pairs were done and are kept: add --resume to go on\n" in err
        assert err.splitlines()[-1] == "modalign: interrupted"
        assert "Traceback" not in err
    assert 0 < len(records(tmp_path / "out")) < count
    assert run("batch", *command).status == 0
    assert run("batch", manifest, "--out", tmp_path / "undisturbed", *slow).status == 0
    assert records(tmp_path / "out") == records(tmp_path / "undisturbed")
    assert len(records(tmp_path / "out")) == count
    assert not list((tmp_path / "out").rglob(".*"))


def complaint(ran: Ran) -> str:
    lines = [line for line in ran.err.splitlines() if line.startswith("modalign: ")]
    assert ran.status == 2, ran.err
    assert len(lines) == 1, ran.err
    assert "Traceback" not in ran.err
    return lines[0]


@pytest.mark.parametrize(
    ("rows", "columns", "words", "parts"),
    [
        (GOOD, "name,fixed,picture", (), ("pairs.csv", "unknown column 'picture'", "fixed_mask")),
        (GOOD[:1] * 2, "name,fixed,moving", (), ("line 3", "already on line 2")),
        (("a,x.png,y.png", "b,x.png,y.png"), "name,fixed,moving", (), ("not one of the 2 pairs exists", "x.png")),
        ((f"a,{'x' * 5000},b",), "name,fixed,moving", (), ("not one of the 1 pairs exists",)),
        (GOOD, "name,fixed,moving", ("--shard", "4/3"), ("a shard is I/N", "4/3")),
        (GOOD, "name,fixed,moving", ("--shard", "²/3"), ("a shard is I/N", "²/3")),
        (GOOD, "name,fixed,moving", ("--model", "nowhere"), ("the model of 'good 2 #1%'", "nowhere")),
        (GOOD, "name,fixed,moving", ("--device", "cuda"), ("--device cuda needs --model",)),
        (
            GOOD,
            "name,fixed,moving",
            ("--moving-pixel-size", 0),
            ("moving_pixel_size must be more than 0 and finite, not 0",),
        ),
        (GOOD, "name,fixed,moving", ("--workers", 0), ("at least 1",)),
        (GOOD, "name,fixed,moving", ("--max-memory", 0.1), ("1.5 GiB",)),
        (GOOD, "name,fixed,moving", ("--dask", "nonsense"), ("no Dask scheduler answers at nonsense",)),
    ],
)
def test_bad_input_gives_one_line(
    rows: tuple[str, ...],
    columns: str,
    words: tuple[object, ...],
    parts: tuple[str, ...],
    run: Run,
    images: Path,
    tmp_path: Path,
) -> None:
    manifest = write_manifest(images, *rows, columns=columns)
    line = complaint(run("batch", manifest, "--out", tmp_path / "out", *QUICK, *words))
    for part in parts:
        assert part in line
    assert not list((tmp_path / "out").glob("pairs/*"))


def test_folders_in_use_are_refused(run: Run, images: Path, tmp_path: Path) -> None:
    manifest, out = write_manifest(images, BAD[0], "ok,f0.png,m0.png"), tmp_path / "out"
    (out / "pairs" / "missing").mkdir(parents=True)
    assert "files of something else" in complaint(run("batch", manifest, "--out", out))
    (out / "batch.json").write_text('{"kind": "batch"}', encoding="utf-8")
    assert "add --resume" in complaint(run("batch", manifest, "--out", out))
    (out / "pairs" / "missing").rename(out / "pairs" / "of another table")
    assert "none of which is listed here" in complaint(run("batch", manifest, "--out", out, "--resume"))
    assert "is a file" in complaint(run("batch", manifest, "--out", manifest))
