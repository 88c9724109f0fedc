"""Transforms as JSON: the matrix in both axis orders, and the grids of the two images that it belongs to.

::

    {
      "format": "modalign.transform", "version": 1,
      "type": "rigid" | "similarity" | "affine" | "displacement" | "inverse_displacement" | "chain",
      "direction": "fixed_to_moving", "convention": "pixel_center",
      "unit": …, "moving_unit": …,
      "axis_order": {"matrix_xy": ["x", "y"], "matrix_zyx": ["y", "x"]},
      "matrix_xy": …, "matrix_zyx": …,        (for a chain: "transforms", a list of parts in order of application;
                                               for a displacement: its own "grid" and the vectors as text)
      "fixed": {"shape": …, "spacing": …, "origin": …, "direction": …, "unit": …}, "moving": …,
      "info": {…}
    }

The matrices are homogeneous and map world points of the fixed image to world points of the moving one. Their names are
the same in every number of dimensions: ``matrix_xy`` starts with x (x, y, z in 3D), ``matrix_zyx`` is in array order
(y, x in 2D), as are the vectors of the grids. A point at a whole index is a pixel centre.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modalign.errors import InvalidInputError, UnreadableFileError, UnsupportedFormatError
from modalign.geometry import (
    Affine,
    Chain,
    DisplacementField,
    Grid,
    InverseField,
    Linear,
    Rigid,
    Similarity,
    Transform,
    as_rows,
)
from modalign.io.displacement import SUFFIXES, field_from_dict, field_to_dict, read_displacement, write_displacement
from modalign.io.files import plain, read_json, write_json
from modalign.io.itk_transforms import read_itk_transform, write_itk_transform
from modalign.io.names import suffix

FORMAT, VERSION = "modalign.transform", 1
GROUPS: dict[str, type[Linear]] = {"rigid": Rigid, "similarity": Similarity, "affine": Affine}
CHAIN, FIELD, INVERSE_FIELD = "chain", "displacement", "inverse_displacement"


@dataclass(frozen=True)
class StoredTransform:
    """A transform from a file, with the grids of the images that it was found for, where the file has them."""

    transform: Transform
    fixed: Grid | None = None
    moving: Grid | None = None
    info: Mapping[str, Any] = field(default_factory=dict)


def write_transform(
    path: str | Path,
    transform: Transform,
    *,
    fixed: Grid,
    moving: Grid,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write a transform from world points of ``fixed`` to world points of ``moving``.

    ``.json`` keeps everything. ``.tfm`` (or ``.txt``) is ITK's text format, for SimpleITK, ITK-SNAP and 3D Slicer: it
    holds the matrix alone, x first, in the world units of the two grids. ITK's own readers give NIfTI, NRRD and
    MetaImage files the same world as modalign where lengths are millimetres; of other files and units they know less,
    and the grids must then be set by hand. ``.nii.gz``, ``.nrrd`` and ``.mha`` hold any transform as a displacement
    field on the grid of the fixed image, which ITK and ANTs read; see :mod:`modalign.io.displacement`.

    Raises:
        InvalidInputError: A displacement field between images of which only one has a pixel size.
        UnsupportedFormatError: Another suffix, or a transform that the format cannot hold.
        OutputError: The place cannot be written to.
    """
    path = Path(path)
    if suffix(path) in (".tfm", ".txt"):
        write_itk_transform(path, transform, f"fixed_to_moving, x first; {fixed.unit} to {moving.unit}")
    elif suffix(path) in SUFFIXES:
        write_displacement(path, transform, fixed, moving)
    elif suffix(path) == ".json":
        write_json(path, _for_file(path, transform, fixed, moving, info))
    else:
        raise UnsupportedFormatError(path, "transforms are written as .json or .tfm, displacement fields as .nii.gz")


def read_transform(path: str | Path) -> StoredTransform:
    """Read what :func:`write_transform` wrote, or a linear ITK transform from elsewhere, which comes without grids.

    A displacement field comes with its own grid as that of the fixed image.

    Raises:
        UnreadableFileError: Not a transform file, from a newer version, or contradicting itself.
        UnsupportedFormatError: Another suffix, or an ITK transform that is not linear.
    """
    path = Path(path)
    if suffix(path) in (".tfm", ".txt"):
        return StoredTransform(read_itk_transform(path))
    if suffix(path) in SUFFIXES:
        field = read_displacement(path)
        return StoredTransform(field, field.grid)
    if suffix(path) != ".json":
        raise UnsupportedFormatError(path, "transforms are read from .json or .tfm, displacement fields from .nii.gz")
    try:
        return transform_from_dict(read_json(path))
    except InvalidInputError as error:
        raise UnreadableFileError(path, str(error)) from error


