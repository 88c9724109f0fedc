"""Nothing half-written under the final name, whatever happens while writing."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modalign.errors import OutputError, UnreadableFileError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.io import atomic_folder, atomic_path, read_json, write_image, write_json


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_complete(tmp_path):
    final = tmp_path / "new" / "folder" / "a.nii.gz"
    with atomic_path(final) as temporary:
        assert temporary.parent == final.parent
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("done")
        assert not final.exists()
    assert final.read_text() == "done"
    assert names(final.parent) == ["a.nii.gz"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_old_file_survives_a_failure(tmp_path, error):
    final = tmp_path / "a.txt"
    final.write_text("old")

    def fail():
        with atomic_path(final) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert final.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_what_the_system_refuses_is_said_in_one_line(tmp_path, code):
    def fail():
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise OSError(code, "reason of the system")

    with pytest.raises(OutputError, match="reason of the system"):
        fail()
    assert names(tmp_path) == []


@pytest.mark.parametrize("writer", [atomic_path, atomic_folder])
def test_a_file_where_a_folder_should_be(tmp_path, writer):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="part of the path is a file"), writer(tmp_path / "file" / "deeper" / "a"):
        pass


def test_what_a_link_points_to_is_written(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "a.txt")
    with atomic_path(tmp_path / "link") as temporary:
        temporary.write_text("done")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "a.txt").read_text() == "done"


def test_a_device_is_not_replaced_by_a_file():
    with pytest.raises(OutputError, match="device"), atomic_path("/dev/null"):
        pytest.fail("the block must not run")
    assert Path("/dev/null").is_char_device()


def test_a_folder_where_a_file_should_be(tmp_path):
    with pytest.raises(OutputError, match="is a folder"), atomic_path(tmp_path):
        pass


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".ome.tif", ".nii.gz", ".mha", ".nrrd", ".npy"])
def test_images_cannot_be_written_into_a_file(tmp_path, capfd, ending):
    (tmp_path / "file").touch()
    image = Image(np.zeros((1, 8, 9), np.uint8), Grid((8, 9)))
    with pytest.raises(OutputError):
        write_image(tmp_path / "file" / f"a{ending}", image)
    assert capfd.readouterr().err == ""


def fill(folder, content):
    (folder / "model.json").write_text(content)
    (folder / "part").mkdir()
    (folder / "part" / "weights").write_text(content)


def test_a_folder_appears_when_it_is_complete(tmp_path):
    final = tmp_path / "deep" / "model"
    for content in ("first", "second"):
        with atomic_folder(final) as temporary:
            fill(temporary, content)
            assert not final.exists() or (final / "model.json").read_text() == "first"
        assert (final / "part" / "weights").read_text() == content
        assert names(final.parent) == ["model"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_old_folder_survives_a_failure(tmp_path, error):
    final = tmp_path / "model"
    with atomic_folder(final) as temporary:
        fill(temporary, "old")

    def fail():
        with atomic_folder(final) as temporary:
            fill(temporary, "half")
            raise error

    with pytest.raises(error):
        fail()
    assert (final / "part" / "weights").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    final = tmp_path / "model"
    with atomic_folder(final) as temporary:
        fill(temporary, "old")
    real, calls = __import__("os").replace, []

    def replace(a, b):
        calls.append(a)
        if len(calls) == 2:
            raise OSError(errno.EACCES, "not now")
        real(a, b)

    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(OutputError, match="not now"), atomic_folder(final) as temporary:
        fill(temporary, "new")
    assert (final / "part" / "weights").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"no model\.json"), atomic_folder(tmp_path / "thesis"):
        pytest.fail("the block must not run: it may take hours")
    assert names(tmp_path / "thesis") == ["chapter.tex"]
    (tmp_path / "empty").mkdir()
    with atomic_folder(tmp_path / "empty") as temporary:
        fill(temporary, "new")
    assert (tmp_path / "empty" / "model.json").exists()


def test_json_survives_and_is_json(tmp_path):
    value = {"a": np.float32(0.5), "b": np.arange(3), "c": (1, None, True), "d": float("inf"), "e": Path("x"), 5: "µ"}
    write_json(tmp_path / "a.json", value)
    expected = {"a": 0.5, "b": [0, 1, 2], "c": [1, None, True], "d": None, "e": "x", "5": "µ"}
    assert read_json(tmp_path / "a.json") == expected
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == expected


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_what_is_not_json(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UnreadableFileError):
        read_json(tmp_path / "a.json")


def test_importing_io_loads_no_format_library():
    code = "import sys, modalign.io; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "modalign.io.tiff" in loaded
    assert not {"torch", "cv2", "SimpleITK", "tifffile", "imagecodecs", "PIL", "matplotlib"} & set(loaded)
