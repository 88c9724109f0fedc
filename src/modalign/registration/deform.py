"""Deformable registration: a linear start, then the flow that makes the images most alike."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from modalign.errors import InvalidInputError
from modalign.geometry import DisplacementField, Grid, Linear, as_rows, deformation, identity
from modalign.geometry.grid import Unit
from modalign.image import Image
from modalign.registration import workspace
from modalign.registration.auto import Auto
from modalign.registration.engine import Engine
from modalign.registration.registrar import Registration
from modalign.registration.shared_information import in_common, stretch
from modalign.registration.soundness import limited

if TYPE_CHECKING:
    from torch import Tensor

    from modalign.deformation import Flow, Level
    from modalign.losses import Similarity

Array = np.ndarray
Start: TypeAlias = Literal["rigid", "similarity", "affine", "none"]
Range: TypeAlias = tuple[Float[Array, " channels"], Float[Array, " channels"]]
SimilarityName: TypeAlias = Literal["mse", "ncc", "nmi", "mind"]

WEIGHTS: Mapping[SimilarityName, float] = MappingProxyType({"mse": 0.02, "ncc": 0.4, "nmi": 0.2, "mind": 0.2})
"""Of the regulariser beside each similarity, whose numbers are not of one size."""
FINEST_SIDES = {2: 512, 3: 96}
"""Side, in pixels, of the square or cube with as many pixels as the finest level has at most."""
COARSEST_SIDE = 16
"""Levels end before a side is shorter than this."""
MOST_LEVELS = 5
PERCENTILES = (0.5, 99.5)
"""Of the valid intensities; they become 0 and 1."""
LEAST_OVERLAP = 0.1
"""Less of the fixed image under the moving one is nothing to deform by."""
STIFF = 0.05
"""In pixels of the finest level: a field that nowhere moves further is left out."""


@dataclass(frozen=True)
class Deform(Engine):
    """Bend the moving image onto the fixed one, after a linear alignment.

    The flow of a velocity that does not change with time, found coarse to fine (Arsigny et al., MICCAI 2006;
    Vercauteren et al., NeuroImage 2009). It does not fold, and the opposite velocity leads back. The result is the
    deformation of the fixed image's world, and after it the linear transform to the moving one.
    """

    start: Start = "affine"
    """The linear alignment before, by the engine ``auto``; ``none`` where the images lie on each other already."""
    similarity: SimilarityName = "ncc"
    """``mse`` for equal contrast, ``ncc`` for one modality or representations, ``nmi`` and ``mind`` for two. Each image
    is brought to 0 to 1 between its percentiles before."""
    weight: float = 0.0
    """How smooth the deformation is to be; by default a value for each similarity: mse 0.02, ncc 0.4, nmi 0.2, mind
    0.2. Representations of two modalities want more: ncc 3."""
    regulariser: Literal["diffusion", "bending"] = "diffusion"
    """What is to be small: differences of the velocity between neighbours, or second differences."""
    order: Literal["warp-first", "features-first"] = "warp-first"
    """Describe the warped image anew in each step, or describe the moving image once and warp that: quicker."""
    finest_side: int = 0
    """The finest level has about as many pixels as a square or cube of this side; by default 512, and 96 in 3D."""
    steps: int = 80
    """Most steps at each level."""
    max_rotation_degrees: float = 180.0
    """Of the linear alignment before."""
    check_back: bool = True
    """Also deform the fixed image onto the moving one, at half the resolution, and tell how far the two are from being
    each other's inverse."""
    seed: int = 0
    """Of the linear alignment before."""

    name: ClassVar[str] = "deform"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})

    def __post_init__(self) -> None:
        if self.similarity not in WEIGHTS:
            raise InvalidInputError(f"unknown similarity {self.similarity!r}; known are {', '.join(WEIGHTS)}")
        if not (0 <= self.weight < np.inf and self.steps >= 1):
            raise InvalidInputError("the weight of a deformation is from 0 on, and it takes at least one step")
        if self.finest_side and self.finest_side < COARSEST_SIDE:
            raise InvalidInputError(f"the finest level needs a side of at least {COARSEST_SIDE} pixels")

    def find(self, fixed: Image, moving: Image) -> Registration:
        """Find the linear transform, then the deformation."""
        space = workspace.harmonised(fixed, moving)
        begun = self._begin(space, fixed, moving)
        linear = begun.fixed_to_moving
        if not isinstance(linear, Linear):
            return replace(begun, engine=self.name)
        grids, levels = self._levels(space, in_common(space, linear))
        seen = float((levels[-1].mask * levels[-1].moving_mask).mean())
        if seen < LEAST_OVERLAP * float(levels[-1].mask.mean()):
            reason = (
                f"after the linear alignment the images share only {seen:.0%} of the fixed one: nothing to deform by"
            )
            return Registration(self.name, "refused", None, (reason,), rejected=linear)
        return self._bent(begun, linear, (space.from_fixed, fixed.grid.unit), grids[-1], levels)

    def _begin(self, space: workspace.Workspace, fixed: Image, moving: Image) -> Registration:
        """The linear alignment."""
        if self.start == "none":
            still = space.to_world(identity(fixed.ndim))
            return Registration(self.name, "unsure", still, ("taken as aligned, as asked for",))
        linear = Auto(transform=self.start, max_rotation_degrees=self.max_rotation_degrees, seed=self.seed)
        return linear.register(fixed, moving)

    def _bent(
        self, begun: Registration, linear: Linear, home: tuple[Linear, Unit], grid: Grid, levels: "list[Level]"
    ) -> Registration:
        """The linear alignment with the deformation before it."""
        from modalign.deformation import find_flow, unfolded

        similarity, options = _similarity(self.similarity), self._options()
        flow = unfolded(find_flow(levels, similarity, options))
        stats = {**begun.stats, "unlike_before": flow.before, "unlike_after": flow.after, "steps": float(flow.steps)}
        if self.check_back and len(levels) > 1:
            stats["back_and_forth"] = self._back_and_forth(levels, flow, similarity)
        if float(flow.displacement().abs().max()) < STIFF:
            why = "there is nothing to bend"
            return Registration.judged(self.name, begun.status, linear, (*begun.reasons, why), stats)
        field = _in_world(flow, grid, *home)
        found = linear @ field
        stats |= {f"jacobian_{name}": value for name, value in vars(deformation(field, field.grid)).items()}
        stats["gain"] = self._gain(levels[-1], flow)
        why = f"bent by up to {_longest(field):.3g} {field.grid.unit}"
        limits = limited(begun.status, found, fixed_grid=field.grid, stats=stats)
        return Registration.judged(self.name, limits.status, found, (*begun.reasons, why, *limits.reasons), stats)

    def _gain(self, level: "Level", flow: "Flow") -> float:
        """How much more alike the images become by a similarity that was not maximised, as a fraction of before."""
        from modalign.deformation import unlikeness_under

        other = _similarity("mind" if self.similarity == "nmi" else "nmi")
        displacement = flow.displacement()
        before = unlikeness_under(level, other, 0 * displacement)
        return 1 - unlikeness_under(level, other, displacement) / max(before, 1e-6)

    def _options(self) -> Any:
        from modalign.deformation import FlowOptions

        weight = self.weight or WEIGHTS[self.similarity]
        return FlowOptions(weight, self.regulariser, self.order, steps=self.steps)

    def _back_and_forth(self, levels: "list[Level]", flow: "Flow", similarity: "Similarity") -> float:
        """Mean distance to where one started, after going there and by the deformation found for the way back.

        As a fraction of the width of the image; both at the resolution of the second-finest level.
        """
        from modalign.deformation import composed, find_flow, on_pixels

        turned = [
            replace(one, fixed=one.moving, moving=one.fixed, mask=one.moving_mask, moving_mask=one.mask)
            for one in levels[:-1]
        ]
        back = find_flow(turned, similarity, self._options()).displacement()
        there = on_pixels(flow.displacement(), back.shape[2:])
        valid = turned[-1].mask * turned[-1].moving_mask
        missed = composed(there, back).square().sum(1, keepdim=True).sqrt()
        return float((missed * valid).sum() / valid.sum().clamp(min=1)) / max(back.shape[2:])

    def _levels(self, space: workspace.Workspace, linear: Linear) -> "tuple[list[Grid], list[Level]]":
        """The fixed image and the moving one on its grid, coarsest first."""
        bring = workspace.pictures if self.similarity == "nmi" else workspace.comparable
        fixed, moving = bring(space.fixed, space.moving)
        side = self.finest_side or FINEST_SIDES[fixed.ndim]
        spacing = workspace.spacing_by_area(fixed, moving, side)
        spacings = [spacing]
        while len(spacings) < MOST_LEVELS and min(fixed.grid.extent) / spacings[0] / 2 >= COARSEST_SIDE:
            spacings.insert(0, 2 * spacings[0])
        ranges = [_range(image) for image in (fixed, moving)]
        grids, levels = [], []
        for size in spacings:
            still = workspace.isotropic(fixed, size)
            brought = workspace.isotropic(moving, size * stretch(linear)).resampled(still.grid, linear)
            grids.append(still.grid)
            levels.append(_level(still, brought, ranges))
        return grids, levels


