"""DICOM series and OME-Zarr: what is written comes back where it was, and what is odd is said."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from modalign.errors import OutputError, UnreadableFileError, UnsupportedFormatError
from modalign.geometry import Grid, Rigid, as_rows, rotation_matrix
from modalign.image import Image
from modalign.io import describe_image, open_tiled, read_image, write_image
from modalign.io.images import read_grid
from modalign.warping import warp_to_file

OBLIQUE = rotation_matrix(3, 20.0) @ rotation_matrix(3, -35.0, (0, 1))


def ramp(shape=(7, 20, 16), channels=1, dtype=np.int16, direction=None, unit="millimeter"):
    rng = np.random.default_rng(0)
    data = rng.integers(0, 4000, (channels, *shape)).astype(dtype)
    grid = Grid(
        shape, (3.0, 0.8, 0.7), (-50.0, 12.0, 7.5), as_rows(np.eye(3) if direction is None else direction), unit
    )
    return Image(data, grid, tuple(f"stain {k}" for k in range(channels)))


def write_series(folder: Path, image: Image, *, series="1.2.3", shift=lambda k: k) -> Path:
    """One file a slice, as a scanner does it."""
    sitk = pytest.importorskip("SimpleITK")
    folder.mkdir(exist_ok=True)
    xyz = np.array(image.grid.direction)[::-1, ::-1]
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(image.grid.shape[0]):
        piece = sitk.GetImageFromArray(image.data[0, k])
        piece.SetSpacing(image.grid.spacing[:0:-1])
        place = image.grid.index_to_world(np.array([[shift(k), 0.0, 0.0]]))[0][::-1]
        tags = {
            "0008|0060": "MR", "0020|000e": series, "0020|000d": "1.2", "0008|0018": f"{series}.{k + 1}",
            "0020|0013": str(k + 1), "0018|0050": str(image.grid.spacing[0]),
            "0020|0032": "\\".join(f"{v:.6f}" for v in place),
            "0020|0037": "\\".join(f"{v:.9f}" for v in (*xyz[:, 0], *xyz[:, 1])),
        }  # fmt: skip
        for tag, value in tags.items():
            piece.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{series}-{k:03d}.dcm"))
        writer.Execute(piece)
    return folder


@pytest.mark.parametrize("direction", [None, OBLIQUE], ids=["straight", "oblique"])
def test_a_dicom_series_comes_back_where_the_scanner_saw_it(tmp_path, direction):
    image = ramp(direction=direction)
    found = read_image(write_series(tmp_path / "series", image))
    np.testing.assert_array_equal(found.data, image.data)
    assert found.grid.unit == "millimeter"
    np.testing.assert_allclose(found.grid.corners, image.grid.corners, atol=1e-3)
    assert read_grid(tmp_path / "series") == found.grid
    facts = describe_image(tmp_path / "series")
    assert (facts["format"], facts["shape"]) == ("DICOM", [7, 20, 16])


def test_one_dicom_file_is_a_volume_of_one_slice(tmp_path):
    folder = write_series(tmp_path / "series", ramp())
    found = read_image(folder / "1.2.3-002.dcm", ndim=2)
    np.testing.assert_array_equal(found.data[0], ramp().data[0, 2])
    assert found.grid.spacing == pytest.approx((0.8, 0.7))


def test_odd_series_are_named(tmp_path):
    image = ramp()
    two = write_series(tmp_path / "two", image)
    write_series(two, image, series="1.2.4")
    with pytest.raises(UnsupportedFormatError, match=r"holds 2 DICOM series.*own folder"):
        read_image(two)
    missing = write_series(tmp_path / "missing", image)
    (missing / "1.2.3-003.dcm").unlink()
    with pytest.raises(UnreadableFileError, match=r"unequal distances: 6 mm after 1.2.3-002.dcm, 3 mm elsewhere"):
        read_image(missing)
    with pytest.raises(UnsupportedFormatError, match="4 images of one place"):
        read_image(write_series(tmp_path / "times", image, shift=lambda k: k // 4))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableFileError, match="a folder without DICOM files"):
        read_image(tmp_path / "empty")
    with pytest.raises(UnsupportedFormatError, match=r"DICOM is read but not written; write .nii.gz"):
        write_image(tmp_path / "a.dcm", image)


@pytest.mark.parametrize("slice_", [0, 3, 6])
@pytest.mark.parametrize("content", [b"", b"x" * 500], ids=["empty", "noise"])
def test_a_damaged_slice_is_named_wherever_it_lies(tmp_path, slice_, content):
    folder = write_series(tmp_path / "damaged", ramp())
    (folder / "notes.txt").write_text("patient moved")
    (folder / "._1.2.3-000.dcm").write_bytes(b"of another system")
    assert read_image(folder).grid.shape == (7, 20, 16)
    whole = (folder / f"1.2.3-{slice_:03d}.dcm").read_bytes()
    for damage in (content, whole[: len(whole) // 2]):
        (folder / f"1.2.3-{slice_:03d}.dcm").write_bytes(damage)
        with pytest.raises(UnreadableFileError, match=f"1.2.3-{slice_:03d}.dcm"):
            read_image(folder)


def test_one_slice_is_as_thick_as_its_header_says(tmp_path):
    folder = write_series(tmp_path / "series", ramp((1, 20, 16)))
    assert read_image(folder).grid.spacing == pytest.approx((3.0, 0.8, 0.7))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
@pytest.mark.parametrize("direction", [None, OBLIQUE], ids=["straight", "oblique"])
def test_ome_zarr_keeps_pixels_channels_and_place(tmp_path, dtype, direction):
    image = ramp(channels=2, dtype=dtype, direction=direction, unit="micrometer")
    write_image(tmp_path / "a.ome.zarr", image)
    found = read_image(tmp_path / "a.ome.zarr")
    np.testing.assert_array_equal(found.data, image.data)
    assert found.data.dtype == dtype
    assert found.channels == image.channels
    assert (found.grid.unit, found.grid.shape) == ("micrometer", image.grid.shape)
    np.testing.assert_allclose(found.grid.matrix, image.grid.matrix)
    assert not list(tmp_path.glob(".*"))


def test_levels_lie_where_the_image_lies(tmp_path):
    zarr = pytest.importorskip("zarr")
    grid = Grid((40, 300, 260), (2.0, 0.5, 0.5), (10.0, -4.0, 3.0), unit="micrometer")
    rng = np.random.default_rng(0)
    image = Image(rng.integers(0, 200, (1, *grid.shape)).astype(np.uint8), grid)
    write_image(tmp_path / "a.zarr", image)
    ome = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())["attributes"]["ome"]
    assert ome["version"] == "0.5"
    (multiscale,) = ome["multiscales"]
    assert [axis["name"] for axis in multiscale["axes"]] == ["c", "z", "y", "x"]
    assert {axis.get("unit") for axis in multiscale["axes"][1:]} == {"micrometer"}
    assert len(multiscale["datasets"]) == 3
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    for level in multiscale["datasets"]:
        scale, translation = (step[step["type"]][1:] for step in level["coordinateTransformations"])
        data = group[level["path"]][...]
        first = np.array(translation) - np.array(scale) / 2  # the outer corner of the first voxel stays
        np.testing.assert_allclose(first, np.array(grid.origin) - np.array(grid.spacing) / 2)
        assert data.shape[1] == 40, "a thin axis is not halved"
    np.testing.assert_allclose(data.mean(), image.data.mean(), rtol=0.01)


def version_4(folder: Path, data: np.ndarray, axes: list[dict[str, str]], steps: list[dict[str, object]]) -> Path:
    """An image as other programs write it: version 0.4, Zarr 2."""
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(folder), mode="w", zarr_format=2)
    group.create_array("0", data=data)
    group.attrs["multiscales"] = [
        {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}
    ]
    return folder


def axes_of(names: str, unit: str = "micrometer") -> list[dict[str, str]]:
    kinds = {"t": "time", "c": "channel"}
    return [{"name": n, "type": kinds.get(n, "space"), **({} if n in kinds else {"unit": unit})} for n in names]


def test_version_4_with_scale_and_translation_is_read(tmp_path):
    data = np.arange(2 * 5 * 6 * 7, dtype=np.uint16).reshape(1, 2, 5, 6, 7)
    steps = [{"type": "scale", "scale": [1, 1, 3.0, 0.5, 0.4]}, {"type": "translation", "translation": [0, 0, 9, 8, 7]}]
    found = read_image(version_4(tmp_path / "b.zarr", data, axes_of("tczyx"), steps))
    np.testing.assert_array_equal(found.data, data[0])
    assert (found.grid.spacing, found.grid.origin, found.grid.unit) == ((3.0, 0.5, 0.4), (9.0, 8.0, 7.0), "micrometer")
    flat = read_image(version_4(tmp_path / "c.zarr", data[0, 0, 0], axes_of("yx"), []))
    assert (flat.grid.shape, flat.grid.unit) == ((6, 7), "pixel")


def test_odd_zarr_groups_are_named(tmp_path):
    data = np.zeros((3, 5, 6, 7), np.uint8)
    with pytest.raises(UnsupportedFormatError, match="has 3 times along its axis t"):
        read_image(version_4(tmp_path / "t.zarr", data, axes_of("tzyx"), []))
    with pytest.raises(UnsupportedFormatError, match="has the axes x, y, z; t, c, z, y, x in this order"):
        read_image(version_4(tmp_path / "x.zarr", data[0], axes_of("xyz"), []))
    zarr = pytest.importorskip("zarr")
    zarr.open_group(str(tmp_path / "plain.zarr"), mode="w").create_array("0", data=data)
    with pytest.raises(UnreadableFileError, match="a Zarr group without an image"):
        read_image(tmp_path / "plain.zarr")
    write_image(tmp_path / "good.zarr", ramp())
    for part in (tmp_path / "good.zarr").rglob("c/0/0/0/0"):
        part.write_bytes(b"nonsense")
    with pytest.raises(UnreadableFileError, match=r"good\.zarr"):
        read_image(tmp_path / "good.zarr")
    (tmp_path / "precious.zarr").mkdir()
    (tmp_path / "precious.zarr" / "notes.txt").write_text("keep")
    with pytest.raises(OutputError):
        write_image(tmp_path / "precious.zarr", ramp())


def test_an_image_changed_by_another_program_lies_where_its_metadata_say(tmp_path):
    write_image(tmp_path / "a.zarr", ramp(direction=OBLIQUE))
    described = tmp_path / "a.zarr" / "zarr.json"
    about = json.loads(described.read_text())
    (level,) = about["attributes"]["ome"]["multiscales"][0]["datasets"]
    level["coordinateTransformations"][0]["scale"] = [1.0, 6.0, 0.8, 0.7]
    described.write_text(json.dumps(about))
    found = read_image(tmp_path / "a.zarr").grid
    assert found.spacing == (6.0, 0.8, 0.7)
    np.testing.assert_array_equal(found.direction, np.eye(3))


@pytest.mark.parametrize("names", ["zyx", "czyx", "tczyx", "yx", "cyx"])
def test_windows_of_ome_zarr_are_those_of_the_whole(tmp_path, names):
    zarr = pytest.importorskip("zarr")
    sizes = {"t": 1, "c": 2, "z": 9, "y": 31, "x": 40}
    data = np.random.default_rng(0).integers(0, 900, [sizes[n] for n in names]).astype(np.uint16)
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    group.create_array("0", data=data, chunks=tuple(min(n, 8) for n in data.shape))
    steps = [{"type": "scale", "scale": [1.0 if n in "tc" else 0.5 for n in names]}]
    axes = [{"name": n, **({} if n in "tc" else {"unit": "micrometer"})} for n in names]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}]
    whole = read_image(tmp_path / "a.zarr")
    with open_tiled(tmp_path / "a.zarr") as reader:
        assert (reader.grid, reader.channels, reader.dtype) == (whole.grid, whole.channels, whole.data.dtype)
        assert reader.nbytes == whole.data.nbytes
        covered = np.zeros(whole.grid.shape, dtype=int)
        for window in reader.blocks():
            np.testing.assert_array_equal(reader.read(window), whole.data[(slice(None), *window)])
            covered[window] += 1
        assert (covered == 1).all()
        window = tuple(slice(2, n - 3) for n in whole.grid.shape)
        np.testing.assert_array_equal(reader.read(window, slice(0, 1)), whole.data[(slice(0, 1), *window)])
    assert read_grid(tmp_path / "a.zarr") == whole.grid
    assert describe_image(tmp_path / "a.zarr")["range"] == [whole.data.min(), whole.data.max()]


def test_a_chunk_that_is_damaged_is_told_and_named(tmp_path):
    write_image(tmp_path / "a.zarr", ramp(channels=1, dtype=np.uint16))
    chunk = next(path for path in sorted((tmp_path / "a.zarr" / "0" / "c").rglob("*")) if path.is_file())
    chunk.write_bytes(b"nonsense")
    for read in (read_image, describe_image):
        with pytest.raises(UnreadableFileError, match=r"a\.zarr.*damaged"):
            read(tmp_path / "a.zarr")


@pytest.mark.parametrize("labels", [False, True])
def test_a_volume_is_written_as_ome_zarr_while_it_is_computed(tmp_path, labels):
    image = ramp(channels=1, dtype=np.uint16, unit="micrometer")
    channels = ("labels",) if labels else image.channels
    image = Image(image.data, image.grid, channels)
    write_image(tmp_path / "moving.ome.tif", image)
    shift = Rigid(as_rows(np.eye(3)), (0.7, -1.1, 0.4))
    shares = []
    with open_tiled(tmp_path / "moving.ome.tif") as moving:
        warp_to_file(tmp_path / "out.ome.zarr", moving, image.grid, shift, labels=labels, advance=shares.append)
    expected = image.resampled(image.grid, shift, order=0 if labels else 1).data
    found = read_image(tmp_path / "out.ome.zarr")
    np.testing.assert_array_equal(found.data, expected)
    assert found.grid == image.grid
    assert shares[-1] == pytest.approx(1)


def test_an_image_of_which_no_chunk_was_copied_is_refused_and_zeros_are_not(tmp_path):
    image = ramp(dtype=np.uint8)
    write_image(tmp_path / "zeros.ome.zarr", image.with_data(np.zeros_like(image.data)))
    assert not read_image(tmp_path / "zeros.ome.zarr").data.any()
    shutil.rmtree(tmp_path / "zeros.ome.zarr" / "0" / "c")
    with pytest.raises(UnreadableFileError, match="none of its 1 chunks is there"):
        read_image(tmp_path / "zeros.ome.zarr")
    (tmp_path / "empty.ome.zarr").mkdir()
    with pytest.raises(UnreadableFileError, match="is damaged, or no OME-Zarr image"):
        read_image(tmp_path / "empty.ome.zarr")
