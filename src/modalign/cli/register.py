"""``modalign register``."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import tyro

from modalign.batch.files import RECORD, Finished, as_record, as_result, report_content, write_files
from modalign.batch.registration import RegistrationJob
from modalign.cli.console import EXIT_NOT_TRUSTED, check_device, parse, print_json, stages
from modalign.cli.engine_choice import EngineName, with_engine_options
from modalign.io import make_folder, write_json
from modalign.report.advice import advice, command_line

SUGGESTIONS = 2
"""Commands to try that are told where a result is not trusted; the report has more."""


@dataclass(frozen=True)
class Register(RegistrationJob):
    """Find the transform between two images, and bring the moving one onto the fixed one.

    Without a model the intensities themselves are compared. Writes a report, the transform (JSON and ITK), the aligned
    image, overlays and the result into a folder. Exit status 3 where the result was refused; then there is a report
    alone.
    """

    fixed: tyro.conf.Positional[Path]
    """The image that stays."""
    moving: tyro.conf.Positional[Path]
    """The image to bring onto it."""
    out: Path = field(kw_only=True)
    """Folder for the results."""
    engine: EngineName = "auto"
    """How to search; every engine has options of its own, see --engine NAME --help."""
    strict: bool = False
    """Exit with status 3 unless the result is accepted, and so also where it is unsure."""
    json: bool = False
    """Print the result as one JSON object."""


def run(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    command = parse(with_engine_options(Register, arguments), "register", arguments)
    check_device(command.device, has_model=command.model is not None)
    with stages("register") as tell:
        with _folder(command.out):
            started = perf_counter()
            job = command.run(tell)
        seconds = round(perf_counter() - started, 3)
        tell("write the files")
        paths = write_files(job, command.out)
    files = {name: str(path) for name, path in (*paths.items(), ("result", command.out / RECORD))}
    write_json(command.out / RECORD, {**as_record(job, files), "seconds": seconds})
    _tell(command, job, {**as_result(job, files), "seconds": seconds})
    trusted = ("accepted",) if command.strict else ("accepted", "unsure")
    return 0 if job.alignment.registration.status in trusted else EXIT_NOT_TRUSTED


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """The folder for the results, which is there before the work starts, and gone again if the work fails."""
    is_new = not path.exists()
    make_folder(path)
    try:
        yield
    except BaseException:
        if is_new:
            path.rmdir()
        raise


def _tell(command: Register, job: Finished, result: Mapping[str, Any]) -> None:
    """Say what came out, and what to type next."""
    if command.json:
        print_json(result)
        return
    confidence = "" if result["confidence"] is None else f" (confidence {result['confidence']:.2f})"
    print(f"{result['status']}{confidence}: {'; '.join(result['reasons'])}")
    for note in result["notes"]:
        print(f"note: {note}")
    if "labels" in result:
        print(f"labels: {_agreement(result['labels'])}")
    for name, path in result["files"].items():
        print(f"  {name.replace('_', ' '):<22}{path}")
    if result["status"] != "accepted":
        for suggestion in advice(report_content(job, command.out, command.out))[:SUGGESTIONS]:
            print(f"try: {suggestion.purpose}\n  {suggestion.line}")
    if "transform" in result["files"]:
        line = command_line(("modalign", "apply", "IMAGE", result["files"]["transform"], "--out", "FILE"))
        print(f"next{_caution(result['status'])}: {line}")


def _agreement(labels: Mapping[str, float | None]) -> str:
    """How well the labels agree, in words."""
    after = "no transform, so nothing after" if labels["dice"] is None else f"{labels['dice']:.3f} after"
    return f"mean Dice {labels['dice_before']:.3f} before, {after}"


def _caution(status: str) -> str:
    words = {"refused": " (not to be trusted: it was refused)", "unsure": " (once the report has convinced you)"}
    return words.get(status, "")
