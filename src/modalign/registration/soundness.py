"""Whether a deformation is sound: it folds nowhere, it helps by another measure, and the way back agrees with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from modalign.geometry import Chain, DisplacementField, Grid, Linear, Transform, deformation
from modalign.registration.registrar import Status

LARGEST_STRETCH = 20.0
"""Cells that become larger or smaller by more are never accepted without a look."""
LARGEST_DISAGREEMENT = 0.02
"""Of the way there and the way back, as a fraction of the width: the tolerance of the CoMIR protocol."""


@dataclass(frozen=True)
class Limits:
    """What a deformation allows a verdict to be at best.

    Attributes:
        status: The best status.
        reasons: Why it is no better, one sentence each.
    """

    status: Status
    reasons: tuple[str, ...] = ()


def limited(status: Status, found: Transform, *, fixed_grid: Grid, stats: Mapping[str, float]) -> Limits:
    """A status, or a worse one where the deformation asks for it.

    Args:
        status: What the linear alignment deserves.
        found: Maps world points of the fixed image; anything but a deformation is left as it is.
        fixed_grid: The pixels whose cells may not fold; where the field has fewer, its own.
        stats: Of the registration: ``gain`` and ``back_and_forth``, where they were measured.
    """
    if isinstance(found, Linear) or status == "refused":
        return Limits(status)
    here = deformation(_bending(found), _nodes(found, fixed_grid))
    if here.folded > 0:
        return Limits(
            "refused", (f"the deformation folds {here.folded:.2%} of the image: make it smoother (--weight)",)
        )
    doubts = []
    if max(here.largest, 1 / here.least) > LARGEST_STRETCH:
        doubts.append(f"the deformation changes areas by a factor of up to {max(here.largest, 1 / here.least):.0f}")
    if not stats.get("gain", 1.0) > 0:  # nor where it is no number
        doubts.append("the deformation makes the images no more alike by a measure that it did not maximise")
    if not stats.get("back_and_forth", 0.0) <= LARGEST_DISAGREEMENT:
        doubts.append(f"there and back again leads {stats['back_and_forth']:.1%} of the width away")
    return Limits("unsure", tuple(doubts)) if doubts else Limits(status)


def _bending(found: Transform) -> Transform:
    """The transform without the linear one at its end: a change of unit, or of scale, is no stretch."""
    parts = found.transforms if isinstance(found, Chain) else (found,)
    while len(parts) > 1 and isinstance(parts[-1], Linear):
        parts = parts[:-1]
    return Chain(tuple(parts))


def _nodes(found: Transform, fixed: Grid) -> Grid:
    """Where folds are looked for: between its nodes, a field is linear."""
    first = found.transforms[0] if isinstance(found, Chain) else found
    own = first.grid if isinstance(first, DisplacementField) else fixed
    return min(own, fixed, key=lambda grid: prod(grid.shape))
