"""CoMIRs with eight channels, whose vectors DeepSim compares across modalities; small trainings on the training images.

    python benchmarks/deformable_comirs.py --out results/deformable_comirs

One model folder each: ``bf-shg``, ``rgb-nir``, and ``brain`` (T1 and T2 of patient 001 on voxels of 2 mm). Those that
are there already are kept.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from datasets import bf_shg, data_root, require_data, rgb_nir

from modalign.data.pairs import Pair
from modalign.io import read_image
from modalign.registration.workspace import isotropic
from modalign.training import ComirOptions, fit_comir
from modalign.training.validation import ValidationOptions

STEPS = {"bf-shg": 800, "rgb-nir": 400, "brain": 300}
"""At most, beside the time."""
BRAIN_VOXEL = 2.0


@dataclass(frozen=True)
class Study:
    """What to train."""

    out: Path = field(kw_only=True)
    """Folder for the models."""
    sets: tuple[str, ...] = tuple(STEPS)
    """Which."""
    minutes: float = 4.0
    """Of each training at most."""


def brain(patient: str) -> Pair:
    """T1 and T2 of a patient, on one grid."""
    root = data_root() / "ms_brain_t1_t2_flair"
    t1, t2 = (isotropic(read_image(root / part / f"{patient}.nii.gz", ndim=3), BRAIN_VOXEL) for part in ("t1", "t2"))
    return Pair(patient, t1, t2.with_grid(t1.grid))


PAIRS: dict[str, Callable[[], list[Pair]]] = {
    "bf-shg": lambda: list(bf_shg()[0]),
    "rgb-nir": lambda: list(rgb_nir()[0]),
    "brain": lambda: [brain("001")],
}


def main() -> None:
    """Train what the command line asks for and is not there yet."""
    study = tyro.cli(Study)
    require_data()
    for name in study.sets:
        folder = study.out / name
        if folder.is_dir():
            continue
        validation = ValidationOptions(times=1, most_pairs=4)
        options = ComirOptions(steps=STEPS[name], minutes=study.minutes, latent_channels=8, validation=validation)
        trained = fit_comir(PAIRS[name](), [], options)
        trained.model.save(folder)
        print(f"{name}: {trained.message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
