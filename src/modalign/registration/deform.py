"""Deformable registration: a linear start, then the flow that makes the images most alike."""

from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np

from modalign.errors import InvalidInputError
from modalign.geometry import DisplacementField, Grid, Linear, as_rows, deformation, identity
from modalign.geometry.grid import Unit
from modalign.image import Image
from modalign.registration import workspace
from modalign.registration.auto import Auto
from modalign.registration.engine import Engine
from modalign.registration.levels import COARSEST_SIDE, Pyramid, pyramid
from modalign.registration.registrar import Registration
from modalign.registration.shared_information import in_common
from modalign.registration.similarity_choice import SimilarityName, check_similarity, similarity_of, usual_weight
from modalign.registration.soundness import limited

if TYPE_CHECKING:
    from modalign.deformation import DeformModel, Flow, FlowOptions, Level
    from modalign.losses import Similarity

Start: TypeAlias = Literal["rigid", "similarity", "affine", "none"]

LEAST_OVERLAP = 0.1
"""Less of the fixed image under the moving one is nothing to deform by."""
STIFF = 0.05
"""In pixels of the finest level: a field that nowhere moves further is left out."""


@dataclass(frozen=True)
class Deform(Engine):
    """Bend the moving image onto the fixed one, after a linear alignment.

    The flow of a velocity that does not change with time, found coarse to fine (Arsigny et al., MICCAI 2006;
    Vercauteren et al., NeuroImage 2009), or told by a network (Balakrishnan et al., IEEE TMI 2019) and refined. It does
    not fold, and the opposite velocity leads back. The result is the deformation of the fixed image's world, and after
    it the linear transform to the moving one.
    """

    start: Start = "affine"
    """The linear alignment before, by the engine ``auto``; ``none`` where the images lie on each other already."""
    similarity: SimilarityName = "ncc"
    """``mse`` for equal contrast, ``ncc`` for one modality or representations, ``nmi`` and ``mind`` for two,
    ``deepsim`` for what a network has learnt to see. Each image is brought to 0 to 1 between its percentiles before."""
    features: str = ""
    """Folder of the feature extractor that ``deepsim`` looks through (made by ``modalign train features``); by default
    the channels themselves, for representations with several."""
    maps: tuple[int, ...] = ()
    """Which maps of the extractor are compared: 0 1 2 the stages of its encoder, as published, and 3 the probabilities
    of the classes if it segments; by default all."""
    network: str = ""
    """Folder of a network that tells where to begin (made by ``modalign train deform``); it is then refined at the
    finest level, unless ``steps`` is 0."""
    weight: float = 0.0
    """How smooth the deformation is to be; by default a value for each similarity: mse 0.02, ncc 0.4, nmi 0.2, mind
    0.2, deepsim 0.3 with features and 4 on channels. Representations of two modalities want more: ncc 3."""
    regulariser: Literal["diffusion", "bending"] = "diffusion"
    """What is to be small: differences of the velocity between neighbours, or second differences."""
    order: Literal["warp-first", "features-first"] = "warp-first"
    """Describe the warped image anew in each step, or describe the moving image once and warp that: quicker."""
    finest_side: int = 0
    """The finest level has about as many pixels as a square or cube of this side; by default 512, and 96 in 3D."""
    steps: int = 80
    """Most steps at each level; 0 to take what a network tells as it is."""
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
        check_similarity(self.similarity, self.features, self.maps)
        if not (0 <= self.weight < np.inf and self.steps >= (0 if self.network else 1)):
            raise InvalidInputError(
                "the weight of a deformation is from 0 on, and it takes at least one step (none only with a network)"
            )
        if self.finest_side and self.finest_side < COARSEST_SIDE:
            raise InvalidInputError(f"the finest level needs a side of at least {COARSEST_SIDE} pixels")

    def find(self, fixed: Image, moving: Image) -> Registration:
        """Find the linear transform, then the deformation."""
        space = workspace.harmonised(fixed, moving)
        bring = workspace.pictures if self.similarity == "nmi" else workspace.comparable
        images = bring(space.fixed, space.moving)
        search = self._search(images[0])
        found = self._found(fixed, moving, space, images, search)
        return replace(found, notes=(*found.notes, *search.notes))

    def _found(
        self, fixed: Image, moving: Image, space: workspace.Workspace, images: tuple[Image, Image], search: "_Search"
    ) -> Registration:
        begun = self._begin(space, fixed, moving)
        linear = begun.fixed_to_moving
        if not isinstance(linear, Linear):
            return replace(begun, engine=self.name)
        seen = pyramid(*images, in_common(space, linear), self.finest_side)
        finest = seen.levels[-1]
        share = float((finest.mask * finest.moving_mask).mean())
        if share < LEAST_OVERLAP * float(finest.mask.mean()):
            reason = (
                f"after the linear alignment the images share only {share:.0%} of the fixed one: nothing to deform by"
            )
            return Registration(self.name, "refused", None, (reason,), rejected=linear)
        return self._bent(begun, linear, (space.from_fixed, fixed.grid.unit), search, seen)

    def _search(self, image: Image) -> "_Search":
        """How deformations between images like one are found; models are read, and refused, before anything is done."""
        from modalign.deformation import FlowOptions, load_deform_model
        from modalign.nn.bundle import doubts

        channels, ndim = len(image.data), image.ndim
        similarity = similarity_of(self.similarity, self.features, channels, ndim, self.maps)
        model = None
        if self.network:
            model = load_deform_model(Path(self.network))
            model.check(channels, ndim)
        weight = self.weight or usual_weight(self.similarity, self.features)
        options = FlowOptions(weight, self.regulariser, self.order, steps=self.steps)
        notes = [note for folder in (self.features, self.network) if folder for note in doubts(Path(folder))]
        return _Search(similarity, options, model, tuple(notes))

    def _begin(self, space: workspace.Workspace, fixed: Image, moving: Image) -> Registration:
        """The linear alignment."""
        if self.start == "none":
            still = space.to_world(identity(fixed.ndim))
            return Registration(self.name, "unsure", still, ("taken as aligned, as asked for",))
        linear = Auto(transform=self.start, max_rotation_degrees=self.max_rotation_degrees, seed=self.seed)
        return linear.register(fixed, moving)

    def _bent(
        self, begun: Registration, linear: Linear, home: tuple[Linear, Unit], search: "_Search", seen: Pyramid
    ) -> Registration:
        """The linear alignment with the deformation before it."""
        from modalign.deformation import before_and_after, unfolded

        flow = unfolded(search.flow(seen))
        displacement, finest = flow.displacement(), seen.levels[-1]
        before, after = before_and_after(finest, search.similarity, displacement)
        stats = {**begun.stats, "unlike_before": before, "unlike_after": after, "steps": float(flow.steps)}
        if self.check_back and len(seen.levels) > 1:
            stats["back_and_forth"] = search.back_and_forth(seen, flow)
        if float(displacement.abs().max()) < STIFF:
            why = "there is nothing to bend"
            return Registration.judged(self.name, begun.status, linear, (*begun.reasons, why), stats)
        field = _in_world(flow, seen.grids[-1], *home)
        found = linear @ field
        stats |= {f"jacobian_{name}": value for name, value in vars(deformation(field, field.grid)).items()}
        other = similarity_of("mind" if self.similarity == "nmi" else "nmi", "", 1, linear.ndim)
        before, after = before_and_after(finest, other, displacement)
        stats["gain"] = 1 - after / max(before, 1e-6)
        why = f"bent by up to {_longest(field):.3g} {field.grid.unit}"
        limits = limited(begun.status, found, fixed_grid=field.grid, stats=stats)
        return Registration.judged(self.name, limits.status, found, (*begun.reasons, why, *limits.reasons), stats)


