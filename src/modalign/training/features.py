"""Training a feature extractor: to segment labelled images, or to reproduce images without labels.

Source: Czolbe et al., Semantic similarity metrics for learned image registration, MIDL 2021. Beyond it, patches are
seen at several resolutions and under noise, as registration goes from coarse to fine and images are noisy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from modalign.data.augmentation import Augmentation
from modalign.data.labelled import LabelKind, LabelledImage, LabelledPatches, class_values
from modalign.errors import InvalidInputError, TrainingError
from modalign.io import plain
from modalign.nn.feature_net import FeatureNetOptions
from modalign.representation.features import FeatureCard, FeatureModel
from modalign.training.loop import FitOptions, FitProgress, Fitted, fit

PATCHES = {2: 96, 3: 32}
"""Side of the training patches by the number of dimensions."""
MEMORY_SEED = 1
"""Of the patches that the network is judged on, which are the same each time."""
LEAST_SHARE = 0.2
"""A network has learnt next to nothing where it goes less than this part of the way from one class everywhere to the
labels, or reproduces less than this share of the variance."""


@dataclass(frozen=True)
class FeatureOptions(FitOptions):
    """How a feature extractor is trained."""

    labels_are: LabelKind = "classes"
    """Labels are ``classes``, or number ``instances`` (cells): then inside and outline of objects are told apart."""
    network: FeatureNetOptions = field(default_factory=FeatureNetOptions)
    """The form of the network."""
    patch: int | None = None
    """Side of the training patches in pixels, by default 96, and 32 for volumes; at most that of the largest image."""
    batch: int = 8
    """Patches in a step."""
    noise: float = 0.3
    """Largest standard deviation of noise on the patches, whose intensities run from 0 to 1; an auto-encoder is to
    reproduce them without it."""
    augmentation: Augmentation = field(default_factory=lambda: Augmentation(gamma=0.3, contrast=0.2, noise=0.0))
    """Random changes of the intensities."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 1:
            raise InvalidInputError(f"a batch has at least one patch, not {self.batch}")
        if not 0 <= self.noise < inf:
            raise InvalidInputError(f"the noise must be a number from 0 on, not {self.noise:g}")
        if self.patch is not None and self.patch < 16:
            raise InvalidInputError(f"patches need at least 16 pixels a side, not {self.patch}")


@dataclass(frozen=True)
class TrainedFeatures:
    """The outcome of training.

    Attributes:
        model: The best validated extractor.
        fitted: How the training went; the score is the mean Dice of the classes above 0 on validation patches, or the
            share of their variance that the auto-encoder reproduces.
        learnt: Whether it learnt anything.
        message: One plain sentence about that.
    """

    model: FeatureModel
    fitted: Fitted
    learnt: bool
    message: str


def fit_features(
    images: Sequence[LabelledImage],
    validation_images: Sequence[LabelledImage],
    options: FeatureOptions,
    *,
    about: Mapping[str, Any] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    report: Callable[[FitProgress], None] = lambda _: None,
) -> TrainedFeatures:
    """Train an extractor: a segmentation network where the images have labels, else an auto-encoder.

    Args:
        images: To train on.
        validation_images: To choose the best network on; where empty, the training images, and the card says so.
        options: See :class:`FeatureOptions`.
        about: Facts for the card, such as the licence of the data.
        checkpoint: Folder that holds the state of an unfinished training.
        resume: Go on from that folder, if it exists.
        report: Called before the first step and after every one.

    Raises:
        TrainingError: There is no image, some have labels and some have not, or the images differ in form.
        InvalidInputError: The label maps are empty, or do not hold classes.
    """
    _check([*images, *validation_images])
    torch.manual_seed(options.seed)
    task = _Task(images, validation_images or images, options)
    fitted = fit(task, options, checkpoint=checkpoint, resume=resume, report=report)
    learnt, message = _judgement(task, fitted)
    training = {
        **(about or {}),
        **task.identity,
        "options": asdict(options),
        "steps": fitted.steps,
        "seconds": round(fitted.seconds, 1),
        "score": fitted.score,
        "validated_on_training_images": not validation_images,
        "history": list(fitted.history),
        "learnt": learnt,
    }
    return TrainedFeatures(
        FeatureModel(replace(task.card, training=plain(training)), task.network.cpu()), fitted, learnt, message
    )


def _check(images: Sequence[LabelledImage]) -> None:
    if not images:
        raise TrainingError("there is no image to train on")
    bare = [one.name for one in images if one.labels is None]
    if 0 < len(bare) < len(images):
        raise TrainingError(f"images without labels among labelled ones: {', '.join(bare[:8])}")
    forms = {(len(one.image.data), one.image.ndim) for one in images}
    if len(forms) > 1:
        raise TrainingError(f"the images differ in channels and dimensions: {sorted(forms)}")


