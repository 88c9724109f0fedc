"""What the rows of a benchmark say: success with intervals, comparisons, and where the worst cases are."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from modalign.evaluation.benchmark.plan import DO_NOTHING
from modalign.evaluation.statistics import (
    PairedComparison,
    area_under_success,
    bootstrap_interval,
    median_error,
    paired_comparison,
    success_rate,
)

Array = np.ndarray
Row = Mapping[str, Any]
AREA_LIMIT = 0.1
"""Area under the success curve is taken up to this error, as a fraction of the width."""


@dataclass(frozen=True)
class Line:
    """One method on one kind of displacement of one set, or on all kinds together.

    Attributes:
        dataset: The set.
        protocol: The kind of displacement; ``all`` for all of them.
        method: The method.
        pairs: Number of registrations.
        specimens: Number of specimens.
        success: Share of the registrations within the tolerance, whatever the method thought of them.
        low: Lower end of the 95 % interval of it, from a bootstrap by specimen.
        high: Upper end.
        area: Area under the success curve up to a tenth of the width.
        median: Median error relative to the width; infinite where more than half failed.
        median_pixels: The same in pixels.
        successful_pixels: Median error of the successes in pixels; not a number where there are none.
        dice: Mean Dice coefficient, where there are label maps.
        accepted: Results that the method, or the verdict, accepts.
        false_accepts: Those of them that are wrong.
        failed: Registrations without a result, or that ended with an error.
        cpu: Median CPU seconds.
    """

    dataset: str
    protocol: str
    method: str
    pairs: int
    specimens: int
    success: float
    low: float
    high: float
    area: float
    median: float
    median_pixels: float
    successful_pixels: float
    dice: float
    accepted: int
    false_accepts: int
    failed: int
    cpu: float


@dataclass(frozen=True)
class Comparison:
    """One method beside the reference on one set: medians by specimen, all kinds of displacement together."""

    dataset: str
    method: str
    reference: str
    result: PairedComparison


def error_of(row: Row) -> float:
    """The relative error of a row; no result is infinitely wrong."""
    error = row.get("error")
    return math.inf if error is None else float(error)


def errors_of(rows: Iterable[Row]) -> Float[Array, " rows"]:
    """The relative errors of some rows."""
    return np.array([error_of(row) for row in rows], dtype=float)


def grouped(rows: Sequence[Row], *keys: str) -> dict[tuple[str, ...], list[Row]]:
    """The rows by the values of some keys, in order of appearance."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row[key]) for key in keys), []).append(row)
    return groups


def summarise(rows: Sequence[Row], success: float, seed: int = 0) -> list[Line]:
    """A line for every set, kind of displacement and method; and one for all kinds where there are several."""
    lines = []
    for (dataset,), of_set in grouped(rows, "dataset").items():
        kinds = grouped(of_set, "protocol")
        parts = {protocol: part for (protocol,), part in kinds.items()} | ({"all": of_set} if len(kinds) > 1 else {})
        for protocol, part in parts.items():
            for (method,), group in grouped(part, "method").items():
                lines.append(_line(dataset, protocol, method, group, success, seed))
    return lines


