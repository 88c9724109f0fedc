"""CPU time of registering volumes of 128³ and 256³: CoMIR with the exhaustive search beside ANTs and elastix.

    python benchmarks/volume_time.py --model results/volumes/models/brain_t1_t2 --sides 128 256

The volumes are T1 and T2 of the unseen brain, resampled to so many voxels; the moving one is displaced by up to 20°.
Before, noise of so many voxels of the size that the model learnt with is encoded: CPU seconds a megavoxel.
"""

from dataclasses import dataclass, field
from pathlib import Path
from time import process_time

import numpy as np
import tyro
from datasets import require_data
from volume_sets import VOLUME_SETS

from modalign.data.displacement import DisplacementProtocol, displaced_pairs
from modalign.evaluation.metrics import corner_error
from modalign.evaluation.peers import PEERS
from modalign.geometry import Grid, identity
from modalign.image import Image
from modalign.registration import FftSearch, Registrar, register
from modalign.registration.workspace import isotropic
from modalign.representation import ComirEncoder, ComirModel

MILLIMETERS = 112.0
"""Side of the cubes."""


@dataclass(frozen=True)
class Study:
    """What to time."""

    model: Path = field(kw_only=True)
    """A model of T1 and T2."""
    sides: tuple[int, ...] = (128, 256)
    """Voxels along each side."""
    draws: int = 2
    """Displacements."""
    degrees: float = 20.0
    """Largest rotation in each plane."""


def main() -> None:
    """Print a row a side, method and displacement."""
    study = tyro.cli(Study)
    require_data()
    encoders = ComirModel.load(study.model).encoders()
    methods: dict[str, Registrar] = {
        "ants": PEERS["ants"],
        "elastix": PEERS["elastix"],
        "simpleitk-mi": PEERS["simpleitk-mi"],
        "CoMIR + fft-search": FftSearch(),
        "CoMIR + fft-search, 45°": FftSearch(max_rotation_degrees=45),
    }
    for name in ("ants", "elastix", "simpleitk-mi"):
        PEERS[name].library()
    for side in study.sides:
        print(f"# encoding {side}³ voxels: {encoding_seconds(encoders[0], side):.2f} CPU-s a megavoxel", flush=True)
    kind = VOLUME_SETS["brain_t1_t2"]
    (pair,) = kind.pairs(kind.unseen)
    print("side,draw,method,cpu_seconds,encoding_cpu_seconds,error_of_width", flush=True)
    for side in study.sides:
        fixed, moving = (isotropic(image, MILLIMETERS / side) for image in (pair.fixed, pair.moving))
        protocol = DisplacementProtocol((side,) * 3, study.degrees, side * 0.05, draws=study.draws)
        for view in displaced_pairs(fixed, moving, protocol, pair.name):
            for name, method in methods.items():
                images: tuple[Image, Image] = view.fixed, view.moving
                start = process_time()
                if name.startswith("CoMIR"):
                    images = encoders[0].encode(view.fixed), encoders[1].encode(view.moving)
                encoded = process_time()
                found = register(*images, method).candidate
                done = process_time()
                error = corner_error(found or identity(3), view.fixed_to_moving, view.fixed.grid).mean.relative
                row = (side, view.draw, name, round(done - start, 1), round(encoded - start, 1), np.round(error, 4))
                print(*row, sep=",", flush=True)


def encoding_seconds(encoder: ComirEncoder, side: int) -> float:
    """CPU seconds for a million voxels of the size that the model learnt with."""
    noise = np.random.default_rng(0).random((1, side, side, side), dtype=np.float32)
    image = Image(noise, Grid((side,) * 3, encoder.card.pixel_size, unit=encoder.card.unit))
    start = process_time()
    encoder.encode(image)
    return (process_time() - start) / (noise.size / 1e6)


if __name__ == "__main__":
    main()
