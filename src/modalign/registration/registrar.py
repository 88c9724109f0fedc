"""What a registration method is, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, runtime_checkable

from modalign.errors import InvalidInputError
from modalign.geometry import Transform
from modalign.image import Image

Status = Literal["accepted", "unsure", "refused"]


@dataclass(frozen=True)
class Registration:
    """The answer of a registration method. A failure is a value with advice, never a wrong transform.

    Attributes:
        engine: Name of the method.
        status: ``accepted``; ``unsure``, look at the overlay before using it; ``refused``, no transform is given.
        fixed_to_moving: Maps world points of the fixed image to the moving one; ``None`` exactly where refused.
        reasons: Why the status is what it is, one sentence each, with advice where it is not ``accepted``.
        confidence: Probability that the result is right, once a calibrated verdict has judged it; else ``None``.
        stats: Numbers of the method, such as inliers or peak heights.
        rejected: The transform that was refused, for looking at it and for nothing else; ``None`` where the method
            has none, and wherever a transform is given.
        evidence: What the verdict was based on, see :class:`modalign.registration.evidence.Evidence`; empty before it.
        notes: What the user should know whatever the status, such as how missing pixel sizes were understood.
    """

    engine: str
    status: Status
    fixed_to_moving: Transform | None
    reasons: tuple[str, ...]
    confidence: float | None = None
    stats: Mapping[str, float] = field(default_factory=dict)
    rejected: Transform | None = None
    evidence: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.fixed_to_moving is None) != (self.status == "refused"):
            raise InvalidInputError("a registration has a transform exactly where it is not refused")
        if self.rejected is not None and self.status != "refused":
            raise InvalidInputError("only a refused registration has a rejected transform")
        if not self.reasons:
            raise InvalidInputError("a registration states its reasons")

    @classmethod
    def judged(
        cls,
        engine: str,
        status: Status,
        transform: Transform | None,
        reasons: tuple[str, ...],
        stats: Mapping[str, float],
        confidence: float | None = None,
    ) -> "Registration":
        """A registration whose transform is given where the status allows it, and kept as rejected where not."""
        refused = status == "refused"
        given, rejected = (None, transform) if refused else (transform, None)
        return cls(engine, status, given, reasons, confidence, stats, rejected)

    @property
    def candidate(self) -> Transform | None:
        """The transform found, whether it was refused or not."""
        return self.rejected if self.fixed_to_moving is None else self.fixed_to_moving


@runtime_checkable
class Registrar(Protocol):
    """A registration method: a frozen dataclass of options with one verb.

    Laws (tests in ``modalign.testing``): identical images give the identity; known transforms are recovered in world
    units with anisotropic spacing; the same seed gives the same answer; inputs are untouched.
    """

    name: ClassVar[str]
    ndims: ClassVar[frozenset[int]]

    def register(self, fixed: Image, moving: Image) -> Registration:
        """Find the transform from world points of ``fixed`` to world points of ``moving``.

        Images without information (tiny, constant, wholly masked) are refused as a value; values that are not finite
        count as masked.

        Raises:
            DimensionError: The method does not exist for this number of dimensions.
            InvalidInputError: The images differ in dimensions, or one holds complex numbers.
        """
        ...
