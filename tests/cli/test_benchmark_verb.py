"""A benchmark from its plan to its tables: interrupted, resumed, extended and shared out."""

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

import numpy as np
import pytest
from scipy import ndimage

from modalign.batch.work import Item, Outcome, perform
from modalign.cli import many
from modalign.data.displacement import DisplacementProtocol, displaced_pairs
from modalign.data.pairs import Pair
from modalign.evaluation import corner_error
from modalign.evaluation.benchmark import outputs, ready
from modalign.evaluation.benchmark import plan as plans
from modalign.evaluation.benchmark.plan import DO_NOTHING
from modalign.geometry import Affine, Grid, identity
from modalign.image import Image
from modalign.io import read_image, write_image
from modalign.registration import Registration

from .conftest import Ran

Run = Callable[..., Ran]
TIMES = {"cpu", "wall", "encoding_cpu"}
PLAN = """
[benchmark]
worst = 1

[[datasets]]
name = "tissue"
pairs = "pairs.csv"
width = 48

[[protocols]]
kind = "comir"
max_rotation_degrees = 8
draws = 2

[[encoders]]
name = "originals"

[[registrars]]
name = "phase-correlation"
"""
FFT = '[[registrars]]\nname = "fft"\nengine = "fft-search"\noptions = { max_rotation_degrees = 10 }\n'
GRADIENT = '[[encoders]]\nname = "gradient"\nkind = "gradient"\n'


class Here:
    """Does the work in this process; interrupted after so many views, where that is said."""

    interrupted_after: int | None = None

    def __init__(self, *_: object) -> None:
        pass

    def __str__(self) -> str:
        return "this process"

    def run(self, items: Sequence[Item], out: Path) -> Generator[Outcome, None, None]:
        for number, item in enumerate(items):
            if number == type(self).interrupted_after:
                raise KeyboardInterrupt
            yield perform(item, out)


@dataclass(frozen=True)
class Refuser:
    """Finds nothing."""

    name: ClassVar[str] = "nothing"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})

    def register(self, fixed: Image, moving: Image) -> Registration:
        return Registration("nothing", "refused", None, ("never sure",))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> type[Here]:
    """Workers take seconds to start; what they do is the same."""
    monkeypatch.setattr(Here, "interrupted_after", None)
    monkeypatch.setattr(many, "Processes", Here)
    return Here


@pytest.fixture
def folder(tmp_path: Path, make_pair: Callable[..., Pair]) -> Path:
    """Two pairs of specimens s0 and s1, and a plan for them."""
    for number in range(2):
        pair = make_pair(number, (90, 96))
        write_image(tmp_path / f"f{number}.png", pair.fixed)
        write_image(tmp_path / f"m{number}.tif", pair.moving)
    write_pairs(tmp_path)
    write_plan(tmp_path, PLAN)
    return tmp_path


def write_pairs(folder: Path, *lines: str) -> None:
    lines = lines or tuple(f"p{k},s{k},f{k}.png,m{k}.tif" for k in range(2))
    (folder / "pairs.csv").write_text("\n".join(["name,specimen,fixed,moving", *lines]) + "\n", encoding="utf-8")


def write_plan(folder: Path, text: str) -> None:
    (folder / "plan.toml").write_text(text, encoding="utf-8")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rows(out: Path) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in table(out / "rows.csv")]


def stamps(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.glob("pairs/*/rows/*.json")}


