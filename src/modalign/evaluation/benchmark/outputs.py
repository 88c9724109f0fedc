"""The files of a benchmark: tables, figures, the montage of the worst cases, and pages."""

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from modalign import __version__
from modalign.batch.files import LIBRARIES, evidence_rows
from modalign.evaluation.benchmark.plan import DO_NOTHING, Plan
from modalign.evaluation.benchmark.summary import (
    compare,
    error_of,
    errors_of,
    grouped,
    markdown,
    reference_of,
    summarise,
    worst_rows,
)
from modalign.evaluation.benchmark.task import ViewTask, all_rows
from modalign.evaluation.benchmark.views import View
from modalign.evaluation.statistics import success_curve
from modalign.geometry import Affine
from modalign.image import Image
from modalign.io import atomic_path, make_folder, plain, write_image, write_json, write_table, write_text
from modalign.pipeline import warp
from modalign.registration import Registration
from modalign.report import (
    InputRecord,
    OverviewRow,
    ReportContent,
    error_figure,
    figure_bytes,
    magenta_green,
    overview_page,
    panel,
    report_page,
    success_figure,
)

TOLERANCES = np.geomspace(0.1, 100, 200)
"""Tolerated errors of the success curves, per cent of the width."""
TOOLS = ("scikit-image", "itk-elastix", "antspyx")
"""Packages of the peers."""
MOST_CURVES = 12
"""Methods in one figure: the best, and doing nothing."""
SHOWN = ("dataset", "protocol", "specimen", "pair", "draw", "method", "encoder", "registrar", "error", "error_pixels")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Outputs:
    """Where the files lie."""

    rows: Path
    summary: Path
    index: Path


def write_outputs(plan: Plan, tasks: Sequence[ViewTask], records: Sequence[Mapping[str, Any]], out: Path) -> Outputs:
    """Write everything that the records of the views say; also where only some of them are done yet."""
    rows = list(all_rows(records))
    lines = summarise(rows, plan.success, plan.seed)
    reference = reference_of(lines, plan.reference)
    found = Outputs(out / "rows.csv", out / "summary.md", out / "index.html")
    write_table(found.rows, [_flat(row) for row in rows], _columns(rows))
    write_table(out / "displacements.csv", [_displacement(row) for row in rows if row["method"] == DO_NOTHING])
    write_table(out / "summary.csv", [asdict(line) for line in lines])
    about = about_run(plan, len(tasks), sum("rows" in record for record in records))
    inputs = {path: digest for record in records for path, digest in record.get("inputs", {}).items()}
    write_json(out / "provenance.json", plain({**about, "plan": _told_plan(plan), "inputs": inputs}))
    text = markdown(lines, compare(rows, reference), plan.success, about)
    write_text(found.summary, text)
    _write_figures(plan, rows, make_folder(out / "figures"))
    pages = _write_worst(plan, tasks, rows, reference, make_folder(out / "worst"))
    write_text(found.index, _index(plan, records, reference, pages))
    return found


