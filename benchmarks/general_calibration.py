"""Make the general calibration anew: the constants of ``GENERAL`` in modalign/registration/calibration.py.

    python benchmarks/general_calibration.py --models results/models

Cases come from the training pairs of all sets that are aligned well enough and from made-up tissue, on the originals
and on CoMIRs, by the engines that ``auto`` tries; the unseen pairs take no part.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from datasets import require_data
from views import SETS, model_of

from modalign.data.pairs import Pair
from modalign.data.tissue import tissue
from modalign.io import write_table
from modalign.registration import Features, FftSearch, GlobalMI, Registrar
from modalign.registration.calibration import FEATURES
from modalign.representation import Encoder, Identity
from modalign.training.calibration import CalibrationOptions, Case, calibration_cases, fit_calibration

MISALIGNED = ("phase_fluorescence",)
"""Sets whose pairs are themselves displaced by about as much as counts as success: they cannot say what is right."""


@dataclass(frozen=True)
class Options:
    """What the cases are made of."""

    models: Path
    """Folder of the models, one a set."""
    displaced: int = 24
    """Displaced views of each set, engine and kind of image."""
    unrelated: int = 16
    """Unrelated pairs of each."""
    missed: int = 10
    """Moved truths of each."""


def main() -> None:
    """Make the cases, fit, and print what goes into the source."""
    options = tyro.cli(Options)
    require_data()
    cases: list[Case] = []
    for name, pairs, encoders, method, seed in sources(options):
        numbers = CalibrationOptions(options.displaced, options.unrelated, options.missed, seed)
        fresh = list(calibration_cases(pairs, encoders, numbers, method))
        # what a model adds is that originals and representations differ; without one they are the same
        alone = [replace(c, evidence=replace(c.evidence, original_information=c.evidence.information)) for c in fresh]
        cases += fresh + (alone if not isinstance(encoders[0], Identity) else [])
        print(f"{name} {method.name}: {sum(c.right for c in fresh)} of {len(fresh)} right", flush=True)
    write_table(options.models / "cases.csv", [asdict(c.evidence) | {"kind": c.kind, "right": c.right} for c in cases])
    fitted = fit_calibration(cases, prior=None)
    assert fitted is not None
    chances = np.array([fitted.probability(case.evidence) for case in cases])
    right = np.array([case.right for case in cases])
    for limit in (0.5, 0.8, 0.9, 0.95):
        taken = chances >= limit
        print(f"from {limit}: {(taken & right).sum() / right.sum():.1%} of the right, {(taken & ~right).sum()} wrong")
    print(fitted.about)
    for key in ("center", "scale", "weights"):
        print(f"    {key}=({', '.join(f'{value:.4g}' for value in getattr(fitted, key))}),")
    print(f"    intercept={fitted.intercept:.4g},  # features: {', '.join(FEATURES)}")


def sources(options: Options) -> Iterator[tuple[str, Sequence[Pair], tuple[Encoder, Encoder], Registrar, int]]:
    """Name, pairs, encoders, engine and seed of each group of cases."""
    originals = (Identity(), Identity())
    made = [(seed, tissue(seed)) for seed in range(4)]
    pairs = [Pair(f"tissue_{seed}", t.second_harmonic, t.bright_field) for seed, t in made]
    yield "tissue, originals", pairs, originals, GlobalMI(), 1
    for number, name in enumerate(SETS):
        if name in MISALIGNED:
            continue
        pairs, _ = SETS[name].split()
        yield f"{name}, CoMIRs", pairs, model_of(name, options.models / name).encoders(), FftSearch(), 10 * number + 2
        yield f"{name}, CoMIRs", pairs, model_of(name, options.models / name).encoders(), Features(), 10 * number + 3
        yield f"{name}, originals", pairs, originals, FftSearch(), 10 * number + 4
        yield f"{name}, originals", pairs, originals, GlobalMI(), 10 * number + 5


if __name__ == "__main__":
    main()
