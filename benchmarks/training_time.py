"""How soon a model registers: CPU time of training on BF/SHG, and success on displaced views of unseen cores.

    python benchmarks/training_time.py --steps 200 300 400 --out results/training_time

Prints a row a number of steps. Models that are there are not trained again; their time is then read from the table.
"""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import process_time

import numpy as np
import tyro
from datasets import bf_shg, require_data
from views import views

from modalign.data.displacement import DisplacementProtocol
from modalign.evaluation.metrics import corner_error
from modalign.evaluation.statistics import bootstrap_interval
from modalign.io import read_table, write_table
from modalign.registration import FftSearch, register
from modalign.representation import ComirModel
from modalign.training import ComirOptions, TrainingProgress, fit_comir
from modalign.training.validation import ValidationOptions

WIDTH, SUCCESS = 300, 0.02


@dataclass(frozen=True)
class Study:
    """What to train."""

    out: Path = field(kw_only=True)
    """Folder for the models and the table."""
    steps: tuple[int, ...] = (200, 300, 400)
    """Training steps, a model each."""
    draws: int = 8
    """Displacements of each unseen core."""
    seed: int = 0
    """Seed of the training and of the displacements."""


def main() -> None:
    """Train, register, and print a row a model."""
    study = tyro.cli(Study)
    require_data()
    table = study.out / "training_time.csv"
    rows: list[dict[str, object]] = list(read_table(table)) if table.is_file() else []
    done = {int(str(row["steps"])) for row in rows}
    for steps in study.steps:
        if steps not in done:
            rows.append(measured(study, steps))
            write_table(table, rows)
    for row in rows:
        print(row)


def measured(study: Study, steps: int) -> dict[str, object]:
    """Time to train, and success with the result on patches of unseen cores at ±30°."""
    model, trained, everything = fitted(steps, study.seed)
    protocol = replace(DisplacementProtocol.comir(WIDTH), draws=study.draws, seed=study.seed)
    encoders, errors, specimens = model.encoders(), [], []
    for view in views(bf_shg()[1], protocol):
        fixed, moving = (e.encode(image) for e, image in zip(encoders, (view.fixed, view.moving), strict=True))
        found = register(fixed, moving, FftSearch(max_rotation_degrees=40)).candidate
        error = np.inf if found is None else corner_error(found, view.fixed_to_moving, view.fixed.grid).mean.relative
        errors.append(error)
        specimens.append(view.specimen)
    hits = (np.array(errors) <= SUCCESS).astype(float)
    interval = bootstrap_interval(hits, specimens, lambda share: float(share.mean()), seed=study.seed)
    return {
        "steps": steps,
        "training_cpu_seconds": round(trained, 1),
        "with_calibration_cpu_seconds": round(everything, 1),
        "right": int(hits.sum()),
        "views": len(hits),
        "interval": f"{interval.low:.0%}-{interval.high:.0%}",
        "median_error_pixels": round(float(np.median(errors)) * WIDTH, 2),
    }


def fitted(steps: int, seed: int) -> tuple[ComirModel, float, float]:
    """A model, the CPU time of its training with the last validation, and the same with its calibration."""
    start, ends = process_time(), []

    def watch(now: TrainingProgress) -> None:
        if now.calibrating:
            ends.append(process_time())
        print(f"\rstep {now.step} of {steps}", end="", file=sys.stderr, flush=True)

    options = ComirOptions(steps=steps, seed=seed, validation=ValidationOptions(times=1, most_pairs=4))
    outcome = fit_comir(bf_shg()[0], [], options, report=watch)
    end = process_time()
    return outcome.model, (ends or [end])[0] - start, end - start


if __name__ == "__main__":
    main()
