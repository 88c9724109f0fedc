"""``modalign register``."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import tyro

from modalign.batch.files import RECORD, Finished, as_record, as_result, write_files
from modalign.batch.registration import RegistrationJob
from modalign.cli.console import EXIT_NOT_TRUSTED, parse, print_json
from modalign.cli.engine_choice import EngineName, with_engine_options
from modalign.io import make_folder, write_json


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
    with _folder(command.out):
        started = perf_counter()
        job = command.run()
    seconds = round(perf_counter() - started, 3)
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
    for name, path in result["files"].items():
        print(f"  {name.replace('_', ' '):<22}{path}")
    if job.model is None and result["status"] != "accepted":
        print("the intensities may have too little in common; a model made with 'modalign train' may help")
    if "transform" in result["files"]:
        print(f"next: modalign apply IMAGE {result['files']['transform']} --like {job.command.fixed} --out FILE")
