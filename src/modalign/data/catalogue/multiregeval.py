"""The four sets of MultiRegEval (Lu et al., PLOS ONE 17(11): e0276196, 2022; Zenodo 5557568).

Each fold has its test patches, displaced at four levels; the patches of the other folds are those to train on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modalign.data.catalogue.entry import Split
from modalign.data.catalogue.places import located, matched, paired
from modalign.data.catalogue.truth import displaced_pair, displacement
from modalign.data.displacement import DisplacedPair
from modalign.data.pairs import Pair, PairFiles, load_pairs
from modalign.errors import UnreadableFileError
from modalign.geometry import Grid, identity
from modalign.image import Image
from modalign.io import read_image, read_table

TABLE = "info_test.csv"
PATIENTS = (("109", "106", "003", "006"), ("108", "105", "007", "001"), ("107", "102", "005", "009"))
"""Patients of the radiological set, a fold each."""
SUBVOLUME = (70, 210, 210)
"""Voxels of 1 mm along z, y, x."""


@dataclass(frozen=True)
class Patches:
    """A set of plane patches.

    Attributes:
        folder: Name of its folder, such as ``Zurich_patches``.
        folds: Folders of its folds; an empty name where the split is fixed.
        suffix: Ending of its files.
        reversed_colours: Whether its moving images hold blue, green, red in this order.
    """

    folder: str
    folds: tuple[str, ...]
    suffix: str
    reversed_colours: bool = False

    def load(self, folder: Path, fold: int) -> Split:
        """The undisplaced patches ``…_R`` of the other folds, and those of this fold."""
        root = located(folder, self.folder)
        others = [name for number, name in enumerate(self.folds, 1) if number != fold]
        train = [pair for name in others for pair in self._pairs(root / name)]
        return Split(train, self._pairs(root / self.folds[fold - 1]))

    def displaced(self, folder: Path, fold: int, level: int) -> list[DisplacedPair]:
        """The patches ``…_R`` of the fixed modality with the displaced ones ``…_T`` of the moving modality."""
        place = located(folder, self.folder) / self.folds[fold - 1] / f"patch_tlevel{level}"
        rows = {row["Filename"]: row for row in read_table(place / TABLE)}
        return [self._displaced(place, entry, rows, level) for entry in self._files(place, "T")]

    def _displaced(
        self, place: Path, entry: PairFiles, rows: Mapping[str, Mapping[str, str]], level: int
    ) -> DisplacedPair:
        if entry.name not in rows:
            raise UnreadableFileError(place / TABLE, f"does not tell how {entry.name} is displaced")
        fixed = read_image(entry.fixed).without_alpha()
        moving = self._moving(read_image(entry.moving).without_alpha())
        return displaced_pair(fixed, moving, rows[entry.name], entry.name, level)

    def _pairs(self, place: Path) -> list[Pair]:
        pairs = load_pairs(self._files(place / "patch_tlevel1", "R"))  # undisplaced patches are the same at all levels
        return [Pair(pair.name, pair.fixed, self._moving(pair.moving)) for pair in pairs]

    def _files(self, place: Path, moving: str) -> list[PairFiles]:
        a, b = (place / modality / "test" for modality in "AB")
        names = [rf"(.+)_{kind}\{self.suffix}f?" for kind in ("R", moving)]
        return paired(matched(a, names[0]), matched(b, names[1]), place, f"{moving}{self.suffix}")

    def _moving(self, image: Image) -> Image:
        if not self.reversed_colours or len(image.data) != 3:
            return image
        return image.with_data(np.ascontiguousarray(image.data[::-1]), ("red", "green", "blue"))


@dataclass(frozen=True)
class Subvolumes:
    """The radiological set: its table of displacements, applied to the volumes of RIRE, which it does not hold.

    Volumes are sampled once, by cubic splines, on voxels of 1 mm.

    Attributes:
        shape: Voxels of a sub-volume.
        patients: Numbers of the patients, a tuple a fold.
    """

    shape: tuple[int, int, int] = SUBVOLUME
    patients: tuple[tuple[str, ...], ...] = PATIENTS

    def load(self, folder: Path, fold: int) -> Split:
        """T1 and T2 of the patients of the other folds, and of this fold, on the voxels of the T1 sub-volume."""
        train = [p for number, group in enumerate(self.patients, 1) if number != fold for p in group]
        pairs = {patient: self._pair(folder, patient) for patient in (*train, *self.patients[fold - 1])}
        return Split([pairs[p] for p in train], [pairs[p] for p in self.patients[fold - 1]])

    def displaced(self, folder: Path, fold: int, level: int) -> list[DisplacedPair]:
        """The T1 sub-volume of each patient with T2 displaced ten times."""
        table = located(folder, "RIRE_patches") / f"fold{fold}" / f"patch_tlevel{level}" / TABLE
        pairs = []
        for row in read_table(table):
            patient, _, draw = row["Filename"].rpartition("_")
            fixed, moving = (_volume(folder, patient, kind) for kind in ("T1", "T2"))
            still = fixed.resampled(self._grid(fixed), identity(3), order=3)
            warped = moving.resampled(self._grid(moving), displacement(row, 3), order=3)
            pairs.append(displaced_pair(still, warped, row, patient, int(draw)))
        return pairs

    def _pair(self, folder: Path, patient: str) -> Pair:
        fixed, moving = (_volume(folder, patient, kind) for kind in ("T1", "T2"))
        grid = self._grid(fixed)
        return Pair(patient, *(image.resampled(grid, identity(3), order=3) for image in (fixed, moving)))

    def _grid(self, image: Image) -> Grid:
        """The central voxels of 1 mm, counted from the first voxel of the volume as published."""
        whole = Grid(
            tuple(round(extent) for extent in image.grid.extent),
            (1.0,) * image.ndim,
            image.grid.origin,
            image.grid.direction,
            image.grid.unit,
        )
        return whole.cropped([(n - w) // 2 for n, w in zip(whole.shape, self.shape, strict=True)], self.shape)


def _volume(folder: Path, patient: str, kind: str) -> Image:
    return read_image(located(folder, f"patient_{patient}_mr_{kind}.mh[ad]"))
