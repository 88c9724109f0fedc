"""The numbers of a transform, as tables."""

from dataclasses import dataclass

from modalign.geometry import Chain, Linear, Transform, simplified
from modalign.io.transforms import reversed_axes
from modalign.report.content import AXES


@dataclass(frozen=True)
class MatrixTable:
    """One homogeneous matrix with the names of its rows and columns."""

    title: str
    axes: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]


def matrix_tables(fixed_to_moving: Transform) -> tuple[MatrixTable, ...]:
    """The matrix in (x, y) order and in array order; of a chain that bends, those of its linear parts, in turn."""
    merged = simplified(fixed_to_moving)
    parts = merged.transforms if isinstance(merged, Chain) else (merged,)
    numbered = [(f"part {k}, " if len(parts) > 1 else "", part) for k, part in enumerate(parts, 1)]
    return tuple(table for title, part in numbered if isinstance(part, Linear) for table in _tables(title, part))


def transform_csv(fixed_to_moving: Transform) -> str:
    """The matrix of a linear transform as a small table, x first, in the world units of the two images.

    One row an axis of the moving image: its coordinate is the sum of the coordinates in the fixed image, each times
    the number in its column, and of the offset. Empty for transforms that bend.
    """
    merged = simplified(fixed_to_moving)
    if not isinstance(merged, Linear):
        return ""
    names = AXES[::-1][: merged.ndim]
    titles = ["moving", *(f"fixed_{name}" for name in names), "offset"]
    rows = reversed_axes(merged.matrix).tolist()
    lines = [[name, *map(repr, row)] for name, row in zip(names, rows[:-1], strict=True)]
    return "".join(",".join(line) + "\n" for line in [titles, *lines])


def _tables(title: str, transform: Linear) -> tuple[MatrixTable, MatrixTable]:
    names = AXES[-transform.ndim :]
    orders = ((names[::-1], reversed_axes(transform.matrix)), (names, transform.matrix))
    words = ("x first (matrix_xy)", "array order (matrix_zyx)")
    first, second = (
        MatrixTable(f"{title}{word}", axes, tuple(map(tuple, matrix.tolist())))
        for word, (axes, matrix) in zip(words, orders, strict=True)
    )
    return first, second
