"""The studies of docs/results.md: train, displace unseen pairs by known amounts, register, and count.

    python benchmarks/studies.py bf-shg --out results/bf_shg

Every study writes ``rows.csv`` (one registration a line), ``summary.md`` and ``curves.svg``, and keeps its model: a
second call only does what is missing. To repeat a method, delete its rows; to train anew, delete the model.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Literal

import numpy as np
import tyro
from datasets import Split, bf_shg, phase_fluorescence, require_data, rgb_nir

from modalign.data.displacement import DisplacedPair, DisplacementProtocol, displaced_pairs
from modalign.data.pairs import Pair
from modalign.data.tissue import tissue
from modalign.demo import UNSEEN
from modalign.evaluation.study import (
    Method,
    Row,
    Summary,
    do_nothing,
    read_rows,
    run_study,
    success_curves,
    summarise,
    write_rows,
)
from modalign.image import Image
from modalign.io import atomic_path
from modalign.registration import Features, FftSearch, MutualInformation, Registrar, Registration, register
from modalign.report import figure_bytes, success_figure
from modalign.representation import ComirModel
from modalign.training import ComirOptions, fit_comir
from modalign.training.validation import ValidationOptions

StudyName = Literal["bf-shg", "one-pair", "rgb-nir", "phase-fluorescence", "tissue"]
SINGLE_CORES = ("001", "005", "014", "022")
"""Cores to train on alone: two breast cores, one of the other laboratory's look, one of pancreas."""


@dataclass(frozen=True)
class Study:
    """One study."""

    name: tyro.conf.Positional[StudyName]
    """Which one."""
    out: Path = field(kw_only=True)
    """Folder for the results."""
    steps: int = 800
    """Training steps."""
    draws: int = 8
    """Displacements of each unseen pair, where the protocol does not say otherwise."""
    seed: int = 0
    """Seed of the training and of the displacements."""
    baselines: bool = True
    """Also run the methods that compare the originals."""


def main() -> None:
    """Run the study that the command line names."""
    study = tyro.cli(Study)
    if study.name == "tissue":
        synthetic(study)
        return
    require_data()
    {"bf-shg": cores, "one-pair": one_pair, "rgb-nir": aerial, "phase-fluorescence": neurons}[study.name](study)


def cores(study: Study) -> None:
    """Bright field and second harmonic: the CoMIR protocol, all rotations, and small fields."""
    train, test = bf_shg()
    model = trained(study, train, study.out / "model")
    for title, protocol in core_protocols(study).items():
        report(study.out / title, protocol, test, methods(model, baselines=study.baselines))


def core_protocols(study: Study) -> dict[str, DisplacementProtocol]:
    """The displacements of the issue: 300-pixel patches at ±30° and ±180°, and 128-pixel patches at ±180°."""
    comir = replace(DisplacementProtocol.comir(300), draws=study.draws, seed=study.seed)
    anyhow = replace(comir, max_rotation_degrees=180.0)
    return {
        "300px_30deg": comir,
        "300px_180deg": anyhow,
        "128px_180deg": replace(anyhow, patch_shape=(128, 128), max_shift_pixels=40.0),
    }


def one_pair(study: Study) -> None:
    """Trained on one core alone, tested on the unseen cores at any rotation; once for each of several cores."""
    for core in SINGLE_CORES:
        train, test = bf_shg(train=(core,))
        model = trained(study, train, study.out / f"model_{core}")
        protocol = core_protocols(study)["300px_180deg"]
        report(study.out / f"core_{core}", protocol, test, methods(model, baselines=False))


def aerial(study: Study) -> None:
    """RGB and near infrared: the four levels of MultiRegEval, one draw a level and tile."""
    levels(study, rgb_nir(), width=160, draws=1)


def neurons(study: Study) -> None:
    """Phase contrast and fluorescence: the four levels of MultiRegEval."""
    levels(study, phase_fluorescence(), width=160, draws=study.draws)


def synthetic(study: Study) -> None:
    """The originals of the made-up tissue of the demo: what methods without a model make of them."""
    made = ((seed, tissue(seed)) for seed in range(UNSEEN, UNSEEN + 8))
    pairs = [Pair(f"tissue_{seed}", t.second_harmonic, t.bright_field) for seed, t in made]
    protocol = replace(DisplacementProtocol.comir(240), draws=2, seed=study.seed)
    report(study.out / "240px_30deg", protocol, pairs, originals())


def levels(study: Study, split: Split, width: int, draws: int) -> None:
    """Train once, and test at each level of displacement."""
    train, test = split
    model = trained(study, train, study.out / "model")
    for level in range(1, 5):
        protocol = replace(DisplacementProtocol.multiregeval(width, level), draws=draws, seed=study.seed)
        report(study.out / f"level_{level}", protocol, test, methods(model, baselines=study.baselines))


