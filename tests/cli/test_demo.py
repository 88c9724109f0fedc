"""The demonstration, shortened: every file and every line is there, and a model that learnt nothing aligns nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from modalign.data.tissue import TissueOptions, tissue
from modalign.demo import CASES, DemoOptions, cases
from modalign.geometry import corner_error
from modalign.io import read_image, read_transform
from modalign.registration import FftSearch


def test_demo_writes_what_it_says(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    out = tmp_path / "demo"
    shortened = ("--options.pairs", 3, "--options.side", 128, "--options.training.steps", 2)
    ran = run("demo", "--out", out, *shortened, "--options.training.patch", 16, "--options.training.batch", 2)
    assert ran[0] in (0, 3), ran[2]
    assert "mutual information" in ran[1]
    assert "modalign register" in ran[1]
    for number, displacement in enumerate(CASES, 1):
        assert displacement.title in ran[1]
        assert (out / f"case_{number}" / "panel.png").is_file()
        assert (out / f"case_{number}" / "fixed.tif").is_file()
        if displacement.related:  # the truth is that of the files: nothing of the grids is lost in them
            saved = read_transform(out / f"case_{number}" / "truth.json")
            assert saved.fixed == read_image(out / f"case_{number}" / "fixed.tif").grid
            assert saved.moving == read_image(out / f"case_{number}" / "moving.tif").grid
    assert (out / "model" / "model.json").is_file()
    assert (out / "cases.csv").is_file()


def test_truth_of_the_cases_is_true() -> None:
    """The displacement that a case claims is the one between two views of one modality."""
    for case in cases(DemoOptions(side=128)):
        if case.fixed_to_moving is None:
            continue
        number = CASES.index(case.displacement)
        larger = tissue(1000 + number, TissueOptions(shape=(256, 256))).bright_field
        same = larger.cropped((64, 64), (128, 128)).with_grid(case.fixed.grid)
        found = FftSearch(mirror=True).register(same, case.moving).fixed_to_moving
        assert found is not None
        assert corner_error(same.grid, found, case.fixed_to_moving) < 0.1
        assert np.ptp(case.moving.data) > 100
