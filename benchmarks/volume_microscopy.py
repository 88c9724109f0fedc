"""Registration of small and of anisotropic microscopy volumes, on the originals.

    python benchmarks/volume_microscopy.py

A nuclear stain by a confocal and by a wide-field microscope (nearly cubic voxels), and a stack of 12 sections in two
stains (thick slices, turned in their plane only). Neither has enough to train on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from time import process_time

import numpy as np
import tyro
from datasets import data_root, mouse_sections, require_data

from modalign.data.displacement import DisplacedPair, DisplacementProtocol, displaced_pairs
from modalign.data.pairs import Pair
from modalign.evaluation.metrics import corner_error
from modalign.evaluation.peers import PEERS
from modalign.geometry import Grid, identity
from modalign.image import Image
from modalign.io import read_image
from modalign.registration import ENGINES, Judge, Registrar, register

NUCLEUS_VOXEL = (0.4994, 0.5119, 0.5119)
"""Micrometres."""
SECTION_VOXEL = (100.0, 20.0, 20.0)
"""Micrometres; how far the sections lie apart is not known, and 100 is an assumption."""
METHODS = ("auto", "fft-search", "dense", "mutual-information", "simpleitk-mi", "elastix")


@dataclass(frozen=True)
class Study:
    """What to register."""

    draws: int = 3
    """Displacements of each volume and range."""


def main() -> None:
    """Print a row a volume, range, displacement and method."""
    study = tyro.cli(Study)
    require_data()
    methods: dict[str, Registrar] = {name: {**ENGINES, **PEERS}[name] for name in METHODS}
    print("volume,range,draw,method,status,cpu_seconds,error_of_width", flush=True)
    for name, range_, view in displacements(study.draws):
        for method, registrar in {"nothing": None, **methods}.items():
            start = process_time()
            found = None if registrar is None else register(view.fixed, view.moving, registrar)
            seconds = process_time() - start
            judged = "" if found is None else Judge().judge(found, view.fixed, view.moving).status
            transform = identity(3) if found is None else found.candidate or identity(3)
            error = corner_error(transform, view.fixed_to_moving, view.fixed.grid).mean.relative
            print(name, range_, view.draw, method, judged, f"{seconds:.1f}", f"{error:.4f}", sep=",", flush=True)


def displacements(draws: int) -> Iterator[tuple[str, str, DisplacedPair]]:
    """The displaced views of both volumes."""
    pair = nuclei()
    for degrees in (20.0, 90.0):
        protocol = DisplacementProtocol((24, 64, 64), degrees, 2.0, draws=draws)
        for view in displaced_pairs(pair.fixed, pair.moving, protocol, pair.name):
            yield pair.name, f"±{degrees:.0f}°", view
    pair = sections()
    protocol = DisplacementProtocol((12, 120, 120), (0.0, 0.0, 180.0), (0.0, 12.0, 12.0), draws=draws)
    for view in displaced_pairs(pair.fixed, pair.moving, protocol, pair.name):
        yield pair.name, "±180° in plane", view


def nuclei() -> Pair:
    """Confocal (fixed) and wide-field (moving)."""
    folder = data_root() / "multichannel_misc" / "embl_3d_dna_confocal_widefield"
    images = [read_image(folder / f"{name}_zyx.tif") for name in ("confocal", "widefield")]
    grid = Grid(images[0].grid.shape, NUCLEUS_VOXEL, unit="micrometer")
    return Pair("nuclei", *(image.with_grid(grid) for image in images))


def sections() -> Pair:
    """Every other pixel of a stack of nuclear stain (fixed) and autofluorescence (moving)."""
    pairs = [pair for part in mouse_sections() for pair in part]
    stacks = [np.stack([getattr(p, side).data[:, ::2, ::2] for p in pairs], axis=1) for side in ("fixed", "moving")]
    voxel = (SECTION_VOXEL[0], 2 * SECTION_VOXEL[1], 2 * SECTION_VOXEL[2])
    grid = Grid(stacks[0].shape[1:], voxel, unit="micrometer")
    return Pair("sections", *(Image(stack, grid) for stack in stacks))


if __name__ == "__main__":
    main()