def trained(study: Study, pairs: Sequence[Pair], folder: Path) -> ComirModel:
    """The model in a folder, or a new one trained with the default options and the steps of the study.

    The unseen pairs take no part: the model is the one after the last step, judged on training pairs.
    """
    if folder.is_dir():
        return ComirModel.load(folder)
    options = ComirOptions(steps=study.steps, seed=study.seed, validation=ValidationOptions(times=1, most_pairs=4))
    wall, cpu = perf_counter(), process_time()
    outcome = fit_comir(pairs, [], options, report=lambda now: say(f"step {now.step} loss {now.loss:.3f}"))
    timing = {"wall_seconds": round(perf_counter() - wall, 1), "cpu_seconds": round(process_time() - cpu, 1)}
    print(f"\n{outcome.message} {timing}")
    outcome.model.save(folder)
    return outcome.model


def methods(model: ComirModel, *, baselines: bool) -> dict[str, Method]:
    """The rows of the tables."""
    encoded = {
        "CoMIR + FFT search": through(model, FftSearch()),
        "CoMIR + SIFT": through(model, Features()),
    }
    return {**originals(), **encoded} if baselines else encoded


def originals() -> dict[str, Method]:
    """Methods that compare the intensities themselves, and doing nothing."""
    return {
        "do-nothing": do_nothing,
        "SIFT": raw(Features()),
        "mutual information": raw(MutualInformation()),
        "FFT search": raw(FftSearch()),
    }


def through(model: ComirModel, method: Registrar) -> Method:
    """A method on the representations of a model."""
    fixed_encoder, moving_encoder = model.encoder("fixed"), model.encoder("moving")
    return lambda fixed, moving: register(fixed_encoder.encode(fixed), moving_encoder.encode(moving), method)


def raw(method: Registrar) -> Callable[[Image, Image], Registration]:
    """A method on the original intensities."""
    return lambda fixed, moving: register(fixed, moving, method)


def views(pairs: Iterable[Pair], protocol: DisplacementProtocol) -> Iterator[DisplacedPair]:
    """Displaced views of several pairs."""
    for pair in pairs:
        yield from displaced_pairs(pair.fixed, pair.moving, protocol, pair.name)


def report(folder: Path, protocol: DisplacementProtocol, pairs: Sequence[Pair], tried: Mapping[str, Method]) -> None:
    """Run the methods that have no rows in the folder yet, and write rows, summary and curves."""
    width = float(np.mean(protocol.patch_shape))
    known = read_rows(folder / "rows.csv") if (folder / "rows.csv").is_file() else []
    missing = {name: method for name, method in tried.items() if name not in {row.method for row in known}}
    fresh = run_study(views(pairs, protocol), missing, lambda row: say(f"{folder.name} {row.specimen} {row.method}"))
    rows = sorted([*known, *fresh], key=lambda row: list(tried).index(row.method))
    write_rows(folder / "rows.csv", rows)
    table = as_markdown(summarise(rows, 0.02 * width))
    save(folder / "summary.md", (table + "\n" + by_specimen(rows, 0.02 * width)).encode())
    save(folder / "curves.svg", figure_bytes(curves(rows, width)))
    print(f"\n{folder.name}\n{table}")


def curves(rows: Sequence[Row], width: float) -> "object":
    """Success against tolerated error, from a quarter of a pixel to a third of the width."""
    tolerances = np.geomspace(0.25, width / 3, 200)
    return success_figure(tolerances, success_curves(rows, tolerances), threshold=0.02 * width)


def as_markdown(summaries: Sequence[Summary]) -> str:
    """The table of a study."""
    lines = [
        "| method | success ≤ 2 % | 95 % interval | median error, px | accepted / unsure / refused "
        "| wrong but accepted | CPU-s a pair |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for s in summaries:
        hits = round(s.success_rate * s.pairs)
        median = "–" if np.isinf(s.median_error_pixels) else f"{s.median_error_pixels:.2f}"
        lines.append(
            f"| {s.method} | {hits}/{s.pairs} = {s.success_rate:.1%} | {s.success_low:.0%}–{s.success_high:.0%} "
            f"| {median} | {s.accepted} / {s.unsure} / {s.refused} | {s.false_accepts} | {s.median_seconds:.2f} |"
        )
    return "\n".join(lines)


def by_specimen(rows: Sequence[Row], threshold: float) -> str:
    """Successes of each method on each specimen."""
    names, specimens = list(dict.fromkeys(r.method for r in rows)), list(dict.fromkeys(r.specimen for r in rows))
    lines = ["", "| successes | " + " | ".join(specimens) + " |", "|---|" + "--:|" * len(specimens)]
    for name in names:
        hits = [
            sum(r.error_pixels <= threshold for r in rows if r.method == name and r.specimen == specimen)
            for specimen in specimens
        ]
        lines.append(f"| {name} | " + " | ".join(map(str, hits)) + " |")
    return "\n".join(lines) + "\n"


def save(path: Path, content: bytes) -> None:
    """Write a file, all or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def say(text: str) -> None:
    """Progress on one line of stderr."""
    print(f"\r{text:<70}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
