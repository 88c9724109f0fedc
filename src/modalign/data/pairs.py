"""Aligned pairs of images: found in two folders or a table, checked, and split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modalign.errors import FileError, InvalidInputError, PairingError
from modalign.image import Image
from modalign.io import image_files, read_image, read_mask, read_table, stem

MOST_UNLIKE, MOST_APART = 0.02, 1.0
"""Pixel sizes of an aligned pair differ by less than this fraction, and its corners by less than so many pixels."""


@dataclass(frozen=True)
class Pair:
    """Two images of one place, pixel on pixel.

    Attributes:
        name: What tells this pair from others, such as the file stem.
        fixed: The image of the first modality.
        moving: The image of the second, on a grid of the same shape.
    """

    name: str
    fixed: Image
    moving: Image

    def __post_init__(self) -> None:
        if self.fixed.grid.shape != self.moving.grid.shape:
            raise InvalidInputError(
                f"the images of an aligned pair must have the same size, not {self.fixed.grid.shape} "
                f"and {self.moving.grid.shape}"
            )


@dataclass(frozen=True)
class PairFiles:
    """Where an aligned pair lies: two image files, and a mask of valid pixels where there is one."""

    name: str
    fixed: Path
    moving: Path
    mask: Path | None = None


def find_pairs(fixed_dir: Path, moving_dir: Path, mask_dir: Path | None = None) -> list[PairFiles]:
    """Pair the images of two folders by file stem (and masks of valid pixels from a third), in order of the stems.

    Raises:
        PairingError: A folder is missing or empty, a stem has no partner or occurs twice. All are named in one message.
    """
    folders = {"fixed": fixed_dir, "moving": moving_dir} | ({"mask": mask_dir} if mask_dir else {})
    files = {role: _by_stem(folder) for role, folder in folders.items()}
    fixed, moving = files["fixed"], files["moving"]
    lonely = [f"{fixed[name].name} has no partner in {moving_dir}" for name in sorted(fixed.keys() - moving.keys())]
    lonely += [f"{moving[name].name} has no partner in {fixed_dir}" for name in sorted(moving.keys() - fixed.keys())]
    if lonely:
        raise PairingError(
            f"{_several(lonely)}. Paired images have the same file stem; remove or rename the others, "
            "or list the pairs in a CSV file."
        )
    masks = files.get("mask", {})
    return [PairFiles(name, fixed[name], moving[name], masks.get(name)) for name in sorted(fixed)]


def read_pair_table(table: Path) -> list[PairFiles]:
    """The pairs of a CSV file with the columns ``fixed``, ``moving`` and, if wanted, ``name`` and ``mask``.

    Paths are relative to the folder of the table.

    Raises:
        PairingError: A column is missing, a cell is empty, or there is no row.
    """
    rows = read_table(table)
    if not rows or not {"fixed", "moving"} <= rows[0].keys():
        raise PairingError(f"{table}: a table of pairs needs a header with the columns 'fixed' and 'moving' and a row")
    empty = [str(number) for number, row in enumerate(rows, 2) if not (row["fixed"] and row["moving"])]
    if empty:
        raise PairingError(f"{table}: no file is named in 'fixed' or 'moving' of line {', '.join(empty)}")
    base = table.parent
    return [
        PairFiles(
            row.get("name") or stem(Path(row["fixed"])),
            base / row["fixed"],
            base / row["moving"],
            base / row["mask"] if row.get("mask") else None,
        )
        for row in rows
    ]


def load_pairs(
    files: Sequence[PairFiles], *, ndim: int | None = None, keep: Callable[[Pair], Pair] = lambda pair: pair
) -> list[Pair]:
    """Read the images of pairs and check that they fit together.

    Args:
        files: Where they lie.
        ndim: Number of spatial axes that is needed.
        keep: Told of each pair as it is there, and says where its pixels are to wait, see
            :class:`modalign.data.shelf.Shelf`.

    Raises:
        PairingError: Files are unreadable, the two images of a pair differ in size, or pairs differ in channels or in
            the number of dimensions. All are named in one message.
    """
    pairs, problems = [], []
    for entry in files:
        try:
            pairs.append(keep(_load(entry, ndim)))
        except (FileError, InvalidInputError) as error:
            problems.append(str(error) if isinstance(error, FileError) else f"pair {entry.name!r}: {error}")
    problems += _odd_ones(pairs)
    if problems:
        raise PairingError(f"{_several(problems)}. Mend or remove these pairs and start again.")
    return pairs


def apart(pair: Pair) -> str:
    """What the files say against a pair being aligned pixel on pixel; empty where nothing.

    Positions are compared where the pixel sizes of both are known: in pixels of the fixed image, at the corners.
    """
    fixed, moving = pair.fixed.grid, pair.moving.grid
    if "pixel" in (fixed.unit, moving.unit):
        return ""
    moving = moving.in_unit(fixed.unit)
    sizes = [" × ".join(f"{size:.3g}" for size in grid.spacing) for grid in (fixed, moving)]
    if not np.allclose(fixed.spacing, moving.spacing, rtol=MOST_UNLIKE):
        return f"its files tell pixels of {sizes[0]} and of {sizes[1]} {fixed.unit}"
    pixels = np.abs(fixed.corners - moving.corners) / np.array(fixed.spacing)
    if pixels.max() > MOST_APART:
        return f"its files tell places that are up to {pixels.max():.3g} pixels apart"
    return ""


def split_pairs(pairs: Sequence[Pair], validation_fraction: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on and pairs to validate on, disjoint, drawn with a seed.

    A single pair is never split; with two pairs or more and a fraction above zero, at least one is kept for
    validation and at least one for training.

    Raises:
        InvalidInputError: The fraction is not at least 0 and below 1.
    """
    if not 0 <= validation_fraction < 1:
        raise InvalidInputError(f"the validation fraction must be at least 0 and below 1, not {validation_fraction}")
    kept = 0
    if validation_fraction and len(pairs) > 1:
        kept = min(max(1, round(validation_fraction * len(pairs))), len(pairs) - 1)
    order = np.random.default_rng(seed).permutation(len(pairs))
    validation = {int(index) for index in order[:kept]}
    chosen = [pairs[i] for i in range(len(pairs)) if i in validation]
    return [pairs[i] for i in range(len(pairs)) if i not in validation], chosen


