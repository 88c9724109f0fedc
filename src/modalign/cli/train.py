"""``modalign train``."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Annotated, Literal

import tyro

from modalign.cli.console import EXIT_NOT_TRUSTED, parse, progress
from modalign.cli.unfinished import check_out, interruptible, remove_state, unfinished_state
from modalign.data.pairs import Pair, PairFiles, apart, find_pairs, load_pairs, read_pair_table, split_pairs
from modalign.data.shelf import Shelf
from modalign.errors import InvalidInputError, PairingError
from modalign.io import image_files
from modalign.nn import TiramisuOptions
from modalign.training import ComirOptions, MemoryPlan, TrainedComir, TrainingProgress, fit_comir


@dataclass(frozen=True)
class Train:
    """Learn a shared representation of two modalities from aligned pairs.

    The pairs are two folders of images with the same file stems, or one CSV file with the columns fixed and moving
    (and mask, if there is one). The two images of a pair show the same place, pixel on pixel.

    'modalign train features' and 'modalign train deform' learn other networks: see their --help. (A folder of one of
    these names is ./features or ./deform.)
    """

    fixed: tyro.conf.Positional[Path]
    """Folder with the images of the first modality, or a CSV file that lists the pairs."""
    moving: tyro.conf.Positional[Path | None] = None
    """Folder with the images of the second modality; none after a CSV file."""
    out: Path = field(kw_only=True)
    """Model folder to write."""
    masks: Path | None = None
    """Folder with masks of valid pixels (not 0), with the same file stems."""
    validation_pairs: Path | None = None
    """CSV file with pairs to validate on, instead of a part of the training pairs."""
    validation_fraction: float = 0.2
    """Part of the pairs kept aside to judge the model and to choose the best one."""
    names: tuple[str, str] | None = None
    """What to call the two modalities; by default the names of the two folders."""
    licence: str = "not stated"
    """Licence of the training data, written into the model."""
    network: Literal["unet", "tiramisu"] = "unet"
    """The light U-Net, or the large network of the CoMIR paper."""
    keep_in_memory: float | None = None
    """GiB of pixels to keep in memory, by default a quarter of the machine's; others wait in a nameless file beside the
    model and are read as they are needed."""
    resume: bool = False
    """Go on with a training that was interrupted; its state lies in a folder beside the model, OUT.training."""
    overwrite: bool = False
    """Replace a model that is already there, and give up a training that was interrupted."""
    options: Annotated[ComirOptions, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands] = ComirOptions()
    """How to train."""


def run(arguments: Sequence[str]) -> int:
    """Run the verb, or the one named by its first argument; returns the exit status."""
    if arguments and arguments[0] in ("features", "deform"):
        from modalign.cli.train_network import run_deform, run_features

        return (run_features if arguments[0] == "features" else run_deform)(arguments[1:])
    command = parse(Train, "train", arguments)
    options = command.options
    if command.network == "tiramisu":
        options = replace(options, network=TiramisuOptions())
    check_out(command.out, overwrite=command.overwrite)
    unfinished = unfinished_state(command.out, resume=command.resume, overwrite=command.overwrite)
    shelf = Shelf(next(folder for folder in command.out.resolve().parents if folder.is_dir()), command.keep_in_memory)
    training, validation = _pairs(command, options.seed, shelf)
    several = "pair" if len(training) == 1 else "pairs"
    print(f"training on {len(training)} {several}, validating on {len(validation) or 'the same'}", file=sys.stderr)
    with interruptible(unfinished) as stopping:
        outcome = _fit(command, options, (training, validation), unfinished, shelf, stopping)
    return _finish(command, outcome, unfinished) if outcome.is_main else 0


def _fit(
    command: Train,
    options: ComirOptions,
    pairs: tuple[list[Pair], list[Pair]],
    unfinished: Path,
    shelf: Shelf,
    stopping: Event,
) -> TrainedComir:
    told: set[MemoryPlan] = set()
    with progress("train") as advance:

        def report(now: TrainingProgress) -> None:
            if stopping.is_set():
                raise KeyboardInterrupt
            if now.plan not in told:
                told.add(now.plan)
                print(f"{now.plan}; equivariance under {now.group}", file=sys.stderr)
                if options.patch not in (None, now.plan.patch):
                    why = "what the images, the network and the memory allow"
                    print(f"note: patches of {now.plan.patch} in place of {options.patch}: {why}", file=sys.stderr)
            if now.calibrating:
                advance(now.fraction, "calibrating the verdict")
                return
            judged = f", validation {now.validation.success:.0%}" if now.validation else ""
            loss = f", loss {now.loss:.3f} (chance {now.chance:.3f})" if now.step else ""
            advance(now.fraction, f"step {now.step}{loss}{judged}")

        return fit_comir(
            *pairs,
            options,
            modalities=command.names or _default_names(command),
            about={"licence": command.licence},
            checkpoint=unfinished,
            resume=command.resume,
            report=report,
            shelf=shelf,
        )


def _finish(command: Train, outcome: TrainedComir, unfinished: Path) -> int:
    outcome.model.save(command.out)
    remove_state(unfinished)
    print(outcome.message)
    print(f"model written to {command.out}")
    if not outcome.learnt:
        return EXIT_NOT_TRUSTED
    example = f"modalign register FIXED MOVING --model {shlex.quote(str(command.out))} --out RESULT"
    print(f"next: {example}")
    return 0


def _pairs(command: Train, seed: int, shelf: Shelf) -> tuple[list[Pair], list[Pair]]:
    pairs = load_pairs(_files(command), keep=shelf.put_pair)
    _warn_of_unaligned(pairs)
    if command.validation_pairs is not None:
        return pairs, load_pairs(read_pair_table(command.validation_pairs), keep=shelf.put_pair)
    return split_pairs(pairs, command.validation_fraction, seed)


def _warn_of_unaligned(pairs: Sequence[Pair]) -> None:
    """Files may be wrong about pixel sizes and places; but mostly they are right."""
    told = [f"pair {pair.name!r}: {reason}" for pair in pairs if (reason := apart(pair))]
    if told:
        more = f" (and of {len(told) - 1} other pairs likewise)" if len(told) > 1 else ""
        print(
            f"warning: {told[0]}{more}; training takes pairs to be aligned pixel on pixel. Where they are not, bring "
            "the one onto the other first (modalign apply … --like)",
            file=sys.stderr,
        )


def _files(command: Train) -> list[PairFiles]:
    if command.moving is not None:
        return find_pairs(command.fixed, command.moving, command.masks)
    if command.fixed.is_dir():
        found = len(image_files(command.fixed))
        raise PairingError(f"{command.fixed}: a folder with {found} images needs a second folder with their partners")
    if command.masks is not None:
        raise InvalidInputError("--masks goes with two folders; in a CSV file masks are named in the column 'mask'")
    return read_pair_table(command.fixed)


def _default_names(command: Train) -> tuple[str, str]:
    if command.moving is None or command.fixed.resolve().name == command.moving.resolve().name:
        return "fixed", "moving"
    return command.fixed.resolve().name, command.moving.resolve().name
