"""Bad input: one clear line that names the file, nothing from the libraries, never half an image."""

import numpy as np
import pytest

from modalign.errors import FileError, UnreadableFileError, UnsupportedFormatError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.io import SUFFIXES, image_files, read_image, stem, suffix, write_image
from modalign.io.images import FORMATS

WRITABLE = [s for s in SUFFIXES if s not in (".mhd", ".dcm", ".ome.zarr", ".zarr")]


@pytest.fixture
def image():
    rng = np.random.default_rng(0)
    return Image(rng.integers(0, 256, (1, 64, 48), dtype=np.uint8), Grid((64, 48)))


def refused(path, capfd, kind=UnreadableFileError, **options):
    """The message of the error; checks that it is one line, names the file, and that nothing else was said."""
    with pytest.raises(kind) as caught:
        read_image(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 400
    assert capfd.readouterr() == ("", "")
    return message


def test_a_missing_file(tmp_path, capfd):
    assert "no such file" in refused(tmp_path / "a.png", capfd)


@pytest.mark.parametrize("ending", SUFFIXES)
def test_a_folder(tmp_path, capfd, ending):
    (tmp_path / f"a{ending}").mkdir()
    assert "folder" in refused(tmp_path / f"a{ending}", capfd)


@pytest.mark.parametrize("ending", SUFFIXES)
def test_an_empty_file(tmp_path, capfd, ending):
    (tmp_path / f"a{ending}").touch()
    assert "0 bytes" in refused(tmp_path / f"a{ending}", capfd)


@pytest.mark.parametrize("ending", SUFFIXES)
def test_a_text_file(tmp_path, capfd, ending):
    (tmp_path / f"a{ending}").write_text("This is not the image you are looking for.\n" * 40)
    refused(tmp_path / f"a{ending}", capfd)


@pytest.mark.parametrize("ending", WRITABLE)
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9, 0.99])
def test_a_truncated_file(tmp_path, capfd, image, ending, part):
    path = tmp_path / f"a{ending}"
    write_image(path, image)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(1, int(len(whole) * part))])
    refused(path, capfd)


@pytest.mark.parametrize("ending", [".tif", ".ome.tif", ".nii", ".nii.gz", ".mha", ".nrrd", ".npy"])
@pytest.mark.parametrize("part", [0.3, 0.7])
def test_a_truncated_volume(tmp_path, capfd, ending, part):
    rng = np.random.default_rng(0)
    path = tmp_path / f"a{ending}"
    write_image(path, Image(rng.integers(0, 999, (1, 9, 40, 30), dtype=np.uint16), Grid((9, 40, 30))))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    refused(path, capfd, ndim=3)


@pytest.mark.parametrize("options", [{}, {"metadata": None}, {"imagej": True}, {"compression": "zlib"}])
def test_a_truncated_stack_from_elsewhere(tmp_path, capfd, options):
    tifffile = pytest.importorskip("tifffile")
    rng = np.random.default_rng(0)
    path = tmp_path / "a.tif"
    stack = rng.integers(0, 99, (6, 40, 30), dtype=np.uint8)
    tifffile.imwrite(path, stack, photometric=None if "imagej" in options else "minisblack", **options)
    whole = path.read_bytes()
    for part in (0.4, 0.8, 0.97):
        path.write_bytes(whole[: int(len(whole) * part)])
        refused(path, capfd)


@pytest.mark.parametrize("ending", [".png", ".npy", ".nii.gz", ".mha", ".nrrd", ".ome.tif"])
def test_flipped_bytes_never_crash(tmp_path, capfd, image, ending):
    path = tmp_path / f"a{ending}"
    write_image(path, image)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(1)
    messages = []
    for _ in range(30):
        damaged = whole.copy()
        damaged[rng.integers(0, min(len(whole), 400), 5)] ^= 255
        path.write_bytes(damaged.tobytes())
        try:
            read_image(path, ndim=2)
        except FileError as error:
            messages.append(str(error))
    assert not any("\n" in message for message in messages)
    assert capfd.readouterr().err == ""


