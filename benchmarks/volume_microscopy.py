"""Registration of small and of anisotropic microscopy volumes, without a model.

    python benchmarks/volume_microscopy.py

A nucleus by a confocal and by a wide-field microscope (nearly cubic voxels, but light spread along the axis), and a
stack of 12 sections in two stains (thick slices). Mounted specimens turn in their plane, so that is how they are
displaced here. Neither volume has enough to train on.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from modalign.pipeline import align
from modalign.registration import ENGINES, Judge, Registration, register

NUCLEUS_VOXEL = (0.4994, 0.5119, 0.5119)
"""Micrometres."""
NUCLEUS_OFFSET = (2.0, 0.0, -3.5)
"""Voxels by which the wide-field volume moves onto the confocal one, for they are not quite aligned: where the mutual
information of the whole volumes is largest, good to half a voxel in the plane and to about two along the axis."""
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
    print("volume,range,draw,method,status,cpu_seconds,error_of_width", flush=True)
    for name, range_, view in displacements(study.draws):
        for method in ("nothing", *METHODS):
            start = process_time()
            found = None if method == "nothing" else registered(view, method)
            seconds, status = process_time() - start, "" if found is None else found.status
            transform = identity(3) if found is None else found.candidate or identity(3)
            error = corner_error(transform, view.fixed_to_moving, view.fixed.grid).mean.relative
            print(name, range_, view.draw, method, status, f"{seconds:.1f}", f"{error:.4f}", sep=",", flush=True)


def registered(view: DisplacedPair, method: str) -> Registration:
    """What is found, judged: as users get it from our engines, and from a peer as it is."""
    if method in ENGINES:
        return align(view.fixed, view.moving, ENGINES[method]).registration
    return Judge().judge(register(view.fixed, view.moving, PEERS[method]), view.fixed, view.moving)


def displacements(draws: int) -> Iterator[tuple[str, str, DisplacedPair]]:
    """The displaced views of both volumes."""
    kinds = (nuclei(), (32, 80, 80), (2.0, 8.0, 8.0)), (sections(), (12, 120, 120), (0.0, 12.0, 12.0))
    for pair, shape, shifts in kinds:
        for degrees in (20.0, 180.0):
            protocol = DisplacementProtocol(shape, (0.0, 0.0, degrees), shifts, draws=draws)
            for view in displaced_pairs(pair.fixed, pair.moving, protocol, pair.name):
                yield pair.name, f"±{degrees:.0f}°", view


def nuclei() -> Pair:
    """Confocal (fixed) and wide-field (moving)."""
    folder = data_root() / "multichannel_misc" / "embl_3d_dna_confocal_widefield"
    fixed, moving = (read_image(folder / f"{name}_zyx.tif") for name in ("confocal", "widefield"))
    grid = Grid(fixed.grid.shape, NUCLEUS_VOXEL, unit="micrometer")
    offset = np.multiply(NUCLEUS_OFFSET, NUCLEUS_VOXEL)
    return Pair("nuclei", fixed.with_grid(grid), moving.with_grid(replace(grid, origin=tuple(map(float, offset)))))


def sections() -> Pair:
    """Every other pixel of a stack of nuclear stain (fixed) and autofluorescence (moving)."""
    pairs = [pair for part in mouse_sections() for pair in part]
    stacks = [np.stack([getattr(p, side).data[:, ::2, ::2] for p in pairs], axis=1) for side in ("fixed", "moving")]
    voxel = (SECTION_VOXEL[0], 2 * SECTION_VOXEL[1], 2 * SECTION_VOXEL[2])
    grid = Grid(stacks[0].shape[1:], voxel, unit="micrometer")
    return Pair("sections", *(Image(stack, grid) for stack in stacks))


if __name__ == "__main__":
    main()
