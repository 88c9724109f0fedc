"""``modalign register``."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import tyro

from modalign import __version__
from modalign.cli.console import EXIT_NOT_TRUSTED, parse, print_json
from modalign.cli.files import read_with_pixel_size
from modalign.geometry import Grid
from modalign.geometry.grid import Unit
from modalign.image import Image
from modalign.io import make_folder, read_mask, transform_to_dict, write_image, write_json, write_transform
from modalign.pipeline import Alignment, Interpolation, align
from modalign.registration import FftSearch, Method, MutualInformation, Sift, method_to_dict
from modalign.report import checkerboard, magenta_green, pictures
from modalign.representation.encoder import Encoder, Identity


@dataclass(frozen=True)
class Register:
    """Find the transform between two images, and bring the moving one onto the fixed one.

    Without a model the intensities themselves are compared. Writes the transform (JSON and ITK), the aligned image,
    overlays and the result into a folder. Exit status 3 where the result was refused.
    """

    fixed: tyro.conf.Positional[Path]
    """The image that stays."""
    moving: tyro.conf.Positional[Path]
    """The image to bring onto it."""
    out: Path = field(kw_only=True)
    """Folder for the results."""
    model: Path | None = None
    """Model folder; its two sides are used in the order fixed, moving."""
    engine: Literal["fft-search", "sift", "mutual-information"] = "fft-search"
    """How to search."""
    strict: bool = False
    """Exit with status 3 also where the result is unsure."""
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
    fft_search: FftSearch = FftSearch()
    """Options of the engine fft-search."""
    sift: Sift = Sift()
    """Options of the engine sift."""
    mutual_information: MutualInformation = MutualInformation()
    """Options of the engine mutual-information."""

    @property
    def method(self) -> Method:
        """The chosen engine with its options."""
        engines: dict[str, Method] = {e.name: e for e in (self.fft_search, self.sift, self.mutual_information)}
        return engines[self.engine]


def run(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    command = parse(Register, "register", arguments)
    encoders, ndim = _encoders(command)
    fixed = _read(command.fixed, command.fixed_mask, command.fixed_pixel_size, command, ndim)
    moving = _read(command.moving, command.moving_mask, command.moving_pixel_size, command, ndim)
    with _folder(command.out):
        started = perf_counter()
        alignment = align(fixed, moving, command.method, encoders=encoders, interpolation=command.interpolation)
        seconds = perf_counter() - started
    files = _write(command, fixed, moving, alignment)
    result = _result(alignment, fixed.grid, moving.grid, seconds, files)
    details = {
        "fixed": str(command.fixed),
        "moving": str(command.moving),
        "model": command.model and str(command.model),
    }
    record = {**result, **details, "method": method_to_dict(command.method), "modalign": __version__}
    write_json(command.out / "result.json", {**record, "stats": dict(alignment.registration.stats)})
    _tell(command, result)
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


def _encoders(command: Register) -> tuple[tuple[Encoder, Encoder], int | None]:
    if command.model is None:
        return (Identity(), Identity()), None
    from modalign.representation import ComirModel

    model = ComirModel.load(command.model)
    fixed, moving = model.encoder("fixed", device=command.device), model.encoder("moving", device=command.device)
    return (fixed, moving), model.card.ndim


def _read(path: Path, mask: Path | None, pixel_size: float | None, command: Register, ndim: int | None) -> Image:
    image = read_with_pixel_size(path, pixel_size, command.unit, ndim=ndim)
    if mask is None:
        return image
    return replace(image, mask=read_mask(mask, image.grid))


def _write(command: Register, fixed: Image, moving: Image, alignment: Alignment) -> dict[str, str]:
    """Write what there is to see; a refused result leaves no transform and no aligned image, not even an old one."""
    found, warped = alignment.registration.fixed_to_moving, alignment.warped
    suffix = ".tif" if fixed.ndim == 2 else ".nii.gz"
    paths = {
        "transform": command.out / "transform.json",
        "itk_transform": command.out / "transform.tfm",
        "aligned": command.out / f"aligned{suffix}",
        "checkerboard": command.out / "checkerboard.png",
        "overlay": command.out / "overlay.png",
        "fixed_representation": command.out / "fixed_representation.png",
        "moving_representation": command.out / "moving_representation.png",
    }
    for path in (*paths.values(), command.out / "result.json"):
        path.unlink(missing_ok=True)
    written = {"result": command.out / "result.json"}
    if found is not None and warped is not None:
        info = {"engine": alignment.registration.engine, "status": alignment.registration.status}
        write_transform(paths["transform"], found, fixed=fixed.grid, moving=moving.grid, info=info)
        write_transform(paths["itk_transform"], found, fixed=fixed.grid, moving=moving.grid)
        write_image(paths["aligned"], warped)
        write_image(paths["checkerboard"], checkerboard(fixed, warped))
        write_image(paths["overlay"], magenta_green(fixed, warped))
    if command.model is not None:
        for role, shown in zip(("fixed", "moving"), pictures([alignment.fixed, alignment.moving]), strict=True):
            write_image(paths[f"{role}_representation"], shown)
    written |= {name: path for name, path in paths.items() if path.is_file()}
    return {name: str(path) for name, path in written.items()}


def _result(
    alignment: Alignment, fixed: Grid, moving: Grid, seconds: float, files: Mapping[str, str]
) -> dict[str, Any]:
    registration = alignment.registration
    found = registration.fixed_to_moving
    matrices = None
    if found is not None:
        saved = transform_to_dict(found, fixed=fixed, moving=moving)
        matrices = {key: saved[key] for key in ("type", "matrix_xy", "matrix_zyx", "unit", "moving_unit")}
    return {
        "status": registration.status,
        "confidence": registration.confidence,
        "reasons": list(registration.reasons),
        "engine": registration.engine,
        "fixed_to_moving": matrices,
        "seconds": round(seconds, 3),
        "files": dict(files),
    }


def _tell(command: Register, result: Mapping[str, Any]) -> None:
    if command.json:
        print_json(result)
        return
    print(f"{result['status']}: {'; '.join(result['reasons'])}")
    for name, path in result["files"].items():
        print(f"  {name.replace('_', ' '):<22}{path}")
    if result["fixed_to_moving"] is None:
        return
    if command.model is None and result["status"] != "accepted":
        print("the intensities may have too little in common; a model made with 'modalign train' may help")
    print(f"next: modalign apply IMAGE {result['files']['transform']} --like {command.fixed} --out FILE")
