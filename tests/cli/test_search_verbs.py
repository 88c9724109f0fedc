"""An index from the command line: built, extended, asked, and killed; every mistake is one line."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modalign.cli.main import main
from modalign.geometry import Grid, Rigid, rotation_matrix
from modalign.image import Image
from modalign.io import read_transform, write_image, write_table
from modalign.retrieval import open_store
from modalign.testing.registration import textured_scene

Run = Callable[..., Any]
SIDE = 180


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images, with a table of them."""
    folder = tmp_path_factory.mktemp("collection")
    for number in range(6):
        scene = textured_scene(2, number).cropped((20, 30), (SIDE, SIDE))
        write_image(folder / "images" / f"{number}.tif", Image(scene.data, Grid((SIDE, SIDE))))
    rows = [{"image": f"images/{number}.tif", "stain": "HE" if number % 2 else "PAS"} for number in range(6)]
    write_table(folder / "table.csv", rows)
    return folder


@pytest.fixture(scope="module")
def built(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of these."""
    place = tmp_path_factory.mktemp("built") / "index"
    words = ["index", "build", str(collection / "table.csv"), "--index", str(place), "--words", "300"]
    assert main(words) == 0
    return place


@pytest.fixture(scope="module")
def query(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A turned piece of image 3."""
    scene = textured_scene(2, 3).cropped((20, 30), (SIDE, SIDE))
    image = Image(scene.data, Grid((SIDE, SIDE)))
    grid = Grid((120, 120))
    turn = Rigid.about(grid.center, rotation_matrix(2, 40.0), np.array([90.0, 88.0]) - grid.center)
    path = tmp_path_factory.mktemp("query") / "query.tif"
    write_image(path, image.resampled(grid, turn))
    return path


def test_the_piece_is_found_with_its_place_page_and_transform(
    run: Run, built: Path, query: Path, tmp_path: Path
) -> None:
    page, folder = tmp_path / "page.html", tmp_path / "transforms"
    told = run("search", query, "--index", built, "--report", page, "--transforms", folder, "--top", 4, "--json")
    assert told.status == 0
    hits = json.loads(told.out)["hits"]
    assert len(hits) == 4
    best = hits[0]
    assert (best["image"], best["verdict"], best["rank"]) == ("images/3.tif", "accepted", 1)
    assert best["facts"]["stain"] == "HE"
    np.testing.assert_allclose(best["place"], [90, 88], atol=2)
    assert best["turn"] == pytest.approx(40, abs=1)
    stored = read_transform(best["transform"])
    np.testing.assert_allclose(stored.transform.map_points(np.array([[59.5, 59.5]])), [[90, 88]], atol=2)
    assert "images/3.tif" in page.read_text()
    table = run("search", query, "--index", built, "--rerank", 0, "--top", 2)
    assert table.status == 0
    assert len(table.out.strip().split("\n")) == 3
    assert "not verified" in table.out


def test_conditions_limit_the_hits(run: Run, built: Path, query: Path) -> None:
    told = run("search", query, "--index", built, "--where", "stain=PAS", "--rerank", 0, "--json")
    assert {hit["facts"]["stain"] for hit in json.loads(told.out)["hits"]} == {"PAS"}
    nothing = run("search", query, "--index", built, "--where", "stain=none", "--rerank", 0)
    assert "nothing found" in nothing.out
    assert run("search", query, "--index", built, "--where", "stain").status == 2


def test_images_are_added_and_removed(run: Run, collection: Path, tmp_path: Path) -> None:
    place = tmp_path / "index"
    assert run("index", "build", "--debug", collection / "images", "--index", place, "--words", 100).status == 0
    assert not (place / ".work").exists()
    again = run("index", "add", collection / "images", "--index", place)
    assert "0 images added, 6 were there; the index has 6" in again.out
    write_image(tmp_path / "more" / "new.tif", Image(textured_scene(2, 9).data[:, :150, :150], Grid((150, 150))))
    (tmp_path / "more" / "odd.png").write_bytes(b"no picture")
    write_image(tmp_path / "same" / "3.tif", Image(textured_scene(2, 8).data[:, :150, :150], Grid((150, 150))))
    refused = run("index", "add", tmp_path / "same", "--index", place)
    assert refused.status == 2
    assert "other images of the names 3.tif" in refused.err
    prefixed = run("index", "add", tmp_path / "same", "--index", place, "--prefix", "same/")
    assert "1 images added" in prefixed.out
    assert run("index", "remove", "same/3.tif", "--index", place).status == 0
    more = run("index", "add", tmp_path / "more", "--index", place, "--json")
    told = json.loads(more.out)
    assert (told["added"], told["images"], list(told["failed"])) == (1, 7, ["odd.png"])
    assert run("search", tmp_path / "more" / "new.tif", "--index", place, "--rerank", 0).out.count("new.tif") == 1
    gone = run("index", "remove", "3.tif", "nobody.tif", "--index", place)
    assert "1 images removed; the index has 6" in gone.out
    assert "1 were not in it: nobody.tif" in gone.err
    assert json.loads(run("index", "remove", collection / "images", "--index", place, "--json").out)["images"] == 1
    info = json.loads(run("index", "info", "--index", place, "--names", "--json").out)
    assert (info["images"], info["names"], info["describer"]["name"]) == (1, ["new.tif"], "sift")
    assert "images      1" in run("index", "info", "--index", place).out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["index", "build", "{collection}/table.csv", "--index", "{built}"], "there is an index in .* already"),
        (["index", "build", "{collection}/table.csv", "--index", "{collection}"], "holds something else"),
        (["index", "build", "{collection}/nothing", "--index", "{tmp}/i"], "nothing"),
        (["index", "build", "{collection}/images", "--index", "{tmp}/i", "--words", "1"], "at least 2 words"),
        (["index", "build", "{collection}/images", "--index", "{tmp}/i", "--model", "{tmp}"], "not a model folder"),
        (["index", "build", "{collection}/images", "--index", "{tmp}/i", "--dimensions", "3"], "none of the images"),
        (["index", "add", "{collection}/images", "--index", "{tmp}/i"], "holds no index"),
        (["index", "build", "{collection}/images", "--index", "{tmp}/i", "{tmp}/i"], "named twice"),
        (
            ["index", "build", "{collection}/images", "--index", "{built}", "--resume", "--model", "{tmp}"],
            "not a model",
        ),
        (["index", "info", "--index", ""], "empty name"),
        (["search", "{query}", "--index", "{built}", "--report", "{query}"], "ends in .html"),
        (["search", "{query}", "--index", "{built}", "--report", "{built}/a.html"], "give another name"),
        (["search", "{query}", "--index", "{built}", "--transforms", "{built}"], "give another name"),
        (["search", "{query}", "--index", "{built}", "--transforms", "{query}"], "is a file|give another name"),
        (
            ["search", "{query}", "--index", "{built}", "--where", "Stain=HE"],
            "has a fact 'Stain'; there are stain",
        ),
        (["search", "{query}", "--index", "{built}", "--where", "stain==HE"], "no condition"),
        (["index", "add", "{collection}/images", "--index", "{built}", "--model", "{tmp}"], "not a model folder"),
        (["index", "info", "--index", "{tmp}/i"], "holds no index: make one with 'modalign index build'"),
        (["index", "remove", "a", "--index", "{tmp}/i"], "holds no index"),
        (["search", "{collection}/images/1.tif", "--index", "{tmp}/i"], "holds no index"),
        (["search", "{tmp}/gone.tif", "--index", "{built}"], "gone.tif"),
        (["search", "{blank}", "--index", "{built}"], "shows nothing that could be described"),
        (["search", "{volume}", "--index", "{built}"], "2"),
        (["search", "{query}", "--index", "{built}", "--top", "0"], "--top is at least 1"),
        (["search", "{query}", "--index", "{built}", "{built}"], "named twice"),
        (["search", "{query}", "--index", "postgresql://localhost:1/none"], "cannot be reached"),
    ],
)
def test_every_mistake_is_one_line(
    run: Run, collection: Path, built: Path, query: Path, tmp_path: Path, words: list[str], says: str
) -> None:
    import re

    blank, volume = tmp_path / "blank.tif", tmp_path / "volume.nii.gz"
    write_image(blank, Image(np.full((1, 90, 90), 5, np.uint8), Grid((90, 90))))
    write_image(volume, Image(textured_scene(3).data[:, :20, :20, :20], Grid((20, 20, 20), unit="millimeter")))
    names = {
        "collection": collection,
        "built": built,
        "query": query,
        "tmp": tmp_path,
        "blank": blank,
        "volume": volume,
    }
    told = run(*(word.format(**names) for word in words))
    assert told.status == 2, told.err
    assert not (tmp_path / "i").exists(), "nothing is left of what could not be"
    lines = [line for line in told.err.split("\n") if line.startswith("modalign:")]
    assert len(lines) == 1
    assert re.search(says, lines[0]), lines[0]
    assert "Traceback" not in told.err


