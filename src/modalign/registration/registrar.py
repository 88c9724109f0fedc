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
    """

    engine: str
    status: Status
    fixed_to_moving: Transform | None
    reasons: tuple[str, ...]
    confidence: float | None = None
    stats: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.fixed_to_moving is None) != (self.status == "refused"):
            raise InvalidInputError("a registration has a transform exactly where it is not refused")
        if not self.reasons:
            raise InvalidInputError("a registration states its reasons")


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

        Raises:
            DimensionError: The method does not exist for this number of dimensions.
            InvalidInputError: An image is empty of information (constant) or holds values that are not finite.
        """
        ...
