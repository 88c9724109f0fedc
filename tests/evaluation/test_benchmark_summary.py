"""What the tables of a benchmark say of its rows, counted by hand."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from modalign.errors import InvalidInputError
from modalign.evaluation.benchmark.plan import DO_NOTHING
from modalign.evaluation.benchmark.summary import (
    compare,
    grouped,
    markdown,
    markdown_table,
    reference_of,
    summarise,
    worst_rows,
)
from modalign.evaluation.statistics import area_under_success, paired_comparison
from modalign.report import error_figure, success_figure

INF = math.inf


def row(method: str, specimen: int, error: float | None, status: str = "accepted", **more: Any) -> dict[str, Any]:
    pixels = None if error is None else 100 * error
    place = {"dataset": "tissue", "protocol": "level 1", "specimen": f"s{specimen}", "pair": f"p{specimen}", "draw": 0}
    return {**place, "method": method, "error": error, "error_pixels": pixels, "status": status, "cpu": 2.0, **more}


def rows() -> list[dict[str, Any]]:
    made = []
    for specimen, (a, b) in enumerate([(0.01, 0.03), (0.02, 0.01), (0.05, None), (0.004, 0.5)]):
        made += [row("a", specimen, a), row("b", specimen, b, "failed" if b is None else "unsure")]
        nothing = row(DO_NOTHING, specimen, 0.1)
        made.append({key: value for key, value in nothing.items() if key not in ("status", "cpu")})
    return made


def test_a_line_counts_what_its_rows_say() -> None:
    a, b, nothing = summarise(rows(), 0.02)
    assert [line.method for line in (a, b, nothing)] == ["a", "b", DO_NOTHING]
    assert (a.success, b.success, nothing.success) == (0.75, 0.25, 0)
    assert (a.accepted, a.false_accepts, a.failed) == (4, 1, 0)
    assert (b.accepted, b.false_accepts, b.failed) == (0, 0, 1)
    assert a.median == pytest.approx(0.015)
    assert b.median == pytest.approx((0.03 + 0.5) / 2)
    assert a.successful_pixels == pytest.approx(1.0)  # of 1, 2 and 0.4 pixels
    assert math.isnan(nothing.successful_pixels)
    assert (a.pairs, a.specimens, a.cpu) == (4, 4, 2.0)
    assert math.isnan(nothing.cpu)
    assert a.area == pytest.approx((0.9 + 0.8 + 0.5 + 0.96) / 4)
    assert b.area == pytest.approx((0.7 + 0.9 + 0 + 0) / 4)
    assert math.isnan(a.dice)


def test_the_area_is_that_under_the_curve() -> None:
    errors = np.array([0.0, 0.013, 0.04, 0.09, 0.3, INF, math.nan])
    tolerances = np.linspace(0, 0.1, 100_001)
    curve = [(errors <= t).mean() for t in tolerances]
    assert area_under_success(errors, 0.1) == pytest.approx(np.trapezoid(curve, tolerances) / 0.1, abs=1e-5)
    assert area_under_success(np.zeros(3), 0.1) == 1


def test_the_interval_is_that_of_scipy_where_every_specimen_has_one_row() -> None:
    errors = np.random.default_rng(0).exponential(0.02, 40)
    line = summarise([row("a", k, float(error)) for k, error in enumerate(errors)], 0.02, seed=1)[0]
    other = stats.bootstrap(
        ((errors <= 0.02).astype(float),), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (line.low, line.high) == (pytest.approx(other.low, abs=0.03), pytest.approx(other.high, abs=0.03))
    assert line.low < line.success < line.high
    crowded = [row("a", k // 20, float(error)) for k, error in enumerate(errors)]
    wide = summarise(crowded, 0.02)[0]
    assert wide.specimens == 2
    of_specimen = [(errors[:20] <= 0.02).mean(), (errors[20:] <= 0.02).mean()]
    assert (wide.low, wide.high) == (min(of_specimen), max(of_specimen))  # one of the two specimens twice


def test_kinds_of_displacement_are_lines_and_all_together_is_one_more() -> None:
    made = [row("a", 0, 0.01), row("a", 0, 0.05, protocol="level 2"), row("a", 1, 0.01, protocol="level 2")]
    found = {line.protocol: (line.pairs, line.success) for line in summarise(made, 0.02)}
    assert found == {"level 1": (1, 1.0), "level 2": (2, 0.5), "all": (3, pytest.approx(2 / 3))}
    assert [line.protocol for line in summarise(made[:1], 0.02)] == ["level 1"]


def test_the_reference_is_the_one_wanted_or_the_best_over_all_kinds_and_sets() -> None:
    lines = summarise(rows(), 0.02)
    assert (reference_of(lines, ""), reference_of(lines, "b")) == ("a", "b")
    other = [row("b", k, 0.0, dataset="other") for k in range(9)]
    assert reference_of(summarise(rows() + other, 0.02), "") == "b"
    everything_wrong = [row(DO_NOTHING, 0, 0.0), row("a", 0, None)]
    assert reference_of(summarise(everything_wrong, 0.02), "") == "a"


FIRST = np.array([0.010, 0.020, 0.050, 0.004, 0.030, 0.012, INF])
SECOND = np.array([0.030, 0.010, INF, 0.500, 0.030, 0.018, INF])


def test_a_comparison_is_wilcoxons_test_with_failures_worse_than_anything() -> None:
    result = paired_comparison(FIRST, SECOND)
    # differences without the two ties: 0.020, −0.010, (failure) , 0.496, 0.006; ranks 3, 2, 5, 4, 1
    assert result.effect == pytest.approx((3 - 2 + 5 + 4 + 1) / 15)
    literal = np.where(np.isinf(SECOND), 10.0, SECOND) - np.where(np.isinf(FIRST), 10.0, FIRST)
    assert result.p_value == pytest.approx(stats.wilcoxon(literal[literal != 0]).pvalue)
    assert result.pairs == 7
    back = paired_comparison(SECOND, FIRST)
    assert (back.p_value, back.effect) == (pytest.approx(result.p_value), -result.effect)


def test_a_comparison_of_equal_failed_or_tied_errors() -> None:
    same = paired_comparison(FIRST, FIRST)
    assert (same.p_value, same.effect) == (1.0, 0.0)
    failed = np.full(6, math.nan)
    better = paired_comparison(np.linspace(0, 300, 6), failed)
    assert better.effect == 1
    assert better.p_value == pytest.approx(2 / 2**6)
    tied = paired_comparison(np.zeros(5), np.array([0.1, 0.1, 0.1, -0.1, 0.1]))
    assert tied.effect == pytest.approx((4 * 3 - 3) / 15)  # five ranks of 3
    with pytest.raises(InvalidInputError, match="not those of the same registrations"):
        paired_comparison(FIRST[:0], FIRST[:0])


def test_methods_are_compared_by_the_medians_of_their_specimens() -> None:
    generator = np.random.default_rng(4)
    made = [
        row(method, specimen, float(generator.exponential(scale)), draw=draw)
        for specimen in range(8)
        for draw in range(3)
        for method, scale in (("a", 0.01), ("b", 0.03), (DO_NOTHING, 1.0))
    ]
    made = [*made, *(row("b", specimen, None, draw=9) for specimen in range(5))]
    (comparison,) = compare(made, "a")
    assert (comparison.method, comparison.reference, comparison.result.pairs) == ("b", "a", 8)
    medians = {
        method: [
            np.median(
                [
                    INF if r["error"] is None else r["error"]
                    for r in made
                    if (r["method"], r["specimen"]) == (method, f"s{k}")
                ]
            )
            for k in range(8)
        ]
        for method in "ab"
    }
    assert comparison.result == paired_comparison(np.array(medians["a"]), np.array(medians["b"]))
    assert compare(made, "none") == []


def test_the_worst_rows_come_first_and_failures_before_them() -> None:
    worst = worst_rows(rows(), "b", 3)
    assert [r["error"] for r in worst["tissue"]] == [None, 0.5, 0.03]
    assert worst_rows(rows(), "b", 0) == {"tissue": []}
    assert worst_rows(rows(), "none", 3) == {}


def test_the_markdown_has_a_line_a_method_the_best_first() -> None:
    made = [*rows(), *(row("c|d", k, 0.001, dice=0.5 + k / 10) for k in range(4))]
    lines = summarise(made, 0.02)
    text = markdown(lines, compare(made, "a"), 0.02, {"seed": "3"})
    assert "- seed: 3" in text
    assert "## tissue, level 1: 4 pairs of 4 specimens" in text
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in table[1:5]] == ["| c/d", "| a", "| b", "| do nothing"]
    assert table[1].endswith("| 2.00 | 0.65 |")
    assert "| 75.0% |" in table[2]
    assert table[2].endswith("| – |")
    assert "| tissue | b | 4 | " in text
    assert "+1.00" not in text.partition("| tissue | b")[2].splitlines()[0]
    assert markdown_table(["x", "y"], [["1", "2"]]) == ["| x | y |", "|---|---|", "| 1 | 2 |"]


def test_groups_keep_the_order_of_their_rows() -> None:
    assert list(grouped(rows(), "method")) == [("a",), ("b",), (DO_NOTHING,)]


def test_the_figures_have_a_log_axis_and_all_dots() -> None:
    tolerances = np.geomspace(0.1, 100, 7)
    figure = success_figure(tolerances, {"a": np.linspace(0, 1, 7), DO_NOTHING: np.zeros(7)}, baseline=DO_NOTHING)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert {line.get_label(): line.get_linestyle() for line in axes.lines} == {"a": "-", DO_NOTHING: "--"}
    initial, after = np.array([5.0, 20.0, 0.0]), np.array([0.5, INF, 1e-9])
    (axes,) = error_figure({"a": initial}, {"a": after}, threshold=2).axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    dots = np.asarray(axes.collections[0].get_offsets())
    np.testing.assert_allclose(dots, [[5, 0.5], [20, 200], [0.01, 0.01]])
    low, high = axes.get_ylim()
    assert low <= 0.01
    assert high >= 200  # what has no result is seen
    left, right = axes.get_xlim()
    assert left <= 0.01
    assert right >= 20
    with pytest.raises(InvalidInputError, match="one error before and one after"):
        error_figure({"a": initial}, {"a": after[:2]})
