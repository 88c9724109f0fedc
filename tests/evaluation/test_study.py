"""The experiment runner keeps an honest record."""

import numpy as np
import pytest
from scipy import ndimage

from modalign.data.displacement import DisplacementProtocol, displaced_pairs
from modalign.errors import InvalidInputError, UnreadableFileError
from modalign.evaluation.study import (
    Row,
    do_nothing,
    read_rows,
    run_study,
    success_curves,
    summarise,
    write_rows,
)
from modalign.geometry import Grid, Rigid, as_rows, corner_error, identity
from modalign.image import Image
from modalign.io import read_table
from modalign.registration.registrar import Registration

PROTOCOL = DisplacementProtocol((24, 20), 10, 5, draws=3)


def specimen(seed: int) -> Image:
    noise = np.random.default_rng(seed).standard_normal((1, 60, 56))
    return Image(ndimage.gaussian_filter(noise, (0, 2, 2)), Grid((60, 56), (0.5, 0.8), unit="micrometer"))


def pairs():
    for seed in range(3):
        image = specimen(seed)
        yield from displaced_pairs(image, image, PROTOCOL, f"specimen {seed}")


def oracle(offset: float, status: str = "accepted"):
    """A method that knows the truth and answers it, ``offset`` pixels wrong along the first axis."""
    truths = iter([pair.fixed_to_moving for pair in pairs()])

    def method(fixed: Image, moving: Image) -> Registration:
        shift = Rigid(as_rows(np.eye(2)), (offset * 0.5, 0.0))
        return Registration("oracle", status, shift @ next(truths), ("it knows",))

    return method


def refuser(fixed: Image, moving: Image) -> Registration:
    return Registration("refuser", "refused", None, ("never sure",))


def breaker(fixed: Image, moving: Image) -> Registration:
    raise InvalidInputError("cannot")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    methods = {
        "do-nothing": do_nothing,
        "truth": oracle(0),
        "off by 3": oracle(3),
        "off by 30": oracle(30),
        "refuser": refuser,
        "breaker": breaker,
    }
    return run_study(pairs(), methods)


def test_errors_are_those_of_the_methods(rows):
    by_name = {name: [row for row in rows if row.method == name] for name in {row.method for row in rows}}
    np.testing.assert_allclose([row.error_pixels for row in by_name["truth"]], 0, atol=1e-9)
    np.testing.assert_allclose([row.error_pixels for row in by_name["off by 3"]], 3)
    assert {row.error_pixels for row in by_name["refuser"] + by_name["breaker"]} == {float("inf")}
    assert {row.status for row in by_name["breaker"]} == {"failed"}
    assert all(row.error_pixels == row.initial_error_pixels > 0 for row in by_name["do-nothing"])
    assert [(row.specimen, row.draw) for row in by_name["truth"]] == [
        (f"specimen {s}", d) for s in range(3) for d in range(3)
    ]


def test_the_initial_error_is_that_of_doing_nothing():
    image = Image(specimen(0).data, Grid((60, 56)))  # unit pixels: world units are pixels
    (pair,) = displaced_pairs(image, image, DisplacementProtocol((24, 20), 10, 5, draws=1))
    (row,) = run_study([pair], {"do-nothing": do_nothing})
    assert row.initial_error_pixels == pytest.approx(corner_error(pair.fixed.grid, identity(2), pair.fixed_to_moving))


def test_summaries_count_what_happened(rows):
    summaries = {summary.method: summary for summary in summarise(rows, threshold_pixels=4)}
    assert list(summaries) == ["do-nothing", "truth", "off by 3", "off by 30", "refuser", "breaker"]
    truth, wrong, refused, failed = (summaries[name] for name in ("truth", "off by 30", "refuser", "breaker"))
    assert (truth.pairs, truth.specimens, truth.accepted, truth.false_accepts) == (9, 3, 9, 0)
    assert (truth.success_rate, truth.success_low, truth.success_high) == (1, 1, 1)
    assert (wrong.success_rate, wrong.false_accepts) == (0, 9)
    assert wrong.median_error_pixels == pytest.approx(30)
    assert (refused.refused, refused.success_rate, refused.median_error_pixels) == (9, 0, float("inf"))
    assert (failed.failed, failed.success_rate) == (9, 0)
    assert (summaries["do-nothing"].unsure, summaries["do-nothing"].false_accepts) == (9, 0)
    assert summarise(rows, 2)[2].success_rate == 0


def test_the_interval_spreads_with_the_specimens():
    def row(name: str, draw: int, error: float) -> Row:
        return Row("m", name, draw, error, 20.0, "accepted", 0.1)

    mixed = [row(f"s{s}", d, 1.0 if s % 2 else 9.0) for s in range(8) for d in range(4)]
    (summary,) = summarise(mixed, 4)
    assert summary.success_rate == 0.5
    assert summary.success_low <= 0.25
    assert summary.success_high >= 0.75


def test_success_curves_rise_where_the_errors_are(rows):
    curves = success_curves(rows, np.array([0.1, 2.9, 3.1, 29.0, 31.0]))
    assert curves["off by 3"].tolist() == [0, 0, 1, 1, 1]
    assert curves["off by 30"].tolist() == [0, 0, 0, 0, 1]
    assert curves["refuser"].tolist() == [0] * 5


def test_rows_survive_a_file(rows, tmp_path):
    write_rows(tmp_path / "rows.csv", rows)
    assert read_rows(tmp_path / "rows.csv") == rows
    write_rows(tmp_path / "none.csv", [])
    assert read_rows(tmp_path / "none.csv") == []
    write_rows(tmp_path / "summary.csv", summarise(rows, 4))
    assert read_table(tmp_path / "summary.csv")[1]["method"] == "truth"
    with pytest.raises(UnreadableFileError, match=r"summary\.csv: not a row of a study"):
        read_rows(tmp_path / "summary.csv")
    text = (tmp_path / "rows.csv").read_text().replace("accepted", "splendid")
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(UnreadableFileError, match="unknown status 'splendid'"):
        read_rows(tmp_path / "rows.csv")


def test_progress_hears_of_every_row_and_bugs_are_not_hidden():
    heard = []
    image = specimen(0)
    rows = run_study(displaced_pairs(image, image, PROTOCOL), {"do-nothing": do_nothing}, heard.append)
    assert heard == rows

    def bug(fixed: Image, moving: Image) -> Registration:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_study(displaced_pairs(image, image, PROTOCOL), {"bug": bug})
