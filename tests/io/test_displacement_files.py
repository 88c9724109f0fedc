import json

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from modalign.errors import InvalidInputError, UnreadableFileError
from modalign.geometry import Chain, DisplacementField, Grid, InverseField, Rigid, Similarity, as_rows, rotation_matrix
from modalign.image import Image
from modalign.io import read_transform, write_image, write_transform

GRIDS = [
    Grid((40, 50), (0.5, 0.7), (3.0, -2.0), as_rows(rotation_matrix(2, 20.0)), "micrometer"),
    Grid((18, 20, 22), (1.0, 0.8, 0.6), (1.0, 2.0, 3.0), as_rows(rotation_matrix(3, 30.0)), "millimeter"),
    Grid((30, 35)),
]
each = pytest.mark.parametrize("grid", GRIDS, ids=["2D", "3D", "pixels"])


def smooth(grid, amplitude=2.0):
    rng = np.random.default_rng(0)
    noise = np.stack([ndimage.gaussian_filter(rng.standard_normal(grid.shape), 5) for _ in range(grid.ndim)])
    return DisplacementField((amplitude * min(grid.spacing) * noise / np.abs(noise).max()).astype(np.float32), grid)


def deformed(grid):
    """Bent, then turned."""
    center = grid.center
    return Rigid.about(center, rotation_matrix(grid.ndim, 5.0), 0.02 * np.array(grid.extent)) @ smooth(grid)


def points_in(grid):
    return grid.index_to_world(np.random.default_rng(1).uniform(2, np.array(grid.shape) - 3, (50, grid.ndim)))


