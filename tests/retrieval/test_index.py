"""An index: a member finds itself first, a piece its image, in the plane and in space; other models are refused."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from modalign.data.pairs import Pair
from modalign.errors import InvalidInputError, ModelError, SearchError
from modalign.geometry import Grid, Rigid, identity, rotation_matrix
from modalign.image import Image
from modalign.local_features import KeyPoints
from modalign.representation import ComirModel
from modalign.retrieval import (
    Definition,
    DescriberOptions,
    Describing,
    Index,
    ModelMark,
    Recipe,
    Rings,
    Sift,
    UprightGradients,
    Vocabulary,
    VocabularyOptions,
    best_piece,
    make_store,
    open_store,
)
from modalign.testing.registration import textured_scene

SIDES = {2: 160, 3: 48}


def scenes(ndim: int, count: int = 6) -> list[Image]:
    """Images of different textures."""
    start, shape = (20,) * ndim, (SIDES[ndim],) * ndim
    return [textured_scene(ndim, seed).cropped(start, shape) for seed in range(count)]


def definition(recipe: Recipe, images: Sequence[Image], words: int = 300) -> Definition:
    describing = Describing(recipe)
    rows = [describing.described(describing.represented(image)).descriptors for image in images]
    return Definition(recipe, Vocabulary.learnt(rows, VocabularyOptions(words)))


def filled(folder: Path, recipe: Recipe, images: Sequence[Image]) -> Index:
    index = Index.of(make_store([str(folder)], definition(recipe, images)))
    for number, image in enumerate(images):
        index.add(f"scene {number}", image, facts={"number": number})
    return index


SMALL = {"sift": Sift(), "upright": UprightGradients(sizes=(32, 64)), "rings": Rings(radius=16, step=4)}


@pytest.mark.parametrize("describer", SMALL.values(), ids=list(SMALL))
def test_a_member_finds_itself_first_also_when_reopened(tmp_path: Path, describer: DescriberOptions) -> None:
    images = scenes(2)
    index = filled(tmp_path / "index", Recipe(describer), images)
    for number, image in enumerate(images):
        best, *_ = index.query(image, 3)
        assert (best.name, dict(best.facts)) == (f"scene {number}", {"number": number})
        assert best.score == pytest.approx(1, abs=1e-4)
    index.store.close()
    again = Index.of(open_store([str(tmp_path / "index")]))
    assert again.describing.recipe == Recipe(describer)
    assert again.query(images[2])[0].name == "scene 2"
    again.store.close()


def test_so_does_a_volume(tmp_path: Path) -> None:
    volumes = scenes(3, 3)
    index = filled(tmp_path / "index", Recipe(Rings(radius=8, step=6), ndim=3), volumes)
    assert [index.query(volume, 1)[0].name for volume in volumes] == ["scene 0", "scene 1", "scene 2"]
    index.store.close()


@pytest.mark.parametrize("describer", [SMALL["sift"], SMALL["rings"]], ids=["sift", "rings"])
def test_turned_pieces_find_their_images(tmp_path: Path, describer: DescriberOptions) -> None:
    images = scenes(2, 8)
    index = filled(tmp_path / "index", Recipe(describer), images)
    grid, turn, ranks = Grid((110, 110), (0.5, 0.5)), rotation_matrix(2, 130), []
    for number, image in enumerate(images):
        piece = image.resampled(grid, Rigid.about(grid.center, turn, image.grid.center - grid.center))
        ranks.append([hit.name for hit in index.query(piece, 8)].index(f"scene {number}"))
    assert np.mean(ranks) < 2, "by chance it would be 3.5"
    index.store.close()


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_piece_whose_words_are_those_of_the_query_is_found(ndim: int) -> None:
    rng = np.random.default_rng(0)
    vocabulary = Vocabulary(np.eye(12, dtype=np.float32), np.ones(12, np.float32))
    points = rng.uniform(0, 100, (4000, ndim))
    center = np.array([70.0, 30.0, 60.0])[:ndim]
    inside = np.linalg.norm(points - center, axis=1) < 18
    words = np.where(inside, rng.integers(0, 4, 4000), rng.integers(3, 12, 4000))
    places = KeyPoints(points, np.eye(12, dtype=np.float32)[words])
    query = vocabulary.histogram(places.descriptors[inside])
    found = best_piece(places, vocabulary, query, (30.0,) * ndim)
    assert found is not None
    assert np.linalg.norm(np.array(found.center) - center) < 8
    assert found.score > 0.9
    whole = vocabulary.histogram(places.descriptors)
    assert float((whole @ query.T).toarray()[0, 0]) < 0.6


def test_pieces_larger_than_the_image_are_all_of_it(tmp_path: Path) -> None:
    (image,) = scenes(2, 1)
    index = filled(tmp_path / "index", Recipe(Sift()), scenes(2, 3))
    places = index.describing.described(image)
    found = best_piece(places, index.definition.vocabulary, index.histogram(image), (1e3, 1e3))
    assert found is not None
    assert found.score == pytest.approx(1, abs=1e-4)
    index.store.close()


def test_what_shows_nothing_is_no_query_and_no_piece(tmp_path: Path) -> None:
    index = filled(tmp_path / "index", Recipe(Sift()), scenes(2, 3))
    blank = Image(np.full((1, 64, 64), 7.0), Grid((64, 64)))
    with pytest.raises(SearchError, match="shows nothing that could be described"):
        index.query(blank)
    nothing = index.describing.described(blank)
    assert best_piece(nothing, index.definition.vocabulary, index.histogram(scenes(2, 1)[0]), (8.0, 8.0)) is None
    with pytest.raises(InvalidInputError, match="the index is of 2D images; this one is 3D"):
        index.query(scenes(3, 1)[0])
    index.store.close()


def test_images_are_brought_to_the_pixel_size_of_the_index(tmp_path: Path) -> None:
    images = [image.with_grid(Grid(image.grid.shape, (0.5, 0.5), unit="micrometer")) for image in scenes(2)]
    recipe = Recipe(Sift(), pixel_size=(1.0, 1.0), unit="micrometer")
    index = filled(tmp_path / "index", recipe, images)
    assert index.describing.represented(images[0]).grid.shape == (80, 80)
    fine = images[3].resampled(Grid((300, 300), (0.26, 0.26), unit="micrometer"), identity(2))
    assert index.query(fine, 1)[0].name == "scene 3"
    index.store.close()


def test_the_model_of_the_index_is_needed_and_no_other(
    tmp_path: Path, untrained: ComirModel, pairs: list[Pair]
) -> None:
    mark = ModelMark("models/a", untrained.fingerprint(), "colour", "signal")
    recipe = Recipe(Rings(radius=8, step=4), model=mark)
    describing = Describing(recipe, untrained)
    rows = [
        describing.described(describing.represented(image)).descriptors for p in pairs for image in (p.fixed, p.moving)
    ]
    store = make_store([str(tmp_path / "index")], Definition(recipe, Vocabulary.learnt(rows)))
    index = Index.of(store, untrained)
    for pair in pairs:
        index.add(f"{pair.name} colour", pair.fixed)
        index.add(f"{pair.name} signal", pair.moving, "moving")
    assert index.query(pairs[1].moving, 1)[0].name == "p1 signal"
    assert describing.side(pairs[0].fixed) == "fixed"
    gray = Image(pairs[0].fixed.data[:2], pairs[0].fixed.grid)
    for image, side, says in (
        (gray, "", "fixed and the moving images of the model have 3 and 1 channels; this one has 2"),
        (pairs[0].fixed, "moving", "the moving images of the model have 1 channels; this one has 3"),
    ):
        with pytest.raises(ModelError, match=says):
            index.query(image, side=side)
    other = ComirModel.untrained(untrained.card)
    for wrong in (None, other):
        with pytest.raises(SearchError, match="made with another model, of colour and signal, that lay in models/a"):
            Index.of(store, wrong)
    store.close()
    plain = make_store([str(tmp_path / "plain")], definition(Recipe(Sift()), scenes(2, 2)))
    with pytest.raises(SearchError, match="made without a model"):
        Index.of(plain, untrained)
    plain.close()


def test_sides_of_equally_many_channels_must_be_said(untrained: ComirModel) -> None:
    class Alike(ComirModel):
        def channels(self) -> tuple[int, int]:
            return (3, 3)

    model = Alike(untrained.card, untrained.networks)
    describing = Describing(Recipe(Sift(), model=ModelMark("", model.fingerprint(), "a", "b")), model)
    image = Image(np.zeros((3, 32, 32)), Grid((32, 32)))
    with pytest.raises(ModelError, match=r"both modalities .* images of 3 channels: say which with --side"):
        describing.side(image)
    assert describing.side(image, "moving") == "moving"


def test_a_fingerprint_is_that_of_weights_and_card_but_not_of_calibration(untrained: ComirModel) -> None:
    from dataclasses import replace

    same = ComirModel(replace(untrained.card, calibration={"verdict": None}, training={"steps": 3}), untrained.networks)
    assert same.fingerprint() == untrained.fingerprint()
    scaled = ComirModel(replace(untrained.card, pixel_size=(2.0, 2.0)), untrained.networks)
    assert scaled.fingerprint() != untrained.fingerprint()