def test_everything_is_written_and_the_numbers_are_those_of_the_rows(run: Run, here: type[Here], folder: Path) -> None:
    write_plan(folder, PLAN.replace("worst = 1", "worst = 3") + GRADIENT + FFT)
    out = folder / "out"
    ran = run("benchmark", folder / "plan.toml", "--out", out)
    assert ran.status == 0, ran.err
    assert "4 views, 0 done before, 4 to do by this process" in ran.err
    made = table(out / "rows.csv")
    methods = [f"{encoder} / {name}" for encoder in ("originals", "gradient") for name in ("phase-correlation", "fft")]
    assert [row["method"] for row in made] == 4 * [DO_NOTHING, *methods]
    assert [(row["pair"], row["draw"]) for row in made[::5]] == [("p0", "0"), ("p0", "1"), ("p1", "0"), ("p1", "1")]

    summary = (out / "summary.md").read_text(encoding="utf-8")
    assert summary in ran.out
    for method in (DO_NOTHING, *methods):
        errors = [float(row["error"] or "inf") for row in made if row["method"] == method]
        accepted = sum(row["status"] == "accepted" for row in made if row["method"] == method)
        (line,) = re.findall(rf"^\| {re.escape(method)} \|.*$", summary, re.MULTILINE)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1] == f"{sum(error <= 0.02 for error in errors) / 4:.1%}"
        assert cells[4] == f"{np.median(errors):.2%}"
        assert cells[6] == str(accepted)
    best = max(methods, key=lambda m: sum(float(r["error"] or "inf") <= 0.02 for r in made if r["method"] == m))
    assert f"## Compared with {best}" in summary

    for figure in ("success_tissue_pm8deg.svg", "error_tissue.svg"):
        assert (out / "figures" / figure).stat().st_size > 3000
    assert DO_NOTHING in (out / "figures" / "success_tissue_pm8deg.svg").read_text(encoding="utf-8")
    pages = {path.name for path in (out / "worst").glob("*.html")}
    errors = {(r["pair"], r["draw"]): float(r["error"] or "inf") for r in made if r["method"] == best}
    worst = sorted(errors, key=lambda view: -errors[view])[:3]
    assert pages == {f"tissue--pm8deg--{pair}--{draw}.html" for pair, draw in worst}
    index = (out / "index.html").read_text(encoding="utf-8")
    for page in pages:
        assert f'href="worst/{page}"' in index
    assert read_image(out / "worst" / "worst_tissue.png").grid.shape[1] > 3 * 48
    about = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    assert about["plan"]["registrars"][1]["options"] == {"max_rotation_degrees": 10}
    assert about["inputs"][str(folder / "m1.tif")] == hashlib.sha256((folder / "m1.tif").read_bytes()).hexdigest()
    assert "numpy " in about["libraries"]


def test_displacements_are_drawn_once_stored_and_shared(run: Run, here: type[Here], folder: Path) -> None:
    write_plan(folder, PLAN.replace("worst = 1", "seed = 5") + FFT)
    assert run("benchmark", folder / "plan.toml", "--out", folder / "out").status == 0
    protocol = replace(DisplacementProtocol.comir(48), max_rotation_degrees=8.0, draws=2, seed=5)
    expected = []
    for k in range(2):
        fixed, moving = read_image(folder / f"f{k}.png"), read_image(folder / f"m{k}.tif")
        expected += displaced_pairs(fixed, moving.with_grid(fixed.grid), protocol, f"p{k}")
    stored = table(folder / "out" / "displacements.csv")
    for row, pair in zip(stored, expected, strict=True):
        np.testing.assert_allclose(json.loads(row["truth"]), pair.fixed_to_moving.matrix)
        initial = corner_error(identity(2), pair.fixed_to_moving, pair.fixed.grid).mean
        assert float(row["error"]) == pytest.approx(initial.relative)
    truths = {(row["pair"], row["draw"]): row["truth"] for row in stored}
    for row in table(folder / "out" / "rows.csv"):
        assert row["truth"] == truths[row["pair"], row["draw"]]
        if row["matrix"]:  # the errors are those of what was found
            pair = expected[2 * int(row["pair"][1]) + int(row["draw"])]
            found = Affine.from_matrix(np.array(json.loads(row["matrix"])))
            error = corner_error(found, pair.fixed_to_moving, pair.fixed.grid).mean.relative
            assert float(row["error"]) == pytest.approx(error)


def test_what_is_done_is_not_made_again_and_what_is_added_is_made(run: Run, here: type[Here], folder: Path) -> None:
    out, plan = folder / "out", folder / "plan.toml"
    assert run("benchmark", plan, "--out", out).status == 0
    first, before = stamps(out), table(out / "rows.csv")
    again = run("benchmark", plan, "--out", out)
    assert (again.status, again.err.count("\n")) == (2, 1)
    assert "add --resume" in again.err
    ran = run("benchmark", plan, "--out", out, "--resume", "--json")
    assert "4 views, 4 done before, 0 to do" in ran.err
    told = json.loads(ran.out)
    assert (told["views"], told["failed"], told["not_done"], told["rows"]) == (4, 0, 0, 8)
    assert stamps(out) == first
    for added, number in ((FFT, 3), (FFT + GRADIENT, 5)):
        write_plan(folder, PLAN + added)
        ran = run("benchmark", plan, "--out", out, "--resume")
        assert "0 done before, 4 to do" in ran.err
        assert len(table(out / "rows.csv")) == 4 * number
        assert len(stamps(out)) == 4 * number
        assert first.items() <= stamps(out).items()
    write_plan(folder, PLAN)
    assert run("benchmark", plan, "--out", out, "--resume").status == 0
    assert table(out / "rows.csv") == before


