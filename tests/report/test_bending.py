from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from modalign.geometry import Affine, Chain, DisplacementField, Grid, Rigid, as_rows, rotation_matrix
from modalign.io import read_image
from modalign.report import report_page
from modalign.report.bending import bending_picture

GRIDS = [Grid((60, 90), (0.5, 0.7)), Grid((12, 40, 30), (2.0, 1.0, 1.0))]


def bent(grid, pixels):
    rng = np.random.default_rng(0)
    noise = np.stack([ndimage.gaussian_filter(rng.standard_normal(grid.shape), 3) for _ in range(grid.ndim)])
    return DisplacementField((pixels * min(grid.spacing) * noise / np.abs(noise).max()).astype(np.float32), grid)


def shown(content, tmp_path):
    (tmp_path / "picture.png").write_bytes(content)
    return read_image(tmp_path / "picture.png").data[:3]


@pytest.mark.parametrize("grid", GRIDS, ids=["2D", "3D"])
class TestPicture:
    def test_linear_transforms_have_none(self, grid):
        turn = Rigid(as_rows(rotation_matrix(grid.ndim, 10.0)), (1.0,) * grid.ndim)
        assert bending_picture(turn, grid) is None
        assert bending_picture(Chain((turn, turn)), grid) is None

    def test_what_is_affine_is_left_out(self, grid, tmp_path):
        matrix = np.eye(grid.ndim + 1)
        matrix[0, 0], matrix[1, 0] = 1.8, 0.3
        field = DisplacementField.sampled(Affine.from_matrix(matrix), grid)
        still = DisplacementField(np.zeros_like(field.displacement), grid)
        one, other = (shown(bending_picture(part, grid), tmp_path) for part in (field, still))
        assert np.abs(one.astype(float) - other).mean() < 1

    def test_growing_is_red_and_shrinking_is_blue(self, grid, tmp_path):
        data = shown(bending_picture(bent(grid, 5.0), grid), tmp_path).astype(float)
        right = data[:, :, data.shape[2] // 2 : int(0.85 * data.shape[2])]
        assert (right[0] - right[2] > 60).sum() > 50
        assert (right[2] - right[0] > 60).sum() > 50

    def test_folds_are_hatched(self, grid, tmp_path):
        smooth, folded = (shown(bending_picture(bent(grid, size), grid), tmp_path) for size in (1.0, 40.0))
        half = smooth.shape[2] // 2
        dark = [int((image[:, :, half : int(1.7 * half)].max(0) < 60).sum()) for image in (smooth, folded)]
        assert dark[1] > 3 * dark[0]


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_page_shows_it(make_content, ndim):
    content = make_content(ndim=ndim)
    assert "How it bends" not in report_page(content)
    grid = content.fixed.grid
    found = replace(content.registration, fixed_to_moving=content.registration.fixed_to_moving @ bent(grid, 2.0))
    page = report_page(replace(content, registration=found))
    assert "How it bends" in page
    start = page.index("data:image/png;base64,", page.index("How it bends")) + len("data:image/png;base64,")
    assert b64decode(page[start : page.index('"', start)]).startswith(b"\x89PNG")