def test_actions_are_told(run: Run) -> None:
    told = run("index", "--help")
    assert told.status == 0
    assert [line.split()[0] for line in told.out.strip().split("\n")[1:]] == ["build", "add", "remove", "info"]
    assert run("index").status == 2
    assert run("index", "destroy").status == 2


def test_a_damaged_index_is_named(run: Run, collection: Path, query: Path, tmp_path: Path) -> None:
    place = tmp_path / "index"
    assert run("index", "build", "--debug", collection / "images", "--index", place, "--words", 100).status == 0
    (piece,) = place.glob("0*.safetensors")
    piece.write_bytes(piece.read_bytes()[:-7])
    told = run("search", query, "--index", place)
    assert told.status == 2
    assert f"{piece.name} is damaged" in told.err


def test_a_build_that_was_killed_goes_on_and_loses_and_doubles_nothing(collection: Path, tmp_path: Path) -> None:
    place, rng = tmp_path / "index", np.random.default_rng(0)
    words = [sys.executable, "-m", "modalign", "index", "build", str(collection / "images"), "--index", str(place)]
    words += ["--words", "100", "--resume"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (place / ".work").exists():
            time.sleep(0.02)
        time.sleep(float(rng.uniform(0, 3)))
        os.kill(process.pid, signal.SIGKILL)
    finished = subprocess.run(words, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    store = open_store([str(place)])
    assert store.names() == [f"{number}.tif" for number in range(6)]
    store.close()
