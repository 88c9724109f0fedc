"""A small experiment: pairs with a known truth × methods → rows → a summary a method."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from time import process_time
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from modalign.data.displacement import DisplacedPair
from modalign.errors import InvalidInputError, ModalignError, UnreadableFileError
from modalign.evaluation.metrics import corner_error
from modalign.evaluation.statistics import bootstrap_interval, median_error, success_curve, success_rate
from modalign.geometry import Transform, identity
from modalign.image import Image
from modalign.io import read_table, write_table
from modalign.registration.registrar import Registration, Status

Array = np.ndarray
Method = Callable[[Image, Image], Registration]
Outcome = Literal[Status, "failed"]
"""The status of a registration, or ``failed`` where the method raised an error."""


@dataclass(frozen=True)
class Row:
    """One registration of a study.

    Attributes:
        method: Name of the method.
        specimen: Name of the specimen.
        draw: Number of the displacement.
        error_pixels: Mean over the corners, pixels of the fixed image; infinite where there is no transform.
        initial_error_pixels: The same before registration.
        status: How the method ended.
        seconds: CPU time of the process, summed over its threads.
    """

    method: str
    specimen: str
    draw: int
    error_pixels: float
    initial_error_pixels: float
    status: Outcome
    seconds: float


@dataclass(frozen=True)
class Summary:
    """What a method achieved in a study.

    Attributes:
        method: Name of the method.
        pairs: Number of registrations.
        specimens: Number of specimens that they belong to.
        threshold_pixels: Largest error that counts as success.
        success_rate: Share of the pairs with a transform within the threshold, whatever its status.
        success_low: Lower end of its 95 % interval, from a bootstrap by specimen.
        success_high: Upper end.
        median_error_pixels: Pairs without a transform count as infinitely wrong.
        median_seconds: CPU time a pair.
        accepted: Number of pairs that ended so; ``unsure``, ``refused`` and ``failed`` likewise.
        unsure: See ``accepted``.
        refused: See ``accepted``.
        failed: See ``accepted``.
        false_accepts: Number of pairs with status ``accepted`` and an error above the threshold.
    """

    method: str
    pairs: int
    specimens: int
    threshold_pixels: float
    success_rate: float
    success_low: float
    success_high: float
    median_error_pixels: float
    median_seconds: float
    accepted: int
    unsure: int
    refused: int
    failed: int
    false_accepts: int


def do_nothing(fixed: Image, moving: Image) -> Registration:
    """The method that every other one has to beat: leave the images as they are."""
    if fixed.ndim != moving.ndim:
        raise InvalidInputError(f"a {moving.ndim}D image does not lie in the space of a {fixed.ndim}D one")
    return Registration("do-nothing", "unsure", identity(fixed.ndim), ("the images were left as they are",))


def run_study(
    pairs: Iterable[DisplacedPair],
    methods: Mapping[str, Method],
    progress: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Run every method on every pair.

    Pairs are taken one at a time, so that a generator of pairs needs the memory of one. An error that a method raises
    on purpose (:class:`~modalign.errors.ModalignError`) becomes a row with status ``failed``; any other stops the
    study.

    Args:
        pairs: For example of :func:`modalign.data.displacement.displaced_pairs`.
        methods: Names and functions that take the fixed and the moving image.
        progress: Called with each row as soon as it is there.
    """
    rows = []
    for pair in pairs:
        for name, method in methods.items():
            rows.append(_run(pair, name, method))
            if progress is not None:
                progress(rows[-1])
    return rows


def summarise(rows: Sequence[Row], threshold_pixels: float, *, seed: int = 0) -> list[Summary]:
    """One summary a method, in the order of their first rows; the seed is that of the bootstrap."""
    return [_summary(name, group, threshold_pixels, seed) for name, group in _by_method(rows).items()]


def success_curves(rows: Sequence[Row], tolerances: Float[Array, " n"]) -> dict[str, Float[Array, " n"]]:
    """Success rate of each method at each tolerated error, pixels."""
    return {name: success_curve(_errors(group), tolerances) for name, group in _by_method(rows).items()}


def write_rows(path: str | Path, rows: Sequence[Row] | Sequence[Summary]) -> None:
    """Write rows or summaries as CSV."""
    write_table(path, [asdict(row) for row in rows], None if rows else [field.name for field in fields(Row)])


def read_rows(path: str | Path) -> list[Row]:
    """Read the rows of a study; numbers are exactly those written.

    Raises:
        UnreadableFileError: No such table, a column is missing, or a value cannot be read.
    """
    return [_as_row(path, record) for record in read_table(path)]


def _run(pair: DisplacedPair, name: str, method: Method) -> Row:
    start = process_time()
    found = _attempt(method, pair)
    seconds = process_time() - start
    error = _error_pixels(pair, found.fixed_to_moving if found else None)
    initial = _error_pixels(pair, identity(pair.fixed.ndim))
    return Row(name, pair.specimen, pair.draw, error, initial, found.status if found else "failed", seconds)


def _attempt(method: Method, pair: DisplacedPair) -> Registration | None:
    try:
        return method(pair.fixed, pair.moving)
    except ModalignError:
        return None


def _error_pixels(pair: DisplacedPair, found: Transform | None) -> float:
    if found is None:
        return float("inf")
    return corner_error(found, pair.fixed_to_moving, pair.fixed.grid).mean.pixels


def _by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {name: [row for row in rows if row.method == name] for name in dict.fromkeys(row.method for row in rows)}


def _errors(rows: Sequence[Row]) -> Float[Array, " registrations"]:
    return np.array([row.error_pixels for row in rows], dtype=float)


def _summary(name: str, rows: Sequence[Row], threshold: float, seed: int) -> Summary:
    errors, specimens = _errors(rows), [row.specimen for row in rows]
    succeeded = (errors <= threshold).astype(float)
    interval = bootstrap_interval(succeeded, specimens, lambda share: float(share.mean()), seed=seed)
    statuses = [row.status for row in rows]
    return Summary(
        method=name,
        pairs=len(rows),
        specimens=len(set(specimens)),
        threshold_pixels=threshold,
        success_rate=success_rate(errors, threshold),
        success_low=interval.low,
        success_high=interval.high,
        median_error_pixels=median_error(errors),
        median_seconds=float(np.median([row.seconds for row in rows])),
        accepted=statuses.count("accepted"),
        unsure=statuses.count("unsure"),
        refused=statuses.count("refused"),
        failed=statuses.count("failed"),
        false_accepts=sum(row.status == "accepted" and not row.error_pixels <= threshold for row in rows),
    )


def _as_row(path: str | Path, record: Mapping[str, str]) -> Row:
    kinds: dict[str, Callable[[str], Any]] = {
        "draw": int,
        "error_pixels": float,
        "initial_error_pixels": float,
        "seconds": float,
    }
    try:
        values = {field.name: kinds.get(field.name, str)(record[field.name]) for field in fields(Row)}
    except (KeyError, ValueError) as error:
        raise UnreadableFileError(path, f"not a row of a study: {error!r} in {dict(record)}") from error
    if values["status"] not in get_args(Outcome):
        raise UnreadableFileError(path, f"unknown status {values['status']!r}, not {', '.join(get_args(Outcome))}")
    return Row(**values)