def _judgement(task: "_Task", fitted: Fitted) -> tuple[bool, str]:
    is_segmentation = task.card.task == "segmentation"
    chance = task.chance() if is_segmentation else 0.0
    what = "mean Dice of the classes" if is_segmentation else "reproduced share of the variance"
    told = f"{what} on validation patches: {fitted.score:.2f}" + (f" (by chance {chance:.2f})" if chance else "")
    if fitted.score - chance >= LEAST_SHARE * (1 - chance):
        return True, f"The extractor has learnt: {told}."
    advice = " or check that the labels lie on the images" if is_segmentation else " or on images with more structure"
    return False, f"Next to nothing was learnt: {told}. Train longer,{advice}."


class _Task:
    """What the loop of :mod:`modalign.training.loop` trains."""

    def __init__(
        self, images: Sequence[LabelledImage], validation: Sequence[LabelledImage], options: FeatureOptions
    ) -> None:
        first, self.options = images[0].image, options
        is_labelled = images[0].labels is not None
        values = class_values(images, options.labels_are) if is_labelled else ()
        self.patches, self.judged = (
            LabelledPatches.of(some, options.labels_are, values) for some in (images, validation)
        )
        self.card = FeatureCard(
            "segmentation" if is_labelled else "autoencoder",
            first.ndim,
            first.channels,
            len(values),
            options.network.resolved(first.ndim),
            first.grid.spacing,
            first.grid.unit,
        )
        self.network = self.card.build()
        stride = self.network.stride
        longest = max(max(one.image.grid.shape) for one in images)
        self.patch = -(-min(options.patch or PATCHES[first.ndim], longest) // stride) * stride
        self.identity = {
            "images": [one.name for one in images],
            "validation_images": [] if validation is images else [one.name for one in validation],
            "label_values": list(values),
        }
        shares = self.patches.shares(max(len(values), 1))
        self.weights = torch.from_numpy(1 / np.sqrt(np.maximum(shares, 1e-4))).float()

    def loss(self, generator: np.random.Generator, device: torch.device) -> Tensor:
        """Cross entropy, rarer classes counting more, or the squared error of the patches without their noise."""
        unit, classes, valid = self._drawn(self.patches, self.options.batch, generator, device)
        chance = torch.Generator().manual_seed(int(generator.integers(2**62)))
        clean = self.options.augmentation.intensity(unit, chance)
        level = self.options.noise * torch.rand(len(unit), *(1,) * (unit.ndim - 1), generator=chance)
        noise = torch.randn(unit.shape, generator=chance)
        found = self.network(clean + (level * noise).to(device))
        if self.card.task == "segmentation":
            losses = functional.cross_entropy(found, classes, self.weights.to(device), reduction="none")[:, None]
        else:
            losses = (found - clean).square()
        return (losses * valid).sum() / (valid.sum() * losses.shape[1]).clamp(min=1)

    def chance(self) -> float:
        """The best score of one class everywhere."""
        _, classes, valid = self._judged(torch.device("cpu"))
        guesses = (torch.full_like(classes, number) for number in range(1, self.card.classes))
        return max(_dice(guess, classes, valid[:, 0] > 0, self.card.classes) for guess in guesses)

    def score(self, device: torch.device) -> float:
        """Mean Dice of the classes above 0 that occur, or the share of the variance that is reproduced."""
        unit, classes, valid = self._judged(device)
        found = torch.cat([self.network(part) for part in torch.split(unit, self.options.batch)])
        if self.card.task == "segmentation":
            return _dice(found.argmax(1), classes, valid[:, 0] > 0, self.card.classes)
        over = tuple(axis for axis in range(unit.ndim) if axis != 1)
        means = (unit * valid).sum(over, keepdim=True) / valid.sum().clamp(min=1)
        spread = ((unit - means).square() * valid).sum()
        return float(1 - ((found - unit).square() * valid).sum() / spread.clamp(min=1e-9))

    def _judged(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """The patches that the network is judged on."""
        return self._drawn(self.judged, 4 * self.options.batch, np.random.default_rng(MEMORY_SEED), device)

    def _drawn(
        self, patches: LabelledPatches, count: int, generator: np.random.Generator, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor]:
        unit, classes, valid = (
            torch.from_numpy(array).to(device) for array in patches.draw(count, self.patch, generator)
        )
        return unit, classes, valid


def _dice(found: Tensor, true: Tensor, valid: Tensor, classes: int) -> float:
    scores = []
    for number in range(1, classes):
        ours, theirs = (found == number) & valid, (true == number) & valid
        total = int(ours.sum() + theirs.sum())
        if total:
            scores.append(2 * int((ours & theirs).sum()) / total)
    return float(np.mean(scores)) if scores else 0.0