def _line(dataset: str, protocol: str, method: str, rows: Sequence[Row], success: float, seed: int) -> Line:
    errors, specimens = errors_of(rows), [str(row["specimen"]) for row in rows]
    pixels = np.array([math.inf if row.get("error_pixels") is None else row["error_pixels"] for row in rows])
    right = errors <= success
    interval = bootstrap_interval(right.astype(float), specimens, lambda share: float(share.mean()), seed=seed)
    accepted = np.array([row.get("status") == "accepted" for row in rows])
    return Line(
        dataset,
        protocol,
        method,
        len(rows),
        len(set(specimens)),
        success_rate(errors, success),
        interval.low,
        interval.high,
        area_under_success(errors, AREA_LIMIT),
        median_error(errors),
        median_error(pixels),
        float(np.median(pixels[right])) if right.any() else math.nan,
        _mean([row["dice"] for row in rows if row.get("dice") is not None]),
        int(accepted.sum()),
        int((accepted & ~right).sum()),
        int((~np.isfinite(errors)).sum()),
        _median([row["cpu"] for row in rows if row.get("cpu") is not None]),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan


def reference_of(lines: Sequence[Line], wanted: str) -> str:
    """The method that the others are compared with: the wanted one, or the one with most successes over all sets."""
    if wanted:
        return wanted
    right: dict[str, float] = {}
    for line in lines:
        if line.method != DO_NOTHING and line.protocol != "all":
            right[line.method] = right.get(line.method, 0.0) + line.success * line.pairs
    return max(right, key=lambda method: right[method])


def compare(rows: Sequence[Row], reference: str) -> list[Comparison]:
    """The reference against every other method, set by set."""
    found = []
    for (dataset,), of_set in grouped(rows, "dataset").items():
        methods = {method: group for (method,), group in grouped(of_set, "method").items()}
        if reference not in methods:
            continue
        ours = _by_specimen(methods[reference])
        for method, group in methods.items():
            theirs = _by_specimen(group)
            common = [specimen for specimen in ours if specimen in theirs]
            if method not in (reference, DO_NOTHING) and common:
                pair = (np.array([errors[name] for name in common]) for errors in (ours, theirs))
                found.append(Comparison(dataset, method, reference, paired_comparison(*pair)))
    return found


def _by_specimen(rows: Sequence[Row]) -> dict[str, float]:
    """Median error of every specimen: its registrations are not independent."""
    return {name: median_error(errors_of(group)) for (name,), group in grouped(rows, "specimen").items()}


def worst_rows(rows: Sequence[Row], method: str, number: int) -> dict[str, list[Row]]:
    """The worst cases of a method, set by set, the worst first."""
    found = {}
    for (dataset,), group in grouped([row for row in rows if row["method"] == method], "dataset").items():
        found[dataset] = sorted(group, key=lambda row: -error_of(row))[:number]
    return found


def markdown(lines: Sequence[Line], comparisons: Sequence[Comparison], success: float, about: Mapping[str, str]) -> str:
    """The tables as Markdown."""
    parts = ["# Benchmark", "", *(f"- {key}: {value}" for key, value in about.items()), ""]
    parts += [
        f"Success is an error of at most {success:.1%} of the width, whether the method trusted the result or not; "
        "a method that gave no result failed. Intervals: 95 %, bootstrap by specimen.",
    ]
    for dataset in dict.fromkeys(line.dataset for line in lines):
        for protocol in dict.fromkeys(line.protocol for line in lines if line.dataset == dataset):
            here = [line for line in lines if (line.dataset, line.protocol) == (dataset, protocol)]
            parts += ["", f"## {dataset}, {protocol}: {here[0].pairs} pairs of {here[0].specimens} specimens", ""]
            parts += _table(here)
    if comparisons:
        parts += ["", f"## Compared with {comparisons[0].reference}", "", *_comparison_table(comparisons)]
    return "\n".join(parts) + "\n"


def _table(lines: Sequence[Line]) -> list[str]:
    has_labels = any(not math.isnan(line.dice) for line in lines)
    titles = [
        "method", "success", "95 %", "area", "median error", "px of successes", "accepted", "wrong of these",
        "no result", "CPU s",
    ]  # fmt: skip
    rows = []
    for line in sorted(lines, key=lambda line: (-line.success, line.median)):
        interval = "–" if math.isnan(line.low) else f"{line.low:.0%}–{line.high:.0%}"
        cells = [
            line.method, f"{line.success:.1%}", interval, f"{line.area:.2f}", _percent(line.median),
            _number(line.successful_pixels), str(line.accepted), str(line.false_accepts), str(line.failed),
            _number(line.cpu),
        ]  # fmt: skip
        rows.append([*cells, _number(line.dice)] if has_labels else cells)
    return markdown_table([*titles, "Dice"] if has_labels else titles, rows)


def _comparison_table(comparisons: Sequence[Comparison]) -> list[str]:
    titles = [
        "dataset",
        "method",
        "specimens",
        "p (Wilcoxon)",
        "rank-biserial effect (+: the reference is better)",
    ]
    rows = [
        [c.dataset, c.method, str(c.result.pairs), f"{c.result.p_value:.2g}", f"{c.result.effect:+.2f}"]
        for c in comparisons
    ]
    return markdown_table(titles, rows)


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    head = [f"| {' | '.join(titles)} |", f"|{'|'.join('---' for _ in titles)}|"]
    return [*head, *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)]


def _percent(value: float) -> str:
    return f"{value:.2%}" if math.isfinite(value) else "no result"


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "–"