def _similarity(name: SimilarityName) -> "Similarity":
    from modalign.losses import LocalNcc, MeanSquares, MindSsc, NormalizedMI

    kinds: dict[SimilarityName, Any] = {"mse": MeanSquares, "ncc": LocalNcc, "nmi": NormalizedMI, "mind": MindSsc}
    made: Similarity = kinds[name]()
    return made


def _level(fixed: Image, moving: Image, ranges: "list[Range]") -> "Level":
    from modalign.deformation import Level

    images = (_tensor(_scaled(image, one)) for image, one in zip((fixed, moving), ranges, strict=True))
    masks = (_tensor(image.valid[None]) for image in (fixed, moving))
    return Level(*images, *masks)


def _range(image: Image) -> Range:
    """What becomes 0 and 1 of each channel."""
    low, high = np.percentile(image.data[:, image.valid].astype(np.float32), PERCENTILES, axis=1)
    return low, high


def _scaled(image: Image, limits: Range) -> Float[Array, "channels *spatial"]:
    """Each channel from 0 to 1, and 0 where it is not valid."""
    low, high = (limit.reshape(-1, *(1,) * image.ndim) for limit in limits)
    scaled = (image.data - low) / np.maximum(high - low, 1e-12)
    return np.where(image.valid, np.clip(scaled, 0, 1), 0)


def _tensor(values: Array) -> "Tensor":
    import torch

    return torch.from_numpy(np.ascontiguousarray(values[None], np.float32))


def _in_world(flow: "Flow", grid: Grid, from_fixed: Linear, unit: Unit) -> DisplacementField:
    """The displacement in the fixed image's own world, where its pixels may have other sizes."""
    matrix = np.linalg.inv(from_fixed.matrix) @ grid.matrix
    axes = matrix[:-1, :-1]
    spacing = np.linalg.norm(axes, axis=0)
    own = Grid(grid.shape, tuple(spacing), tuple(matrix[:-1, -1]), as_rows(axes / spacing), unit)
    pixels = flow.displacement()[0].numpy()
    return DisplacementField(np.tensordot(axes, pixels, axes=1).astype(np.float32), own)


def _longest(field: DisplacementField) -> float:
    return float(np.linalg.norm(field.displacement, axis=0).max())
