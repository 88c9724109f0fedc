"""Equivariance of volume models, trained with and without the constraint, on the unseen brain.

    python benchmarks/equivariance.py --out results/volumes

Prints median and largest error over the 23 rotations of the cube, and over random ones; 0 is perfect, √2 unrelated.
Models that are there are kept: the one with the constraint is that of volume_table.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from datasets import require_data
from volume_sets import VOLUME_SETS
from volume_table import train_volumes

from modalign.evaluation.equivariance import EquivarianceError, group_errors, random_errors
from modalign.geometry import rotation_group
from modalign.image import Image
from modalign.registration.workspace import isotropic
from modalign.representation import ComirModel


@dataclass(frozen=True)
class Study:
    """What to measure."""

    out: Path = field(kw_only=True)
    """Folder of the models."""
    name: str = "brain_t1_t2"
    """The set."""
    side: int = 64
    """Voxels along each side of the volume, at the voxel size of the models."""
    rotations: int = 24
    """Random rotations."""


def main() -> None:
    """Train what is missing, and print a row a model, modality and kind of rotation."""
    study = tyro.cli(Study)
    require_data()
    kind = VOLUME_SETS[study.name]
    (pair,) = kind.pairs(kind.unseen)
    folders = {"with": study.out / "models" / study.name, "without": study.out / "unconstrained" / study.name}
    print("constraint,modality,rotations,median,largest")
    for constraint, folder in folders.items():
        train_volumes(study.name, folder, equivariance=constraint == "with")
        for encoder, image in zip(ComirModel.load(folder).encoders(), (pair.fixed, pair.moving), strict=True):
            cube = middle(isotropic(image, kind.millimeters), study.side)
            modality = encoder.card.side(encoder.side).name
            row(constraint, f"{modality} ({encoder.side})", "cube", group_errors(encoder, cube, rotation_group("O", 3)))
            row(constraint, f"{modality} ({encoder.side})", "any", random_errors(encoder, cube, study.rotations))


def middle(image: Image, side: int) -> Image:
    """The cube in the middle of a volume."""
    start = tuple((n - side) // 2 for n in image.grid.shape)
    return image.cropped(start, (side,) * image.ndim)


def row(constraint: str, modality: str, rotations: str, found: Iterable[EquivarianceError]) -> None:
    """Print one row."""
    errors = [one.error for one in found]
    print(constraint, modality, rotations, f"{np.median(errors):.3f}", f"{max(errors):.3f}", sep=",", flush=True)


if __name__ == "__main__":
    main()
