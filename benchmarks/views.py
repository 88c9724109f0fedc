"""The sets of the engine studies: unseen pairs, displaced by known amounts, and a model for each set."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, process_time

from datasets import (
    Split,
    bf_shg,
    gfp_dna,
    motor_neurons,
    mouse_sections,
    optical_radar,
    phase_fluorescence,
    rgb_nir,
)

from modalign.data.displacement import DisplacedPair, DisplacementProtocol, displaced_pairs
from modalign.data.pairs import Pair
from modalign.representation import ComirModel
from modalign.training import ComirOptions, fit_comir
from modalign.training.validation import ValidationOptions


@dataclass(frozen=True)
class ImageSet:
    """An image set with what is done with it.

    Attributes:
        split: Loads the pairs to train on and those to test on.
        width: Side of the displaced patches, pixels.
        specimens: Number of unseen specimens that take part.
        steps: Training steps of its model; 0 where there is nothing to train on.
        draws: Displacements of each unseen pair at ±30° and at ±180°, and at each of the four levels.
    """

    split: Callable[[], Split]
    width: int
    specimens: int
    steps: int
    draws: tuple[int, int]


SETS: dict[str, ImageSet] = {
    "bf_shg": ImageSet(bf_shg, 300, 6, 800, (2, 1)),
    "rgb_nir": ImageSet(rgb_nir, 160, 6, 400, (1, 1)),
    "gfp_dna": ImageSet(gfp_dna, 300, 4, 400, (2, 1)),
    "phase_fluorescence": ImageSet(phase_fluorescence, 160, 2, 400, (3, 1)),
    "mouse_sections": ImageSet(mouse_sections, 256, 3, 800, (2, 1)),
    "motor_neurons": ImageSet(motor_neurons, 160, 4, 400, (1, 1)),
    "optical_radar": ImageSet(optical_radar, 144, 2, 0, (1, 1)),
}


def unseen(name: str) -> Sequence[Pair]:
    """The pairs of a set to test on, spread over all that there are."""
    test = SETS[name].split()[1]
    return test[:: max(1, len(test) // SETS[name].specimens)][: SETS[name].specimens]


def protocols(kind: ImageSet, seed: int) -> dict[str, DisplacementProtocol]:
    """The CoMIR protocol, all rotations, and the four levels of MultiRegEval."""
    comir = replace(DisplacementProtocol.comir(kind.width), draws=kind.draws[0], seed=seed)
    levels = {
        f"level {level}": replace(DisplacementProtocol.multiregeval(kind.width, level), draws=kind.draws[1], seed=seed)
        for level in range(1, 5)
    }
    return {"±30°": comir, "±180°": replace(comir, max_rotation_degrees=180.0), **levels}


def views(pairs: Sequence[Pair], protocol: DisplacementProtocol) -> Iterator[DisplacedPair]:
    """Displaced views of several pairs."""
    for pair in pairs:
        yield from displaced_pairs(pair.fixed, pair.moving.with_grid(pair.fixed.grid), protocol, pair.name)


def model_of(name: str, folder: Path, seed: int = 0) -> ComirModel:
    """The model of a set in a folder, or a new one trained with the default options and calibrated.

    The unseen pairs take no part: the model is the one after the last step, and calibrated on training pairs.
    """
    if (folder / "model.json").is_file():
        return ComirModel.load(folder)
    train, _ = SETS[name].split()
    options = ComirOptions(steps=SETS[name].steps, seed=seed, validation=ValidationOptions(times=1, most_pairs=4))
    wall, cpu = perf_counter(), process_time()
    outcome = fit_comir(train, [], options)
    print(f"{name}: {outcome.message} {perf_counter() - wall:.0f} s, {process_time() - cpu:.0f} CPU-s")
    outcome.model.save(folder)
    return outcome.model
