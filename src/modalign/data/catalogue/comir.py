"""The two sets of the CoMIR paper (Pielawski, Wetzer et al., NeurIPS 2020)."""

from pathlib import Path

import numpy as np

from modalign.data.catalogue.entry import Split
from modalign.data.catalogue.places import located, matched, paired
from modalign.data.catalogue.truth import displaced_pair
from modalign.data.displacement import DisplacedPair
from modalign.data.pairs import Pair, load_pairs
from modalign.errors import UnreadableFileError
from modalign.image import Image
from modalign.io import read_image, read_table

TRAIN_TILES, TEST_TILES = (10,), (12,)
"""Numbers of the Zurich tiles."""
DISPLACEMENTS = "metadata.csv"
"""Where the corners of the displaced patches stand; beside the images, or from the authors' repository."""


def bf_shg(folder: Path, fold: int) -> Split:  # noqa: ARG001 - one signature for all loaders
    """The cores of ``TrainSet`` (``1B_A1_SHG.tif``, ``1B_A1_BF.tif``), and the 134 patches ``R_…`` of ``TestSet``."""
    return Split(_cores(located(folder, "TrainSet"), ""), _cores(located(folder, "TestSet"), "R_"))


def bf_shg_displaced(folder: Path, fold: int, level: int) -> list[DisplacedPair]:  # noqa: ARG001
    """The bright-field patches ``T_…`` beside the second-harmonic patches ``R_…``."""
    test, table = located(folder, "TestSet"), located(folder, DISPLACEMENTS)
    fixed, moving = matched(test, r"R_(.+)_SHG\.tiff?"), matched(test, r"T_(.+)_BF\.tiff?")
    rows = {row["Filename"].rstrip("_"): row for row in read_table(table)}
    displaced = []
    for entry in paired(fixed, moving, test, "R_1B_A1_SHG.tif and T_1B_A1_BF.tif"):
        if entry.name not in rows:
            raise UnreadableFileError(table, f"does not tell how {entry.name} is displaced")
        images = [read_image(path).without_alpha() for path in (entry.fixed, entry.moving)]
        displaced.append(displaced_pair(images[0], images[1], rows[entry.name], entry.name))
    return displaced


def zurich_summer(folder: Path, fold: int) -> Split:  # noqa: ARG001
    """Tile zh10 to train on, tile zh12 to test on; colours against near infrared."""
    return Split([_tile(folder, n) for n in TRAIN_TILES], [_tile(folder, n) for n in TEST_TILES])


def _cores(folder: Path, prefix: str) -> list[Pair]:
    fixed, moving = (matched(folder, rf"{prefix}(.+)_{kind}\.tiff?") for kind in ("SHG", "BF"))
    return load_pairs(paired(fixed, moving, folder, f"{prefix}1B_A1_SHG.tif"))


def _tile(folder: Path, number: int) -> Pair:
    path = located(folder, f"zh{number}.tif")
    image = read_image(path)
    if len(image.data) != 4:
        raise UnreadableFileError(path, f"has {len(image.data)} channels, where blue, green, red, near infrared are 4")
    blue_green_red, infrared = image.data[:3], image.data[3:]
    colours = Image(np.ascontiguousarray(blue_green_red[::-1]), image.grid, ("red", "green", "blue"))
    return Pair(f"zh{number}", colours, Image(infrared, image.grid, ("near infrared",)))
