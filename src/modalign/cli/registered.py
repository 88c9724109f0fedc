"""What ``modalign register`` leaves behind: files, the report, and what is said on the screen."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from modalign import __version__
from modalign.cli.console import print_json
from modalign.geometry import Transform
from modalign.image import Image
from modalign.io import atomic_path, transform_to_dict, write_image, write_json, write_transform
from modalign.pipeline import Alignment, Interpolation, warp
from modalign.registration import Method, method_to_dict
from modalign.registration.evidence import Evidence
from modalign.registration.facts import facts
from modalign.report import (
    Download,
    EvidenceRow,
    InputRecord,
    RegisterCommand,
    ReportContent,
    apply_commands,
    checkerboard,
    magenta_green,
    pictures,
    report_page,
    transform_csv,
)

LIBRARIES = ("numpy", "scipy", "torch", "opencv-python-headless", "simpleitk")
"""Libraries whose versions the provenance names."""


@dataclass(frozen=True)
class Job:
    """One registration with all that is known about it.

    Attributes:
        out: Folder for the results.
        command: The command that was run.
        method: The engine with its options.
        interpolation: How the aligned image is sampled.
        inputs: The two files as understood.
        fixed: The fixed image.
        moving: The moving image.
        alignment: What was found.
        seconds: Wall time.
        model: The model folder and the hash of its card, if there was a model.
    """

    out: Path
    command: RegisterCommand
    method: Method
    interpolation: Interpolation
    inputs: tuple[InputRecord, InputRecord]
    fixed: Image
    moving: Image
    alignment: Alignment
    seconds: float
    model: Mapping[str, str] | None
    force: bool

    @property
    def transform(self) -> Transform | None:
        """The transform to write: the one found, or the one that was refused if that is asked for."""
        registration = self.alignment.registration
        return registration.candidate if self.force else registration.fixed_to_moving

    @property
    def warped(self) -> Image | None:
        """The moving image under that transform."""
        if self.alignment.warped is not None or self.transform is None:
            return self.alignment.warped
        return warp(self.moving, self.fixed.grid, self.transform, interpolation=self.interpolation)


def write_results(job: Job) -> dict[str, Any]:
    """Write all files, and return the result as it is printed.

    A refused result leaves a report, but no transform and no aligned image, not even an old one.
    """
    suffix = ".tif" if job.fixed.ndim == 2 else ".nii.gz"
    paths = {
        "report": job.out / "report.html",
        "transform": job.out / "transform.json",
        "itk_transform": job.out / "transform.tfm",
        "aligned": job.out / f"aligned{suffix}",
        "checkerboard": job.out / "checkerboard.png",
        "overlay": job.out / "overlay.png",
        "fixed_representation": job.out / "fixed_representation.png",
        "moving_representation": job.out / "moving_representation.png",
    }
    record = job.out / "result.json"
    for path in (*paths.values(), record):
        path.unlink(missing_ok=True)
    _write_aligned(job, paths)
    if job.model is not None:
        shown = pictures([job.alignment.fixed, job.alignment.moving])
        for role, picture in zip(("fixed", "moving"), shown, strict=True):
            write_image(paths[f"{role}_representation"], picture)
    with atomic_path(paths["report"]) as temporary:
        temporary.write_text(report_page(report_content(job)), encoding="utf-8")
    files = {name: str(path) for name, path in paths.items() if path.is_file()} | {"result": str(record)}
    result = as_result(job, files)
    registration = job.alignment.registration
    numbers = {"stats": dict(registration.stats), "evidence": dict(registration.evidence)}
    write_json(record, {**result, **numbers, "provenance": provenance(job)})
    return result


def _write_aligned(job: Job, paths: Mapping[str, Path]) -> None:
    found, warped = job.transform, job.warped
    if found is None or warped is None:
        return
    registration = job.alignment.registration
    info = {"engine": registration.engine, "status": registration.status, "confidence": registration.confidence}
    write_transform(paths["transform"], found, fixed=job.fixed.grid, moving=job.moving.grid, info=info)
    write_transform(paths["itk_transform"], found, fixed=job.fixed.grid, moving=job.moving.grid)
    write_image(paths["aligned"], warped)
    write_image(paths["checkerboard"], checkerboard(job.fixed, warped))
    write_image(paths["overlay"], magenta_green(job.fixed, warped))


def report_content(job: Job) -> ReportContent:
    """What the report of a registration shows."""
    alignment, registration = job.alignment, job.alignment.registration
    found = registration.fixed_to_moving
    transform_path = str(job.out / "transform.json")
    return ReportContent(
        registration,
        job.fixed,
        job.moving,
        alignment.warped,
        job.inputs,
        representations=None if job.model is None else (alignment.fixed, alignment.moving),
        command=job.command,
        evidence=evidence_rows(registration.evidence),
        commands=() if found is None else apply_commands(transform_path, job.command.fixed, job.command.moving),
        downloads=() if found is None else _downloads(job, found),
        provenance=provenance(job),
    )


def evidence_rows(evidence: Mapping[str, float]) -> tuple[EvidenceRow, ...]:
    """The evidence in words; nothing before the verdict."""
    told = facts(Evidence(**evidence)) if evidence else ()
    return tuple(EvidenceRow(fact.name, fact.number, fact.sentence, fact.favours) for fact in told)


def _downloads(job: Job, found: Transform) -> tuple[Download, ...]:
    files = [job.out / "transform.json", job.out / "transform.tfm"]
    kept = tuple(Download(path.name, path.read_text(encoding="utf-8")) for path in files if path.is_file())
    return (*kept, Download("transform.csv", transform_csv(found)))


def provenance(job: Job) -> dict[str, Any]:
    """How the result came about."""
    return {
        "command": list(job.command.words),
        "method": method_to_dict(job.method),
        "interpolation": job.interpolation,
        "model": job.model,
        "inputs": {record.role: {"path": record.path, "sha256": record.sha256} for record in job.inputs},
        "seconds": job.seconds,
        "modalign": __version__,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def as_result(job: Job, files: Mapping[str, str]) -> dict[str, Any]:
    """The result as one JSON object."""
    registration, found = job.alignment.registration, job.transform
    matrices = None
    if found is not None:
        saved = transform_to_dict(found, fixed=job.fixed.grid, moving=job.moving.grid)
        matrices = {key: saved[key] for key in ("type", "matrix_xy", "matrix_zyx", "unit", "moving_unit")}
    return {
        "status": registration.status,
        "confidence": registration.confidence,
        "reasons": list(registration.reasons),
        "notes": list(registration.notes),
        "engine": registration.engine,
        "fixed_to_moving": matrices,
        "seconds": job.seconds,
        "files": dict(files),
    }


def tell(job: Job, result: Mapping[str, Any], *, as_json: bool) -> None:
    """Say what came out, and what to type next."""
    if as_json:
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


def sha256(path: Path) -> str:
    """Hash of the content of a file; of a folder, that of its names and contents in order."""
    digest = hashlib.sha256()
    for file in _files(path):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _files(path: Path) -> Sequence[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
