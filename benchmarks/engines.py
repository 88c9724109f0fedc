"""Every engine on every set, on the originals and on their CoMIRs; the verdict; and the ladders (docs/results.md).

    python benchmarks/engines.py table   --set bf_shg --models results/models --out results/engines
    python benchmarks/engines.py verdict --set bf_shg --models results/models --out results/verdict
    python benchmarks/engines.py ladders --set bf_shg --models results/models --out results/ladders

Rows are written as they come: a second call only does what is missing. Models are trained where they are missing.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Literal

import numpy as np
import tyro
from datasets import require_data
from views import SETS, model_of, protocols, unseen, views

from modalign.data.displacement import DisplacedPair, DisplacementProtocol, displaced_pairs
from modalign.data.pairs import Pair
from modalign.evaluation.statistics import bootstrap_interval
from modalign.geometry import Grid, Rigid, Similarity, Transform, as_rows, corner_error, rotation_matrix
from modalign.image import Image
from modalign.io import read_table, write_table
from modalign.registration import ENGINES, Auto, Judge, Registrar, register
from modalign.registration.calibration import GENERAL
from modalign.registration.evidence import Evidence
from modalign.registration.verify import judged
from modalign.representation import ComirModel, Encoder, Identity
from modalign.training.calibration import calibration_error

Row = dict[str, object]
SUCCESS = 0.02
"""Mean corner error that counts as success, as a fraction of the width."""
EVERYWHERE = (
    "auto", "fft-search", "sift", "orb", "dense", "global-mi", "alpha-amd", "mutual-information", "ecc",
)  # fmt: skip
ORIGINALS_ONLY = ("curvealign",)


@dataclass(frozen=True)
class Study:
    """One study on one set."""

    what: tyro.conf.Positional[Literal["table", "verdict", "ladders", "summary"]]
    """Which one; summary prints the tables of the rows that are there."""
    set: str = "bf_shg"
    """Which images."""
    out: Path = field(kw_only=True)
    """Folder for the rows."""
    models: Path = field(kw_only=True)
    """Folder of the models, one a set."""
    engines: tuple[str, ...] = ()
    """Only these engines."""
    seed: int = 0
    """Seed of the displacements."""


def main() -> None:
    """Run the study that the command line names."""
    study = tyro.cli(Study)
    require_data()
    {"table": table, "verdict": verdict, "ladders": ladders, "summary": summary}[study.what](study)


class Rows:
    """A CSV file of rows, written after every few of them; rows already there are not made again."""

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        self.path, self.keys = path, keys
        self.rows: list[Row] = list(read_table(path)) if path.is_file() else []
        self.known = {self._key(row) for row in self.rows}

    def _key(self, row: Mapping[str, object]) -> tuple[str, ...]:
        return tuple(str(row[key]) for key in self.keys)

    def missing(self, **key: object) -> bool:
        """Whether there is no row with these values of the keys."""
        return self._key(key) not in self.known

    def add(self, row: Row) -> None:
        """Add a row, and write all of them."""
        self.rows.append(row)
        self.known.add(self._key(row))
        write_table(self.path, self.rows)
        print(
            f"\r{self.path.stem} {len(self.rows)} {' '.join(self._key(row)):<70}", end="", file=sys.stderr, flush=True
        )


def table(study: Study) -> None:
    """Engines × {originals, CoMIRs} × protocols."""
    kind, test = SETS[study.set], unseen(study.set)
    model = model_of(study.set, study.models / study.set)
    rows = Rows(study.out / f"{study.set}.csv", ("protocol", "specimen", "draw", "images", "engine"))
    names = study.engines or EVERYWHERE
    for protocol, drawn in protocols(kind, study.seed).items():
        for view in views(test, drawn):
            both: dict[str, tuple[Encoder, Encoder]] = {
                "CoMIRs": model.encoders(),
                "originals": (Identity(), Identity()),
            }
            for images, encoders in both.items():
                extra = ORIGINALS_ONLY if images == "originals" and study.set == "bf_shg" and not study.engines else ()
                todo = [name for name in (*names, *extra) if rows.missing(**_place(protocol, view, images, name))]
                pair = [e.encode(i) for e, i in zip(encoders, (view.fixed, view.moving), strict=True)] if todo else []
                for name in todo:
                    rows.add(_place(protocol, view, images, name) | _timed(ENGINES[name], *pair, view, kind.width))


def _place(protocol: str, view: DisplacedPair, images: str, engine: str) -> Row:
    return {"protocol": protocol, "specimen": view.specimen, "draw": view.draw, "images": images, "engine": engine}


def _timed(method: Registrar, fixed: Image, moving: Image, view: DisplacedPair, width: int) -> Row:
    """Error of what an engine found, whether it refused it or not, and its time."""
    cpu, wall = process_time(), perf_counter()
    found = register(fixed, moving, method)
    timing = {"cpu": round(process_time() - cpu, 3), "wall": round(perf_counter() - wall, 3)}
    error = _error(view.fixed.grid, found.candidate, view.fixed_to_moving) / width
    return {"width": width, "error": error, "status": found.status, **timing}


def _error(grid: Grid, found: Transform | None, truth: Transform) -> float:
    return math.inf if found is None else corner_error(grid, found, truth)


def verdict(study: Study) -> None:
    """The verdict on unseen specimens: displaced views, pairs that do not belong together, and hopeless ones."""
    kind, test = SETS[study.set], unseen(study.set)
    model = model_of(study.set, study.models / study.set)
    others = {name: unseen(name) for name in ("bf_shg", "gfp_dna") if name != study.set}
    rows = Rows(study.out / f"{study.set}.csv", ("kind", "name"))
    judge = Judge.of_model(model.calibration)
    rows.rows[:] = [row | _confidences(judge, row) for row in rows.rows]  # the calibration may be a new one
    for what, name, fixed, moving, truth in verdict_cases(test, others, kind.width, study.seed):
        if rows.missing(kind=what, name=name):
            rows.add({"kind": what, "name": name} | _judged(model, fixed, moving, truth, kind.width))


def _judged(model: ComirModel, fixed: Image, moving: Image, truth: Transform | None, width: int) -> Row:
    cpu = process_time()
    pair = [e.encode(image) for e, image in zip(model.encoders(), (fixed, moving), strict=True)]
    found = register(*pair, Auto())
    mine, general = (
        judge.judge(found, *pair, (fixed, moving)) for judge in (Judge.of_model(model.calibration), Judge())
    )
    error = math.inf if truth is None else _error(fixed.grid, found.candidate, truth) / width
    judged = {"status": mine.status, "confidence": mine.confidence, "general": general.confidence}
    evidence = dict.fromkeys(Evidence.__dataclass_fields__, math.nan) | dict(mine.evidence)
    return {"error": error, **judged, "cpu": round(process_time() - cpu, 2), **evidence}


def _confidences(judge: Judge, row: Mapping[str, object]) -> Row:
    """The verdict on the evidence of a row."""
    evidence = Evidence(**{name: float(str(row[name])) for name in Evidence.__dataclass_fields__})
    if math.isnan(evidence.overlap):  # nothing was found
        return {"status": "refused", "confidence": 0.0, "general": 0.0}
    confidence = judge.calibration.probability(evidence)
    status = judged(confidence, evidence, judge.calibration)
    return {"status": status, "confidence": confidence, "general": GENERAL.probability(evidence)}


Case = tuple[str, str, Image, Image, Transform | None]


def verdict_cases(test: Sequence[Pair], others: Mapping[str, Sequence[Pair]], width: int, seed: int) -> Iterator[Case]:
    """Solvable, unrelated and hopeless pairs of unseen specimens."""
    rng = np.random.default_rng(seed + 77)
    solvable = replace(DisplacementProtocol.any_rotation(width), draws=math.ceil(48 / len(test)), seed=seed + 7)
    everything = list(views(test, solvable))
    for view in everything:
        yield "solvable", f"{view.specimen}/{view.draw}", view.fixed, view.moving, view.fixed_to_moving
    for number, view in enumerate(everything):
        stranger = everything[(number + len(everything) // 2 + 1) % len(everything)]
        if stranger.specimen != view.specimen:
            yield "other specimen", f"{view.specimen}/{view.draw}", view.fixed, stranger.moving, None
    for number, view in enumerate(everything[::4]):
        noise = rng.normal(size=view.moving.data.shape)
        low, high = float(view.moving.data.min()), float(view.moving.data.max())
        noisy = np.clip(low + (high - low) * (0.5 + 0.2 * noise), low, high).astype(view.moving.data.dtype)
        yield "noise", str(number), view.fixed, view.moving.with_data(noisy, view.moving.channels), None
    for pair in test:
        for number in range(max(1, 24 // len(test))):
            yield "hopeless", f"{pair.name}/{number}", *_apart(pair, rng.uniform(0.04, 0.14), rng.uniform(-180, 180))
    yield from _strangers(everything, others, width)


def _strangers(everything: Sequence[DisplacedPair], others: Mapping[str, Sequence[Pair]], width: int) -> Iterator[Case]:
    """The moving image comes from another set altogether, where its channels fit."""
    for name, pairs in others.items():
        for number, pair in enumerate(pairs):
            view = everything[(5 * number) % len(everything)]
            if len(pair.moving.data) != len(view.moving.data):
                continue
            protocol = DisplacementProtocol(
                (min(width, *(n // 2 for n in pair.moving.grid.shape)),) * 2, 180, 0, draws=1
            )
            other = next(displaced_pairs(pair.fixed, pair.moving.with_grid(pair.fixed.grid), protocol, pair.name))
            yield "other set", f"{name}/{pair.name}", view.fixed, other.moving, None


def ladders(study: Study) -> None:
    """Success of auto against angle, mirror, scale and overlap, on the CoMIRs of unseen specimens."""
    kind, test = SETS[study.set], unseen(study.set)
    model = model_of(study.set, study.models / study.set)
    rows = Rows(study.out / f"{study.set}.csv", ("ladder", "rung", "specimen"))
    judge = Judge.of_model(model.calibration)
    encoders = model.encoders()
    for ladder, rung, pair, method, fixed, moving, truth in ladder_cases(test, kind.width):
        if not rows.missing(ladder=ladder, rung=rung, specimen=pair.name):
            continue
        images = [e.encode(image) for e, image in zip(encoders, (fixed, moving), strict=True)]
        found = judge.judge(register(*images, method), *images, (fixed, moving))
        error = _error(fixed.grid, found.candidate, truth) / max(fixed.grid.extent)
        rows.add({"ladder": ladder, "rung": rung, "specimen": pair.name, "error": error, "status": found.status})


Rung = tuple[str, float, Pair, Auto, Image, Image, Transform]


def ladder_cases(test: Sequence[Pair], width: int) -> Iterator[Rung]:
    """Known motions of the central patch of every unseen specimen."""
    for pair in test:
        for degrees in range(0, 360, 15):
            yield ("angle", degrees, pair, Auto(), *_moved(pair, width, degrees))
        for degrees in range(0, 360, 45):
            yield ("mirror", degrees, pair, Auto(mirror=True), *_moved(pair, width, degrees, mirrored=True))
        for scale in (0.5, 0.63, 0.79, 1.0, 1.26, 1.59, 2.0):
            yield ("scale", scale, pair, Auto(min_scale=0.5, max_scale=2.0), *_moved(pair, width, 20, scale=scale))
        for overlap in (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2):
            yield ("overlap", overlap, pair, Auto(min_overlap=0.15), *_apart(pair, overlap))


def _moved(
    pair: Pair, width: int, degrees: float, *, mirrored: bool = False, scale: float = 1.0
) -> tuple[Image, Image, Transform]:
    """The central patch, and the moving image rotated, mirrored and scaled about its centre."""
    grid = pair.fixed.grid.centered((width,) * 2)
    fixed = pair.fixed.resampled(grid, Rigid(as_rows(np.eye(2)), (0.0, 0.0)), order=1)
    rotation = rotation_matrix(2, degrees) @ np.diag([1.0, -1.0 if mirrored else 1.0])
    shift = 0.05 * width * np.array([1.0, -0.6])
    offset = grid.center + shift - scale * rotation @ grid.center
    truth = Similarity(as_rows(rotation), scale, tuple(offset.tolist()))
    moving = pair.moving.with_grid(pair.fixed.grid)
    border = np.array([np.median(channel) for channel in moving.data])
    return fixed, moving.resampled(grid, truth.inverse(), order=1, fill=border), truth


def _apart(pair: Pair, overlap: float, degrees: float = 25.0) -> tuple[Image, Image, Transform]:
    """Two patches side by side that share a part of their area, the moving one turned about its centre."""
    shape = pair.fixed.grid.shape
    side = int(min(shape) / 1.9)
    away = side * (1 - overlap)
    start = round((shape[1] - side - away) / 2)
    fixed = pair.fixed.cropped(((shape[0] - side) // 2, max(0, start)), (side, side))
    rotation = rotation_matrix(2, degrees)
    grid = pair.fixed.grid.centered((side, side))
    goal = fixed.grid.center + np.array([0.0, away])
    truth = Rigid(as_rows(rotation), tuple((grid.center - rotation @ goal).tolist()))
    moving = pair.moving.with_grid(pair.fixed.grid)
    border = np.array([np.median(channel) for channel in moving.data])
    return fixed, moving.resampled(grid, truth.inverse(), order=1, fill=border), truth


def summary(study: Study) -> None:
    """Print what the rows say."""
    for path in sorted(study.out.glob("*.csv")):
        rows = read_table(path)
        print(f"\n### {path.stem}\n")
        print(_summaries(rows)(rows))


def _summaries(rows: Sequence[Mapping[str, str]]) -> Callable[[Sequence[Mapping[str, str]]], str]:
    return table_summary if "engine" in rows[0] else ladder_summary if "ladder" in rows[0] else verdict_summary


def table_summary(rows: Sequence[Mapping[str, str]]) -> str:
    """Successes by engine, images and protocol."""
    protocols_ = list(dict.fromkeys(row["protocol"] for row in rows))
    lines = [
        f"| images | engine | {' | '.join(protocols_)} | all | 95 % interval | median px | CPU-s | wall-s |",
        "|---|---|" + "--:|" * (len(protocols_) + 5),
    ]
    for images in ("originals", "CoMIRs"):
        for engine in dict.fromkeys(row["engine"] for row in rows if row["images"] == images):
            mine = [row for row in rows if row["images"] == images and row["engine"] == engine]
            cells = [_count([r for r in mine if r["protocol"] == p]) for p in protocols_]
            lines.append(f"| {images} | {engine} | {' | '.join(cells)} | {_count(mine)} | {_rest(mine)} |")
    return "\n".join(lines)


def _hits(rows: Sequence[Mapping[str, str]]) -> np.ndarray:
    return np.array([float(row["error"]) <= SUCCESS for row in rows], dtype=float)


def _count(rows: Sequence[Mapping[str, str]]) -> str:
    return f"{_hits(rows).sum():.0f}/{len(rows)}"


def _rest(rows: Sequence[Mapping[str, str]]) -> str:
    interval = bootstrap_interval(_hits(rows), [row["specimen"] for row in rows], lambda x: float(x.mean()), seed=0)
    pixels = [float(row["error"]) * float(row["width"]) for row in rows if float(row["error"]) <= SUCCESS]
    median = f"{np.median(pixels):.2f}" if pixels else "–"
    cpu, wall = (float(np.median([float(row[key]) for row in rows])) for key in ("cpu", "wall"))
    return f"{interval.low:.0%}–{interval.high:.0%} | {median} | {cpu:.2f} | {wall:.2f}"


def ladder_summary(rows: Sequence[Mapping[str, str]]) -> str:
    """Successes (and those accepted) on every rung."""
    lines = ["| ladder | rung | right | right and accepted | wrong but accepted |", "|---|--:|--:|--:|--:|"]
    for ladder, rung in dict.fromkeys((row["ladder"], row["rung"]) for row in rows):
        mine = [row for row in rows if (row["ladder"], row["rung"]) == (ladder, rung)]
        right, accepted = _hits(mine) > 0, np.array([row["status"] == "accepted" for row in mine])
        counts = (right.sum(), (right & accepted).sum(), (~right & accepted).sum())
        lines.append(f"| {ladder} | {rung} | " + " | ".join(f"{n}/{len(mine)}" for n in counts) + " |")
    return "\n".join(lines)


def verdict_summary(rows: Sequence[Mapping[str, str]]) -> str:
    """Statuses by kind, the calibration error, and the risk at several coverages."""
    lines = ["| kind | pairs | right | accepted | unsure | refused | wrong but accepted |", "|---|" + "--:|" * 6]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        mine = [row for row in rows if row["kind"] == kind]
        right, statuses = _hits(mine) > 0, [row["status"] for row in mine]
        wrong = sum(s == "accepted" and not r for s, r in zip(statuses, right, strict=True))
        counts = [len(mine), int(right.sum()), *(statuses.count(s) for s in ("accepted", "unsure", "refused")), wrong]
        lines.append(f"| {kind} | " + " | ".join(map(str, counts)) + " |")
    for calibration in ("confidence", "general"):
        chances, right = np.array([float(row[calibration] or 0) for row in rows]), _hits(rows) > 0
        lines += ["", f"{calibration}: expected calibration error {calibration_error(chances, right):.3f}", ""]
        lines += ["| accepted from | coverage of the right | accepted | wrong among them |", "|--:|--:|--:|--:|"]
        for limit in (0.5, 0.7, 0.8, 0.9, 0.95, 0.98):
            taken = chances >= limit
            covered = (taken & right).sum() / max(right.sum(), 1)
            lines.append(f"| {limit} | {covered:.1%} | {taken.sum()} | {(taken & ~right).sum()} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
