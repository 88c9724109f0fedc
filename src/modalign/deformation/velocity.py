"""The velocity whose flow brings one image onto another: coarse to fine, by Adam."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from modalign.deformation.fields import bending, diffusion, exponential, on_pixels, warp
from modalign.geometry import DisplacementField, Grid, folded_cells
from modalign.losses import Similarity
from modalign.losses.boxes import box_mean

Regulariser = Literal["diffusion", "bending"]
REGULARISERS: dict[Regulariser, Callable[[Tensor], Tensor]] = {"diffusion": diffusion, "bending": bending}
Order = Literal["warp-first", "features-first"]
SETTLED = 0.01
"""A level has settled when its last steps bring less than this share of what all have."""
MOST_ROUNDS = 50
"""Of smoothing where a field folds."""


@dataclass(frozen=True)
class FlowOptions:
    """How the velocity is found."""

    weight: float = 1.0
    """Of the regulariser beside the similarity: larger is smoother."""
    regulariser: Regulariser = "diffusion"
    """What is to be small: differences of the velocity, or second differences."""
    order: Order = "warp-first"
    """Describe the warped image anew in each step, or describe the moving image once and warp that."""
    control: int = 2
    """Distance of the points that carry the velocity, in pixels of each level."""
    steps: int = 80
    """Most steps at each level."""
    step_length: float = 0.1
    """Of Adam, in distances of the control points."""
    patience: int = 10
    """A level ends when so many steps have brought less than 1 % of its gain."""


@dataclass(frozen=True, eq=False)
class Level:
    """Two images at one resolution.

    Attributes:
        fixed: ``(1, channels, *spatial)``.
        moving: The same, on the grid of the fixed one.
        mask: ``(1, 1, *spatial)``, 1 where the fixed image is valid.
        moving_mask: 1 where the moving image is.
    """

    fixed: Float[Tensor, "1 c *spatial"]
    moving: Float[Tensor, "1 c *spatial"]
    mask: Float[Tensor, "1 1 *spatial"]
    moving_mask: Float[Tensor, "1 1 *spatial"]

    @property
    def shape(self) -> torch.Size:
        """Pixels along each axis."""
        return self.fixed.shape[2:]


@dataclass(frozen=True, eq=False)
class Flow:
    """What was found.

    Attributes:
        velocity: ``(1, ndim, *control)``, in its own pixels.
        shape: Of the finest level.
        steps: Steps taken at all levels together.
    """

    velocity: Float[Tensor, "1 ndim *control"]
    shape: torch.Size
    steps: int

    def displacement(self, sign: float = 1.0) -> Float[Tensor, "1 ndim *spatial"]:
        """The displacement of the pixels of the finest level; with the sign −1, its inverse."""
        return on_pixels(exponential(sign * self.velocity), self.shape)


def find_flow(
    levels: Sequence[Level],
    similarity: Similarity,
    options: FlowOptions,
    advance: Callable[[float], None] = lambda _: None,
    begin: Float[Tensor, "1 ndim *control"] | None = None,
) -> Flow:
    """Minimise unlikeness and roughness over the velocity, from the coarsest level to the finest.

    The gradient of the similarity is taken with respect to the displacement and handed to the velocity as it is: to
    first order they move together (Vercauteren et al., NeuroImage 2009), and the way back through the flow, which costs
    more than all the rest, is saved.

    Args:
        levels: Coarsest first.
        similarity: What to minimise.
        options: How.
        advance: Told the finished fraction of the work.
        begin: Where to begin, in its own pixels; by default without deformation.
    """
    velocity = begin
    taken, work, done = 0, sum(level.fixed.numel() for level in levels), 0
    for level in levels:
        comparison = _Comparison(level, similarity, options.order)
        control = torch.Size(max(2, -(-n // options.control)) for n in level.shape)
        start = torch.zeros(1, len(control), *control) if velocity is None else on_pixels(velocity, control)

        def tell(share: float, done: int = done, level: Level = level) -> None:
            advance((done + share * level.fixed.numel()) / work)

        velocity, count = _descend(start, comparison, options, tell)
        taken, done = taken + count, done + level.fixed.numel()
    assert velocity is not None
    return Flow(velocity, levels[-1].shape, taken)


def before_and_after(
    level: Level, similarity: Similarity, displacement: Float[Tensor, "1 ndim *spatial"]
) -> tuple[float, float]:
    """How unlike the images of a level are as they lie, and when the moving one is displaced."""
    with torch.no_grad():
        comparison = _Comparison(level, similarity, "warp-first")
        return comparison.before, float(comparison(displacement))


class _Comparison:
    """The unlikeness of two images of a level under a displacement.

    Pixels that are led out of the moving image count as if nothing had been gained there: else the best would be to
    lead all away that do not fit.
    """

    def __init__(self, level: Level, similarity: Similarity, order: Order) -> None:
        self.level, self.similarity, self.order = level, similarity, order
        with torch.no_grad():
            self.fixed = similarity.describe(level.fixed)
            self.moving = similarity.describe(level.moving) if order == "features-first" else (level.moving,)
            self.seen = level.mask * level.moving_mask
            still = torch.zeros(1, len(level.shape), *level.shape)
            self.before = float(self._inside(still, self.seen))

    def __call__(self, displacement: Tensor) -> Tensor:
        with torch.no_grad():
            mask = self.level.mask * warp(self.level.moving_mask, displacement.detach(), beyond="zeros")
            share = (mask.sum() / self.seen.sum().clamp(min=1)).clamp(max=1)
        return share * self._inside(displacement, mask) + (1 - share) * self.before

    def _inside(self, displacement: Tensor, mask: Tensor) -> Tensor:
        warped = [warp(maps, on_pixels(displacement, maps.shape[2:])) for maps in self.moving]
        described = warped if self.order == "features-first" else self.similarity.describe(warped[0])
        return self.similarity.compare(described, self.fixed, mask)


def _descend(
    start: Tensor, comparison: _Comparison, options: FlowOptions, tell: Callable[[float], None]
) -> tuple[Tensor, int]:
    """The best velocity of a level, and the number of steps."""
    change = torch.zeros_like(start).requires_grad_()
    adam = torch.optim.Adam([change], lr=options.step_length)
    best, losses = start, [float("inf")]
    for count in range(1, options.steps + 1):
        velocity = start + smoothed(change)
        displacement = exponential(velocity.detach()).requires_grad_()
        unlikeness = comparison(on_pixels(displacement, comparison.level.shape))
        roughness = options.weight * REGULARISERS[options.regulariser](velocity)
        loss = float(unlikeness.detach() + roughness.detach())
        if loss < losses[-1]:
            best = velocity.detach()
        losses.append(min(loss, losses[-1]))
        tell(count / options.steps)
        if _has_settled(losses[1:], options.patience):
            break
        (pull,) = torch.autograd.grad(unlikeness, displacement)
        (change.grad,) = torch.autograd.grad(roughness + (velocity * pull).sum(), change)
        adam.step()
    return best, len(losses) - 1


def _has_settled(losses: Sequence[float], patience: int) -> bool:
    """Whether the last steps have brought next to nothing of what all have."""
    if len(losses) <= patience:
        return False
    return losses[-1 - patience] - losses[-1] <= SETTLED * (losses[0] - losses[-1])


def smoothed(field: Float[Tensor, "1 ndim *spatial"]) -> Float[Tensor, "1 ndim *spatial"]:
    """A field after two box filters of three pixels: close to what a B-spline makes of its coefficients."""
    return box_mean(box_mean(field, 3), 3)


def unfolded(flow: Flow) -> Flow:
    """The flow with its velocity smoothed around every fold of its displacement, or of its inverse, until none is left.

    What folds in spite of scaling and squaring are single pixels where the velocity is rougher than pixels can tell.
    The surroundings that are smoothed grow from round to round; a field that never ends to fold is returned as it is.
    """
    for reach in range(1, MOST_ROUNDS):
        folds = _folds(flow)
        if not folds.any():
            break
        at_control = functional.interpolate(folds.float(), flow.velocity.shape[2:], mode="area") > 0
        around = _widened(at_control.float(), reach)
        flow = replace(flow, velocity=torch.where(around > 0, smoothed(flow.velocity), flow.velocity))
    return flow


def _folds(flow: Flow) -> Bool[Tensor, "1 1 *spatial"]:
    """Pixels of the finest level at which a cell between pixels folds, on the way there or on the way back."""
    grid = Grid(tuple(flow.shape))
    folds = torch.zeros(1, 1, *flow.shape, dtype=torch.bool)
    for sign in (1.0, -1.0):
        field = DisplacementField(flow.displacement(sign)[0].numpy(), grid)
        cells = torch.from_numpy(folded_cells(field, grid))[None, None]
        folds[tuple(slice(n) for n in cells.shape)] |= cells
    return folds


def _widened(mask: Float[Tensor, "1 1 *spatial"], reach: int) -> Float[Tensor, "1 1 *spatial"]:
    for _ in range(reach):
        mask = (box_mean(mask, 3) > 0).float()
    return mask
