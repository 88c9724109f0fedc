"""NIfTI, MetaImage and NRRD: the place of a voxel in the world is the one that ITK gives it."""

import struct

import numpy as np
import pytest

from modalign.errors import UnreadableFileError, UnsupportedFormatError
from modalign.geometry import Grid, as_rows, rotation_matrix
from modalign.image import Image
from modalign.io import describe_image, read_image, write_image

sitk = pytest.importorskip("SimpleITK")
ENDINGS = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")


def volume_with_one_bright_voxel(ndim):
    data = np.zeros((6, 7, 9)[-ndim:], np.float32)
    data[(4, 5, 2)[-ndim:]] = 1
    volume = sitk.GetImageFromArray(data)
    volume.SetSpacing((0.5, 0.75, 2.0)[:ndim])
    volume.SetOrigin((3.0, -40.0, 70.0)[:ndim])
    volume.SetDirection((rotation_matrix(ndim, 20) @ rotation_matrix(ndim, -35, (0, 1))).ravel().tolist())
    return volume


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_voxel_lies_where_itk_says(tmp_path, ending, ndim):
    volume = volume_with_one_bright_voxel(ndim)
    sitk.WriteImage(volume, str(tmp_path / f"a{ending}"))
    image = read_image(tmp_path / f"a{ending}")
    index = np.argwhere(image.data[0] == 1)[0]
    expected = volume.TransformIndexToPhysicalPoint([int(i) for i in index[::-1]])
    np.testing.assert_allclose(image.grid.index_to_world(index.astype(float))[::-1], expected, atol=1e-4)
    assert image.grid.unit == "millimeter"


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_itk_finds_a_written_voxel_where_we_put_it(tmp_path, ending, ndim):
    direction = rotation_matrix(ndim, 20) @ rotation_matrix(ndim, -35, (0, 1))
    grid = Grid((6, 7, 9)[-ndim:], (2.0, 0.75, 0.5)[-ndim:], (7.0, -4.0, 3.0)[-ndim:], as_rows(direction), "millimeter")
    write_image(tmp_path / f"a{ending}", Image(np.ones((2, *grid.shape), np.int16), grid))
    volume = sitk.ReadImage(str(tmp_path / f"a{ending}"))
    assert volume.GetNumberOfComponentsPerPixel() == 2
    for corner in grid.corners:
        index = np.rint(grid.world_to_index(corner)).astype(int)[::-1].tolist()
        np.testing.assert_allclose(volume.TransformIndexToPhysicalPoint(index), corner[::-1], atol=1e-4)


def test_nifti_in_micrometres_is_read_in_millimetres(tmp_path):
    grid = Grid((6, 7, 9), (2e-3, 1e-3, 0.5e-3), unit="millimeter")
    write_image(tmp_path / "a.nii", Image(np.ones((1, *grid.shape), np.uint8), grid))
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[123] = 3  # xyzt_units of the NIfTI-1 header: micrometres
    (tmp_path / "a.nii").write_bytes(content)
    again = read_image(tmp_path / "a.nii").grid
    assert again.unit == "millimeter"
    np.testing.assert_allclose(again.spacing, (2e-6, 1e-6, 0.5e-6), rtol=1e-5)


def test_units_in_a_nrrd_header(tmp_path):
    header = (
        "NRRD0004\ntype: uint8\ndimension: 2\nspace dimension: 2\nsizes: 4 3\n"
        'space directions: (0.5,0) (0,2)\nspace units: "um" "um"\nencoding: raw\n\n'
    )
    (tmp_path / "a.nrrd").write_bytes(header.encode() + bytes(range(12)))
    grid = read_image(tmp_path / "a.nrrd").grid
    assert grid == Grid((3, 4), (2.0, 0.5), unit="micrometer")


def test_sheared_axes_are_refused_with_the_reason(tmp_path, capfd):
    write_image(tmp_path / "a.nii", Image(np.ones((1, 6, 7, 9), np.uint8), Grid((6, 7, 9), unit="millimeter")))
    content = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<2h", content, 252, 0, 1)  # qform_code, sform_code of the NIfTI-1 header
    struct.pack_into("<12f", content, 280, *(1, 0.5, 0, 0), *(0, 1, 0, 0), *(0, 0, 1, 0))
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(UnreadableFileError, match="not perpendicular"):
        read_image(tmp_path / "a.nii")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_time_series_are_refused(tmp_path, ending):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5, 6), np.float32), False), str(tmp_path / f"a{ending}"))
    with pytest.raises(UnsupportedFormatError, match="4 axes"):
        read_image(tmp_path / f"a{ending}")


def test_complex_volumes_are_refused(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6), np.complex64)), str(tmp_path / "a.nii"))
    with pytest.raises(UnsupportedFormatError, match="complex"):
        read_image(tmp_path / "a.nii")


def test_where_the_pixel_size_is_from(tmp_path):
    sitk.WriteImage(volume_with_one_bright_voxel(3), str(tmp_path / "a.nii.gz"))
    facts = describe_image(tmp_path / "a.nii.gz")
    assert (facts["format"], facts["pixel_size_from"], facts["unit"]) == ("NIfTI", "header", "millimeter")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_that_are_not_finite_stay_so(tmp_path, ending, dtype):
    """ITK puts zeros in their place where it reads NIfTI."""
    data = np.random.default_rng(0).random((2, 5, 6, 7)).astype(dtype)
    data[0, 1:3, 2, 4], data[1, 4, 5, 6] = np.nan, np.inf
    write_image(tmp_path / f"a{ending}", Image(data, Grid((5, 6, 7), unit="millimeter")))
    found = read_image(tmp_path / f"a{ending}").data
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(data))
    np.testing.assert_array_equal(found[np.isfinite(data)], data[np.isfinite(data)])
    assert describe_image(tmp_path / f"a{ending}")["not_finite"] == 3


def with_pixdim(path, sizes):
    write_image(path, Image(np.ones((1, 6, 7, 9), np.uint8), Grid((6, 7, 9), unit="millimeter")))
    content = bytearray(path.read_bytes())
    struct.pack_into("<3f", content, 80, *sizes)
    struct.pack_into("<2h", content, 252, 0, 0)  # qform_code, sform_code
    path.write_bytes(content)
    return path


def test_a_pixel_size_of_zero_is_none(tmp_path):
    facts = describe_image(with_pixdim(tmp_path / "a.nii", (0.0, 0.0, 0.0)))
    assert (facts["unit"], facts["spacing"], facts["pixel_size_from"]) == ("pixel", [1, 1, 1], "the file gives none")
    facts = describe_image(with_pixdim(tmp_path / "b.nii", (0.5, 0.6, 2.0)))
    assert (facts["unit"], facts["spacing"]) == ("millimeter", pytest.approx([2.0, 0.6, 0.5]))


@pytest.mark.parametrize("size", [float("nan"), float("inf")])
def test_a_pixel_size_that_is_no_number_is_refused(tmp_path, size):
    with pytest.raises(UnreadableFileError, match="a pixel size that is no number"):
        read_image(with_pixdim(tmp_path / "a.nii", (size, 1.0, 1.0)))
