"""ITK transform files (``.tfm``), whose points run x, y, z and map from the fixed to the moving image, as ours do."""

from pathlib import Path
from typing import Any

import numpy as np

from modalign.errors import UnreadableFileError, UnsupportedFormatError
from modalign.geometry import Affine, Linear, Rigid, Similarity, Transform, simplified
from modalign.io.files import atomic_path, quiet_stderr, require_file
from modalign.io.itk import simple_itk

_EXACT = 1e-9
"""How far a matrix may be from a rotation (or a scaled one) to be one, but for rounding in the text file."""


def write_itk_transform(path: Path, transform: Transform, comment: str) -> None:
    """Write a linear transform, or a chain of such, as one ITK affine transform with a comment line.

    Raises:
        UnsupportedFormatError: The transform is not linear.
        OutputError: The place cannot be written to.
    """
    linear = simplified(transform)
    if not isinstance(linear, Linear):
        raise UnsupportedFormatError(path, f"ITK files hold no {type(linear).__name__}; write .json")
    with atomic_path(path) as temporary:
        temporary.write_text(_itk_text(linear, comment), encoding="ascii")


def read_itk_transform(path: Path) -> Linear:
    """Read a linear ITK transform, or a composite of such, as the smallest group that holds it.

    Raises:
        UnreadableFileError: Not an ITK transform file.
        UnsupportedFormatError: The transform is not linear, such as a displacement field.
    """
    require_file(path)
    try:
        with quiet_stderr():
            transform = simple_itk().ReadTransform(str(path))
    except RuntimeError as error:
        raise UnreadableFileError(path, "is not an ITK transform file, or a damaged one") from error
    if not transform.IsLinear():
        raise UnsupportedFormatError(path, f"holds a {transform.GetName()}, and only linear transforms can be read")
    return _smallest_group(_probed(transform))


def _itk_text(transform: Linear, comment: str) -> str:
    """ITK's text format; ``repr`` keeps every digit. The rows of the matrix come first, then the translation."""
    numbers = [*transform.linear[::-1, ::-1].ravel().tolist(), *transform.offset[::-1].tolist()]
    size = transform.ndim
    return "\n".join(
        (
            "#Insight Transform File V1.0",
            f"#modalign: {comment}",
            "#Transform 0",
            f"Transform: AffineTransform_double_{size}_{size}",
            f"Parameters: {' '.join(map(repr, numbers))}",
            f"FixedParameters: {' '.join(['0'] * size)}",
            "",
        )
    )


def _probed(transform: Any) -> np.ndarray:
    """The homogeneous matrix (array order) of a linear ITK transform of any class, from what it does to points."""
    size = transform.GetDimension()
    offset = np.array(transform.TransformPoint((0.0,) * size))
    columns = [np.array(transform.TransformPoint(tuple(axis))) - offset for axis in np.eye(size)]
    matrix = np.eye(size + 1)
    matrix[:-1, :-1], matrix[:-1, -1] = np.stack(columns, axis=1)[::-1, ::-1], offset[::-1]
    return matrix


def _smallest_group(matrix: np.ndarray) -> Linear:
    for group in (Rigid, Similarity):
        member = group.from_matrix(matrix)
        if np.allclose(member.matrix, matrix, rtol=0, atol=_EXACT):
            return member
    return Affine.from_matrix(matrix)