def test_a_folder_of_another_plan_is_refused_and_left_alone(run: Run, here: type[Here], folder: Path) -> None:
    out = folder / "out"
    assert run("benchmark", folder / "plan.toml", "--out", out).status == 0
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for other in (PLAN.replace("worst = 1", "seed = 1"), PLAN.replace("draws = 2", "draws = 3")):
        write_plan(folder, other)
        ran = run("benchmark", folder / "plan.toml", "--out", out, "--resume")
        assert (ran.status, ran.err) == (
            2,
            f"modalign: {out} holds results of another plan; name a new folder for this one\n",
        )
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == files


def test_an_interrupted_run_resumed_equals_an_undisturbed_one(
    run: Run, here: type[Here], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, out = folder / "plan.toml", folder / "parts"
    assert run("benchmark", plan, "--out", folder / "whole").status == 0
    with monkeypatch.context() as patch:
        patch.setattr(here, "interrupted_after", 3)
        assert run("benchmark", plan, "--out", out).status == 130
    assert not (out / "rows.csv").exists()
    ran = run("benchmark", plan, "--out", out, "--resume")
    assert "3 done before, 1 to do" in ran.err
    assert rows(out) == rows(folder / "whole")
    same = {p.name: p.read_bytes() for p in (folder / "whole" / "figures").iterdir()}
    assert {p.name: p.read_bytes() for p in (out / "figures").iterdir()} == same


def test_workers_that_are_killed_leave_what_is_done(run: Run, here: type[Here], folder: Path) -> None:
    out = folder / "out"
    command = [sys.executable, "-m", "modalign", "benchmark", str(folder / "plan.toml"), "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("register"):
                os.killpg(process.pid, signal.SIGKILL)
                break
    done = stamps(out)
    assert done
    ran = run("benchmark", folder / "plan.toml", "--out", out, "--resume")
    assert ran.status == 0
    assert "0 done before" not in ran.err
    assert done.items() <= stamps(out).items()
    assert len(rows(out)) == 8
    assert run("benchmark", folder / "plan.toml", "--out", folder / "whole").status == 0
    assert rows(out) == rows(folder / "whole")


def test_the_montage_shows_all_of_the_worst(
    run: Run, here: type[Here], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[dict[str, Image]] = []
    panel = outputs.panel

    def seen(pictures: dict[str, Image], **more: int) -> Image:
        shown.append(pictures)
        return panel(pictures, **more)

    monkeypatch.setattr(outputs, "panel", seen)
    write_plan(folder, PLAN.replace("worst = 1", "worst = 4").replace("phase-correlation", "nothing"))
    write_pairs(folder, "p #1%,s0,f0.png,m0.tif", "p1,s1,f1.png,m1.tif")
    monkeypatch.setattr(plans, "PEERS", {"nothing": Refuser()})
    ran = run("benchmark", folder / "plan.toml", "--out", folder / "out")
    assert ran.status == 0, ran.err
    labels = [f"{name}, {draw}, ±8°: no result" for name in ("p #1%", "p1") for draw in range(2)]
    assert [list(pictures) for pictures in shown] == [labels]  # all with one text but for the draw
    links = re.findall(r'href="(worst/.*?)"', (folder / "out" / "index.html").read_text(encoding="utf-8"))
    assert len(links) == 4
    assert all((folder / "out" / unquote(link)).is_file() for link in links)
    assert "| originals / nothing | 0.0% |" in ran.out


def test_shards_together_are_the_whole(run: Run, here: type[Here], folder: Path) -> None:
    plan = folder / "plan.toml"
    assert run("benchmark", plan, "--out", folder / "whole").status == 0
    first = run("benchmark", plan, "--out", folder / "parts", "--shard", "1/2")
    assert first.status == 0
    assert "2 of 4 views are not done yet" in first.out
    assert "- views: 2 of 4" in first.out
    second = run("benchmark", plan, "--out", folder / "parts", "--shard", "2/2")
    assert second.status == 0, second.err
    assert rows(folder / "parts") == rows(folder / "whole")


def test_a_view_that_fails_does_not_stop_the_others(run: Run, here: type[Here], folder: Path) -> None:
    out = folder / "out"
    good = (folder / "m0.tif").read_bytes()
    (folder / "m0.tif").write_bytes(b"II*\0 and no more")
    ran = run("benchmark", folder / "plan.toml", "--out", out)
    assert ran.status == 3
    assert re.search(rf"^tissue--pm8deg--p0--0: {re.escape(str(folder / 'm0.tif'))}: ", ran.err, re.MULTILINE)
    assert {row["pair"] for row in rows(out)} == {"p1"}
    assert "tissue--pm8deg--p0--1</th>" in (out / "index.html").read_text(encoding="utf-8")
    assert "- views: 2 of 4" in ran.out
    ran = run("benchmark", folder / "plan.toml", "--out", out, "--resume")
    assert (ran.status, "2 done before, 2 to do" in ran.err) == (3, True)  # it might be another day's disk
    (folder / "m0.tif").write_bytes(good)
    ran = run("benchmark", folder / "plan.toml", "--out", out, "--resume")
    assert (ran.status, "2 done before, 2 to do" in ran.err) == (0, True)
    assert {row["pair"] for row in rows(out)} == {"p0", "p1"}


def test_a_model_and_a_verdict(run: Run, here: type[Here], folder: Path, model: Path) -> None:
    shutil.copytree(model, folder / "models" / "tissue")
    learned = '[[encoders]]\nname = "learned"\nkind = "comir"\nmodel = "models/{dataset}"\n'
    plan = PLAN.replace("width", 'only = ["p1"]\nwidth').replace("draws = 2", "draws = 1")
    write_plan(folder, plan.replace("worst = 1", "verdict = true") + learned)
    ran = run("benchmark", folder / "plan.toml", "--out", folder / "out")
    assert ran.status == 0, ran.err
    made = {row["method"]: row for row in table(folder / "out" / "rows.csv")}
    assert list(made) == [DO_NOTHING, "originals / phase-correlation", "learned / phase-correlation"]
    for row in list(made.values())[1:]:
        assert row["status"] in ("accepted", "unsure", "refused")
        assert 0 <= float(row["confidence"]) <= 1
    about = json.loads((folder / "out" / "provenance.json").read_text(encoding="utf-8"))
    assert str(folder / "models" / "tissue") in about["inputs"]


@pytest.fixture
def volumes(folder: Path) -> Path:
    """The same, with a pair of small volumes in a table of its own."""
    noise = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((30, 32, 34)), 1.5).astype(np.float32)
    grid = Grid(noise.shape, (2.0, 0.7, 0.9), unit="micrometer")
    write_image(folder / "fixed.nii.gz", Image(noise[None], grid))
    write_image(folder / "moving.nii.gz", Image(-noise[None], grid))
    (folder / "volumes.csv").write_text("name,fixed,moving\nv,fixed.nii.gz,moving.nii.gz\n", encoding="utf-8")
    return folder


VOLUMES = '[[datasets]]\nname = "volumes"\npairs = "volumes.csv"\nwidth = 16\n'
LEVELS = '[[protocols]]\nkind = "multiregeval"\nlevels = [1, 2]\ndatasets = ["volumes"]\n'


def test_images_and_volumes_in_one_plan(run: Run, here: type[Here], volumes: Path) -> None:
    write_plan(volumes, PLAN.replace("draws = 2", 'draws = 1\ndatasets = ["tissue"]') + VOLUMES + LEVELS)
    ran = run("benchmark", volumes / "plan.toml", "--out", volumes / "out")
    assert ran.status == 0, ran.err
    made = rows(volumes / "out")
    assert {(row["dataset"], row["protocol"]) for row in made} == {
        ("tissue", "±8°"),
        ("volumes", "level 1"),
        ("volumes", "level 2"),
    }
    of_volumes = [row for row in made if row["dataset"] == "volumes"]
    assert [len(json.loads(row["truth"])) for row in of_volumes] == [4] * 4
    assert [row["status"] for row in of_volumes if row["registrar"]] != ["failed"] * 2
    worst = {path.name for path in (volumes / "out" / "worst").iterdir()}
    assert {"worst_volumes.png", "volumes--level-2--v--0.html"} <= worst
    assert "## volumes, all: 2 pairs of 1 specimens" in (volumes / "out" / "summary.md").read_text(encoding="utf-8")


COMIR = '[[encoders]]\nname = "learned"\nkind = "comir"\nmodel = "model"\n'
SWAPPED = tuple(f"p{k},s{k},m{k}.tif,f{k}.png" for k in range(2))


def nothing(_: Path) -> None:
    pass


HOPELESS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "no model": (PLAN + COMIR.replace('"model"', '"none"'), nothing, "none: not a model folder (it has no model.json)"),
    "other model": (
        PLAN + COMIR,
        lambda folder: write_pairs(folder, *SWAPPED),
        "takes 2D images with 3 channels as colour; those of 'tissue' are 2D with 1",
    ),
    "width": (
        PLAN.replace("48", "92"),
        nothing,
        "no pair of 'tissue' can be used (±8°); 'p0': a patch of 92 × 92 pixels is larger than",
    ),
    "no room": (PLAN.replace("48", "90"), nothing, "no displaced patch of 90 × 90 pixels lies inside the moving image"),
    "no truth": (
        PLAN.replace('"comir"', '"natural"#').replace("max_", "#").replace("draws", "#"),
        nothing,
        "of 'p0': name a",
    ),
    "only": (
        PLAN.replace("width", 'only = ["q"]\nwidth'),
        nothing,
        "dataset 'tissue': only: nothing is called 'q'; there are p0, p1",
    ),
    "missing file": (PLAN, lambda folder: (folder / "f1.png").unlink(), "pairs.csv, line 3: there is no file"),
    "all garbage": (
        PLAN,
        lambda folder: [(folder / f"f{k}.png").write_bytes(b"no") for k in range(2)] and None,
        "no pair of 'tissue' can be used",
    ),
    "unknown key": (
        PLAN + "colour = 3\n",
        nothing,
        "registrar 'phase-correlation' has no colour; known are name, engine",
    ),
    "2D engine": (
        PLAN + FFT.replace("fft-search", "features").replace("options = { max_rotation_degrees = 10 }\n", "") + VOLUMES,
        nothing,
        "the registrar 'fft' does not work on 3D images such as those of 'volumes'",
    ),
    "no tool": (PLAN + '[[registrars]]\nname = "ants"\n', nothing, "ants needs the package antspyx: pip install"),
}


@pytest.mark.parametrize(("plan", "spoil", "said"), HOPELESS.values(), ids=HOPELESS)
def test_what_can_only_fail_is_said_before_the_work_starts(
    run: Run,
    here: type[Here],
    volumes: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    plan: str,
    spoil: Callable[[Path], None],
    said: str,
) -> None:
    monkeypatch.setattr(ready, "find_spec", lambda name: None)
    write_plan(volumes, plan)
    spoil(volumes)
    ran = run("benchmark", volumes / "plan.toml", "--out", volumes / "out")
    assert ran.status == 2, ran.err
    assert ran.err.count("\n") == 1
    assert said in ran.err
    assert not (volumes / "out").exists()


def test_volumes_slice_by_slice_with_a_model_of_images(
    run: Run, here: type[Here], volumes: Path, model: Path, pairs: list[Pair]
) -> None:
    for role, image in (("fixed", pairs[0].fixed), ("moving", pairs[0].moving)):
        stack = np.repeat(image.data[:, None, :40, :40], 30, axis=1)
        grid = Grid(stack.shape[1:], (2.0, 0.7, 0.9), unit="micrometer")
        write_image(volumes / f"{role}.mha", Image(stack, grid, image.channels))
    (volumes / "volumes.csv").write_text("name,fixed,moving\nv,fixed.mha,moving.mha\n", encoding="utf-8")
    sliced = '[[encoders]]\nname = "slices"\nkind = "comir-slices"\nmodel = "' + str(model) + '"\n'
    plan = '[benchmark]\n[[registrars]]\nname = "phase-correlation"\n' + VOLUMES + LEVELS.replace("1, 2", "1")
    write_plan(volumes, plan + sliced)
    ran = run("benchmark", volumes / "plan.toml", "--out", volumes / "out")
    assert ran.status == 0, ran.err
    statuses = {row["method"]: row["status"] for row in table(volumes / "out" / "rows.csv")}
    assert list(statuses) == [DO_NOTHING, "slices / phase-correlation"]
    assert statuses["slices / phase-correlation"] != "failed"
    write_plan(volumes, plan + sliced.replace("comir-slices", "comir"))
    ran = run("benchmark", volumes / "plan.toml", "--out", volumes / "other")
    assert ran.status == 2
    assert "takes 2D images with 3 channels" in ran.err
