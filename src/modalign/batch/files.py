"""What a registration leaves behind: its files, the report, and the record of how it came about."""

import hashlib
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

from modalign import __version__
from modalign.batch.work import RECORD as RECORD
from modalign.geometry import Linear, Transform, simplified
from modalign.image import Image, Labels
from modalign.io import staged, transform_to_dict, write_image, write_transform
from modalign.pipeline import Alignment, Interpolation, warp
from modalign.registration import Method, method_to_dict
from modalign.registration.evidence import Evidence
from modalign.registration.facts import facts
from modalign.report import (
    Comparison,
    Download,
    EvidenceRow,
    InputRecord,
    LabelledPair,
    RegisterCommand,
    ReportContent,
    apply_commands,
    checkerboard,
    magenta_green,
    pictures,
    plane,
    report_page,
    shrunk,
    transform_csv,
)

SUFFIXES = {2: ".tif", 3: ".nii.gz"}
LIBRARIES = ("numpy", "scipy", "torch", "opencv-python-headless", "simpleitk")
"""Libraries whose versions the provenance names."""

LARGEST_DOWNLOAD = 4 << 20
"""Bytes of a file that the report offers within itself; larger ones lie beside it only."""

Kind = Literal["report", "transform", "aligned", "pictures"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Kinds of files beside the record of the result, which is always written."""


@dataclass(frozen=True)
class Finished:
    """One registration with all that is known about it.

    Attributes:
        command: The command that was run, or one that would do the same.
        method: The engine with its options.
        interpolation: How the aligned image is sampled.
        inputs: The two files as understood.
        fixed: The fixed image.
        moving: The moving image.
        alignment: What was found.
        model: The model folder and the hash of its content, if there was a model.
        force: Whether the transform is kept even where it was refused.
        labels: Label maps of the fixed and of the moving image, where there are some.
        networks: Model folders that the engine uses, with the hashes of their contents.
    """

    command: RegisterCommand
    method: Method
    interpolation: Interpolation
    inputs: tuple[InputRecord, InputRecord]
    fixed: Image
    moving: Image
    alignment: Alignment
    model: Mapping[str, str] | None
    force: bool
    labels: tuple[Labels | None, Labels | None] = (None, None)
    networks: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def labelled(self) -> LabelledPair | None:
        """The labels before and after; none without labels."""
        fixed, moving = self.labels
        if fixed is None or moving is None:
            return None
        comparison = Comparison.of(self.fixed, self.moving)
        return LabelledPair.of(fixed, moving, comparison.space.to_world(comparison.before), self.transform)

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


def write_files(job: Finished, out: Path, kinds: Collection[Kind] = KINDS) -> dict[str, Path]:
    """Write all files but the record, and return those that there are by name.

    They replace those of an older result together, at the end. A refused result leaves a report, but no transform and
    no aligned image, not even an old one.
    """
    names = {
        "report": "report.html",
        "transform": "transform.json",
        "itk_transform": "transform.tfm",
        "displacement": "displacement.nii.gz",
        "aligned": f"aligned{SUFFIXES[job.fixed.ndim]}",
        "checkerboard": "checkerboard.png",
        "overlay": "overlay.png",
        "fixed_representation": "fixed_representation.png",
        "moving_representation": "moving_representation.png",
    }
    with staged(out, (*names.values(), RECORD)) as folder:
        paths = {key: folder / name for key, name in names.items()}
        _write_aligned(job, paths, kinds)
        if job.model is not None and "pictures" in kinds:
            shown = pictures([shrunk(plane(image)) for image in (job.alignment.fixed, job.alignment.moving)])
            for role, picture in zip(("fixed", "moving"), shown, strict=True):
                write_image(paths[f"{role}_representation"], picture)
        if "report" in kinds:
            paths["report"].write_text(report_page(report_content(job, folder, out)), encoding="utf-8")
    return {key: out / name for key, name in names.items() if (out / name).is_file()}


def _write_aligned(job: Finished, paths: Mapping[str, Path], kinds: Collection[Kind]) -> None:
    found = job.transform
    if found is None:
        return
    registration = job.alignment.registration
    if "transform" in kinds:
        info = {"engine": registration.engine, "status": registration.status, "confidence": registration.confidence}
        write_transform(paths["transform"], found, fixed=job.fixed.grid, moving=job.moving.grid, info=info)
        if other := _for_other_tools(found, job):
            write_transform(paths[other], found, fixed=job.fixed.grid, moving=job.moving.grid)
    warped = job.warped if {"aligned", "pictures"} & set(kinds) else None
    if warped is not None and "aligned" in kinds:
        write_image(paths["aligned"], warped)
    if warped is not None and "pictures" in kinds:
        pair = plane(job.fixed), plane(warped)
        write_image(paths["checkerboard"], checkerboard(*pair))
        write_image(paths["overlay"], magenta_green(*pair))


def _for_other_tools(found: Transform, job: Finished) -> str | None:
    """The kind of file that ITK reads: a matrix, or a field where the transform bends and both share one world."""
    merged = simplified(found)
    if isinstance(merged, Linear):
        return "itk_transform"
    units = job.fixed.grid.unit, job.moving.grid.unit
    return "displacement" if units[0] == units[1] or "pixel" not in units else None


def report_content(job: Finished, folder: Path, out: Path | None = None) -> ReportContent:
    """What the report of a registration shows whose files lie in a folder for now, and will lie in another."""
    alignment, registration = job.alignment, job.alignment.registration
    found = registration.fixed_to_moving
    transform_path = str((out or folder) / "transform.json")
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
        downloads=() if found is None else _downloads(folder, found),
        provenance=provenance(job),
        labels=job.labelled,
    )


def evidence_rows(evidence: Mapping[str, float]) -> tuple[EvidenceRow, ...]:
    """The evidence in words; nothing before the verdict."""
    told = facts(Evidence(**evidence)) if evidence else ()
    return tuple(EvidenceRow(fact.name, fact.number, fact.sentence, fact.favours) for fact in told)


def _downloads(folder: Path, found: Transform) -> tuple[Download, ...]:
    files = [folder / "transform.json", folder / "transform.tfm"]
    small = [path for path in files if path.is_file() and path.stat().st_size <= LARGEST_DOWNLOAD]
    kept = tuple(Download(path.name, path.read_text(encoding="utf-8")) for path in small)
    table = transform_csv(found)
    return (*kept, Download("transform.csv", table)) if table else kept


def provenance(job: Finished) -> dict[str, Any]:
    """How the result came about."""
    return {
        "command": list(job.command.words),
        "method": method_to_dict(job.method),
        "interpolation": job.interpolation,
        "model": job.model,
        **({"networks": dict(job.networks)} if job.networks else {}),
        "inputs": {record.role: {"path": record.path, "sha256": record.sha256} for record in job.inputs},
        "modalign": __version__,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def as_result(job: Finished, files: Mapping[str, str]) -> dict[str, Any]:
    """The result as one JSON object."""
    registration, found = job.alignment.registration, job.transform
    matrices = None
    if found is not None:
        saved = transform_to_dict(found, fixed=job.fixed.grid, moving=job.moving.grid)
        told = ("type", "matrix_xy", "matrix_zyx", "unit", "moving_unit")
        matrices = {key: saved[key] for key in told if key in saved}
    return {
        "status": registration.status,
        "confidence": registration.confidence,
        "reasons": list(registration.reasons),
        "notes": list(registration.notes),
        "engine": registration.engine,
        "fixed_to_moving": matrices,
        **({} if job.labelled is None else {"labels": job.labelled.agreement.to_dict()}),
        "files": dict(files),
    }


def as_record(job: Finished, files: Mapping[str, str]) -> dict[str, Any]:
    """The result with all numbers behind it and with its provenance; the same inputs give the same record."""
    registration = job.alignment.registration
    numbers = {"stats": dict(registration.stats), "evidence": dict(registration.evidence)}
    return {**as_result(job, files), **numbers, "provenance": provenance(job)}


def sha256(path: Path) -> str:
    """Hash of the content of a file; of a folder, that of its names and contents in order."""
    digest = hashlib.sha256()
    for file in content_files(path):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def content_files(path: Path) -> Sequence[Path]:
    """The file itself, or all files in a folder and below in order."""
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
