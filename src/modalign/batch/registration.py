"""One registration from files to files: what ``modalign register`` does once, and ``modalign batch`` many times."""

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalign.batch.files import Finished, sha256
from modalign.errors import InvalidInputError
from modalign.geometry.grid import Unit
from modalign.image import Image, Labels
from modalign.io import read_labels, read_mask, read_with_pixel_size
from modalign.pipeline import Interpolation, align
from modalign.registration import ENGINES, Auto, Deform, Method
from modalign.report import InputRecord, PixelSizeSource, RegisterCommand, changed_options

if TYPE_CHECKING:
    from modalign.representation import ComirModel


@dataclass(frozen=True)
class RegistrationJob:
    """Which images to register, and how."""

    fixed: Path
    """The image that stays."""
    moving: Path
    """The image to bring onto it."""
    model: Path | None = None
    """Model folder; its two sides are used in the order fixed, moving."""
    engine: str = "auto"
    """How to search; every engine has options of its own, see --engine NAME --help."""
    fixed_mask: Path | None = None
    """Image that is not 0 where the fixed image is valid."""
    moving_mask: Path | None = None
    """Image that is not 0 where the moving image is valid."""
    fixed_labels: Path | None = None
    """Label map of the fixed image; with --moving-labels the result tells how well both agree, before and after."""
    moving_labels: Path | None = None
    """Label map of the moving image. Labels take no part in the registration."""
    fixed_pixel_size: tuple[float, ...] | None = None
    """Pixel size of the fixed image where its file has none or a wrong one; one number, or one an axis (z y x)."""
    moving_pixel_size: tuple[float, ...] | None = None
    """Pixel size of the moving image where its file has none or a wrong one, likewise."""
    unit: Unit = "micrometer"
    """Unit of the pixel sizes given here."""
    interpolation: Interpolation = "linear"
    """How the aligned image is sampled from the original."""
    refine_on_originals: bool = True
    """Refine what was found by the mutual information of the originals, where two halves of the image agree on it."""
    force: bool = False
    """Write the transform and the aligned image even where the result was refused."""
    device: str = "cpu"
    """Where the networks compute."""
    method: Method = field(default_factory=Auto, kw_only=True)
    """The engine with its options."""

    def __post_init__(self) -> None:
        if (self.fixed_labels is None) != (self.moving_labels is None):
            raise InvalidInputError("--fixed-labels and --moving-labels are compared: give both, or none")
        for name in ("fixed_pixel_size", "moving_pixel_size"):
            for size in getattr(self, name) or ():
                if not 0 < size < math.inf:
                    raise InvalidInputError(f"{name} must be more than 0 and finite, not {size:g}")

    def run(self, tell: Callable[[str], None] = lambda _: None) -> Finished:
        """Read, register and judge.

        Args:
            tell: Called with the name of each stage as it begins.

        Raises:
            ModalignError: A file cannot be read, the model does not fit, or the images cannot be compared at all.
        """
        tell("read the images")
        model = None if self.model is None else cached_model(self.model)
        ndim = None if model is None else model.card.ndim
        fixed = _read(self.fixed, self.fixed_mask, self.fixed_pixel_size, self.unit, ndim)
        moving = _read(self.moving, self.moving_mask, self.moving_pixel_size, self.unit, ndim)
        read = {"fixed": (self.fixed, fixed), "moving": (self.moving, moving)}
        if fixed.ndim == moving.ndim:
            _check_voxel_sizes({role: known for role, known in read.items() if not getattr(self, f"{role}_pixel_size")})
        labels = [
            None if path is None else _labels(path, image)
            for path, image in ((self.fixed_labels, fixed), (self.moving_labels, moving))
        ]
        encoders = None if model is None else model.encoders(device=self.device)
        tell("register" if model is None else "represent and register")
        found = align(
            fixed,
            moving,
            self.method,
            model=model,
            encoders=encoders,
            interpolation=self.interpolation,
            refine_on_originals=self.refine_on_originals,
        )
        return Finished(
            self.command(),
            self.method,
            self.interpolation,
            (self._record("fixed", fixed), self._record("moving", moving)),
            fixed,
            moving,
            found,
            None if self.model is None else {"folder": str(self.model), "sha256": sha256(self.model)},
            self.force,
            tuple(labels),  # type: ignore[arg-type]  # there are two
            {str(folder): sha256(folder) for folder in networks_of(self.method)},
        )

    @property
    def files(self) -> tuple[Path, ...]:
        """The files and folders that it reads."""
        masks, labels = (self.fixed_mask, self.moving_mask), (self.fixed_labels, self.moving_labels)
        named = (self.fixed, self.moving, *masks, *labels, self.model, *networks_of(self.method))
        return tuple(path for path in named if path is not None)

    def command(self) -> RegisterCommand:
        """The command line that does the same; without the place for the results."""
        default = ENGINES[self.engine]
        method = changed_options(self.method, default) if isinstance(self.method, type(default)) else {}
        given = {
            name: values
            for name, values in changed_options(self, replace(self, **self._defaults())).items()
            if name not in ("--fixed", "--moving", "--engine")
        }
        return RegisterCommand(str(self.fixed), str(self.moving), self.engine, given, method)

    def _defaults(self) -> dict[str, Any]:
        """The options as they are where none is given; nothing where one must be."""
        optional = (entry for entry in fields(self) if entry.name not in ("fixed", "moving", "method"))
        return {entry.name: None if entry.default is MISSING else entry.default for entry in optional}

    def _record(self, role: Any, image: Image) -> InputRecord:
        path, mask, size = (getattr(self, role + suffix) for suffix in ("", "_mask", "_pixel_size"))
        source: PixelSizeSource = "none: pixels" if image.grid.unit == "pixel" else "file"
        if size is not None:
            source = "given on the command line"
        return InputRecord.of(role, str(path), image, source, mask=str(mask) if mask else "none", sha256=sha256(path))


