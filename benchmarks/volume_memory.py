"""Memory and time of a training step on volumes: the plan beside the measured peak.

    python benchmarks/volume_memory.py --patches 48 64 96 --batch 4

Every row is a process of its own, so that its peak is its own; the volume is noise.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import numpy as np
import tyro

NETWORKS = ("light", "tiramisu")


@dataclass(frozen=True)
class Study:
    """What to measure."""

    patches: tuple[int, ...] = (48, 64, 96)
    """Sides of the patches, voxels."""
    batch: int = 4
    """Patches of each modality in a step."""
    networks: tuple[str, ...] = NETWORKS
    """The light U-Net (8, 16, 32, 64), or the tiramisu with four levels."""
    shares: tuple[float, ...] = (0.0, 0.5, 0.25)
    """Budgets as fractions of what a step without a limit needs; 0 for no limit."""
    one: tuple[str, int, float] | None = None
    """Measure this network, patch and budget (GiB, 0 for none) in this process."""


def main() -> None:
    """Print a row a network, patch and budget."""
    study = tyro.cli(Study)
    if study.one is not None:
        measure(*study.one, study.batch)
        return
    print("network,patch,budget_gib,plan,plan_gib,peak_gib,cpu_seconds_a_step", flush=True)
    for network in study.networks:
        for patch in study.patches:
            whole = run(study, network, patch, 0.0)
            for share in study.shares:
                if share:
                    run(study, network, patch, round(share * whole, 2))


def run(study: Study, network: str, patch: int, budget: float) -> float:
    """One row; returns what the plan needs, GiB."""
    words = [sys.executable, __file__, "--batch", str(study.batch), "--one", network, str(patch), str(budget)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    row = done.stdout.strip() or f"{network},{patch},{budget},{done.stderr.strip().splitlines()[-1]!r},,,"
    print(row, flush=True)
    return float(row.split(",")[-3] or 0)


def measure(network: str, patch: int, budget: float, batch: int) -> None:
    """Two steps, and what they took."""
    from modalign.data.pairs import Pair
    from modalign.data.patches import window_size
    from modalign.data.shelf import Shelf
    from modalign.geometry import Grid
    from modalign.image import Image
    from modalign.nn import TiramisuOptions, UNetOptions
    from modalign.training import ComirOptions, TrainingProgress
    from modalign.training.comir import _Trainer

    kinds = {"light": UNetOptions((8, 16, 32, 64)), "tiramisu": TiramisuOptions(down=(4,) * 4, up=(4,) * 4)}
    grid = Grid((window_size(patch, 3, 1.1) + 10,) * 3)
    rng = np.random.default_rng(0)
    images = [Image(rng.random((1, *grid.shape), dtype=np.float32), grid) for _ in range(2)]
    options = ComirOptions(steps=2, patch=patch, batch=batch, network=kinds[network], max_memory=budget or None)
    seen: list[TrainingProgress] = []
    trainer = _Trainer([Pair("noise", *images)], [], options, ("a", "b"), None, seen.append, Shelf())
    times = [process_time()]
    for fraction in (0.0, 0.5):
        trainer._train_step(fraction)
        times.append(process_time())
    plan = trainer.plan
    told = str(plan).replace(",", "")
    needed, peak = plan.needed / (1 << 30), peak_gib()
    print(f"{network},{patch},{budget:g},{told},{needed:.2f},{peak:.2f},{times[2] - times[1]:.1f}")


def peak_gib() -> float:
    """Peak of the memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / (1 << 20)
    return float("nan")


if __name__ == "__main__":
    main()
