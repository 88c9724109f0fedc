"""File names: which suffixes are images, and what a name is without them."""

from pathlib import Path

from modalign.errors import UnreadableFileError

SUFFIXES = (
    ".ome.tif",
    ".ome.tiff",
    ".tif",
    ".tiff",
    ".png",
    ".jpg",
    ".jpeg",
    ".nii",
    ".nii.gz",
    ".mha",
    ".mhd",
    ".nrrd",
    ".npy",
    ".dcm",
    ".ome.zarr",
    ".zarr",
)
"""Suffixes of the image files that :func:`modalign.io.read_image` reads."""
FOLDERS = (".ome.zarr", ".zarr")
"""Those of images that are folders."""


def suffix(path: str | Path) -> str:
    """The suffix of a file in lower case, double ones such as ``.ome.tif`` and ``.nii.gz`` included."""
    name = Path(path).name.lower()
    known = [ending for ending in SUFFIXES if name.endswith(ending)]
    return max(known, key=len) if known else Path(name).suffix


def stem(path: str | Path) -> str:
    """The name of a file without folder and suffix: ``a`` for ``folder/a.ome.tif``."""
    name = Path(path).name
    return name[: len(name) - len(suffix(name))]


def image_files(folder: str | Path) -> list[Path]:
    """The image files directly inside a folder, OME-Zarr included, sorted by name; hidden ones are left out.

    Raises:
        UnreadableFileError: The folder does not exist or is a file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UnreadableFileError(folder, "is not a folder" if folder.exists() else "this folder does not exist")
    found = (p for p in folder.iterdir() if suffix(p) in SUFFIXES and not p.name.startswith("."))
    return sorted(p for p in found if p.is_dir() == (suffix(p) in FOLDERS))
