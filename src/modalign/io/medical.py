"""NIfTI, MetaImage and NRRD through ITK, whose vectors run x, y, z.

Here, and in :mod:`modalign.io.itk_transforms`, vectors are turned into array order. The world keeps ITK's axes, which
point to the patient's left, back and head (LPS). Lengths are millimetres, which is what these formats mean.
"""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modalign.errors import OutputError, UnreadableFileError, UnsupportedFormatError
from modalign.geometry import Grid
from modalign.geometry.grid import Unit
from modalign.image import Image
from modalign.io.decoded import Decoded, dump_names, load_names
from modalign.io.files import atomic_path, quiet_stderr
from modalign.io.itk import channels_first, grid_of, simple_itk
from modalign.io.names import suffix
from modalign.io.units import parse_unit

ITK_TYPES = frozenset({f"{sign}int{bits}" for sign in ("u", "") for bits in (8, 16, 32, 64)} | {"float32", "float64"})
TILTED = "has axes that are not perpendicular to each other, or none; resample it on a regular grid first"
UNIT_NOTE, CHANNELS_NOTE, NIFTI_NOTE = "modalign_unit", "modalign_channels", "ITK_FileNotes"
GZIP = b"\x1f\x8b"
"""The first bytes of what gzip has compressed."""
_NIFTI_HEADERS = {
    348: {
        "dim": ("8h", 40),
        "datatype": ("h", 70),
        "bitpix": ("h", 72),
        "pixdim": ("8f", 76),
        "vox_offset": ("f", 108),
    },
    540: {
        "dim": ("8q", 16),
        "datatype": ("h", 12),
        "bitpix": ("h", 14),
        "pixdim": ("8d", 104),
        "vox_offset": ("q", 168),
    },
}
"""Header size -> type and place of its fields (NIfTI-1 and NIfTI-2)."""
_NIFTI_FLOATS = {16: "f4", 64: "f8"}
"""Data types that can hold what is not finite."""


def read_medical(path: Path, ndim: int | None = None) -> Decoded:  # noqa: ARG001 - one signature for all readers
    """Read NIfTI, MetaImage or NRRD with spacing, origin and direction; the components of vectors become channels.

    Raises:
        UnreadableFileError: Damaged or truncated, or its axes are not perpendicular.
        UnsupportedFormatError: A time series.
    """
    nifti = _nifti(path) if suffix(path).startswith(".nii") else None
    volume = _read(path)
    if volume.GetDimension() not in (2, 3):
        raise UnsupportedFormatError(path, _too_many_axes(volume.GetSize()))
    data = channels_first(volume)
    names = load_names(volume.GetMetaData(CHANNELS_NOTE)) if volume.HasMetaDataKey(CHANNELS_NOTE) else ()
    names = names if len(names) == len(data) else ()
    if nifti is None:
        return Decoded(data, grid_of(volume, _unit(path, volume)), names, "header")
    data = nifti.with_gaps(data)
    if not nifti.has_pixel_size:
        return Decoded(data, Grid(data.shape[1:]), names)
    return Decoded(data, grid_of(volume, _unit(path, volume)), names, "header")


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
        if "orthonormal" in str(error):
            raise UnreadableFileError(path, TILTED) from error
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


@dataclass(frozen=True)
class _Nifti:
    """What ITK keeps quiet about a NIfTI file: it fills what is missing with zeros, and puts zeros for NaN as well."""

    content: bytes
    order: str
    header: int

    def numbers(self, what: str) -> tuple[Any, ...]:
        """The entries of a field of the header."""
        kind, place = _NIFTI_HEADERS[self.header][what]
        return struct.unpack_from(self.order + kind, self.content, place)

    @property
    def sizes(self) -> list[int]:
        """Entries along each axis, x first."""
        count, *sizes = self.numbers("dim")
        return [max(1, int(n)) for n in sizes[:count]]

    @property
    def needed(self) -> int:
        """Bytes that the file needs by its own header."""
        return int(self.numbers("vox_offset")[0]) + math.prod(self.sizes) * int(self.numbers("bitpix")[0]) // 8

    @property
    def has_pixel_size(self) -> bool:
        """Whether the header tells the pixel size along all axes of space."""
        return all(self.numbers("pixdim")[1 : min(len(self.sizes), 3) + 1])

    def with_gaps(self, data: np.ndarray) -> np.ndarray:
        """The pixels, with those not a number that the file says are not finite."""
        kind = _NIFTI_FLOATS.get(int(self.numbers("datatype")[0]))
        if kind is None or data.dtype.kind != "f":
            return data
        start = int(self.numbers("vox_offset")[0])
        stored = np.frombuffer(self.content, f"{self.order}{kind}", math.prod(self.sizes), start)
        finite = np.isfinite(stored)
        if not finite.all() and finite.size == data.size:
            data[~finite.reshape(data.shape)] = np.nan
        return data


def _nifti(path: Path) -> _Nifti:
    try:
        content = path.read_bytes()
        if content.startswith(GZIP) != suffix(path).endswith(".gz"):
            is_ = "is compressed by gzip" if content.startswith(GZIP) else "is not compressed by gzip"
            raise UnreadableFileError(path, f"{is_}, although the name says otherwise; rename it")
        content = gzip.decompress(content) if suffix(path).endswith(".gz") else content
        order = "<" if struct.unpack_from("<i", content)[0] in _NIFTI_HEADERS else ">"
        found = _Nifti(content, order, struct.unpack_from(f"{order}i", content)[0])
        needed, sizes = found.needed, found.numbers("pixdim")
    except (OSError, EOFError, zlib.error, struct.error, KeyError, ValueError, OverflowError) as error:
        raise UnreadableFileError(path, "is a damaged or incomplete NIfTI file") from error
    if len(content) < needed:
        raise UnreadableFileError(path, f"is incomplete: {len(content)} of {needed} bytes are there")
    if not all(map(math.isfinite, sizes[1 : len(found.sizes) + 1])):
        raise UnreadableFileError(path, "has a pixel size that is no number in its header (pixdim)")
    return found


def _reason(error: RuntimeError) -> str:
    """What an ITK error means, where it says that at all."""
    last = str(error).strip().splitlines()[-1].strip()
    return "ITK finds no complete image in it" if "sitk::ERROR" in last or last.startswith("Reason:") else last
