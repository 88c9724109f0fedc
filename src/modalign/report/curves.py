"""Curves of success against tolerated error, drawn without a display and without global state."""

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from modalign.errors import InvalidInputError

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

Array = np.ndarray
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
"""Okabe and Ito's colours, which people with any colour vision can tell apart."""


def success_figure(
    tolerances: Float[Array, " tolerances"],
    success: Mapping[str, Float[Array, " _"]],
    *,
    baseline: str = "do-nothing",
    threshold: float | None = None,
    unit: str = "pixels",
) -> "matplotlib.figure.Figure":
    """A figure of the share of successful registrations against the tolerated error, one line a method.

    Args:
        tolerances: Ascending and positive; the axis is logarithmic.
        success: Success rate of each method at each tolerance, from 0 to 1.
        baseline: The method to draw in gray and dashed, where present.
        threshold: The tolerance to mark, such as the one that a table next to the figure uses.
        unit: What the tolerances are measured in.

    Raises:
        InvalidInputError: A curve does not have one value a tolerance, or the tolerances cannot be drawn.
    """
    from matplotlib.figure import Figure

    _check(tolerances, success)
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    colors = iter(COLORS * len(success))
    for name, rate in success.items():
        color, style = ("0.5", "--") if name == baseline else (next(colors), "-")
        axes.plot(tolerances, 100 * np.asarray(rate), label=name, linewidth=2, color=color, linestyle=style)
    if threshold is not None:
        axes.axvline(threshold, color="0.7", linewidth=1, zorder=0)
    _label(axes, tolerances, unit)
    return figure


def error_figure(
    initial: Mapping[str, Float[Array, " _"]],
    error: Mapping[str, Float[Array, " _"]],
    *,
    threshold: float | None = None,
) -> "matplotlib.figure.Figure":
    """A figure of the error after registration against that before, one kind of dot a method; both in per cent.

    Dots below the diagonal are closer than before. Registrations without a result lie on the upper border.

    Args:
        initial: Error before registration of every pair, by method, per cent of the width.
        error: Error after it; infinite where there is no result.
        threshold: The tolerance to mark.

    Raises:
        InvalidInputError: A method has more errors after than before, or fewer.
    """
    from matplotlib.figure import Figure

    if any(len(initial[name]) != len(values) for name, values in error.items()):
        raise InvalidInputError("every registration has one error before and one after")
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    highest = 200.0
    colors = iter(COLORS * len(error))
    for name, after in error.items():
        shown = np.clip(after, 0.01, highest)
        axes.scatter(
            np.maximum(initial[name], 0.01), shown, s=12, alpha=0.6, label=name, color=next(colors), linewidths=0
        )
    axes.plot([0.01, highest], [0.01, highest], color="0.6", linestyle="--", linewidth=1, zorder=0)
    if threshold is not None:
        axes.axhline(threshold, color="0.7", linewidth=1, zorder=0)
    axes.set(xscale="log", yscale="log", ylim=(0.01, 1.1 * highest))
    axes.set_xlabel("error before registration (% of the width)")
    axes.set_ylabel("error after registration (% of the width)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    return figure


def figure_bytes(
    figure: "matplotlib.figure.Figure", kind: Literal["png", "svg"] = "svg", pixels_per_inch: int = 150
) -> bytes:
    """The figure as the content of a file; the same figure gives the same bytes."""
    import matplotlib as mpl

    metadata = {"svg": {"Date": None}, "png": {"Software": None}}[kind]
    content = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "modalign"}):  # otherwise the names of clip paths are random
        figure.savefig(content, format=kind, dpi=pixels_per_inch, metadata=metadata)
    return content.getvalue()


def _check(tolerances: Float[Array, " tolerances"], success: Mapping[str, Float[Array, " _"]]) -> None:
    if len(tolerances) < 2 or not (np.all(tolerances > 0) and np.all(np.diff(tolerances) > 0)):
        raise InvalidInputError("a success curve needs at least two ascending positive tolerances")
    for name, rate in success.items():
        if len(rate) != len(tolerances):
            raise InvalidInputError(f"the curve of {name} has {len(rate)} values for {len(tolerances)} tolerances")


def _label(axes: "matplotlib.axes.Axes", tolerances: Float[Array, " tolerances"], unit: str) -> None:
    axes.set_xscale("log")
    axes.set_xlim(float(tolerances[0]), float(tolerances[-1]))
    axes.set_ylim(0, 100)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(f"tolerated error ({unit})")
    axes.set_ylabel("successful registrations (%)")
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False)
