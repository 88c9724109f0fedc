"""The demonstration: made-up tissue, a model trained on a few pairs of it, and unseen pairs aligned with that model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from modalign.data.augmentation import Augmentation
from modalign.data.pairs import Pair
from modalign.data.tissue import TissueOptions, tissue
from modalign.geometry import Rigid, corner_error, rotation_matrix
from modalign.image import Image
from modalign.pipeline import Alignment, align
from modalign.registration import Auto, MutualInformation, Registrar
from modalign.report import magenta_green, pictures
from modalign.representation import ComirModel
from modalign.training import ComirOptions, TrainedComir, TrainingProgress, fit_comir
from modalign.training.calibration import CalibrationOptions
from modalign.training.validation import ValidationOptions

MODALITIES = ("second harmonic", "bright field")
UNSEEN = 1000
"""Seeds of tissues that are registered begin here; those that are trained on begin at 0."""


@dataclass(frozen=True)
class DemoOptions:
    """What the demonstration does."""

    pairs: int = 10
    """Tissues to train on; a fifth of them is used to judge the model while it trains."""
    side: int = 256
    """Side of the images in pixels."""
    training: ComirOptions = field(
        default_factory=lambda: ComirOptions(
            steps=400,
            augmentation=Augmentation(gamma=0.3, contrast=0.1, mixing=0.03),
            validation=ValidationOptions(times=2, draws=2),
            calibration=CalibrationOptions(displaced=16, unrelated=12, missed=10),
            checkpoint_seconds=1e9,
        )
    )
    """How the model is trained: by steps, so that the result is the same on every machine of a kind, and with little
    variation of colour, since made-up collagen differs from other fibres by its hue alone."""


@dataclass(frozen=True)
class Displacement:
    """How the bright-field view of a case lies to the second-harmonic one."""

    title: str
    rotation_degrees: float
    shift: tuple[float, float]
    """Fractions of the field, (y, x)."""
    mirrored: bool = False
    related: bool = True
    """Whether the two views show the same tissue at all."""


CASES = (
    Displacement("turned", -23.0, (0.05, -0.08)),
    Displacement("upside down", 171.0, (-0.03, 0.06)),
    Displacement("mirrored", 40.0, (0.04, 0.02), mirrored=True),
    Displacement("shifted by a third", 12.0, (0.02, 0.33)),
    Displacement("another tissue", 15.0, (0.05, 0.05), related=False),
)


@dataclass(frozen=True)
class Case:
    """Two views to align, with the truth.

    Attributes:
        displacement: How they lie to each other.
        fixed: Second-harmonic view.
        moving: Bright-field view of the same tissue, displaced; of another tissue where not related.
        fixed_to_moving: The truth; ``None`` where the views are not related.
    """

    displacement: Displacement
    fixed: Image
    moving: Image
    fixed_to_moving: Rigid | None


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        case: The views and the truth.
        alignment: Through the learned representation.
        error: Mean corner error in pixels; infinite where refused, ``None`` where there is no truth.
        comparison_error: The same for mutual information on the original images.
    """

    case: Case
    alignment: Alignment
    error: float | None
    comparison_error: float | None

    @property
    def is_right(self) -> bool:
        """Aligned to within 2 % of the width, or refused where there is nothing to align."""
        if self.error is None:
            return self.alignment.registration.status == "refused"
        return self.error <= 0.02 * self.case.fixed.grid.shape[-1]

    def pictures(self) -> dict[str, Image]:
        """The views, their representations, and these overlaid before and after, under their titles."""
        fixed, moving = self.alignment.fixed, self.alignment.moving
        shown = pictures([fixed, moving])
        images = {
            "fixed: second harmonic": self.case.fixed,
            "its representation": shown[0],
            "representations before": magenta_green(fixed, moving),
            "moving: bright field": self.case.moving,
            "its representation ": shown[1],
        }
        found = self.alignment.registration.fixed_to_moving
        if found is not None:
            images["representations after"] = magenta_green(fixed, moving.resampled(fixed.grid, found))
        return images


def training_pairs(options: DemoOptions) -> Iterator[Pair]:
    """The tissues to train on, one after the other."""
    for seed in range(options.pairs):
        made = tissue(seed, TissueOptions(shape=(options.side, options.side)))
        yield Pair(f"tissue_{seed:02d}", made.second_harmonic, made.bright_field)


def train(
    pairs: list[Pair], options: DemoOptions, report: Callable[[TrainingProgress], None] = lambda _: None
) -> TrainedComir:
    """Train on the first four fifths of the pairs and judge on the rest."""
    kept = max(1, len(pairs) // 5)
    about = {"licence": "synthetic images, MIT"}
    return fit_comir(pairs[:-kept], pairs[-kept:], options.training, modalities=MODALITIES, about=about, report=report)


def cases(options: DemoOptions) -> Iterator[Case]:
    """Unseen tissues, each seen twice: second harmonic at its centre, bright field displaced."""
    for number, displacement in enumerate(CASES):
        yield _case(UNSEEN + number, displacement, options.side)


def solve(case: Case, model: ComirModel) -> Outcome:
    """Align one case through the model, and by mutual information on the originals for comparison."""
    alignment = align(case.fixed, case.moving, Auto(mirror=True), model=model)
    comparison = align(case.fixed, case.moving, _comparison())
    return Outcome(case, alignment, _error(case, alignment), _error(case, comparison))


def _comparison() -> Registrar:
    return MutualInformation()


def _case(seed: int, displacement: Displacement, side: int) -> Case:
    """The bright-field view is sampled once from a larger field, so it has no empty corners."""
    larger = TissueOptions(shape=(2 * side, 2 * side))
    made = tissue(seed, larger)
    view = made.second_harmonic.grid.centered((side, side))
    start = (side // 2, side // 2)
    crop = made.second_harmonic.cropped(start, (side, side))
    rotation = rotation_matrix(2, displacement.rotation_degrees)
    if displacement.mirrored:
        rotation = rotation @ np.diag([1.0, -1.0])
    shift = np.array(displacement.shift) * view.extent
    in_the_larger = Rigid.about(crop.grid.center, rotation, shift)
    seen = made.bright_field if displacement.related else tissue(seed + UNSEEN, larger).bright_field
    cut = seen.resampled(crop.grid, in_the_larger.inverse(), order=3, fill=255.0)
    # as files of a microscope have it: every image begins at the origin of its own world
    alone = replace(crop.grid, origin=(0.0,) * crop.ndim)
    fixed, moving = crop.with_grid(alone), replace(cut, mask=None).with_grid(alone)
    fixed_to_moving = Rigid.about(alone.center, rotation, shift)
    return Case(displacement, fixed, moving, fixed_to_moving if displacement.related else None)


def _error(case: Case, alignment: Alignment) -> float | None:
    if case.fixed_to_moving is None:
        return None
    found = alignment.registration.fixed_to_moving
    if found is None:
        return float("inf")
    return corner_error(case.fixed.grid, found, case.fixed_to_moving) / case.fixed.grid.spacing[0]