def _load(entry: PairFiles, ndim: int | None) -> Pair:
    fixed, moving = (read_image(path, ndim=ndim).without_alpha() for path in (entry.fixed, entry.moving))
    for role, image in (("fixed", fixed), ("moving", moving)):
        if not np.all(np.isfinite(image.data)):
            raise InvalidInputError(f"the {role} image holds values that are not finite (NaN); repair or mask them")
        if not np.ptp(image.data.reshape(len(image.data), -1), axis=1).any():
            raise InvalidInputError(f"the {role} image is constant: there is nothing to learn from")
    if entry.mask:
        mask = read_mask(entry.mask, fixed.grid)
        fixed = Image(fixed.data, fixed.grid, fixed.channels, fixed.valid & mask)
    return Pair(entry.name, fixed, moving)


def _odd_ones(pairs: Sequence[Pair]) -> list[str]:
    """Pairs that differ from the first one in channels or dimensions."""
    problems = []
    for pair in pairs[1:]:
        for role in ("fixed", "moving"):
            first, image = getattr(pairs[0], role), getattr(pair, role)
            if (len(image.data), image.ndim) != (len(first.data), first.ndim):
                problems.append(
                    f"pair {pair.name!r}: the {role} image is {image.ndim}D with {len(image.data)} channels, in pair "
                    f"{pairs[0].name!r} it is {first.ndim}D with {len(first.data)}"
                )
    return problems


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise PairingError(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    for path in image_files(folder):
        if stem(path) in found:
            raise PairingError(f"{folder}: {found[stem(path)].name} and {path.name} have the same stem")
        found[stem(path)] = path
    if not found:
        raise PairingError(f"{folder}: no image file in this folder")
    return found


def _several(problems: Sequence[str], shown: int = 8) -> str:
    more = f"; and {len(problems) - shown} more" if len(problems) > shown else ""
    return "; ".join(problems[:shown]) + more
