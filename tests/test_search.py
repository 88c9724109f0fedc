"""A search to the end finds the image and the place, says what it could not do, and trusts nothing wrong."""

from pathlib import Path

import numpy as np
import pytest

from modalign.errors import InvalidInputError, UnreadableFileError
from modalign.geometry import Grid, Rigid, as_rows, corner_error, rotation_matrix
from modalign.image import Image
from modalign.registration import DenseDescriptors, Features, Registration
from modalign.retrieval import (
    Definition,
    Describing,
    Hit,
    Index,
    Recipe,
    Sift,
    Vocabulary,
    VocabularyOptions,
    make_store,
)
from modalign.search import Found, Query, SearchOptions, around, extent_in, search
from modalign.testing.registration import textured_scene

IMAGES = {f"scene {seed}": textured_scene(2, seed).cropped((20, 20), (180, 180)) for seed in range(5)}
GRID = Grid((110, 110), (0.5, 0.5))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    describing = Describing(Recipe(Sift()))
    rows = [describing.described(describing.represented(image)).descriptors for image in IMAGES.values()]
    definition = Definition(Recipe(Sift()), Vocabulary.learnt(rows, VocabularyOptions(300)))
    index = Index.of(make_store([str(tmp_path_factory.mktemp("index") / "index")], definition))
    for name, image in IMAGES.items():
        index.add(name, image, facts={"number": float(name.split()[1])})
    return index


def opened(hit: Hit) -> Image:
    return IMAGES[hit.name]


def piece(name: str, degrees: float = 70.0, grid: Grid = GRID) -> tuple[Image, Rigid]:
    turn = rotation_matrix(2, degrees)
    truth = Rigid(as_rows(turn), tuple((IMAGES[name].grid.center + 3 - turn @ grid.center).tolist()))
    return IMAGES[name].resampled(grid, truth), truth


def test_the_image_and_the_place_are_found(index: Index) -> None:
    image, truth = piece("scene 3")
    told: list[tuple[float, str]] = []
    found = search(index, Query.of(index, image), opened, advance=lambda share, text: told.append((share, text)))
    assert found[0].hit.name == "scene 3"
    assert found[0].is_trusted
    assert found[0].registration is not None
    assert found[0].registration.status == "accepted"
    assert found[0].registration.fixed_to_moving is not None
    assert corner_error(GRID, found[0].registration.fixed_to_moving, truth) < 0.02 * 55
    outline = found[0].outline(GRID)
    assert outline is not None
    np.testing.assert_allclose(outline, truth.map_points(GRID.corners), atol=0.02 * 55)
    assert not any(one.is_trusted for one in found[1:]), "no other image shows the same"
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_without_verification_the_order_is_that_of_words_or_pieces(index: Index) -> None:
    query = Query.of(index, piece("scene 1")[0])
    words = search(index, query, opened, SearchOptions(3, 0, 0))
    assert [(one.piece, one.registration) for one in words] == [(None, None)] * 3
    assert [one.hit for one in words] == index.ask(query.histogram, 3)
    pieces = search(index, query, opened, SearchOptions(5, 4, 0))
    scores = [one.piece.score for one in pieces[:4] if one.piece]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
    assert pieces[4].piece is None, "what was not looked at again comes last"


def test_a_thorough_method_comes_only_where_the_quick_one_is_not_trusted(index: Index) -> None:
    class Lost(Features):
        def register(self, fixed: Image, moving: Image) -> Registration:
            return Registration("lost", "refused", None, ("it finds nothing",))

    class Counted(DenseDescriptors):
        def register(self, fixed: Image, moving: Image) -> Registration:
            calls.append(moving)
            return super().register(fixed, moving)

    query, calls = Query.of(index, piece("scene 2")[0]), list[Image]()
    options = SearchOptions(3, 3, 2)
    found = search(index, query, opened, options, methods=(Lost(), Counted()))
    assert len(calls) == 2
    assert found[0].hit.name == "scene 2"
    assert found[0].is_trusted
    calls.clear()
    found = search(index, query, opened, options, methods=(DenseDescriptors(), Counted()))
    assert found[0].is_trusted
    assert not calls


def test_conditions_hold_to_the_end(index: Index) -> None:
    from modalign.retrieval import Condition

    found = search(index, Query.of(index, piece("scene 3")[0]), opened, where=[Condition.parsed("number!=3")])
    assert found
    assert all(one.hit.name != "scene 3" for one in found)
    assert not any(one.is_trusted for one in found)
    assert [one.confidence for one in found] == sorted((one.confidence for one in found), reverse=True)


def test_a_hit_that_cannot_be_opened_says_why_and_stops_nobody(index: Index) -> None:
    def broken(hit: Hit) -> Image:
        if hit.name == "scene 0":
            raise UnreadableFileError(Path("scene 0.png"), "is gone")
        return opened(hit)

    found = search(index, Query.of(index, piece("scene 4")[0]), broken, SearchOptions(5, 5, 5))
    assert found[0].hit.name == "scene 4"
    (lost,) = [one for one in found if one.hit.name == "scene 0"]
    assert lost.note == "not looked at again: scene 0.png: is gone"
    assert not lost.is_trusted


def test_an_image_that_is_gone_before_it_is_verified_says_so(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def once(hit: Hit) -> Image:
        if hit.name in seen:
            raise UnreadableFileError(Path(f"{hit.name}.png"), "is gone")
        seen.append(hit.name)
        return opened(hit)

    monkeypatch.setattr("modalign.search.MOST_KEPT", 0)
    found = search(index, Query.of(index, piece("scene 4")[0]), once, SearchOptions(2, 2, 2))
    assert all(one.note.startswith("not verified: ") and one.registration is None for one in found)


def test_a_query_larger_than_the_images_is_told(index: Index) -> None:
    large = textured_scene(2, 3)
    found = search(index, Query.of(index, large), opened, SearchOptions(2, 2, 2))
    assert all(one.note == "the query is larger than this image" for one in found)


def test_options_that_make_no_sense_are_refused() -> None:
    for make in (lambda: SearchOptions(0), lambda: SearchOptions(5, -1), lambda: SearchOptions(5, 3, 4)):
        with pytest.raises(InvalidInputError):
            make()


def test_a_part_about_a_place_lies_inside_and_where_it_was() -> None:
    image = IMAGES["scene 0"]
    corner = tuple(image.grid.index_to_world(np.array([2.0, 90.0])).tolist())
    part = around(image, corner, 30.0)
    assert part.grid.shape == (60, 60)
    np.testing.assert_allclose(
        image.grid.world_to_index(part.grid.index_to_world(np.array([0.0, 30.0]))), [0, 90], atol=1
    )
    np.testing.assert_array_equal(part.data, image.data[:, :60, 60:120])
    assert around(image, corner, 1e4) is image


@pytest.mark.parametrize(
    ("own", "other", "extent"),
    [
        (Grid((10, 20), (2.0, 1.0), unit="micrometer"), Grid((5, 5), unit="millimeter"), (0.02, 0.02)),
        (Grid((10, 20), (2.0, 1.0)), Grid((5, 5)), (20, 20)),
        (Grid((10, 20)), Grid((5, 5), (0.5, 0.25), unit="micrometer"), (5, 5)),
    ],
)
def test_sides_are_told_in_the_unit_of_the_other_image(own: Grid, other: Grid, extent: tuple[float, ...]) -> None:
    np.testing.assert_allclose(extent_in(own, other), extent)


def test_what_was_not_verified_has_no_confidence() -> None:
    found = Found(Hit("a", 0.5))
    assert (found.confidence, found.is_trusted, found.outline(GRID)) == (0.0, False, None)
