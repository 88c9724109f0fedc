"""Curves carry their numbers, and leave no trace in global state."""

import subprocess
import sys

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.report import figure_bytes, success_figure

TOLERANCES = np.geomspace(1, 100, 30)
SUCCESS = {"do-nothing": np.zeros(30), "fft-search": np.linspace(0.1, 0.9, 30)}


def test_every_method_has_its_line():
    axes = success_figure(TOLERANCES, SUCCESS, threshold=6.0).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(lines["fft-search"].get_ydata(), 100 * SUCCESS["fft-search"])
    np.testing.assert_allclose(lines["fft-search"].get_xdata(), TOLERANCES)
    assert lines["do-nothing"].get_linestyle() == "--"
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(SUCCESS)


@pytest.mark.parametrize(("kind", "begin"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_same_figure_gives_the_same_bytes(kind, begin):
    first, second = (figure_bytes(success_figure(TOLERANCES, SUCCESS), kind) for _ in range(2))
    assert first == second
    assert first.startswith(begin)


def test_matplotlib_is_only_imported_to_draw_and_pyplot_never():
    code = (
        "import sys, numpy as np, modalign.report as report;"
        "assert not [name for name in sys.modules if name.startswith(('matplotlib', 'torch'))];"
        "report.figure_bytes(report.success_figure(np.array([1.0, 2.0]), {'m': np.array([0.0, 1.0])}));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_curves_that_cannot_be_drawn_are_refused():
    with pytest.raises(InvalidInputError, match="ascending positive"):
        success_figure(np.array([0.0, 1.0]), {})
    with pytest.raises(InvalidInputError, match="the curve of m has 3 values for 2"):
        success_figure(np.array([1.0, 2.0]), {"m": np.zeros(3)})