def about_run(plan: Plan, views: int, done: int) -> dict[str, str]:
    """What the rows were made with."""
    return {
        "views": str(views) if done == views else f"{done} of {views}: the others failed or are not done yet",
        "seed": str(plan.seed),
        "modalign": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "libraries": ", ".join(f"{name} {known}" for name in (*LIBRARIES, *TOOLS) if (known := _version(name))),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _told_plan(plan: Plan) -> dict[str, Any]:
    protocols = [{"kind": protocol.kind, **asdict(protocol)} for protocol in plan.protocols]
    return {**asdict(plan), "protocols": protocols}


def _columns(rows: Sequence[Row]) -> list[str]:
    everything = dict.fromkeys(key for row in rows for key in row)
    return [*(key for key in SHOWN if key in everything), *(key for key in everything if key not in SHOWN)]


def _flat(row: Row) -> dict[str, object]:
    return {key: "; ".join(value) if key == "reasons" else "" if value is None else value for key, value in row.items()}


def _displacement(row: Row) -> dict[str, object]:
    keys = ("dataset", "protocol", "specimen", "pair", "draw", "width", "error", "error_pixels", "truth")
    return {key: "" if row.get(key) is None else row[key] for key in keys}


def _write_figures(plan: Plan, rows: Sequence[Row], folder: Path) -> None:
    for (dataset, protocol), group in grouped(rows, "dataset", "protocol").items():
        methods = {method: 100 * errors_of(part) for (method,), part in grouped(group, "method").items()}
        best = sorted(methods, key=lambda name: -float(np.mean(methods[name] <= 100 * plan.success)))
        kept = [*[name for name in best if name != DO_NOTHING][:MOST_CURVES], DO_NOTHING]
        curves = {name: success_curve(methods[name], TOLERANCES) for name in kept if name in methods}
        figure = success_figure(
            TOLERANCES, curves, baseline=DO_NOTHING, threshold=100 * plan.success, unit="% of the width"
        )
        with atomic_path(folder / f"success_{dataset}_{_word(protocol)}.svg") as temporary:
            temporary.write_bytes(figure_bytes(figure))
    for (dataset,), group in grouped(rows, "dataset").items():
        with atomic_path(folder / f"error_{dataset}.svg") as temporary:
            temporary.write_bytes(figure_bytes(_scatter(plan, group)))


def _scatter(plan: Plan, rows: Sequence[Row]) -> Any:
    key = ("protocol", "pair", "draw")
    before = {tuple(row[k] for k in key): error_of(row) for row in rows if row["method"] == DO_NOTHING}
    parts = {m: part for (m,), part in grouped(rows, "method").items() if m != DO_NOTHING}
    kept = sorted(parts, key=lambda name: -float(np.mean(errors_of(parts[name]) <= plan.success)))[: MOST_CURVES // 2]
    initial = {m: np.array([100 * before[tuple(row[k] for k in key)] for row in parts[m]]) for m in kept}
    after = {m: 100 * errors_of(parts[m]) for m in kept}
    return error_figure(initial, after, threshold=100 * plan.success)


def _word(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.replace("±", "pm").replace("°", "deg"))


def _write_worst(
    plan: Plan, tasks: Sequence[ViewTask], rows: Sequence[Row], reference: str, folder: Path
) -> dict[tuple[Any, ...], str]:
    """Report pages of the worst cases of the reference, and a montage of them; the addresses of the pages by view."""
    views = {_view_key(task): task.view for task in tasks}
    pages: dict[tuple[Any, ...], str] = {}
    for dataset, worst in worst_rows(rows, reference, plan.worst).items():
        montage: dict[str, Image] = {}
        for row in worst:
            plan_of_view = views[_key(row)]
            view = plan_of_view.load()
            name = f"{plan_of_view.name}.html"
            write_text(
                folder / name, report_page(_content(view, row, plan_of_view.case.fixed, plan_of_view.case.moving))
            )
            pages[_key(row)] = f"{folder.name}/{quote(name)}"
            label = f"{row['pair']}, {row['draw']}, {row['protocol']}: " + (
                "no result" if row.get("error") is None else f"{row['error']:.1%}"
            )
            montage[label] = _overlay(view, row)
        if montage:
            write_image(folder / f"worst_{dataset}.png", panel(montage, columns=4))
    return pages


def _view_key(task: ViewTask) -> tuple[Any, ...]:
    return task.view.dataset, task.view.label, task.view.case.name, task.view.draw


def _key(row: Row) -> tuple[Any, ...]:
    return row["dataset"], row["protocol"], row["pair"], row["draw"]


def _overlay(view: View, row: Row) -> Image:
    """The two images under the transform that was found; under none, where none was."""
    matrix = row.get("matrix") or np.eye(view.fixed.ndim + 1).tolist()
    found = Affine.from_matrix(np.array(matrix))
    return magenta_green(view.fixed, warp(view.moving, view.fixed.grid, found))


def _content(view: View, row: Row, *paths: Path) -> ReportContent:
    """What the page of a row shows; the result is shown whatever the method thought of it, except where refused."""
    matrix, status = row.get("matrix"), row["status"]
    found = None if matrix is None or status in ("refused", "failed") else Affine.from_matrix(np.array(matrix))
    reasons = (f"the error is {_told(row)}", *row["reasons"])
    shown = Registration(
        row["method"], "refused" if found is None else status, found, reasons, confidence=row.get("confidence")
    )
    fixed, moving = (
        InputRecord.of(role, str(path), image, "file")  # type: ignore[arg-type]
        for role, path, image in zip(("fixed", "moving"), paths, (view.fixed, view.moving), strict=True)
    )
    warped = None if found is None else warp(view.moving, view.fixed.grid, found)
    facts = {key: row[key] for key in ("dataset", "protocol", "specimen", "draw", "method")}
    return ReportContent(
        shown, view.fixed, view.moving, warped, (fixed, moving), evidence=evidence_rows({}), provenance=facts
    )


def _told(row: Row) -> str:
    return "not known, as there is no result" if row.get("error") is None else f"{row['error']:.2%} of the width"


def _index(
    plan: Plan, records: Sequence[Mapping[str, Any]], reference: str, pages: Mapping[tuple[Any, ...], str]
) -> str:
    """The overview of the reference's registrations, and of the views that could not be made."""
    listed = []
    for record in records:
        if "rows" not in record:
            details = ("protocol", ""), ("error", "none"), ("right", "no")
            reason = record["reasons"][0]
            listed.append(OverviewRow(record["name"], record["status"], None, reason, details, error=math.inf))
        listed += [
            _listed(plan, row, pages.get(_key(row), "")) for row in record.get("rows", ()) if row["method"] == reference
        ]
    return overview_page(f"Benchmark: registrations by {reference}", listed)


def _listed(plan: Plan, row: Row, page: str) -> OverviewRow:
    details = (
        ("protocol", str(row["protocol"])),
        ("error", "none" if row.get("error") is None else f"{row['error']:.2%}"),
        ("right", "yes" if error_of(row) <= plan.success else "no"),
    )
    name, reason = f"{row['dataset']} {row['pair']}, {row['draw']}", row["reasons"][0] if row.get("reasons") else ""
    return OverviewRow(name, row["status"], row.get("confidence"), reason, details, page, error=error_of(row))