def test_python_objects_are_not_loaded(tmp_path, capfd):
    np.save(tmp_path / "a.npy", np.array([[{"a": 1}, None]], dtype=object), allow_pickle=True)
    assert "Python objects" in refused(tmp_path / "a.npy", capfd)


@pytest.mark.parametrize(
    "array", [np.float32(1), np.ones(5), np.ones((2, 2, 2, 2, 2)), np.zeros((0, 4)), np.array([["a"]])]
)
def test_arrays_that_are_no_images(tmp_path, capfd, array):
    np.save(tmp_path / "a.npy", array)
    refused(tmp_path / "a.npy", capfd, FileError)


def test_an_array_with_three_axes_needs_to_be_told_apart(tmp_path, capfd):
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    np.save(tmp_path / "a.npy", array)
    message = refused(tmp_path / "a.npy", capfd, UnsupportedFormatError)
    assert "ndim=2 or ndim=3" in message
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy", ndim=2).data, array)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy", ndim=3).data, array[None])


@pytest.mark.parametrize("ending", [".npy", ".tif"])
def test_complex_pixels(tmp_path, capfd, ending):
    path, data = tmp_path / f"a{ending}", np.ones((8, 9), np.complex64)
    if ending == ".npy":
        np.save(path, data)
    else:
        pytest.importorskip("tifffile").imwrite(path, data)
    assert "complex" in refused(path, capfd, UnsupportedFormatError)


def test_an_unknown_suffix(tmp_path, capfd):
    (tmp_path / "a.xyz").write_text("anything")
    message = refused(tmp_path / "a.xyz", capfd, UnsupportedFormatError)
    assert ".png" in message
    assert ".nii.gz" in message


@pytest.mark.parametrize(
    ("content", "name"), [(".png", "a.jpg"), (".png", "a.tif"), (".npy", "a.png"), (".tif", "a.nii")]
)
def test_a_suffix_that_lies_is_overruled_by_the_content(tmp_path, image, content, name):
    write_image(tmp_path / f"true{content}", image)
    (tmp_path / f"true{content}").rename(tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / name).data, image.data)


@pytest.mark.parametrize("data", [np.full((8, 9), np.nan), np.zeros((8, 9)), np.full((8, 9), 7, np.uint8)])
def test_images_without_information_are_readable(tmp_path, data):
    write_image(tmp_path / "a.tif", Image(data[None], Grid((8, 9))))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").data[0], data)


def test_every_known_suffix_has_a_reader():
    assert {ending for form in FORMATS for ending in form.suffixes} == set(SUFFIXES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.ome.tif", "a"), ("b.nii.gz", "b"), ("c.d.png", "c.d"), ("E.TIFF", "E"), ("f.x.txt", "f.x"), ("g", "g")],
)
def test_names_without_suffixes(name, expected):
    assert stem(f"some/folder/{name}") == expected
    assert expected + name[len(expected) :] == name
    assert suffix(name) == name[len(expected) :].lower()


def test_image_files_are_sorted_and_known(tmp_path):
    for name in ("b.PNG", "a.tif", "c.nii.gz", ".hidden.png", "notes.txt", "._a.tif"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in image_files(tmp_path)] == ["a.tif", "b.PNG", "c.nii.gz"]
    with pytest.raises(UnreadableFileError, match="does not exist"):
        image_files(tmp_path / "nowhere")
    with pytest.raises(UnreadableFileError, match="not a folder"):
        image_files(tmp_path / "a.tif")


@pytest.mark.parametrize(("first", "second"), [(".nii", ".nii.gz"), (".nii.gz", ".nii")])
def test_compression_that_the_name_does_not_tell_is_named(tmp_path, first, second):
    image = Image(np.arange(120, dtype=np.int16).reshape(1, 4, 5, 6), Grid((4, 5, 6), (1.0,) * 3, unit="millimeter"))
    write_image(tmp_path / f"a{first}", image)
    (tmp_path / f"a{first}").rename(tmp_path / f"a{second}")
    with pytest.raises(UnreadableFileError, match=r"compressed by gzip, although the name says otherwise; rename it"):
        read_image(tmp_path / f"a{second}")
