"""``modalign train features`` and ``modalign train deform``: networks that learn from one folder of images."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from modalign.cli.console import EXIT_NOT_TRUSTED, parse, progress
from modalign.cli.unfinished import check_out, interruptible, remove_state, unfinished_state
from modalign.data.labelled import LabelledImage, listed, load_labelled
from modalign.errors import InvalidInputError
from modalign.training import DeformOptions, FeatureOptions, FitProgress, fit_deform, fit_features

if TYPE_CHECKING:
    from modalign.training import TrainedDeform, TrainedFeatures


LEAST_TO_DIVIDE = 5
"""Fewer images, or pairs of them, are all needed to train on."""


@dataclass(frozen=True)
class _FromImages:
    """What is learnt from a folder of images."""

    images: tyro.conf.Positional[Path]
    """Folder with the images."""
    labels: tyro.conf.Positional[Path | None] = None
    """Folder with their label maps, with the same file stems; 0 is background."""
    out: Path = field(kw_only=True)
    """Model folder to write."""
    validation: int | None = None
    """How many images, the last ones by name, are kept aside to choose the best network on; by default a fifth."""
    licence: str = "not stated"
    """Licence of the training data, written into the model."""
    resume: bool = False
    """Go on with a training that was interrupted; its state lies in a folder beside the model, OUT.training."""
    overwrite: bool = False
    """Replace a model that is already there, and give up a training that was interrupted."""

    def images_read(self) -> list[LabelledImage]:
        """The images of the folder; says which have pixels that are left out.

        Raises:
            PairingError: See :func:`load_labelled`.
        """
        found = load_labelled(self.images, self.labels)
        partial = [one.name for one in found if not one.image.valid.all()]
        if partial:
            why = "pixels that are no numbers, or transparent, are left out"
            print(f"note: {why}, in {listed(partial)}", file=sys.stderr)
        return found

    def parts(
        self, found: Sequence[LabelledImage], least: int = 1
    ) -> tuple[Sequence[LabelledImage], Sequence[LabelledImage]]:
        """The images to train on, and those kept aside, none or at least so many.

        Raises:
            InvalidInputError: Too few are kept aside, or none would be left to train on.
        """
        kept = self.validation
        if kept is None:
            kept = max(len(found) // 5, least) if len(found) >= LEAST_TO_DIVIDE * least else 0
        if 0 < kept < least:
            raise InvalidInputError(f"--validation {kept} makes no pair to validate on: keep {least} aside, or 0")
        if not 0 <= kept < len(found):
            raise InvalidInputError(f"--validation {kept} leaves nothing of {len(found)} images to train on")
        aside = f"{kept} kept aside to validate on" if kept else "none kept aside: validated on the same"
        print(f"training on {len(found) - kept} of {len(found)} images, {aside}", file=sys.stderr)
        return found[: len(found) - kept], found[len(found) - kept :]


@dataclass(frozen=True)
class TrainFeatures(_FromImages):
    """Learn what to look at: the feature extractor of 'modalign register --engine deform --similarity deepsim'.

    With labels the network learns to segment; without, to reproduce the images.
    """

    options: Annotated[FeatureOptions, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands] = FeatureOptions()
    """How to train."""


@dataclass(frozen=True)
class TrainDeform(_FromImages):
    """Learn to deform: the network of 'modalign register --engine deform --network'.

    The images are of one modality and lie roughly on each other, middle on middle. Neighbours follow each other in the
    order of their names. Labels serve to judge the network, and to train it with --supervision.
    """

    atlas: str | None = None
    """Name (file stem) of the image in the folder onto which all others are brought; for --pairing atlas."""
    options: Annotated[DeformOptions, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands] = DeformOptions()
    """How to train."""


def run_features(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    command = parse(TrainFeatures, "train features", arguments)
    state = _checked_state(command)
    parts = command.parts(command.images_read())
    next_ = "modalign register FIXED MOVING --engine deform --similarity deepsim --features"
    return _trained(command, state, lambda **how: fit_features(*parts, command.options, **how), next_)


def run_deform(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    command = parse(TrainDeform, "train deform", arguments)
    if (command.options.pairing == "atlas") != (command.atlas is not None):
        raise InvalidInputError("--pairing atlas and --atlas NAME go together: give both, or none")
    if command.options.supervision and command.labels is None:
        raise InvalidInputError("--supervision compares labels: give their folder after that of the images")
    state = _checked_state(command)
    found = command.images_read()
    atlas = next((one for one in found if one.name == command.atlas), None)
    if command.atlas is not None and atlas is None:
        raise InvalidInputError(f"--atlas {command.atlas}: no image in {command.images} has this name")
    parts = command.parts([one for one in found if one is not atlas], 2 if atlas is None else 1)
    next_ = "modalign register FIXED MOVING --engine deform --network"
    return _trained(command, state, lambda **how: fit_deform(*parts, command.options, atlas=atlas, **how), next_)


def _checked_state(command: _FromImages) -> Path:
    """Where the state of an unfinished training lies, once it is clear that the model may be written."""
    check_out(command.out, overwrite=command.overwrite)
    return unfinished_state(command.out, resume=command.resume, overwrite=command.overwrite)


def _trained(command: _FromImages, state: Path, train: Any, next_: str) -> int:
    """Train with a bar, an end that can be taken up again, and a word on what came out."""
    with interruptible(state) as stopping, progress("train") as advance:

        def report(now: FitProgress) -> None:
            if stopping.is_set():
                raise KeyboardInterrupt
            judged = "" if now.score is None else f", validation {now.score:.3f}"
            advance(now.fraction, f"step {now.step}" + (f", loss {now.loss:.3f}{judged}" if now.step else ""))

        trained: TrainedFeatures | TrainedDeform = train(
            about={"licence": command.licence}, checkpoint=state, resume=command.resume, report=report
        )
    trained.model.save(command.out)
    remove_state(state)
    print(f"{trained.message}\nmodel written to {command.out}")
    if not trained.learnt:
        return EXIT_NOT_TRUSTED
    print(f"next: {next_} {shlex.quote(str(command.out))} --out RESULT")
    return 0
