"""Finding published files below a folder, whatever folders an archive has put around them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from modalign.data.pairs import PairFiles
from modalign.errors import UnreadableFileError
from modalign.io import image_files


def located(folder: Path, name: str) -> Path:
    """The folder or file of a name, in a folder or anywhere below it; the one least deep where there are several.

    Raises:
        UnreadableFileError: There is none.
    """
    if not folder.is_dir():
        raise UnreadableFileError(folder, "there is no such folder; get the set with 'modalign data get'")
    found = sorted((path for path in folder.rglob(name)), key=lambda path: (len(path.parts), path))
    if folder.name == name:
        return folder
    if not found:
        raise UnreadableFileError(folder, f"holds no {name}, neither here nor in its folders")
    return found[0]


def matched(folder: Path, pattern: str) -> dict[tuple[str, ...], Path]:
    """The image files of a folder whose whole name fits a regular expression, by the groups of it."""
    if not folder.is_dir():
        raise UnreadableFileError(folder, "there is no such folder: the set is not complete")
    fits = ((re.fullmatch(pattern, path.name, re.IGNORECASE), path) for path in image_files(folder))
    return {match.groups(): path for match, path in fits if match}


def paired(
    fixed: Mapping[tuple[str, ...], Path], moving: Mapping[tuple[str, ...], Path], folder: Path, example: str
) -> list[PairFiles]:
    """The files of two modalities by name, sorted.

    Raises:
        UnreadableFileError: There are none, or one lacks its partner.
    """
    lonely: Sequence[tuple[str, ...]] = sorted(fixed.keys() ^ moving.keys())
    if lonely:
        raise UnreadableFileError(folder, f"has {' '.join(lonely[0])} in one modality only ({len(lonely)} such)")
    if not fixed:
        raise UnreadableFileError(folder, f"holds no image called like {example}")
    return [PairFiles("_".join(key), fixed[key], moving[key]) for key in sorted(fixed)]
