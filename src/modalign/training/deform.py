"""Training a network that tells the deformation between two images at once: without truth, by any similarity.

Source: Balakrishnan et al., VoxelMorph: A Learning Framework for Deformable Medical Image Registration, IEEE TMI 2019.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.data.labelled import LabelKind, LabelledImage, class_values
from modalign.deformation import DeformCard, DeformModel, DeformNet, DeformNetOptions, diffusion, exponential, warp
from modalign.errors import InvalidInputError, TrainingError
from modalign.io import plain
from modalign.losses import DeepSim, Similarity, unlikeness
from modalign.nn.feature_net import FrozenExtractor
from modalign.overlap import dice
from modalign.registration.levels import FINEST_SIDES
from modalign.registration.similarity_choice import SimilarityName, check_similarity, similarity_of, usual_weight
from modalign.registration.workspace import spacing_by_area
from modalign.training.deform_pairs import DeformPairs, Pairing, stacked
from modalign.training.loop import FitOptions, FitProgress, Fitted, fit

PATCHES = {2: 192, 3: 64}
"""Side of the training patches by the number of dimensions; images that are smaller are seen whole."""
LEAST_PATCH = 16
LEAST_GAIN = 0.02
"""Of the way from how the images lie to perfect agreement: a network that comes less far is of no use."""
MOST_JUDGED = 12
"""Validation pairs, evenly chosen where there are more."""


@dataclass(frozen=True)
class DeformOptions(FitOptions):
    """How a network that deforms is trained."""

    pairing: Pairing = "neighbours"
    """Which images are brought onto each other: ``neighbours`` in the order of their names (sections, frames), any two
    ``subjects``, or each onto the ``atlas``."""
    reach: int = 2
    """How many places away neighbours may be."""
    similarity: SimilarityName = "ncc"
    """What makes two images alike, as in registration."""
    features: str = ""
    """Folder of the feature extractor that ``deepsim`` looks through."""
    maps: tuple[int, ...] = ()
    """Which of its maps are compared; by default all."""
    weight: float = 0.0
    """How smooth the deformation is to be; by default a value for each similarity, as in registration."""
    supervision: float = 0.0
    """Weight of the squared difference between the warped labels of the moving image and those of the fixed one."""
    labels_are: LabelKind = "classes"
    """Labels are ``classes``, or number ``instances``: then inside and outline of objects are told apart."""
    network: DeformNetOptions = field(default_factory=DeformNetOptions)
    """The form of the network."""
    pixel_size: float = 0.0
    """Learn at this pixel size, in the unit of the images; by default at their own, or what makes them as small as the
    finest level of a registration."""
    patch: int | None = None
    """Side of the training patches in pixels, by default 192, and 64 for volumes."""
    batch: int = 1
    """Pairs in a step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_similarity(self.similarity, self.features, self.maps)
        for name in ("weight", "supervision", "pixel_size"):
            if not 0 <= getattr(self, name) < inf:
                raise InvalidInputError(f"{name} must be a number from 0 on, not {getattr(self, name):g}")
        for name, least in (("reach", 1), ("batch", 1), ("patch", LEAST_PATCH)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InvalidInputError(f"{name} must be at least {least}, not {value}")


@dataclass(frozen=True)
class TrainedDeform:
    """The outcome of training.

    Attributes:
        model: The best validated network.
        fitted: How the training went; the score is the mean Dice of the labels of validation pairs, or where there are
            no labels, the loss with its sign turned.
        before: The score without deformation.
        learnt: Whether the network brings images closer than they lie.
        message: One plain sentence about that.
    """

    model: DeformModel
    fitted: Fitted
    before: float
    learnt: bool
    message: str


def fit_deform(
    images: Sequence[LabelledImage],
    validation_images: Sequence[LabelledImage],
    options: DeformOptions,
    *,
    atlas: LabelledImage | None = None,
    about: Mapping[str, Any] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    report: Callable[[FitProgress], None] = lambda _: None,
) -> TrainedDeform:
    """Train a network on images that lie roughly on each other, middle on middle.

    Args:
        images: To train on, in the order in which neighbours follow each other. Labels serve to judge the network, and
            to train it where there is supervision.
        validation_images: To choose the best network on; where there are too few for a pair, the training images.
        options: See :class:`DeformOptions`.
        atlas: The fixed image of all pairs, where that is the pairing.
        about: Facts for the card, such as the licence of the data.
        checkpoint: Folder that holds the state of an unfinished training.
        resume: Go on from that folder, if it exists.
        report: Called before the first step and after every one.

    Raises:
        TrainingError: There are too few images, they differ in form, or labels are missing.
        InvalidInputError: The similarity does not fit the images.
        ModelError: The folder of features holds no feature extractor.
    """
    _check([*images, *validation_images, *([atlas] if atlas else [])], options, atlas)
    torch.manual_seed(options.seed)
    judged_on_training = len(validation_images) < (1 if atlas else 2)
    task = _Task(images, images if judged_on_training else validation_images, atlas, options)
    before = task.judged(None, torch.device("cpu"))
    fitted = fit(task, options, checkpoint=checkpoint, resume=resume, report=report)
    room = 1 - before if task.classes else abs(before)
    learnt = fitted.score - before >= LEAST_GAIN * room
    training = {
        **(about or {}),
        **task.identity,
        "options": asdict(options),
        "steps": fitted.steps,
        "seconds": round(fitted.seconds, 1),
        "score_before": before,
        "score": fitted.score,
        "validated_on_training_images": judged_on_training,
        "history": list(fitted.history),
        "learnt": learnt,
    }
    network = task.network.cpu().requires_grad_(requires_grad=False)
    what = "mean Dice of the labels" if task.classes else "likeness (the loss with its sign turned)"
    told = f"{what} of validation pairs: {before:.3f} as they lie, {fitted.score:.3f} deformed"
    message = (
        f"The network has learnt: {told}."
        if learnt
        else f"The network is of no use yet: {told}. Train longer, or check that the images lie roughly on each other."
    )
    return TrainedDeform(
        DeformModel(replace(task.card, training=plain(training)), network), fitted, before, learnt, message
    )


def _check(images: Sequence[LabelledImage], options: DeformOptions, atlas: LabelledImage | None) -> None:
    if (options.pairing == "atlas") != (atlas is not None):
        raise TrainingError("the pairing 'atlas' needs an atlas to bring the images onto, and an atlas that pairing")
    if len(images) < 2:
        raise TrainingError("a deformation needs at least two images to train on")
    bare = [one.name for one in images if one.labels is None]
    if 0 < len(bare) < len(images) or (bare and options.supervision):
        raise TrainingError(f"labels are missing: {', '.join(bare[:8])}")
    forms = {(len(one.image.data), one.image.ndim, one.image.grid.unit) for one in images}
    if len(forms) > 1:
        raise TrainingError(f"the images differ in channels, dimensions, or the unit of their pixels: {sorted(forms)}")


class _Task:
    """What the loop of :mod:`modalign.training.loop` trains."""

    def __init__(
        self,
        images: Sequence[LabelledImage],
        validation: Sequence[LabelledImage],
        atlas: LabelledImage | None,
        options: DeformOptions,
    ) -> None:
        self.options, first = options, images[0].image
        self.channels, ndim = len(first.data), first.ndim
        values = () if images[0].labels is None else class_values(images, options.labels_are)
        self.classes = len(values)
        size = options.pixel_size or spacing_by_area(first, first, FINEST_SIDES[ndim])
        fixed = None if atlas is None else stacked(atlas, size, options.labels_are, values)
        self.pairs, self.judging = (
            DeformPairs(
                tuple(stacked(one, size, options.labels_are, values) for one in some),
                fixed,
                options.pairing,
                options.reach,
                self.channels,
            )
            for some in (images, validation)
        )
        self.card = DeformCard(ndim, self.channels, options.network.resolved(ndim), size, first.grid.unit)
        self.network = self.card.build()
        self.similarities: dict[torch.device, Similarity] = {}
        self._similarity(torch.device("cpu"))  # complains here if it does not fit the images
        self.weight = options.weight or usual_weight(options.similarity, options.features)
        self.patch = options.patch or PATCHES[ndim]
        self.identity = {
            "label_values": list(values),
            "images": [one.name for one in images],
            "validation_images": [] if validation is images else [one.name for one in validation],
            "atlas": None if atlas is None else atlas.name,
        }

    def loss(self, generator: np.random.Generator, device: torch.device) -> Tensor:
        """Unlikeness, roughness and the difference of the labels, over some pairs."""
        losses = []
        for _ in range(self.options.batch):
            fixed, moving = _tensors(self.pairs.draw(self.patch, generator), device)
            velocity = self.network(fixed[:, : self.channels], moving[:, : self.channels])
            losses.append(self._loss(fixed, moving, velocity))
        return torch.stack(losses).mean()

    def score(self, device: torch.device) -> float:
        """How well the validation pairs lie on each other."""
        return self.judged(self.network, device)

    def judged(self, network: DeformNet | None, device: torch.device) -> float:
        """The mean Dice of validation pairs, or the loss with its sign turned; without a network, as they lie."""
        scores = []
        with torch.no_grad():
            for pair in self.judging.examples(MOST_JUDGED):
                fixed, moving = _tensors(pair, device)
                still = torch.zeros(1, fixed.ndim - 2, *fixed.shape[2:], device=device)
                velocity = still if network is None else network(fixed[:, : self.channels], moving[:, : self.channels])
                scores.append(
                    self._dice(fixed, moving, velocity) if self.classes else -float(self._loss(fixed, moving, velocity))
                )
        return float(np.mean(scores))

    def _loss(self, fixed: Tensor, moving: Tensor, velocity: Tensor) -> Tensor:
        # the gradient reaches the velocity by way of the displacement as it is, as in the search pair by pair
        displacement = exponential(velocity.detach()) + velocity - velocity.detach()
        warped = warp(moving, displacement)
        mask = fixed[:, self.channels, None] * warped[:, self.channels, None].detach()
        loss = unlikeness(self._similarity(fixed.device), warped[:, : self.channels], fixed[:, : self.channels], mask)
        if self.options.supervision:
            differ = (warped - fixed)[:, self.channels + 1 :].square() * mask
            loss = loss + self.options.supervision * differ.mean()
        return loss + self.weight * diffusion(velocity)

    def _similarity(self, device: torch.device) -> Similarity:
        """The similarity, with the network that it may look through on a device."""
        if device not in self.similarities:
            found = similarity_of(
                self.options.similarity, self.options.features, self.channels, self.card.ndim, self.options.maps
            )
            if isinstance(found, DeepSim) and isinstance(found.extractor, FrozenExtractor):
                found = replace(found, extractor=found.extractor.on(device))
            self.similarities[device] = found
        return self.similarities[device]

    def _dice(self, fixed: Tensor, moving: Tensor, velocity: Tensor) -> float:
        warped = warp(moving, exponential(velocity))
        one, other = (stack[0, self.channels + 1 :].argmax(0).cpu().numpy() for stack in (fixed, warped))
        return dice(one, other)


def _tensors(pair: tuple[np.ndarray, np.ndarray], device: torch.device) -> tuple[Tensor, Tensor]:
    fixed, moving = (torch.from_numpy(stack)[None].to(device) for stack in pair)
    return fixed, moving
