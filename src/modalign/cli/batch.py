"""``modalign batch``."""

import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from os.path import exists
from pathlib import Path
from typing import Any
from urllib.parse import quote

import tyro

from modalign.batch.cluster import Cluster
from modalign.batch.files import KINDS, Kind
from modalign.batch.manifest import read_manifest
from modalign.batch.pairs import PairTask
from modalign.batch.processes import Processes
from modalign.batch.registration import RegistrationJob
from modalign.batch.run import TASKS, Executor, Rerun, Shard, open_folder, records, run_tasks, sorted_out
from modalign.batch.work import FAILED, Outcome, seconds_of
from modalign.cli.console import EXIT_NOT_TRUSTED, parse, print_json, print_table, progress
from modalign.cli.engine_choice import EngineName, with_engine_options
from modalign.errors import BatchError
from modalign.geometry.grid import Unit
from modalign.io import atomic_path, write_table
from modalign.pipeline import Interpolation
from modalign.registration import Auto, Method
from modalign.report import OverviewRow, overview_page

NOT_TRUSTED = (FAILED, "refused")
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
class Batch:
    """Register many pairs: a table with a row a pair in, a folder a pair and an overview of all out.

    The table is a CSV file with the columns fixed and moving, and if wanted name, model, engine, options (as on the
    command line), fixed_mask, moving_mask, fixed_pixel_size, moving_pixel_size, unit and interpolation. What a row
    leaves open is as given here. A pair that fails never stops the others. Exit status 3 where a pair failed or was
    refused.
    """

    manifest: tyro.conf.Positional[Path]
    """The table of pairs; paths in it are relative to its folder."""
    out: Path = field(kw_only=True)
    """Folder for the results."""
    model: Path | None = None
    """Model folder; its two sides are used in the order fixed, moving."""
    engine: EngineName = "auto"
    """How to search; every engine has options of its own, see --engine NAME --help."""
    keep: tuple[Kind, ...] = KINDS
    """Files to write for every pair beside result.json."""
    resume: bool = False
    """Go on where an earlier run was interrupted; what is done with the same inputs and options is not done again."""
    rerun: Rerun = "nothing"
    """Do the failed and refused pairs again (failed), or also the unsure ones (unsure); goes on like --resume."""
    workers: int = 1
    """Processes on this machine."""
    threads: int = 1
    """Threads of each process."""
    max_memory: float | None = None
    """GiB that each process may use; by default its share of four fifths of the machine."""
    dask: str | None = None
    """Address of the scheduler of a Dask cluster that does the work instead."""
    shard: str = "1/1"
    """Only every N-th pair beginning with the I-th, as I/N, for array jobs that share the output folder."""
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
    json: bool = False
    """Print the numbers as one JSON object."""
    method: Method = field(default_factory=Auto, kw_only=True)
    """The engine with its options."""


def run(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    command = parse(with_engine_options(Batch, arguments), "batch", arguments)
    tasks = _tasks(command)
    mine = Shard.parse(command.shard).of_tasks(tasks)
    executor = _executor(command)
    goes_on = command.resume or command.rerun != "nothing"
    folder = open_folder(command.out, tasks, {"kind": "batch"}, resume=goes_on, mine=mine)
    with progress("look     ") as advance:
        known, todo = sorted_out(mine, folder, command.rerun, lambda done: advance(done, "what is done already"))
    print(f"{len(tasks)} pairs, {len(known)} done before, {len(todo)} to do by {executor}", file=sys.stderr)
    counts = Counter(outcome.status for outcome in known)
    with progress("register ") as advance:

        def tell(outcome: Outcome, number: int) -> None:
            counts[outcome.status] += 1
            advance(number / len(todo), f"{number} of {len(todo)}: {_counted(counts)}")

        run_tasks(todo, folder, executor, tell)
    found = records(tasks, folder)
    again = _again(arguments) if any(record["status"] in NOT_TRUSTED for record in found) else None
    _write_tables(command, found, {task.name: task.job for task in tasks}, again)
    _tell(command, found, len(tasks), again)
    ours = {task.name for task in mine}
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
    return [PairTask(name, job, command.keep) for name, job in jobs.items()]


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


def _executor(command: Batch) -> Executor:
    if command.dask is not None:
        return Cluster(command.dask)
    return Processes(command.workers, command.threads, command.max_memory)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[status]} {status}" for status in sorted(counts)) or "none"


def _write_tables(
    command: Batch, found: Sequence[Mapping[str, Any]], jobs: Mapping[str, RegistrationJob], again: str | None
) -> None:
    rows = [_row(record, jobs[record["name"]], command.out / TASKS / record["name"]) for record in found]
    write_table(command.out / "results.csv", rows, COLUMNS)
    shown = [_overview(record) for record in found]
    commands = [] if again is None else [("Register only the failed and refused pairs again:", again)]
    with atomic_path(command.out / "index.html") as temporary:
        page = overview_page(f"Registrations of {command.manifest.name}", shown, commands)
        temporary.write_text(page, encoding="utf-8")


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


def _tell(command: Batch, found: Sequence[Mapping[str, Any]], total: int, again: str | None) -> None:
    counts = Counter(str(record["status"]) for record in found)
    numbers = {"pairs": total, **{status: counts[status] for status in sorted(counts)}}
    paths = {"table": str(command.out / "results.csv"), "overview": str(command.out / "index.html")}
    if command.json:
        print_json({**numbers, "not_done": total - len(found), "files": paths})
        return
    if counts:
        print_table([{"verdict": status, "pairs": number} for status, number in sorted(counts.items())])
    if len(found) < total:
        print(f"{total - len(found)} of {total} pairs are not done yet")
    for name, path in paths.items():
        print(f"  {name:<10}{path}")
    if again is not None:
        print(f"the failed and refused ones again: {again}")
