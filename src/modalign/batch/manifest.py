"""The table of a batch: a row a pair."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

from modalign.batch.registration import RegistrationJob
from modalign.errors import BatchError, ModalignError
from modalign.geometry.grid import Unit
from modalign.io import stem
from modalign.io.tables import parse_table
from modalign.pipeline import Interpolation
from modalign.registration import ENGINES, Method

PATHS = ("fixed", "moving", "model", "fixed_mask", "moving_mask", "fixed_labels", "moving_labels")
SIZES = ("fixed_pixel_size", "moving_pixel_size")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "engine": tuple(ENGINES),
    "unit": get_args(Unit),
    "interpolation": get_args(Interpolation),
}
COLUMNS = ("name", *PATHS, *SIZES, *CHOICES, "options")
"""What a manifest may have; ``fixed`` and ``moving`` are needed."""
FORBIDDEN = set('/\\:*?"<>|')
"""Characters that a file system somewhere does not take."""
LONGEST_NAME = 200
"""Bytes; temporary names beside it are a little longer, and few file systems take more than 255."""
SHOWN = 5
"""Problems named in one message."""

ParseOptions = Callable[[Method, list[str]], Method]
"""An engine with other options, given as words of the command line."""


def read_manifest(path: Path, default: RegistrationJob, parse: ParseOptions) -> dict[str, RegistrationJob]:
    """The jobs of a CSV file by name, in its order.

    Paths are relative to the folder of the table. An empty cell, or a column that is not there, leaves what ``default``
    says. ``options`` holds options of the engine as on the command line, such as ``--max-rotation-degrees 40``. Without
    a column ``name`` a pair is called after its two files.

    Args:
        path: The table.
        default: What holds where a row says nothing; its two images are not used.
        parse: Reads the column ``options``.

    Raises:
        BatchError: A column is unknown or missing, a value makes no sense, or two pairs have one name; the message
            names the lines.
        UnreadableFileError: The table cannot be read.
    """
    table = parse_table(path)
    _check_columns(path, table.columns)
    jobs: dict[str, RegistrationJob] = {}
    lines: dict[str, int] = {}
    problems: list[str] = []
    cache: dict[tuple[str, str], Method] = {}
    for line, row in table.rows:
        try:
            job = _job(path.parent, row, default, parse, cache)
            name = row.get("name") or f"{stem(job.fixed)}__{stem(job.moving)}"
            _check_name(name, lines)
        except ModalignError as error:
            problems.append(f"line {line}: {error}")
            continue
        jobs[name], lines[name.casefold()] = job, line
    _complain(path, problems)
    if not jobs:
        raise BatchError(f"{path}: the manifest has no rows; give every pair one, with the columns fixed and moving")
    return jobs


def _check_columns(path: Path, columns: tuple[str, ...]) -> None:
    unknown = [column for column in columns if column not in COLUMNS]
    missing = [column for column in ("fixed", "moving") if column not in columns]
    if unknown or missing:
        what = [f"unknown column {name!r}" for name in unknown] + [f"no column {name!r}" for name in missing]
        raise BatchError(f"{path}: {', '.join(what)}; a manifest has {', '.join(COLUMNS)}")


def _job(
    base: Path,
    row: Mapping[str, str],
    default: RegistrationJob,
    parse: ParseOptions,
    cache: dict[tuple[str, str], Method],
) -> RegistrationJob:
    given = {key: value for key, value in row.items() if value}
    for role in ("fixed", "moving"):
        if role not in given:
            raise BatchError(f"no file is named in {role!r}")
    values: dict[str, Any] = {key: base / given[key] for key in PATHS if key in given}
    values |= {key: _sizes(key, given[key]) for key in SIZES if key in given}
    values |= {key: _choice(key, given[key]) for key in CHOICES if key in given}
    if "engine" in given or "options" in given:
        key = (given.get("engine", ""), given.get("options", ""))
        if key not in cache:
            start = default.method if key[0] in ("", default.engine) else ENGINES[key[0]]
            cache[key] = parse(start, _words(key[1]))
        values["method"] = cache[key]
    return replace(default, **values)


def _words(options: str) -> list[str]:
    try:
        return shlex.split(options)
    except ValueError:
        raise BatchError(f"a quotation mark is not closed in the options {options!r}") from None


def _sizes(column: str, text: str) -> tuple[float, ...]:
    """One number for all axes, or one an axis."""
    return tuple(_number(column, word) for word in text.split())


def _number(column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BatchError(f"{column} is not a number: {text!r}") from None


def _choice(column: str, text: str) -> str:
    if text not in CHOICES[column]:
        raise BatchError(f"unknown {column} {text!r}; known are {', '.join(CHOICES[column])}")
    return text


def _check_name(name: str, lines: Mapping[str, int]) -> None:
    if name.casefold() in lines:
        raise BatchError(
            f"the pair {name!r} is already on line {lines[name.casefold()]}; name them apart in a column 'name'"
        )
    if FORBIDDEN & set(name) or name[0] == "." or name[-1] == "." or not name.isprintable():
        raise BatchError(f"{name[:40]!r} cannot be the name of a folder; use letters, digits, '-' and '_'")
    if len(name.encode()) > LONGEST_NAME:
        raise BatchError(f"the name {name[:40]!r}… is too long for a folder; give shorter ones in a column 'name'")


def _complain(path: Path, problems: list[str]) -> None:
    if problems:
        rest = len(problems) - SHOWN
        more = f"; and {rest} more" if rest > 0 else ""
        raise BatchError(f"{path}: {'; '.join(problems[:SHOWN])}{more}")


assert set(COLUMNS) - {"name", "options"} <= {entry.name for entry in fields(RegistrationJob)}
