"""``modalign evaluate``."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from modalign.cli.console import parse, print_json, print_table, warn_unless_trusted
from modalign.errors import InvalidInputError
from modalign.evaluation import Tolerance, evaluate_against_truth, evaluate_landmarks
from modalign.geometry import Grid
from modalign.io import StoredTransform, read_image, read_points, read_transform

CLOSE = 0.1
"""Pixels by which the corners of one image may differ between two files, as where pixel sizes are rounded."""


@dataclass(frozen=True)
class Evaluate:
    """Measure a transform: at the image corners against a known transform, or at landmarks."""

    transform: tyro.conf.Positional[Path]
    """The transform to judge."""
    truth: Path | None = None
    """The known transform."""
    landmarks: tuple[Path, Path] | None = None
    """Two CSV files, the same points in the fixed and in the moving image, row by row, columns x and y (and z)."""
    like: Path | None = None
    """The fixed image; needed where the transform file does not tell its size."""
    thresholds: tuple[float, ...] = (0.01, 0.02, 0.05)
    """Errors up to these fractions of the image width count as success."""
    json: bool = False
    """Print one JSON object."""


def run(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    command = parse(Evaluate, "evaluate", arguments)
    if (command.truth is None) == (command.landmarks is None):
        raise InvalidInputError("give either --truth TRANSFORM.json or --landmarks FIXED.csv MOVING.csv")
    if not all(0 < threshold < float("inf") for threshold in command.thresholds):
        raise InvalidInputError(f"thresholds are positive fractions of the image width, not {command.thresholds}")
    stored = read_transform(command.transform)
    warn_unless_trusted(command.transform, stored)
    evaluation = _evaluate(command, stored, _grid(command, stored))
    if command.json:
        print_json(evaluation)
    else:
        _tell(evaluation)
    return 0


def _evaluate(command: Evaluate, stored: StoredTransform, grid: Grid) -> dict[str, Any]:
    thresholds = [Tolerance(value) for value in command.thresholds]
    if command.landmarks is None:
        assert command.truth is not None  # checked by the caller
        truth = read_transform(command.truth)
        _check_same_worlds(command, stored, truth)
        return asdict(evaluate_against_truth(stored.transform, truth.transform, grid, thresholds))
    moving_unit = stored.moving.unit if stored.moving else grid.unit
    fixed, moving = command.landmarks
    points = read_points(fixed, unit=grid.unit), read_points(moving, unit=moving_unit)
    return asdict(evaluate_landmarks(stored.transform, *points, grid, thresholds))


def _check_same_worlds(command: Evaluate, found: StoredTransform, truth: StoredTransform) -> None:
    """Points of two transforms can be compared only where both mean the same images in the same places."""
    for role in ("fixed", "moving"):
        one, other = getattr(found, role), getattr(truth, role)
        if one is None or other is None:
            continue
        if one.unit != other.unit:
            raise InvalidInputError(
                f"the two transforms are in different units ({command.transform}: {one.unit}, {command.truth}: "
                f"{other.unit} for the {role} image); register with the pixel sizes that the truth was made with"
            )
        if different := _difference(one, other):
            raise InvalidInputError(
                f"the {role} image is not the same in both files: {different}; {command.transform} and {command.truth} "
                "cannot be compared"
            )


def _difference(one: Grid, other: Grid) -> str:
    """In what two grids of one unit differ, in words; empty where they are the same."""
    if one.shape == other.shape and np.abs(one.corners - other.corners).max() <= CLOSE * min(one.spacing):
        return ""
    for name in ("shape", "spacing", "origin", "direction"):
        a, b = getattr(one, name), getattr(other, name)
        if np.shape(a) != np.shape(b) or not np.allclose(a, b, rtol=1e-6, atol=1e-9):
            return f"{name} {a} and {b}"
    return ""


def _grid(command: Evaluate, stored: StoredTransform) -> Grid:
    if command.like is not None:
        grid = read_image(command.like, ndim=stored.transform.ndim).grid
        if stored.fixed is not None and grid.unit != stored.fixed.unit:
            raise InvalidInputError(
                f"{command.like} is in {grid.unit}, the transform was found in {stored.fixed.unit}; leave --like out"
            )
        return grid
    if stored.fixed is None:
        raise InvalidInputError(f"{command.transform} does not tell the size of the fixed image; add --like FIXED")
    return stored.fixed


def _tell(evaluation: dict[str, Any]) -> None:
    unit = evaluation["unit"]
    rows = []
    for when, title in (("initial_error", "before"), ("error", "after")):
        for measure, value in evaluation[when].items():
            if isinstance(value, dict) and "pixels" in value:
                rows.append(
                    {
                        "": title,
                        "distance": measure,
                        "pixels": f"{value['pixels']:.3f}",
                        unit: f"{value['world']:.3f}",
                        "of width": f"{value['relative']:.3%}",
                    }
                )
    print_table(rows)
    for success in evaluation["success"]:
        tolerance = success["tolerance"]["value"]
        print(f"within {tolerance:.1%} of the width: {'yes' if success['reached'] else 'no'}")