def transform_to_dict(
    transform: Transform, *, fixed: Grid, moving: Grid, info: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A transform as plain JSON, see the top of this module.

    Raises:
        InvalidInputError: A part of the transform is not rigid, similarity or affine.
    """
    order = ["x", "y", "z"][: transform.ndim]
    return {
        "format": FORMAT,
        "version": VERSION,
        "type": _type_name(transform),
        "direction": "fixed_to_moving",
        "convention": "pixel_center",
        "unit": fixed.unit,
        "moving_unit": moving.unit,
        "axis_order": {"matrix_xy": order, "matrix_zyx": order[::-1]},
        **_parameters(transform),
        "fixed": plain(asdict(fixed)),
        "moving": plain(asdict(moving)),
        "info": plain(dict(info or {})),
    }


def transform_from_dict(stored: Any) -> StoredTransform:
    """The transform in plain JSON, as :func:`transform_to_dict` made it.

    Raises:
        InvalidInputError: Another format, a newer version, something missing, or matrices that contradict each other.
    """
    if not isinstance(stored, Mapping) or stored.get("format") != FORMAT:
        raise InvalidInputError('is not a modalign transform; those hold "format": "modalign.transform"')
    _check_version(stored)
    try:
        transform = _transform(stored)
        fixed, moving = (_grid(stored.get(key), transform.ndim) for key in ("fixed", "moving"))
        _check_units(stored, fixed, moving)
        return StoredTransform(transform, fixed, moving, dict(stored.get("info") or {}))
    except KeyError as error:
        raise InvalidInputError(f"the transform is incomplete: {error} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(f"the transform makes no sense: {error}") from error


def reversed_axes(matrix: np.ndarray) -> np.ndarray:
    """A homogeneous matrix for points in the opposite axis order (x first instead of last, and back)."""
    order = [*reversed(range(len(matrix) - 1)), len(matrix) - 1]
    return matrix[np.ix_(order, order)]


def _for_file(
    path: Path, transform: Transform, fixed: Grid, moving: Grid, info: Mapping[str, Any] | None
) -> dict[str, Any]:
    try:
        return transform_to_dict(transform, fixed=fixed, moving=moving, info=info)
    except InvalidInputError as error:
        raise UnsupportedFormatError(path, str(error)) from error


def _type_name(transform: Transform) -> str:
    for name, group in GROUPS.items():
        if isinstance(transform, group):
            return name
    for name, kind in ((CHAIN, Chain), (FIELD, DisplacementField), (INVERSE_FIELD, InverseField)):
        if isinstance(transform, kind):
            return name
    raise InvalidInputError(
        f"a {type(transform).__name__} cannot be stored; only rigid, similarity, affine, displacement fields and chains"
    )


def _parameters(transform: Transform) -> dict[str, Any]:
    if isinstance(transform, Chain):
        return {"transforms": [{"type": _type_name(t), **_parameters(t)} for t in transform.transforms]}
    if isinstance(transform, DisplacementField | InverseField):
        return field_to_dict(transform if isinstance(transform, DisplacementField) else transform.field)
    if not isinstance(transform, Linear):
        raise InvalidInputError(f"a {type(transform).__name__} cannot be stored")
    return {"matrix_xy": reversed_axes(transform.matrix).tolist(), "matrix_zyx": transform.matrix.tolist()}


def _check_version(stored: Mapping[str, Any]) -> None:
    version = stored.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise InvalidInputError(
            f"the transform has format version {version!r}, and this modalign reads up to {VERSION}: update modalign"
        )
    for key, value in (("direction", "fixed_to_moving"), ("convention", "pixel_center")):
        if stored.get(key) != value:
            raise InvalidInputError(f"the transform needs {key!r} to be {value!r}, not {stored.get(key)!r}")


def _check_units(stored: Mapping[str, Any], fixed: Grid | None, moving: Grid | None) -> None:
    for key, grid in (("unit", fixed), ("moving_unit", moving)):
        if grid is not None and stored.get(key, grid.unit) != grid.unit:
            raise InvalidInputError(
                f"the transform contradicts itself: {key!r} is {stored[key]}, its grid in {grid.unit}"
            )


def _grid(stored: Mapping[str, Any] | None, ndim: int) -> Grid | None:
    if stored is None:
        return None
    grid = _any_grid(stored)
    if grid.ndim != ndim:
        raise InvalidInputError(f"a {ndim}D transform cannot belong to a {grid.ndim}D image")
    return grid


def _any_grid(stored: Mapping[str, Any]) -> Grid:
    shape, spacing, origin = (tuple(stored[key]) for key in ("shape", "spacing", "origin"))
    return Grid(shape, spacing, origin, as_rows(np.array(stored["direction"])), stored["unit"])


def _transform(stored: Mapping[str, Any]) -> Transform:
    if stored["type"] == CHAIN:
        return Chain(tuple(_transform(part) for part in stored["transforms"]))
    if stored["type"] in (FIELD, INVERSE_FIELD):
        field = field_from_dict(stored, _any_grid(stored["grid"]))
        return field if stored["type"] == FIELD else field.inverse()
    if stored["type"] not in GROUPS:
        known = ", ".join((*GROUPS, FIELD, INVERSE_FIELD, CHAIN))
        raise InvalidInputError(f"unknown type of transform {stored['type']!r}; known are {known}")
    matrix = _matrix(stored, "matrix_zyx")
    _check_same(matrix, reversed_axes(_matrix(stored, "matrix_xy")), "matrix_xy and matrix_zyx")
    found = GROUPS[stored["type"]].from_matrix(matrix)
    _check_same(matrix, found.matrix, f"the matrix and the type {stored['type']!r}")
    return found


def _matrix(stored: Mapping[str, Any], key: str) -> np.ndarray:
    matrix = np.array(stored[key], dtype=float)
    if matrix.shape not in ((3, 3), (4, 4)):
        raise InvalidInputError(f"{key} must be 3 × 3 in 2D or 4 × 4 in 3D, not of shape {matrix.shape}")
    return matrix


def _check_same(a: np.ndarray, b: np.ndarray, what: str) -> None:
    if a.shape != b.shape or not np.allclose(a, b, rtol=1e-6, atol=1e-9 * np.abs(a).max()):
        raise InvalidInputError(f"{what} contradict each other")
