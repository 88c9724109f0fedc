"""``modalign register``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from modalign.cli.console import EXIT_NOT_TRUSTED, parse
from modalign.cli.files import read_with_pixel_size
from modalign.cli.registered import Job, sha256, tell, write_results
from modalign.geometry.grid import Unit
from modalign.image import Image
from modalign.io import make_folder, read_mask
from modalign.pipeline import Alignment, Interpolation, align
from modalign.registration import ENGINES, Auto, Method
from modalign.report import InputRecord, PixelSizeSource, RegisterCommand, changed_options

if TYPE_CHECKING:
    from modalign.representation import ComirModel

    EngineName = str
else:
    EngineName = Literal[tuple(ENGINES)]


@dataclass(frozen=True)
class Register:
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
    model: Path | None = None
    """Model folder; its two sides are used in the order fixed, moving."""
    engine: EngineName = "auto"
    """How to search; every engine has options of its own, see --engine NAME --help."""
    strict: bool = False
    """Exit with status 3 unless the result is accepted, and so also where it is unsure."""
    force: bool = False
    """Write the transform and the aligned image even where the result was refused."""
    json: bool = False
    """Print the result as one JSON object."""
    fixed_mask: Path | None = None
    """Image that is not 0 where the fixed image is valid."""
    moving_mask: Path | None = None
    """Image that is not 0 where the moving image is valid."""
    fixed_pixel_size: float | None = None
    """Pixel size of the fixed image where its file has none or a wrong one."""
    moving_pixel_size: float | None = None
    """Pixel size of the moving image where its file has none or a wrong one."""
    unit: Unit = "micrometer"
    """Unit of the pixel sizes given here."""
    interpolation: Interpolation = "linear"
    """How the aligned image is sampled from the original."""
    device: str = "cpu"
    """Where the networks compute."""


@dataclass(frozen=True)
class Chosen(Register):
    """The verb with the options of the engine that was named."""

    method: Method = field(default_factory=Auto, kw_only=True)


def command_class(arguments: Sequence[str]) -> type[Chosen]:
    """The verb with the options of the engine that the arguments name, and of no other: nine at once help nobody."""
    default = ENGINES.get(_engine_name(arguments), Auto())
    flat: Any = Annotated[type(default), tyro.conf.arg(name="")]
    fields: list[Any] = [("method", flat, field(default=default, kw_only=True))]
    chosen = make_dataclass("Register", fields, bases=(Chosen,), frozen=True)
    chosen.__doc__ = Register.__doc__
    return chosen


def _engine_name(arguments: Sequence[str]) -> str:
    """The value of the last ``--engine``; what else stands there is the parser's to judge."""
    name = "auto"
    for position, argument in enumerate(arguments):
        if argument.startswith("--engine="):
            name = argument.partition("=")[2]
        elif argument == "--engine" and position + 1 < len(arguments):
            name = arguments[position + 1]
    return name


def run(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    command = parse(command_class(arguments), "register", arguments)
    model = _model(command)
    ndim = None if model is None else model.card.ndim
    fixed = _read(command.fixed, command.fixed_mask, command.fixed_pixel_size, command, ndim)
    moving = _read(command.moving, command.moving_mask, command.moving_pixel_size, command, ndim)
    with _folder(command.out):
        started = perf_counter()
        encoders = None if model is None else model.encoders(device=command.device)
        alignment = align(
            fixed, moving, command.method, model=model, encoders=encoders, interpolation=command.interpolation
        )
    job = _job(command, fixed, moving, alignment, round(perf_counter() - started, 3))
    result = write_results(job)
    tell(job, result, as_json=command.json)
    trusted = ("accepted",) if command.strict else ("accepted", "unsure")
    return 0 if alignment.registration.status in trusted else EXIT_NOT_TRUSTED


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


def _model(command: Register) -> "ComirModel | None":
    if command.model is None:
        return None
    from modalign.representation import ComirModel

    return ComirModel.load(command.model)


def _read(path: Path, mask: Path | None, pixel_size: float | None, command: Register, ndim: int | None) -> Image:
    image = read_with_pixel_size(path, pixel_size, command.unit, ndim=ndim)
    if mask is None:
        return image
    return replace(image, mask=read_mask(mask, image.grid))


def _job(command: Chosen, fixed: Image, moving: Image, alignment: Alignment, seconds: float) -> Job:
    default = ENGINES[command.engine]
    engine_options = changed_options(command.method, default) if isinstance(command.method, type(default)) else {}
    given = {
        name: values
        for name, values in changed_options(command, replace(command, **_defaults(command))).items()
        if name not in ("--fixed", "--moving", "--engine")
    }
    typed = RegisterCommand(str(command.fixed), str(command.moving), command.engine, given, engine_options)
    sides = (
        ("fixed", command.fixed, fixed, command.fixed_pixel_size, command.fixed_mask),
        ("moving", command.moving, moving, command.moving_pixel_size, command.moving_mask),
    )
    records = [
        InputRecord.of(
            role,  # type: ignore[arg-type]
            str(path),
            image,
            _source(image, pixel_size),
            mask=str(mask) if mask else "none",
            sha256=sha256(path),
        )
        for role, path, image, pixel_size, mask in sides
    ]
    folder = command.model
    model = None if folder is None else {"folder": str(folder), "sha256": sha256(folder)}
    return Job(
        command.out,
        typed,
        command.method,
        command.interpolation,
        (records[0], records[1]),
        fixed,
        moving,
        alignment,
        seconds,
        model,
        command.force,
    )


def _defaults(command: Chosen) -> dict[str, Any]:
    """The options of the verb as they are where none is given; ``--out`` always is."""
    values = {entry.name: entry.default for entry in fields(Register) if entry.default is not MISSING}
    return {**values, "out": None, "method": command.method}


def _source(image: Image, given: float | None) -> PixelSizeSource:
    if given is not None:
        return "given on the command line"
    return "none: pixels" if image.grid.unit == "pixel" else "file"
