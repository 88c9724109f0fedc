"""NIfTI, MetaImage and NRRD through ITK, whose vectors run x, y, z.

Here, and in :mod:`modalign.io.itk_transforms`, vectors are turned into array order. The world keeps ITK's axes, which
point to the patient's left, back and head (LPS). Lengths are millimetres, which is what these formats mean.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from modalign.errors import OutputError, UnreadableFileError, UnsupportedFormatError
from modalign.geometry.grid import Unit
from modalign.image import Image
from modalign.io.decoded import Decoded, dump_names, load_names
from modalign.io.files import atomic_path, quiet_stderr
from modalign.io.itk import channels_first, grid_of, simple_itk
from modalign.io.names import suffix
from modalign.io.units import parse_unit

ITK_TYPES = frozenset({f"{sign}int{bits}" for sign in ("u", "") for bits in (8, 16, 32, 64)} | {"float32", "float64"})
UNIT_NOTE, CHANNELS_NOTE, NIFTI_NOTE = "modalign_unit", "modalign_channels", "ITK_FileNotes"
_NIFTI_HEADERS = {348: ("8h", 40, "h", 72, "f", 108), 540: ("8q", 16, "h", 14, "q", 168)}
"""Header size -> type and place of dim, of bitpix and of vox_offset in it (NIfTI-1 and NIfTI-2)."""


def read_medical(path: Path, ndim: int | None = None) -> Decoded:  # noqa: ARG001 - one signature for all readers
    """Read NIfTI, MetaImage or NRRD with spacing, origin and direction; the components of vectors become channels.

    Raises:
        UnreadableFileError: Damaged or truncated, or its axes are not perpendicular.
        UnsupportedFormatError: A time series.
    """
    if suffix(path).startswith(".nii"):
        _check_complete_nifti(path)
    volume = _read(path)
    if volume.GetDimension() not in (2, 3):
        raise UnsupportedFormatError(path, _too_many_axes(volume.GetSize()))
    data = channels_first(volume)
    names = load_names(volume.GetMetaData(CHANNELS_NOTE)) if volume.HasMetaDataKey(CHANNELS_NOTE) else ()
    grid = grid_of(volume, _unit(path, volume))
    return Decoded(data, grid, names if len(names) == len(data) else (), "header")


def write_medical(path: Path, image: Image) -> None:
    """Write NIfTI, MetaImage or NRRD, compressed; several channels become a vector a pixel.

    Physical lengths are written in millimetres. Where the pixel size is unknown, a note says so.
    """
    if suffix(path) == ".mhd":
        raise UnsupportedFormatError(path, "is a format of two files, which is not written; write .mha")
    if image.data.dtype.name not in ITK_TYPES:
        raise UnsupportedFormatError(path, f"{suffix(path)} holds no {image.data.dtype} pixels; write .tif")
    volume = _volume(image, nifti=suffix(path).startswith(".nii"))
    with atomic_path(path) as temporary, quiet_stderr():
        try:
            simple_itk().WriteImage(volume, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise OutputError(path, "ITK could not write it; is the disk full?") from error


def _too_many_axes(size: tuple[int, ...]) -> str:
    lengths = " × ".join(map(str, size))
    return (
        f"has {len(size)} axes ({lengths}), where x, y and z are needed; the fourth has {size[3]} entries, such "
        "as times or directions: choose one of them and save it as its own file"
    )


def _read(path: Path) -> Any:
    try:
        with quiet_stderr():
            volume = simple_itk().ReadImage(str(path))
    except RuntimeError as error:
        raise UnreadableFileError(path, f"is a damaged or incomplete {suffix(path)} file ({_reason(error)})") from error
    return volume


def _volume(image: Image, *, nifti: bool) -> Any:
    grid = image.grid if image.grid.unit == "pixel" else image.grid.in_unit("millimeter")
    several = len(image.data) > 1
    pixels = np.ascontiguousarray(np.moveaxis(image.data, 0, -1)) if several else image.data[0]
    volume = simple_itk().GetImageFromArray(pixels, isVector=several)
    volume.SetSpacing(grid.spacing[::-1])
    volume.SetOrigin(grid.origin[::-1])
    volume.SetDirection(np.array(grid.direction)[::-1, ::-1].ravel().tolist())
    if nifti:
        volume.SetMetaData(NIFTI_NOTE, f"{UNIT_NOTE}={grid.unit}")
    else:
        volume.SetMetaData(UNIT_NOTE, grid.unit)
        volume.SetMetaData(CHANNELS_NOTE, dump_names(image.channels))
    return volume


def _unit(path: Path, volume: Any) -> Unit:
    notes = {key: volume.GetMetaData(key) for key in (UNIT_NOTE, NIFTI_NOTE) if volume.HasMetaDataKey(key)}
    if "pixel" in (notes.get(UNIT_NOTE), notes.get(NIFTI_NOTE, "").removeprefix(f"{UNIT_NOTE}=").strip()):
        return "pixel"
    return _nrrd_unit(path) if suffix(path) == ".nrrd" else "millimeter"


def _nrrd_unit(path: Path) -> Unit:
    """The unit that a NRRD header states in ``space units`` or ``units``; millimetres where it states none."""
    with path.open("rb") as file:
        header = file.read(1 << 16).split(b"\n\n")[0].decode("utf-8", "replace")
    for line in header.splitlines():
        key, _, words = line.partition(":")
        units = {parse_unit(word) for word in words.replace('"', " ").split()} - {None}
        if key.strip().lower() in ("space units", "units") and len(units) == 1:
            return units.pop() or "millimeter"
    return "millimeter"


def _check_complete_nifti(path: Path) -> None:
    """Compare the size of a NIfTI file with its header, because ITK fills what is missing with zeros."""
    try:
        content = gzip.decompress(path.read_bytes()) if suffix(path).endswith(".gz") else path.read_bytes()
        needed = _nifti_size(content)
    except (OSError, EOFError, zlib.error, struct.error, KeyError) as error:
        raise UnreadableFileError(path, "is a damaged or incomplete NIfTI file") from error
    if len(content) < needed:
        raise UnreadableFileError(path, f"is incomplete: {len(content)} of {needed} bytes are there")


def _nifti_size(content: bytes) -> int:
    """Bytes that a NIfTI file needs by its own header."""
    order = "<" if struct.unpack_from("<i", content)[0] in _NIFTI_HEADERS else ">"
    (header,) = struct.unpack_from(f"{order}i", content)
    dims, at_dims, bits, at_bits, offset, at_offset = _NIFTI_HEADERS[header]
    count, *sizes = struct.unpack_from(order + dims, content, at_dims)
    (bits_per_voxel,) = struct.unpack_from(order + bits, content, at_bits)
    (start,) = struct.unpack_from(order + offset, content, at_offset)
    voxels = math.prod(max(1, n) for n in sizes[:count])
    return int(start) + int(voxels * bits_per_voxel) // 8


def _reason(error: RuntimeError) -> str:
    """What an ITK error means, where it says that at all."""
    last = str(error).strip().splitlines()[-1].strip()
    if "orthonormal" in str(error):
        return "its axes are not perpendicular to each other; resample it on a regular grid first"
    return "ITK finds no complete image in it" if "sitk::ERROR" in last or last.startswith("Reason:") else last
