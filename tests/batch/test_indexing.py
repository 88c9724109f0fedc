"""An index is built in portions: what was done is not done again, what fails is named, what has changed is replaced."""

import pickle
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import pytest

from modalign.batch.indexing import PORTION, Sealed, Site, Tally, Work, open_hit, sealed
from modalign.batch.work import Item, Outcome, perform
from modalign.data.collection import Member, find_members
from modalign.errors import ModalignError, NoIndexError, SearchError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.io import read_image, write_image
from modalign.representation import ComirModel
from modalign.retrieval import (
    Definition,
    Hit,
    Index,
    ModelMark,
    Recipe,
    Rings,
    Sift,
    Store,
    VocabularyOptions,
    make_store,
    open_store,
)
from modalign.testing.registration import textured_scene

COUNT = PORTION + 4


class Here:
    """Does tasks in this process, and as many as it is told before it is interrupted."""

    def __init__(self, most: int = 1000) -> None:
        self.most, self.done = most, 0

    def run(self, items: Sequence[Item], out: Path) -> Generator[Outcome, None, None]:
        for item in items:
            if self.done == self.most:
                raise KeyboardInterrupt
            self.done += 1
            yield perform(pickle.loads(pickle.dumps(item)), out)


def silent(_fraction: float, _text: str) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small images."""
    folder = tmp_path_factory.mktemp("pictures")
    scene = textured_scene(2).data
    for number in range(COUNT):
        start = 15 * number
        data = scene[:, start : start + 96, 10 : 10 + 96]
        write_image(folder / f"{number:02d}.tif", Image(data, Grid((96, 96))))
    return folder


def images_of(folder: Path) -> list[Sealed]:
    return sealed(find_members(folder), Tally(), silent)


def built(folder: Path, tmp_path: Path, here: Here | None = None) -> tuple[Store, Tally]:
    work = Work(Site(Recipe(Sift()), None), here or Here(), tmp_path / "work")
    place, tally = str(tmp_path / "index"), Tally()
    try:
        store = open_store([place])
    except NoIndexError:
        words = work.learn(images_of(folder), VocabularyOptions(50), silent)
        store = make_store([place], Definition(Recipe(Sift()), words))
    work.take_in(store, images_of(folder), tally, silent)
    return store, tally


def test_all_images_are_in_the_index_with_their_facts_and_each_is_described_once(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described: list[tuple[int, ...]] = []
    once = Sift.describe
    monkeypatch.setattr(
        Sift, "describe", lambda self, image: (described.append(image.grid.shape), once(self, image))[1]
    )
    store, tally = built(pictures, tmp_path)
    assert (tally.added, tally.unchanged, tally.blank, tally.failed) == (COUNT, 0, [], {})
    assert len(described) == COUNT, "the vocabulary and the index are made from the same rows"
    assert store.names() == [f"{number:02d}.tif" for number in range(COUNT)]
    (facts,) = store.facts(["03.tif"]).values()
    assert facts["file"] == str((pictures / "03.tif").resolve())
    hit = Index.of(store).query(read_image(pictures / "07.tif"), 1)[0]
    assert hit.name == "07.tif"
    np.testing.assert_array_equal(open_hit(hit, 2).data, read_image(pictures / "07.tif").data)
    store.close()


def test_what_is_there_is_left_and_what_has_changed_is_replaced(pictures: Path, tmp_path: Path) -> None:
    store, _ = built(pictures, tmp_path)
    here, tally = Here(), Tally()
    work = Work(Site(Recipe(Sift()), None), here, tmp_path / "work")
    work.take_in(store, images_of(pictures), tally, silent)
    assert (tally.added, tally.unchanged, here.done) == (0, COUNT, 0)
    other = tmp_path / "other"
    other.mkdir()
    for path in pictures.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    moved = Tally()
    work.take_in(store, images_of(other), moved, silent)
    assert (moved.added, moved.replaced, moved.unchanged) == (0, 0, COUNT), "the same content elsewhere"
    write_image(other / "03.tif", Image(textured_scene(2, 5).data[:, :96, :96], Grid((96, 96))))
    write_image(other / "new.tif", Image(textured_scene(2, 6).data[:, :96, :96], Grid((96, 96))))
    with pytest.raises(SearchError, match=r"other images of the names 03.tif: tell these apart by --prefix"):
        work.take_in(store, images_of(other), tally, silent)
    store.remove(["03.tif"])
    work.take_in(store, images_of(other), tally, silent)
    assert (tally.added, tally.replaced, len(store)) == (2, 0, COUNT + 1)
    assert Index.of(store).query(read_image(other / "03.tif"), 1)[0].name == "03.tif"
    store.close()


def test_what_was_interrupted_goes_on(pictures: Path, tmp_path: Path) -> None:
    for most in (1, 2):  # while the words are learnt; once in the index, once in the second portion
        with pytest.raises(KeyboardInterrupt):
            built(pictures, tmp_path, Here(most))
    store, tally = built(pictures, tmp_path, Here())
    assert len(store) == COUNT
    assert tally.added + tally.unchanged == COUNT
    store.close()


def test_the_same_images_give_the_same_words(pictures: Path, tmp_path: Path) -> None:
    work = Work(Site(Recipe(Sift()), None), Here(), tmp_path / "work")
    first, second = (work.learn(images_of(pictures), VocabularyOptions(50), silent) for _ in range(2))
    np.testing.assert_array_equal(first.centers, second.centers)
    np.testing.assert_array_equal(first.weights, second.weights)


def test_what_fails_is_named_and_stops_nobody(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for path in sorted(pictures.glob("*.tif"))[:5]:
        (folder / path.name).symlink_to(path)
    (folder / "broken.png").write_bytes(b"no picture")
    write_image(folder / "blank.tif", Image(np.full((1, 64, 64), 3, np.uint8), Grid((64, 64))))
    store, tally = built(folder, tmp_path)
    assert tally.added == 6
    assert tally.blank == ["blank.tif"]
    assert list(tally.failed) == ["broken.png"]
    assert "broken.png" in tally.failed["broken.png"]
    store.close()
    gone = sealed([Member("gone", tmp_path / "gone.tif")], tally, silent)
    assert gone == []
    assert "gone.tif" in tally.failed["gone"]


def test_without_anything_to_see_there_are_no_words(tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.tif", Image(np.full((1, 64, 64), 3, np.uint8), Grid((64, 64))))
    work = Work(Site(Recipe(Sift()), None), Here(), tmp_path / "work")
    with pytest.raises(SearchError, match="none of the images could be described: all of them are blank, or too small"):
        work.learn(images_of(tmp_path / "in"), VocabularyOptions(50), silent)
    (tmp_path / "in" / "a.tif").write_bytes(b"no picture")
    with pytest.raises(SearchError, match=r"none of the images could be described: a.tif: .*a.tif"):
        work.learn(images_of(tmp_path / "in"), VocabularyOptions(50), silent)


def test_a_hit_whose_file_is_gone_or_changed_is_not_opened(pictures: Path, tmp_path: Path) -> None:
    (image,) = sealed([Member("a", pictures / "00.tif")], Tally(), silent)
    with pytest.raises(SearchError, match="has changed since"):
        open_hit(Hit("a", 1.0, image.facts("") | {"digest": "another"}), 2)
    with pytest.raises(ModalignError, match=r"nowhere.tif"):
        open_hit(Hit("a", 1.0, {"file": str(tmp_path / "nowhere.tif")}), 2)
    with pytest.raises(SearchError, match="nobody told where"):
        open_hit(Hit("a", 1.0), 2)


def test_pixel_sizes_and_sides_that_were_given_are_kept(pictures: Path) -> None:
    member = Member("a", pictures / "00.tif", "moving", (0.5, 0.25), "millimeter", {"case": 7.0, "stain": "HE"})
    (image,) = sealed([member], Tally(), silent)
    facts = image.facts("moving")
    assert {key: facts[key] for key in ("side", "case", "stain")} == {"side": "moving", "case": 7.0, "stain": "HE"}
    opened = open_hit(Hit("a", 1.0, facts), 2)
    assert (opened.grid.spacing, opened.grid.unit) == ((0.5, 0.25), "millimeter")


def test_the_model_of_the_site_describes(untrained: ComirModel, pairs: list, tmp_path: Path) -> None:
    untrained.save(tmp_path / "model")
    for pair in pairs:
        write_image(tmp_path / "in" / f"{pair.name}.png", pair.fixed)
    mark = ModelMark(str(tmp_path / "model"), untrained.fingerprint(), "colour", "signal")
    recipe = Recipe(Rings(radius=8, step=4), model=mark)
    work = Work(Site(recipe, tmp_path / "model"), Here(), tmp_path / "work")
    words = work.learn(images_of(tmp_path / "in"), VocabularyOptions(20), silent)
    store, tally = make_store([str(tmp_path / "index")], Definition(recipe, words)), Tally()
    work.take_in(store, images_of(tmp_path / "in"), tally, silent)
    assert tally.added == len(pairs)
    assert {facts["side"] for facts in store.facts(store.names()).values()} == {"fixed"}
    index = Index.of(store, ComirModel.load(tmp_path / "model"))
    assert index.query(pairs[2].fixed, 1)[0].name == f"{pairs[2].name}.png"
    store.close()
