"""Compact tables of the rows of ``modalign benchmark``: successes by registrar and encoder, and the claim in numbers.

python benchmarks/full_table_summary.py results/table/rows/rows.csv > docs/results-benchmark.md
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float

from modalign.evaluation.benchmark.summary import markdown_table
from modalign.evaluation.statistics import bootstrap_interval
from modalign.io import read_table

Row = Mapping[str, str]
MEASURES = ("originals / simpleitk-mi", "originals / elastix", "originals / ants", "originals / mutual-information",
            "originals / global-mi")  # fmt: skip
"""Registration by mutual information of the originals: as people do it, and as well as we can."""
CLAIM = ("CoMIR / auto", "CoMIR / fft-search")


@dataclass(frozen=True)
class Summary:
    """What to summarise."""

    rows: tyro.conf.Positional[Path]
    """The table of the benchmark."""
    success: float = 0.02
    """Largest error that counts as success, as a fraction of the width."""


def main() -> None:
    """Print the tables."""
    command = tyro.cli(Summary)
    rows = read_table(command.rows)
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        mine = [row for row in rows if row["dataset"] == dataset]
        views = {(row["protocol"], row["pair"], row["draw"]) for row in mine}
        specimens = len({row["specimen"] for row in mine})
        print(f"\n## {dataset}: {len(views)} views of {specimens} specimens\n")
        print("\n".join(successes(mine, command.success)))
        if claim := gains(mine, command.success):
            print("\n" + "\n".join(claim))


def successes(rows: Sequence[Row], success: float) -> list[str]:
    """Successes of every registrar (and median error of these in pixels) by encoder; median CPU time on the first."""
    encoders = [name for name in dict.fromkeys(row["encoder"] for row in rows) if name]
    registrars = [name for name in dict.fromkeys(row["registrar"] for row in rows) if name]
    body = []
    for registrar in registrars:
        mine = [row for row in rows if row["registrar"] == registrar]
        cells = [_cell([row for row in mine if row["encoder"] == encoder], success) for encoder in encoders]
        body.append([registrar, *cells, f"{np.median([float(row['cpu']) for row in mine]):.2f}"])
    return markdown_table(["registrar", *encoders, "CPU-s"], body)


def _cell(rows: Sequence[Row], success: float) -> str:
    if not rows:
        return ""
    right = errors(rows) <= success
    pixels = [float(row["error_pixels"]) for row, hit in zip(rows, right, strict=True) if hit]
    return f"{right.sum()}/{len(rows)}" + (f" ({np.median(pixels):.2f})" if pixels else "")


def gains(rows: Sequence[Row], success: float) -> list[str]:
    """By how many points CoMIRs succeed more often than mutual information, with intervals by specimen."""
    methods = {row["method"] for row in rows}
    body = []
    for ours in (name for name in CLAIM if name in methods):
        for theirs in (name for name in MEASURES if name in methods):
            first, second = ([row for row in rows if row["method"] == name] for name in (ours, theirs))
            gain = (errors(first) <= success).astype(float) - (errors(second) <= success)
            between = bootstrap_interval(gain, [row["specimen"] for row in first], lambda share: float(share.mean()))
            body.append([ours, theirs, f"{gain.mean():+.0%}", f"{between.low:+.0%} to {between.high:+.0%}"])
    return markdown_table(["", "against", "success", "95 % interval"], body) if body else []


def errors(rows: Sequence[Row]) -> Float[np.ndarray, " rows"]:
    """Relative errors, in the order of the views; infinite where there is no result."""
    return np.array([float(row["error"] or "inf") for row in rows], dtype=float)


if __name__ == "__main__":
    main()