def networks_of(method: Method) -> tuple[Path, ...]:
    """The model folders that the options of an engine name."""
    named = (method.features, method.network) if isinstance(method, Deform) else ()
    return tuple(Path(folder) for folder in named if folder)


def cached_model(folder: Path) -> "ComirModel":
    """A model, kept for the next pair; one that was written anew meanwhile is loaded anew."""
    card = folder / "model.json"
    return _model(folder, card.stat().st_mtime_ns if card.is_file() else 0)


@lru_cache(maxsize=4)
def _model(folder: Path, _stamp: int) -> "ComirModel":
    from modalign.representation import ComirModel

    return ComirModel.load(folder)


def _read(path: Path, mask: Path | None, pixel_size: tuple[float, ...] | None, unit: Unit, ndim: int | None) -> Image:
    image = read_with_pixel_size(path, pixel_size, unit, ndim=ndim)
    return image if mask is None else replace(image, mask=read_mask(mask, image.grid))


def _labels(path: Path, image: Image) -> Labels:
    """The labels of an image, on its grid."""
    labels = read_labels(path, ndim=image.ndim)
    if labels.grid.shape != image.grid.shape:
        sizes = (" × ".join(map(str, grid.shape)) for grid in (labels.grid, image.grid))
        raise InvalidInputError(f"{path}: labels of {' pixels do not fit an image of '.join(sizes)}")
    if not labels.data.any():
        raise InvalidInputError(f"{path}: the label map is empty: it holds nothing but 0")
    return replace(labels, grid=image.grid)


def _check_voxel_sizes(images: Mapping[str, tuple[Path, Image]]) -> None:
    """Refuse volumes whose voxel size nobody told: their slices are mostly thicker than their pixels are wide.

    Args:
        images: For each role, ``fixed`` or ``moving``, where the image came from and what was read there.

    Raises:
        InvalidInputError: Some are such volumes.
    """
    lack = {r: path for r, (path, image) in images.items() if (image.ndim, image.grid.unit) == (len("zyx"), "pixel")}
    if not lack:
        return
    names, options = " and ".join(map(str, lack.values())), [f"--{role}-pixel-size" for role in lack]
    have = "this volume has" if len(lack) == 1 else "these volumes have"
    sizes, cubes = (" ".join(f"{option} {size}" for option in options) for size in ("Z Y X", "1"))
    raise InvalidInputError(
        f"{names}: {have} no voxel size, without which nothing can be compared: give {sizes} with --unit, or, to "
        f"compare voxel by voxel as if they were cubes, {cubes} --unit pixel"
    )