@dataclass(frozen=True, eq=False)
class _Search:
    """How the deformation is found: by a network, by the descent on a similarity, or by one after the other."""

    similarity: "Similarity"
    options: "FlowOptions"
    model: "DeformModel | None"
    notes: tuple[str, ...] = ()

    def flow(self, seen: Pyramid) -> "Flow":
        """What brings the moving image of a pyramid onto the fixed one."""
        from modalign.deformation import Flow, find_flow

        if self.model is None:
            return find_flow(seen.levels, self.similarity, self.options)
        level = seen.levels[self._nearest(seen.grids, self.model)]
        velocity = self.model.network(level.fixed, level.moving)
        if not self.options.steps:
            return Flow(velocity, seen.levels[-1].shape, 0)
        return find_flow(seen.levels[-1:], self.similarity, self.options, begin=velocity)

    def _nearest(self, grids: tuple[Grid, ...], model: "DeformModel") -> int:
        """Which level has about the pixel size that a network was trained at; the finest where sizes are not known."""
        wanted = model.card.pixel_size_in(grids[0].unit)
        if wanted is None:
            return len(grids) - 1
        return min(range(len(grids)), key=lambda k: abs(log(grids[k].spacing[0] / wanted)))

    def back_and_forth(self, seen: Pyramid, flow: "Flow") -> float:
        """Mean distance to where one started, after going there and by the deformation found for the way back.

        As a fraction of the width of the image; both at the resolution of the second-finest level.
        """
        from modalign.deformation import composed, on_pixels

        turned = [_turned(level) for level in seen.levels[:-1]]
        back = self.flow(Pyramid(seen.grids[:-1], tuple(turned))).displacement()
        there = on_pixels(flow.displacement(), back.shape[2:])
        valid = turned[-1].mask * turned[-1].moving_mask
        missed = composed(there, back).square().sum(1, keepdim=True).sqrt()
        return float((missed * valid).sum() / valid.sum().clamp(min=1)) / max(back.shape[2:])


def _turned(level: "Level") -> "Level":
    """The way back."""
    return replace(level, fixed=level.moving, moving=level.fixed, mask=level.moving_mask, moving_mask=level.mask)


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
