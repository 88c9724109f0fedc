"""The image sets of the studies, with the splits by specimen that their catalogue asks for."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modalign.data.pairs import Pair, PairFiles, load_pairs
from modalign.errors import PairingError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.io import read_image

CORES = ("001", "002", "003", "004", "005", "006", "014", "015", "021", "022", "023")
UNSEEN_CORES = ("007", "008", "009", "016", "024", "025")
Split = tuple[list[Pair], list[Pair]]
"""Pairs to train on, pairs to test on."""


def data_root() -> Path:
    """The folder of the image sets: ``$MODALIGN_DATA``, else ``../shared/data`` beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("MODALIGN_DATA", beside))


def bf_shg(train: Sequence[str] = CORES, test: Sequence[str] = UNSEEN_CORES) -> Split:
    """Second harmonic (fixed) and H&E bright field (moving) of tissue cores, 512², split by core."""
    root = data_root() / "bf_shg_tma"

    def files(names: Sequence[str]) -> list[PairFiles]:
        return [
            PairFiles(n, root / "shg" / f"{n}.png", root / "bf" / f"{n}.png", root / "valid_mask" / f"{n}.png")
            for n in names
        ]

    return load_pairs(files(train)), load_pairs(files(test))


def rgb_nir() -> Split:
    """Aerial RGB (fixed) and near infrared (moving), 256², split by city: Santa Monica is unseen."""
    root = data_root() / "naip_rgb_nir"

    def files(numbers: range) -> list[PairFiles]:
        return [PairFiles(f"{n:03d}", root / "rgb" / f"{n:03d}.png", root / "nir" / f"{n:03d}.png") for n in numbers]

    return load_pairs(files(range(1, 89))), load_pairs(files(range(89, 111)))


def phase_fluorescence() -> Split:
    """Phase contrast (fixed) and three fluorescence channels (moving) of neurons, 256², split in space."""
    root = data_root() / "isl_phase_fluor" / "well_A4"

    def pair(number: int) -> Pair:
        stains = [read_image(root / stain / f"{number:03d}.png") for stain in ("dapi", "map2", "nfh")]
        stack = Image(np.concatenate([s.data for s in stains]), stains[0].grid, ("dapi", "map2", "nfh"))
        return Pair(f"{number:03d}", read_image(root / "phase" / f"{number:03d}.png"), stack)

    return [pair(n) for n in (1, 2, 5, 6, 9, 10)], [pair(n) for n in (13, 14)]


def gfp_dna() -> Split:
    """FKHR-GFP (fixed) and DNA (moving) of cells, 640 × 639, split by row of the plate: row D is unseen.

    The catalogue measured a constant shift of one pixel between the two; it is undone here.
    """
    root = data_root() / "sbs_gfp_dna"

    def pair(number: int) -> Pair:
        gfp, dna = (read_image(root / kind / f"{number:03d}.png") for kind in ("gfp", "dna"))
        left, right = gfp.data[..., :-1], dna.data[..., 1:]
        grid = Grid(left.shape[1:])
        return Pair(f"{number:03d}", Image(left, grid), Image(right, grid))

    return [pair(n) for n in range(1, 37)], [pair(n) for n in range(37, 49)]


def mouse_sections() -> Split:
    """Nuclear stain (fixed) and autofluorescence (moving) of mouse brain sections, 459 × 655, split along z."""
    root = data_root() / "mouse_sections_dapi_af"

    def files(numbers: range) -> list[PairFiles]:
        return [
            PairFiles(f"{n:03d}", root / "ch1_dapi" / f"{n:03d}.tif", root / "ch2_autofluo" / f"{n:03d}.tif")
            for n in numbers
        ]

    return load_pairs(files(range(1, 10))), load_pairs(files(range(10, 13)))


def motor_neurons() -> Split:
    """DAPI (fixed) and TUJ1 (moving) of motor neurons, 256² tiles of one image, split by row of its raster."""
    root = data_root() / "isl_phase_fluor" / "motor_neurons"

    def files(numbers: range) -> list[PairFiles]:
        return [PairFiles(f"{n:03d}", root / "dapi" / f"{n:03d}.png", root / "tuj1" / f"{n:03d}.png") for n in numbers]

    return load_pairs(files(range(1, 34))), load_pairs(files(range(34, 45)))


def optical_radar() -> Split:
    """Sentinel-2 RGB (fixed) and Sentinel-1 VV backscatter in dB (moving), 224²: two patches, to test on only."""
    root = data_root() / "s1_s2_terramesh"

    def pair(name: str) -> Pair:
        optical, radar = (
            read_image(path) for path in (root / "s2_rgb" / f"{name}.png", root / "s1_vv_db" / f"{name}.tif")
        )
        return Pair(name, optical, radar.with_grid(optical.grid))

    return [], [pair(name) for name in ("001", "002")]


def require_data() -> None:
    """Stop with a clear line where the image sets are not there."""
    if not data_root().is_dir():
        raise PairingError(f"{data_root()}: no image sets here; set MODALIGN_DATA to their folder")
