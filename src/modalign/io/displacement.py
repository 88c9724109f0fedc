"""Displacement fields: inside the JSON of a transform, and as files that ITK and ANTs read.

In the files (NIfTI, NRRD, MetaImage) a vector stands at each pixel of the fixed grid, its components x first, in
millimetres along ITK's axes, and leads from a point of the fixed image to the one of the moving image: what ITK calls a
displacement field transform, and ANTs a warp.
"""

import base64
import binascii
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from modalign.errors import InvalidInputError, UnreadableFileError
from modalign.geometry import DisplacementField, Grid, Similarity, Transform, as_rows
from modalign.geometry.grid import METERS, Unit
from modalign.image import Image
from modalign.io.files import plain, require_file
from modalign.io.medical import read_medical, write_medical

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
ENCODING = "base64 of zlib of float32, little-endian"


def field_to_dict(field: DisplacementField) -> dict[str, Any]:
    """A field as plain JSON: its grid, and the world vectors ``(axis, *spatial)`` in array order as text."""
    content = zlib.compress(np.ascontiguousarray(field.displacement, "<f4").tobytes(), 6)
    return {
        "grid": plain(asdict(field.grid)),
        "encoding": ENCODING,
        "displacement_zyx": base64.b64encode(content).decode("ascii"),
    }


def field_from_dict(stored: Mapping[str, Any], grid: Grid) -> DisplacementField:
    """The field that :func:`field_to_dict` made.

    Args:
        stored: The plain JSON.
        grid: Its grid.

    Raises:
        InvalidInputError: Another encoding, damaged, or not of the size of the grid.
    """
    if stored.get("encoding") != ENCODING:
        raise InvalidInputError(f"the displacement has the encoding {stored.get('encoding')!r}, not {ENCODING!r}")
    try:
        content = zlib.decompress(base64.b64decode(stored["displacement_zyx"], validate=True))
    except (binascii.Error, zlib.error) as error:
        raise InvalidInputError("the displacement is damaged") from error
    values = np.frombuffer(content, "<f4") if len(content) % 4 == 0 else np.zeros(0, "<f4")
    if values.size != grid.ndim * np.prod(grid.shape):
        raise InvalidInputError(f"the displacement has {values.size} numbers, which do not fit a grid of {grid.shape}")
    return DisplacementField(values.reshape(grid.ndim, *grid.shape).astype(np.float32), grid)


def write_displacement(path: Path, transform: Transform, fixed: Grid, moving: Grid) -> None:
    """Write any transform as the displacement of the pixels of the fixed image.

    Raises:
        InvalidInputError: One of the images has a pixel size and the other has none: a displacement needs one world.
        UnsupportedFormatError: A format that holds no fields.
        OutputError: The place cannot be written to.
    """
    in_fixed = _to_unit(moving.unit, fixed.unit, fixed.ndim) @ transform
    field = DisplacementField.sampled(in_fixed, fixed)
    factor = 1.0 if fixed.unit == "pixel" else METERS[fixed.unit] / METERS["millimeter"]
    x_first = np.ascontiguousarray(factor * field.displacement[::-1], np.float32)
    write_medical(path, Image(x_first, fixed, tuple("xyz"[: fixed.ndim])))


def read_displacement(path: Path) -> DisplacementField:
    """Read a displacement field, ours or one of ITK or ANTs.

    Raises:
        UnreadableFileError: Damaged, or not one vector of the right length a pixel.
    """
    decoded = read_medical(require_file(path))
    grid = decoded.grid
    if len(decoded.data) != grid.ndim:
        raise UnreadableFileError(
            path, f"holds {len(decoded.data)} numbers a pixel, where a {grid.ndim}D displacement field has {grid.ndim}"
        )
    try:
        return DisplacementField(decoded.data[::-1].astype(np.float32), grid)
    except InvalidInputError as error:
        raise UnreadableFileError(path, str(error)) from error


def _to_unit(unit: Unit, wanted: Unit, ndim: int) -> Similarity:
    """From a world in one unit to the same world in another."""
    if unit != wanted and "pixel" in (unit, wanted):
        raise InvalidInputError(
            "a displacement field needs one world for both images, and one of them has no pixel size; write .json"
        )
    factor = 1.0 if unit == wanted else METERS[unit] / METERS[wanted]
    return Similarity(as_rows(np.eye(ndim)), factor, (0.0,) * ndim)
