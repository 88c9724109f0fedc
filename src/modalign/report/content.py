"""What a report page shows, as plain values: nothing here is computed, read or written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from modalign.errors import InvalidInputError
from modalign.geometry.grid import Unit
from modalign.image import Image
from modalign.registration import Registration
from modalign.report.outlines import LabelledPair

PixelSizeSource = Literal["file", "given on the command line", "none: pixels"]
AXES = ("z", "y", "x")


@dataclass(frozen=True)
class InputRecord:
    """One input file as it was understood.

    Attributes:
        role: What the image is in the registration.
        path: Where the file is, as the user named it.
        shape: Number of pixels along each axis.
        axes: Names of the axes of ``shape``, such as ``("y", "x")``.
        channels: Names of the channels.
        dtype: Type of the pixels.
        pixel_size: Along each axis, in ``unit``.
        unit: ``"pixel"`` where no pixel size is known.
        source: Where the pixel size came from.
        mask: Where the mask came from, or that there is none.
        sha256: Of the content of the file; empty where it was not computed.
    """

    role: Literal["fixed", "moving"]
    path: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    channels: tuple[str, ...]
    dtype: str
    pixel_size: tuple[float, ...]
    unit: Unit
    source: PixelSizeSource
    mask: str = "none"
    sha256: str = ""

    @classmethod
    def of(
        cls,
        role: Literal["fixed", "moving"],
        path: str,
        image: Image,
        source: PixelSizeSource,
        *,
        mask: str = "none",
        sha256: str = "",
    ) -> "InputRecord":
        """The record of an image that was read from a file."""
        grid = image.grid
        axes, dtype = AXES[-grid.ndim :], str(image.data.dtype)
        return cls(role, path, grid.shape, axes, image.channels, dtype, grid.spacing, grid.unit, source, mask, sha256)


@dataclass(frozen=True)
class EvidenceRow:
    """One piece of evidence: what it is, its value, what that means, and whether it speaks for the result.

    ``good`` is ``None`` where it speaks neither for nor against.
    """

    name: str
    value: str
    meaning: str
    good: bool | None = None


@dataclass(frozen=True)
class Command:
    """A command to copy, with what it is for."""

    purpose: str
    line: str


@dataclass(frozen=True)
class RegisterCommand:
    """The command that was run, taken apart, so that others can be made from it.

    Attributes:
        fixed: Path of the fixed image.
        moving: Path of the moving image.
        engine: Name of the engine.
        options: Options of the verb that were given, such as ``{"--out": ("results",), "--strict": ()}``, with their
            values; flags have none.
        engine_options: Options of the engine that were given, in the same form.
    """

    fixed: str
    moving: str
    engine: str
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    engine_options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the command line."""
        options = {**self.options, "--engine": (self.engine,), **self.engine_options}
        given = (word for name, values in options.items() for word in (name, *values))
        return ("modalign", "register", self.fixed, self.moving, *given)


@dataclass(frozen=True)
class Download:
    """A text file that the page offers: ``name`` is the file name, ``content`` all of its text."""

    name: str
    content: str


@dataclass(frozen=True, eq=False)
class ReportContent:
    """Everything that the report page of one pair shows.

    Attributes:
        registration: The answer, with status, reasons and numbers.
        fixed: The original fixed image.
        moving: The original moving image.
        warped: The original moving image on the grid of the fixed one; ``None`` exactly where refused.
        inputs: The two files as understood, fixed first.
        representations: Fixed and moving as the method saw them, on their own grids; ``None`` where these were the
            originals themselves.
        command: The command that was run, from which the page makes others to try; ``None`` where there was none.
        evidence: What speaks for and against the result, the most telling first.
        commands: Commands to use the result with; none where refused.
        downloads: Files of the transform; none where refused.
        provenance: How the result came about: command, configuration, versions, seed, hashes; values may be nested.
        labels: The labels of both images before and after, where there are some.

    Raises:
        InvalidInputError: The parts contradict each other, such as an aligned image of a refused registration.
    """

    registration: Registration
    fixed: Image
    moving: Image
    warped: Image | None
    inputs: tuple[InputRecord, InputRecord]
    representations: tuple[Image, Image] | None = None
    command: RegisterCommand | None = None
    evidence: tuple[EvidenceRow, ...] = ()
    commands: tuple[Command, ...] = ()
    downloads: tuple[Download, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    labels: LabelledPair | None = None

    def __post_init__(self) -> None:
        if (self.warped is None) != self.is_refused:
            raise InvalidInputError("a report has an aligned image exactly where the registration is not refused")
        if self.is_refused and (self.downloads or self.commands):
            raise InvalidInputError("a refused registration has nothing to download or to apply")
        if self.warped is not None and self.warped.grid.shape != self.fixed.grid.shape:
            raise InvalidInputError(f"the aligned image {self.warped!r} does not lie on the grid of {self.fixed!r}")
        if self.fixed.ndim != self.moving.ndim:
            raise InvalidInputError(f"a report compares images of equal dimensions: {self.fixed!r}, {self.moving!r}")

    @property
    def is_refused(self) -> bool:
        """Whether there is no transform to use."""
        return self.registration.status == "refused"
