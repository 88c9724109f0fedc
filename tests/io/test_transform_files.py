"""Transforms in files: both axis orders, both grids, and the same result in ITK."""

import json

import numpy as np
import pytest

from modalign.errors import InvalidInputError, UnreadableFileError, UnsupportedFormatError
from modalign.geometry import Affine, Chain, Grid, Rigid, Similarity, as_rows, resample, rotation_matrix
from modalign.io import read_transform, transform_from_dict, transform_to_dict, write_transform

sitk = pytest.importorskip("SimpleITK")

FIXED = {
    2: Grid((25, 22), (1.1, 0.9), (1.0, -2.0), as_rows(rotation_matrix(2, -10)), "micrometer"),
    3: Grid((12, 15, 19), (1.1, 0.9, 1.3), (1.0, -2.0, 9.0), as_rows(rotation_matrix(3, -10, (0, 1))), "millimeter"),
}
MOVING = {
    2: Grid((20, 31), (1.5, 0.7), (3.0, -4.0), as_rows(rotation_matrix(2, 20)), "micrometer"),
    3: Grid((14, 21, 17), (1.5, 0.7, 1.2), (3.0, -4.0, 5.0), as_rows(rotation_matrix(3, 20)), "millimeter"),
}


def transforms(ndim):
    rotation = rotation_matrix(ndim, 15) @ rotation_matrix(ndim, -20, (0, 1))
    shift = (5.25, -3.5, 100.125)[-ndim:]
    sheared = np.eye(ndim + 1)
    sheared[:-1, :-1] = rotation @ np.triu(np.full((ndim, ndim), 0.1)) + 0.9 * rotation
    sheared[:-1, -1] = shift
    rigid, similarity = Rigid(as_rows(rotation), shift), Similarity(as_rows(rotation), 1.25, shift)
    affine = Affine.from_matrix(sheared)
    return {"rigid": rigid, "similarity": similarity, "affine": affine, "chain": Chain((rigid, affine, similarity))}


CASES = [pytest.param(ndim, kind, id=f"{kind}-{ndim}D") for ndim in (2, 3) for kind in transforms(2)]


def same(a, b, ndim):
    points = np.random.default_rng(0).normal(0, 50, (20, ndim))
    np.testing.assert_allclose(a.map_points(points), b.map_points(points), atol=1e-9)


@pytest.mark.parametrize(("ndim", "kind"), CASES)
def test_json_keeps_the_transform_and_both_grids(tmp_path, ndim, kind):
    transform = transforms(ndim)[kind]
    info = {"engine": "alpha-amd", "cost": np.float32(0.25), "seconds": float("nan"), "shape": (1, 2)}
    write_transform(tmp_path / "t.json", transform, fixed=FIXED[ndim], moving=MOVING[ndim], info=info)
    stored = read_transform(tmp_path / "t.json")
    assert type(stored.transform) is type(transform)
    same(stored.transform, transform, ndim)
    assert (stored.fixed, stored.moving) == (FIXED[ndim], MOVING[ndim])
    assert stored.info == {"engine": "alpha-amd", "cost": 0.25, "seconds": None, "shape": [1, 2]}


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_contract_of_the_json(ndim):
    transform = transforms(ndim)["affine"]
    stored = transform_to_dict(transform, fixed=FIXED[ndim], moving=MOVING[ndim])
    assert (stored["format"], stored["version"], stored["type"]) == ("modalign.transform", 1, "affine")
    assert (stored["direction"], stored["convention"]) == ("fixed_to_moving", "pixel_center")
    assert (stored["unit"], stored["moving_unit"]) == (FIXED[ndim].unit, MOVING[ndim].unit)
    assert stored["axis_order"] == {"matrix_xy": ["x", "y", "z"][:ndim], "matrix_zyx": ["z", "y", "x"][-ndim:]}
    point = np.array([7.0, -2.0, 3.0])[:ndim]
    mapped = np.array(stored["matrix_zyx"]) @ [*point, 1]
    np.testing.assert_allclose(mapped[:-1], transform.map_points(point))
    mapped_xy = np.array(stored["matrix_xy"]) @ [*point[::-1], 1]
    np.testing.assert_allclose(mapped_xy[:-1][::-1], transform.map_points(point))
    assert json.loads(json.dumps(stored)) == stored


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a modalign transform"),
        ({"version": 2}, "update modalign"),
        ({"version": None}, "version None"),
        ({"direction": "moving_to_fixed"}, "fixed_to_moving"),
        ({"convention": "pixel_corner"}, "pixel_center"),
        ({"type": "spline"}, "unknown type of transform 'spline'"),
        ({"matrix_xy": np.eye(3).tolist()}, "contradict each other"),
        ({"matrix_zyx": [[1, 2], [3]]}, "makes no sense"),
        ({"matrix_zyx": [1, 2, 3]}, "3 × 3 in 2D"),
        ({"type": "rigid"}, "the matrix and the type 'rigid' contradict"),
        (
            {
                "fixed": transform_to_dict(Rigid(as_rows(np.eye(3)), (0, 0, 0)), fixed=FIXED[3], moving=FIXED[3])[
                    "fixed"
                ]
            },
            "cannot belong to a 3D image",
        ),
        ({"fixed": {"size": [3, 4]}}, "'shape' is missing"),
        ({"fixed": 5}, "makes no sense"),
        ({"unit": "meter"}, "contradicts itself: 'unit' is meter, its grid in"),
        ({"moving_unit": "meter"}, "contradicts itself: 'moving_unit' is meter, its grid in"),
    ],
)
def test_json_that_contradicts_itself_is_refused(tmp_path, change, message):
    stored = transform_to_dict(transforms(2)["affine"], fixed=FIXED[2], moving=MOVING[2]) | change
    with pytest.raises(InvalidInputError, match=message):
        transform_from_dict(stored)
    (tmp_path / "t.json").write_text(json.dumps(stored))
    with pytest.raises(UnreadableFileError, match=message):
        read_transform(tmp_path / "t.json")


