"""What the refinement on the originals does to results found on representations, or on the originals themselves.

    python benchmarks/refining.py --models results/models
    python benchmarks/refining.py --originals --method auto

Errors before and after. A model of a set that is not there yet is trained and calibrated; displacements are those of
the CoMIR protocol.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time
from typing import Literal

import numpy as np
import tyro
from datasets import require_data
from views import SETS, model_of, unseen, views

from modalign.data.displacement import DisplacedPair, DisplacementProtocol
from modalign.evaluation.metrics import corner_error
from modalign.geometry import Transform, identity
from modalign.registration import ENGINES, refined_on_originals, register
from modalign.representation import Identity


@dataclass(frozen=True)
class Study:
    """What to refine."""

    models: Path = Path("results/models")
    """Folder with a model for each set."""
    originals: bool = False
    """Register the originals, without a model."""
    method: Literal["fft-search", "auto"] = "fft-search"
    """What finds the results."""
    sets: tuple[str, ...] = tuple(name for name, kind in SETS.items() if kind.steps)
    """Only these sets."""


def main() -> None:
    """Print a row a view, and a line a set."""
    study = tyro.cli(Study)
    require_data()
    print("set,specimen,error_before,error_after,moved,cpu_seconds", flush=True)
    for name in study.sets:
        encoders = (Identity(),) * 2 if study.originals else model_of(name, study.models / name).encoders()
        rows = []
        protocol = replace(DisplacementProtocol.comir(SETS[name].width), draws=1)
        for view in views(unseen(name), protocol):
            found = register(encoders[0].encode(view.fixed), encoders[1].encode(view.moving), ENGINES[study.method])
            start = process_time()
            better = refined_on_originals(found, view.fixed, view.moving)
            seconds = process_time() - start
            rows.append((error(view, found.candidate), error(view, better.candidate), float(better is not found)))
            print(name, view.specimen, *(f"{value:.5f}" for value in rows[-1]), f"{seconds:.1f}", sep=",", flush=True)
        before, after, moved = np.array(rows).T
        worse = ((after > before + 1e-9) & (after > 0.002)).sum()
        print(
            f"# {name}: {moved.sum():.0f} of {len(rows)} moved, "
            f"median {np.median(before):.3%} -> {np.median(after):.3%}, "
            f"right {(before <= 0.02).sum()} -> {(after <= 0.02).sum()}, worse beyond 0.2 %: {worse}",
            flush=True,
        )


def error(view: DisplacedPair, found: Transform | None) -> float:
    """Mean distance of the corners as a fraction of the width."""
    return float(corner_error(found or identity(2), view.fixed_to_moving, view.fixed.grid).mean.relative)


if __name__ == "__main__":
    main()