@each
def test_json_keeps_every_number(grid, tmp_path):
    write_transform(tmp_path / "t.json", deformed(grid), fixed=grid, moving=grid)
    stored = read_transform(tmp_path / "t.json")
    assert isinstance(stored.transform, Chain)
    assert stored.fixed == grid
    found, expected = (some.map_points(points_in(grid)) for some in (stored.transform, deformed(grid)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@each
def test_json_keeps_an_inverse(grid, tmp_path):
    write_transform(tmp_path / "t.json", deformed(grid).inverse(), fixed=grid, moving=grid)
    back = read_transform(tmp_path / "t.json").transform
    assert isinstance(back, Chain)
    assert any(isinstance(part, InverseField) for part in back.transforms)
    np.testing.assert_allclose(
        back.map_points(deformed(grid).map_points(points_in(grid))), points_in(grid), atol=3e-3 * min(grid.spacing)
    )


@each
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_itk_maps_points_as_we_do(grid, suffix, tmp_path):
    path = tmp_path / f"field{suffix}"
    write_transform(path, deformed(grid), fixed=grid, moving=grid)
    itk = SimpleITK.DisplacementFieldTransform(SimpleITK.Cast(SimpleITK.ReadImage(str(path)), VECTOR))
    factor = {"micrometer": 1e-3}.get(grid.unit, 1.0)  # ITK's world is in millimetres
    for point in points_in(grid):
        mapped = np.array(itk.TransformPoint(tuple((factor * point[::-1]).tolist())))[::-1] / factor
        expected = DisplacementField.sampled(deformed(grid), grid).map_points(point)
        np.testing.assert_allclose(mapped, expected, atol=1e-3 * min(grid.spacing))


VECTOR = SimpleITK.sitkVectorFloat64


@each
def test_itk_warps_as_we_do(grid, tmp_path):
    rng = np.random.default_rng(2)
    data = ndimage.gaussian_filter(rng.standard_normal(grid.shape), 2)[None].astype(np.float32)
    image = Image(data, grid)
    write_image(tmp_path / "moving.nrrd", image)
    write_transform(tmp_path / "field.nrrd", deformed(grid), fixed=grid, moving=grid)
    moving = SimpleITK.ReadImage(str(tmp_path / "moving.nrrd"))
    field = SimpleITK.Cast(SimpleITK.ReadImage(str(tmp_path / "field.nrrd")), VECTOR)
    theirs = SimpleITK.Resample(moving, moving, SimpleITK.DisplacementFieldTransform(field), SimpleITK.sitkLinear)
    ours = image.resampled(grid, deformed(grid))
    inner = (slice(5, -5),) * grid.ndim
    np.testing.assert_allclose(SimpleITK.GetArrayFromImage(theirs)[inner], ours.data[0][inner], atol=1e-4)


@each
def test_a_field_of_itk_is_read(grid, tmp_path):
    write_transform(tmp_path / "field.nii.gz", deformed(grid), fixed=grid, moving=grid)
    stored = read_transform(tmp_path / "field.nii.gz")
    assert isinstance(stored.transform, DisplacementField)
    found = stored.fixed
    assert found is not None
    factor = 1e-3 if grid.unit == "micrometer" else 1.0
    np.testing.assert_allclose(found.spacing, np.array(grid.spacing) * factor, rtol=1e-5)
    expected = deformed(grid).map_points(points_in(grid))
    found_at = stored.transform.map_points(points_in(grid) * factor) / factor
    np.testing.assert_allclose(found_at, expected, atol=0.05 * min(grid.spacing))


def test_a_world_that_is_not_shared_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="one world"):
        write_transform(tmp_path / "f.nrrd", smooth(GRIDS[0]), fixed=GRIDS[0], moving=GRIDS[2])
    assert not (tmp_path / "f.nrrd").exists()


def test_worlds_in_two_units_become_one(tmp_path):
    fixed = Grid((20, 20), (1.0, 1.0), unit="millimeter")
    moving = Grid((20, 20), (1000.0, 1000.0), unit="micrometer")
    to_micrometers = Rigid(as_rows(np.eye(2)), (2000.0, 0.0))
    scaled = to_micrometers @ Similarity(as_rows(np.eye(2)), 1000.0, (0.0, 0.0))
    write_transform(tmp_path / "f.nrrd", scaled, fixed=fixed, moving=moving)
    field = read_transform(tmp_path / "f.nrrd").transform
    assert isinstance(field, DisplacementField)
    np.testing.assert_allclose(field.displacement[0], 2.0, atol=1e-5)


def test_an_image_is_no_field(tmp_path):
    write_image(tmp_path / "image.nrrd", Image(np.zeros((1, 20, 20), np.float32), Grid((20, 20))))
    with pytest.raises(UnreadableFileError, match="displacement field has 2"):
        read_transform(tmp_path / "image.nrrd")


OTHER = {
    "shape": [3, 3],
    "spacing": [1, 1],
    "origin": [0, 0],
    "direction": [[1.0, 0.0], [0.0, 1.0]],
    "unit": "pixel",
}


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("displacement_zyx", "AAAA", "damaged"),
        ("displacement_zyx", "not base64!", "damaged"),
        ("displacement_zyx", 5, "makes no sense"),
        ("encoding", "pickle", "encoding"),
        ("grid", OTHER, "do not fit"),
    ],
)  # fmt: skip
def test_a_damaged_field_is_told(tmp_path, key, value, match):
    write_transform(tmp_path / "t.json", smooth(GRIDS[2]), fixed=GRIDS[2], moving=GRIDS[2])
    stored = json.loads((tmp_path / "t.json").read_text())
    stored[key] = value
    (tmp_path / "t.json").write_text(json.dumps(stored))
    with pytest.raises(UnreadableFileError, match=match):
        read_transform(tmp_path / "t.json")


@pytest.mark.parametrize("grid", [GRIDS[1], GRIDS[2]], ids=["3D", "pixels"])
def test_ants_maps_points_as_we_do(grid, tmp_path):
    ants = pytest.importorskip("ants", reason="ANTs comes with the extra 'benchmark'")
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "field.nii.gz"
    write_transform(path, deformed(grid), fixed=grid, moving=grid)
    points = points_in(grid)
    given = pandas.DataFrame({name: points[:, -1 - k] for k, name in enumerate("xyz"[: grid.ndim])})
    mapped = ants.apply_transforms_to_points(grid.ndim, given, [str(path)])
    found = np.stack([mapped[name] for name in reversed("xyz"[: grid.ndim])], axis=1)
    expected = DisplacementField.sampled(deformed(grid), grid).map_points(points)
    np.testing.assert_allclose(found, expected, atol=2e-3 * min(grid.spacing))
