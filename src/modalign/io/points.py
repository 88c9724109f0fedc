"""Points as CSV, in world units."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modalign.errors import UnreadableFileError
from modalign.geometry.grid import Unit
from modalign.image import Points
from modalign.io.tables import parse_table, write_table

NAME_COLUMNS = ("name", "", "id", "label", "index", "landmark")
"""Columns that name points, the best first; the one without a title is the index that pandas and R write."""


def read_points(path: str | Path, *, unit: Unit = "pixel") -> Points:
    """Read points in world units from a CSV table with columns ``x``, ``y`` and, in 3D, ``z``.

    Columns may come in any order and in capitals, and others are left alone, except that a column ``name`` (or
    ``id``, ``label``, ``index``, ``landmark``, or one without a title) names the points.

    Args:
        path: The table.
        unit: The unit of the numbers, which the file does not say: that of the image that the points belong to.

    Raises:
        UnreadableFileError: No such columns, or a value that is not a finite number; the message names the line.
    """
    path = Path(path)
    table = parse_table(path)
    axes = _coordinate_columns(path, table.columns)
    values = [[_number(path, line, axis, row[axis]) for axis in axes] for line, row in table.rows]
    named_by = next((title for wanted in NAME_COLUMNS for title in table.columns if title.lower() == wanted), None)
    names = () if named_by is None else tuple(row[named_by] for _, row in table.rows)
    return Points(np.array(values, dtype=float).reshape(-1, len(axes)), unit, names)


def write_points(path: str | Path, points: Points, *, like: str | Path | None = None) -> None:
    """Write points in world units as CSV with columns ``name`` (where they have names), ``x``, ``y`` and, in 3D, ``z``.

    Args:
        path: The file to write.
        points: The points.
        like: The table that they were read from: its columns, titles and other values are kept instead.

    Raises:
        OutputError: The file cannot be written.
        UnreadableFileError: ``like`` is no table of as many points.
    """
    if like is not None:
        _write_into(Path(path), points, Path(like))
        return
    axes = "xyz"[: points.coordinates.shape[1]]
    rows: list[dict[str, object]] = [
        dict(zip(axes, reversed(point), strict=True)) for point in points.coordinates.tolist()
    ]
    if points.names:
        rows = [{"name": name, **row} for name, row in zip(points.names, rows, strict=True)]
    write_table(path, rows, [*(["name"] if points.names else []), *axes])


def _write_into(path: Path, points: Points, like: Path) -> None:
    table = parse_table(like)
    axes = _coordinate_columns(like, table.columns)
    if points.coordinates.shape != (len(table.rows), len(axes)):
        raise UnreadableFileError(like, f"does not hold {len(points.coordinates)} points of these dimensions")
    moved = [dict(zip(axes, point, strict=True)) for point in points.coordinates.tolist()]
    write_table(path, [row | new for (_, row), new in zip(table.rows, moved, strict=True)], table.columns)


def _coordinate_columns(path: Path, titles: Sequence[str]) -> list[str]:
    """The titles of the coordinates in array order, z (if there), y, x."""
    found = {axis: [title for title in titles if title.lower() == axis] for axis in "zyx"}
    twice = [axis for axis, same in found.items() if len(same) > 1]
    if twice:
        raise UnreadableFileError(path, f"the column {twice[0]} occurs twice in the header")
    if not (found["x"] and found["y"]):
        raise UnreadableFileError(
            path, f"points need a header line with columns x, y (and z in 3D), not {', '.join(titles)}"
        )
    return [title for same in found.values() for title in same]


def _number(path: Path, line: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UnreadableFileError(path, f"line {line}: {column} is {text!r}, not a finite number")
    return value
