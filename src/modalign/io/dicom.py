"""DICOM: a file, or a folder that holds the slices of one series."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modalign.errors import UnreadableFileError, UnsupportedFormatError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.io.decoded import NAMES, Decoded
from modalign.io.files import quiet_stderr
from modalign.io.itk import channels_first, grid_of, simple_itk

POSITION, THICKNESS = "0020|0032", "0018|0050"
"""Tags of the position of a slice and of its thickness."""
UNEVEN = 0.02
"""Distances between slices may differ by this fraction of their mean."""
SHOWN = 5


def read_dicom(path: Path, ndim: int | None = None) -> Decoded:  # noqa: ARG001 - one signature for all readers
    """Read a DICOM file, or the series in a folder, in millimetres on the axes of the patient (LPS).

    Raises:
        UnreadableFileError: Damaged, or slices are missing.
        UnsupportedFormatError: Several series or several images of one place, a slanted stack, or a time series.
    """
    with quiet_stderr():
        names = _series(path) if path.is_dir() else [str(path)]
        volume = _read(path, names)
    if volume.GetDimension() > len("zyx"):
        raise UnsupportedFormatError(path, "is a time series; export one of its times as its own series")
    data, grid = channels_first(volume), _thick(grid_of(volume, "millimeter"), Path(names[0]))
    return Decoded(data, grid, NAMES.get(len(data), ()), "DICOM header")


def holds_series(folder: Path) -> bool:
    """Whether there are DICOM files in a folder."""
    with quiet_stderr():
        return bool(simple_itk().ImageSeriesReader.GetGDCMSeriesIDs(str(folder)))


def refuse_writing(path: Path, _image: Image) -> None:
    """Say that DICOM is not written: its files name a patient and an acquisition, which a computed image has not.

    Raises:
        UnsupportedFormatError: Always.
    """
    raise UnsupportedFormatError(path, "DICOM is read but not written; write .nii.gz, .mha or .tif")


def _series(folder: Path) -> list[str]:
    """The files of the only series in a folder, in order of their positions."""
    reader = simple_itk().ImageSeriesReader
    found = {name: reader.GetGDCMSeriesFileNames(str(folder), name) for name in reader.GetGDCMSeriesIDs(str(folder))}
    if not found:
        raise UnreadableFileError(folder, "is a folder without DICOM files; name an image file in it")
    if len(found) > 1:
        told = [f"{Path(files[0]).name} and {len(files) - 1} more" for files in found.values()]
        more = f" and {len(told) - SHOWN} others" if len(told) > SHOWN else ""
        raise UnsupportedFormatError(
            folder, f"holds {len(found)} DICOM series ({'; '.join(told[:SHOWN])}{more}); put one into its own folder"
        )
    (files,) = found.values()
    _check_strangers(folder, files)
    _check_positions(folder, files)
    return list(files)


def _check_strangers(folder: Path, files: tuple[str, ...]) -> None:
    """Files that are called like slices and are none are damaged ones: the volume would lack them."""
    names = {Path(name).name for name in files}
    suffixes = {Path(name).suffix for name in names} - {""} | {".dcm"}
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    strangers = sorted(path.name for path in visible if path.suffix in suffixes and path.name not in names)
    if strangers:
        more = f" and {len(strangers) - SHOWN} more" if len(strangers) > SHOWN else ""
        raise UnreadableFileError(
            folder,
            f"has files that are no readable slices of its series: {', '.join(strangers[:SHOWN])}{more}; get them "
            "anew, or move them away where they are something else",
        )


def _check_positions(folder: Path, files: tuple[str, ...]) -> None:
    """Slices must follow each other at equal distances, square to their planes; ITK would only warn, if at all."""
    positions = [_position(Path(name)) for name in files]
    known = np.array([position for position in positions if position is not None])
    if len(known) < len(files) or len(files) == 1:
        return
    repeated = max(Counter(map(tuple, known.round(3).tolist())).values())
    if repeated > 1:
        raise UnsupportedFormatError(
            folder,
            f"holds {repeated} images of one place, such as times or echoes; put one of them into its own folder",
        )
    steps = np.diff(known, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    off = np.abs(lengths / np.median(lengths) - 1) > UNEVEN
    if off.any():
        where = int(off.argmax())
        raise UnreadableFileError(
            folder,
            f"has slices at unequal distances: {lengths[where]:.3g} mm after {Path(files[where]).name}, "
            f"{np.median(lengths):.3g} mm elsewhere; is one missing, or damaged? {len(files)} were found",
        )
    normal = _normal(Path(files[0]))
    slant = np.degrees(np.arccos(np.clip(abs(steps.mean(0) @ normal) / np.linalg.norm(steps.mean(0)), 0, 1)))
    if slant > 0.1:
        raise UnsupportedFormatError(
            folder, f"is a stack slanted by {slant:.1f}° (a tilted gantry); resample it on a regular grid first"
        )


def _thick(grid: Grid, path: Path) -> Grid:
    """The grid, for one slice alone as thick as its header says: there is no next slice to tell."""
    if grid.ndim < len("zyx") or grid.shape[0] > 1:
        return grid
    header = _header(path)
    thickness = header.GetMetaData(THICKNESS).strip() if header.HasMetaDataKey(THICKNESS) else ""
    return replace(grid, spacing=(float(thickness), *grid.spacing[1:])) if thickness else grid


def _position(path: Path) -> list[float] | None:
    reader = _header(path)
    if not reader.HasMetaDataKey(POSITION):
        return None
    return [float(number) for number in reader.GetMetaData(POSITION).split("\\")]


def _normal(path: Path) -> Any:
    direction = np.reshape(_header(path).GetDirection(), (3, 3))
    return direction[:, 2]


def _header(path: Path) -> Any:
    reader = simple_itk().ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise UnreadableFileError(path, "is a damaged or incomplete DICOM file") from error
    return reader


def _read(path: Path, names: list[str]) -> Any:
    try:
        return simple_itk().ReadImage(names if len(names) > 1 else names[0])
    except RuntimeError as error:
        raise UnreadableFileError(path, "is damaged, or its slices do not fit each other") from error
