"""How a transform bends the fixed image: its grid of lines, and what becomes larger, smaller or folds."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from modalign.geometry import Grid, Linear, Transform, folded_cells, jacobian_determinants, nearest_affine, simplified
from modalign.report.curves import figure_bytes

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

Array = np.ndarray
LONGEST_SIDE = 192
"""Pixels of the map along the longer side."""
LINES = 24
"""Lines of the grid along the longer side."""
DOUBLINGS = 2.0
"""Sizes that are told apart: from a quarter to four times."""


def bending_picture(fixed_to_moving: Transform, fixed: Grid) -> bytes | None:
    """A PNG of the deformed grid and of the change of size, without what an affine transform explains.

    Of a volume, the plane in the middle is shown. Where cells fold, the map is hatched.

    Returns:
        ``None`` where nothing bends.
    """
    merged = simplified(fixed_to_moving)
    if isinstance(merged, Linear) or min(fixed.shape) < 2:
        return None
    bent = nearest_affine(merged, fixed).inverse() @ merged
    return figure_bytes(_figure(bent, _slab(fixed)), "png", 110)


def _slab(grid: Grid) -> Grid:
    """The plane to show, coarse enough, and two pixels thick along each axis that it cuts."""
    spacing = max(extent / LONGEST_SIDE for extent in grid.extent[-2:])
    thick = grid.ndim - 2
    within = [min(max(spacing, own), extent / 2) for own, extent in zip(grid.spacing, grid.extent, strict=True)]
    small = grid.resized([*grid.spacing[:thick], *within[thick:]])
    start = [*(max(0, n // 2 - 1) for n in small.shape[:thick]), 0, 0]
    return small.cropped(start, [*(2,) * thick, *small.shape[thick:]])


def _figure(bent: Transform, slab: Grid) -> "matplotlib.figure.Figure":
    from matplotlib.figure import Figure

    height, width = slab.extent[-2:]
    figure = Figure(figsize=(9.0, 0.6 + 4.2 * float(np.clip(height / width, 0.3, 2.0))), layout="constrained")
    lines, sizes = figure.subplots(1, 2)
    _draw_lines(lines, bent, slab)
    _draw_sizes(sizes, bent, slab)
    for axes in (lines, sizes):
        axes.set_aspect(slab.spacing[-2] / slab.spacing[-1])
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def _draw_lines(axes: "matplotlib.axes.Axes", bent: Transform, slab: Grid) -> None:
    first = (0,) * (slab.ndim - 2)
    places = slab.world_to_index(bent.map_points(slab.points))[first][..., -2:]
    step = max(2, max(slab.shape[-2:]) // LINES)
    for line in (*places[::step], *np.moveaxis(places, 0, 1)[::step]):
        axes.plot(line[:, 1], line[:, 0], color="0.25", linewidth=0.7)
    axes.invert_yaxis()
    axes.set_title("where a regular grid goes", fontsize="medium")


def _draw_sizes(axes: "matplotlib.axes.Axes", bent: Transform, slab: Grid) -> None:
    first = (0,) * (slab.ndim - 2)
    determinants: Float[Array, "y x"] = jacobian_determinants(bent, slab)[first]
    doublings = np.log2(np.maximum(determinants, 2.0**-8))
    shown = axes.imshow(doublings, cmap="RdBu_r", vmin=-DOUBLINGS, vmax=DOUBLINGS)
    folded = folded_cells(bent, slab)[first]
    if folded.any():
        axes.contourf(folded, levels=[0.5, 1.5], colors="none", hatches=["xxxx"])
    bar = axes.figure.colorbar(shown, ax=axes, shrink=0.8, ticks=[-2, -1, 0, 1, 2])
    bar.ax.set_yticklabels(["¼", "½", "1", "2", "4"])
    axes.set_title("change of size (folds hatched)", fontsize="medium")
