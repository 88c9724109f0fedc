"""``modalign batch``."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from os.path import exists
from pathlib import Path
from typing import Any
from urllib.parse import quote

import tyro

from modalign.batch.files import KINDS, Kind
from modalign.batch.manifest import read_manifest
from modalign.batch.pairs import PairTask
from modalign.batch.registration import RegistrationJob, cached_model, networks_of
from modalign.batch.run import TASKS, Rerun, records
from modalign.batch.work import FAILED, seconds_of
from modalign.cli.console import EXIT_NOT_TRUSTED, check_device, parse, print_json, print_table
from modalign.cli.engine_choice import EngineName, with_engine_options
from modalign.cli.many import Many, do_tasks
from modalign.errors import BatchError, ModalignError
from modalign.geometry.grid import Unit
from modalign.io import write_table, write_text
from modalign.pipeline import Interpolation
from modalign.registration import Auto, Deform, Method
from modalign.report import OverviewRow, overview_page

NOT_TRUSTED = (FAILED, "refused")
REASONS = 3
"""Commonest reasons of failures that are told at the end."""
COLUMNS = (
    "name",
    "status",
    "confidence",
    "reason",
    "engine",
    "fixed",
    "moving",
    "matrix_zyx",
    "unit",
    "seconds",
    "folder",
)
"""Columns of ``results.csv``."""


@dataclass(frozen=True)
class Batch(Many):
    """Register many pairs: a table with a row a pair in, a folder a pair and an overview of all out.

    The table is a CSV file with the columns fixed and moving, and if wanted name, model, engine, options (as on the
    command line), fixed_mask, moving_mask, fixed_pixel_size, moving_pixel_size, unit and interpolation. What a row
    leaves open is as given here. A pair that fails never stops the others. Exit status 3 where a pair failed or was
    refused.
    """

    manifest: tyro.conf.Positional[Path]
    """The table of pairs; paths in it are relative to its folder."""
    model: Path | None = None
    """Model folder; its two sides are used in the order fixed, moving."""
    engine: EngineName = "auto"
    """How to search; every engine has options of its own, see --engine NAME --help."""
    keep: tuple[Kind, ...] = KINDS
    """Files to write for every pair beside result.json."""
    rerun: Rerun = "nothing"
    """Do the failed and refused pairs again (failed), or also the unsure ones (unsure); goes on like --resume."""
    fixed_pixel_size: tuple[float, ...] | None = None
    """Pixel size of the fixed images where their files have none or a wrong one; one number, or one an axis."""
    moving_pixel_size: tuple[float, ...] | None = None
    """Pixel size of the moving images where their files have none or a wrong one; one number, or one an axis."""
    unit: Unit = "micrometer"
    """Unit of the pixel sizes given here."""
    interpolation: Interpolation = "linear"
    """How aligned images are sampled from the originals."""
    force: bool = False
    """Write transforms and aligned images even where a result was refused."""
    device: str = "cpu"
    """Where the networks compute."""
    method: Method = field(default_factory=Auto, kw_only=True)
    """The engine with its options."""


def run(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    command = parse(with_engine_options(Batch, arguments), "batch", arguments)
    tasks = _tasks(command)
    _check_models(command, tasks)
    goes_on = command.resume or command.rerun != "nothing"
    ours = do_tasks(command, tasks, {"kind": "batch"}, what="pairs", rerun=command.rerun, goes_on=goes_on)
    found = records(tasks, command.out / TASKS)
    again = _again(arguments) if any(record["status"] in NOT_TRUSTED for record in found) else None
    _write_tables(command, found, {task.name: task.job for task in tasks}, again)
    _tell(command, found, {task.name for task in tasks}, again)
    return EXIT_NOT_TRUSTED if any(r["status"] in NOT_TRUSTED for r in found if r["name"] in ours) else 0


def _tasks(command: Batch) -> list[PairTask]:
    shared = {entry.name for entry in fields(RegistrationJob)} & {entry.name for entry in fields(Batch)}
    given = {name: getattr(command, name) for name in shared}
    given["model"] = command.model and command.model.absolute()  # workers may run in other folders
    default = RegistrationJob(Path(), Path(), **given)
    jobs = read_manifest(command.manifest.absolute(), default, _with_options)
    if not any(exists(job.fixed) and exists(job.moving) for job in jobs.values()):
        first = next(iter(jobs.values()))
        raise BatchError(
            f"{command.manifest}: not one of the {len(jobs)} pairs exists, such as {first.fixed} and {first.moving}; "
            "paths are relative to the folder of the manifest"
        )
    return [PairTask(name, _absolute(job), command.keep) for name, job in jobs.items()]


def _absolute(job: RegistrationJob) -> RegistrationJob:
    """A job whose engine names its networks by absolute paths: workers may run in other folders."""
    method = job.method
    if not isinstance(method, Deform):
        return job
    features, network = (folder and str(Path(folder).absolute()) for folder in (method.features, method.network))
    return replace(job, method=replace(method, features=features, network=network))


def _check_models(command: Batch, tasks: Sequence[PairTask]) -> None:
    """Refuse models that cannot be used, on which every pair would fail one by one."""
    models = {task.job.model: task.name for task in tasks if task.job.model is not None}
    check_device(command.device, has_model=bool(models))
    missing = {str(folder) for task in tasks for folder in networks_of(task.job.method) if not folder.is_dir()}
    if missing:
        raise BatchError(f"no such model folder: {', '.join(sorted(missing))}")
    for folder, name in models.items():
        try:
            model = cached_model(folder)
            if command.dask is None:
                model.encoders(device=command.device)
        except ModalignError as error:
            raise BatchError(f"the model of {name!r}: {error}") from error


def _with_options(method: Method, words: list[str]) -> Method:
    """An engine with the options of a cell of the manifest."""
    if not words:
        return method
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
        try:
            return tyro.cli(type(method), args=words, default=method)
        except SystemExit:
            pass
    raise BatchError(
        f"the engine {method.name} does not understand the options {shlex.join(words)!r}; "
        f"see 'modalign register --engine {method.name} --help'"
    )


def _write_tables(
    command: Batch, found: Sequence[Mapping[str, Any]], jobs: Mapping[str, RegistrationJob], again: str | None
) -> None:
    rows = [_row(record, jobs[record["name"]], command.out / TASKS / record["name"]) for record in found]
    write_table(command.out / "results.csv", rows, COLUMNS)
    shown = [_overview(record) for record in found]
    commands = [] if again is None else [("Register only the failed and refused pairs again:", again)]
    page = overview_page(f"Registrations of {command.manifest.name}", shown, commands)
    write_text(command.out / "index.html", page)


def _row(record: Mapping[str, Any], job: RegistrationJob, folder: Path) -> dict[str, object]:
    matrices = record.get("fixed_to_moving") or {}
    return {
        "name": record["name"],
        "status": record["status"],
        "confidence": "" if record.get("confidence") is None else round(record["confidence"], 4),
        "reason": "; ".join(record["reasons"]),
        "engine": job.engine,
        "fixed": str(job.fixed),
        "moving": str(job.moving),
        "matrix_zyx": matrices.get("matrix_zyx", ""),
        "unit": matrices.get("unit", ""),
        "seconds": seconds_of(folder),
        "folder": f"{TASKS}/{record['name']}",
    }


def _overview(record: Mapping[str, Any]) -> OverviewRow:
    place, files = f"{TASKS}/{record['name']}", record.get("files", {})
    page, picture = (quote(f"{place}/{files[kind]}") if kind in files else "" for kind in ("report", "overlay"))
    reason = next(iter(record["reasons"]), "")
    return OverviewRow(record["name"], record["status"], record.get("confidence"), reason, (), page, picture)


def _again(arguments: Sequence[str]) -> str:
    """The same command for the failed and refused pairs of all shards; other options would mean all pairs anew."""
    kept, rest = [], iter(arguments)
    for word in rest:
        name, _, value = word.partition("=")
        if name in ("--rerun", "--shard"):
            next(rest if not value else iter(()), None)
        elif name not in ("--resume", "--no-resume"):
            kept.append(word)
    return shlex.join(["modalign", "batch", *kept, "--rerun", "failed"])


def _tell(command: Batch, found: Sequence[Mapping[str, Any]], listed: Set[str], again: str | None) -> None:
    total = len(listed)
    counts = Counter(str(record["status"]) for record in found)
    numbers = {"pairs": total, **{status: counts[status] for status in sorted(counts)}}
    paths = {"table": str(command.out / "results.csv"), "overview": str(command.out / "index.html")}
    if command.json:
        print_json({**numbers, "not_done": total - len(found), "files": paths})
        return
    if counts:
        print_table([{"verdict": status, "pairs": number} for status, number in sorted(counts.items())])
    failures = Counter(record["reasons"][0] for record in found if record["status"] == FAILED)
    for reason, number in failures.most_common(REASONS):
        print(f"{number} failed: {reason}")
    if len(found) < total:
        print(f"{total - len(found)} of {total} pairs are not done yet")
    left = {path.name for path in (command.out / TASKS).iterdir()} - listed
    if left:
        print(f"{len(left)} folders in {command.out / TASKS} are of pairs that the manifest no longer lists")
    for name, path in paths.items():
        print(f"  {name:<10}{path}")
    if again is not None:
        print(f"the failed and refused ones again: {again}")