@pytest.mark.parametrize("key", ["type", "matrix_xy", "matrix_zyx"])
def test_what_is_missing_is_named(key):
    stored = transform_to_dict(transforms(2)["affine"], fixed=FIXED[2], moving=MOVING[2])
    del stored[key]
    with pytest.raises(InvalidInputError, match=f"'{key}' is missing"):
        transform_from_dict(stored)


@pytest.mark.parametrize(
    ("name", "content"), [("t.json", "{not json"), ("t.json", "[]"), ("t.tfm", "words"), ("t.tfm", "#Insight\n")]
)
def test_other_files_are_refused(tmp_path, capfd, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UnreadableFileError):
        read_transform(tmp_path / name)
    assert capfd.readouterr().err == ""


def test_other_suffixes_are_refused(tmp_path):
    for verb in (
        read_transform,
        lambda p: write_transform(p, transforms(2)["rigid"], fixed=FIXED[2], moving=MOVING[2]),
    ):
        with pytest.raises(UnsupportedFormatError, match=r"\.json or \.tfm"):
            verb(tmp_path / "t.mat")


def as_itk(data, grid):
    volume = sitk.GetImageFromArray(data)
    volume.SetSpacing(grid.spacing[::-1])
    volume.SetOrigin(grid.origin[::-1])
    volume.SetDirection(np.array(grid.direction)[::-1, ::-1].ravel().tolist())
    return volume


@pytest.mark.parametrize(("ndim", "kind"), CASES)
def test_itk_warps_with_the_file_as_we_do(tmp_path, ndim, kind):
    fixed, moving, transform = FIXED[ndim], MOVING[ndim], transforms(ndim)[kind]
    center = Rigid(as_rows(np.eye(ndim)), tuple(moving.center - transform.map_points(fixed.center)))
    transform = center @ transform if kind != "chain" else Chain((*transform.transforms, center))
    data = np.random.default_rng(0).random((1, *moving.shape)).astype(np.float32)
    ours = resample(data, moving, fixed, transform)[0]
    write_transform(tmp_path / "t.tfm", transform, fixed=fixed, moving=moving)
    read = sitk.ReadTransform(str(tmp_path / "t.tfm"))
    like = as_itk(np.zeros(fixed.shape, np.float32), fixed)
    theirs = sitk.GetArrayFromImage(sitk.Resample(as_itk(data[0], moving), like, read, sitk.sitkLinear, 0.0))
    assert (ours != 0).mean() > 0.2  # the images overlap, so there is something to compare
    np.testing.assert_allclose(ours, theirs, atol=1e-4)  # of a range of 1


@pytest.mark.parametrize(("ndim", "kind"), CASES)
def test_what_is_written_for_itk_is_read_again(tmp_path, ndim, kind):
    transform = transforms(ndim)[kind]
    write_transform(tmp_path / "t.tfm", transform, fixed=FIXED[ndim], moving=MOVING[ndim])
    stored = read_transform(tmp_path / "t.tfm")
    assert (stored.fixed, stored.moving) == (None, None)
    assert type(stored.transform) is (Affine if kind == "chain" else type(transform))
    same(stored.transform, transform, ndim)


def itk_transforms():
    euler = sitk.Euler2DTransform((3.0, 4.0), 0.3, (1.0, -2.0))
    similar = sitk.Similarity3DTransform(1.5, (0.0, 0.0, 1.0), 0.4, (1.0, 2.0, 3.0), (5.0, 6.0, 7.0))
    shift = sitk.TranslationTransform(2, (3.0, -1.0))
    return {
        "euler": (euler, Rigid),
        "similarity": (similar, Similarity),
        "translation": (shift, Rigid),
        "scale": (sitk.ScaleTransform(2, (2.0, 3.0)), Affine),
        "composite": (sitk.CompositeTransform([euler, shift, sitk.ScaleTransform(2, (2.0, 3.0))]), Affine),
    }


@pytest.mark.parametrize("kind", itk_transforms())
def test_linear_itk_transforms_are_read(tmp_path, kind):
    theirs, group = itk_transforms()[kind]
    sitk.WriteTransform(theirs, str(tmp_path / "t.tfm"))
    ours = read_transform(tmp_path / "t.tfm").transform
    assert isinstance(ours, group)
    for point in np.random.default_rng(0).normal(0, 30, (10, ours.ndim)):
        expected = theirs.TransformPoint(point[::-1].tolist())[::-1]
        np.testing.assert_allclose(ours.map_points(point), expected, atol=1e-9)


def test_curved_itk_transforms_are_refused(tmp_path):
    sitk.WriteTransform(
        sitk.BSplineTransformInitializer(as_itk(np.zeros((9, 9)), Grid((9, 9))), [2, 2]), str(tmp_path / "t.tfm")
    )
    with pytest.raises(UnsupportedFormatError, match="only linear transforms"):
        read_transform(tmp_path / "t.tfm")


class Bend:
    """Neither linear nor a chain."""

    ndim = 2

    def map_points(self, points):
        return points**2

    def inverse(self):
        raise NotImplementedError

    def __matmul__(self, other):
        raise NotImplementedError


@pytest.mark.parametrize("name", ["t.json", "t.tfm"])
def test_what_has_no_matrix_is_not_written(tmp_path, name):
    for transform in (Bend(), Chain((Bend(), Bend()))):
        with pytest.raises(UnsupportedFormatError):
            write_transform(tmp_path / name, transform, fixed=FIXED[2], moving=MOVING[2])
    assert not list(tmp_path.iterdir())
