"""Words are the nearest centres, and histograms weigh them by how rare they are."""

import numpy as np
import pytest
from scipy import sparse

from modalign.errors import InvalidInputError
from modalign.retrieval import Vocabulary, VocabularyOptions
from modalign.retrieval.vocabulary import LEAST_WEIGHT, ROWS_A_WORD

SIX = np.eye(6, dtype=np.float32)


def rows_of(words: list[int], noise: float = 0.02, seed: int = 0) -> np.ndarray:
    """Rows near to corners of a simplex."""
    rng = np.random.default_rng(seed)
    return (SIX[words] + noise * rng.standard_normal((len(words), 6))).astype(np.float32)


def six_words() -> Vocabulary:
    return Vocabulary(SIX, np.array([1, 2, 1, 1, 1, 1], dtype=np.float32))


def test_k_means_finds_the_clusters_that_there_are() -> None:
    images = [rows_of(list(range(6)) * 20, seed=seed) for seed in range(5)]
    found = Vocabulary.learnt(images, VocabularyOptions(words=30))
    assert len(found) == 30
    distance = np.linalg.norm(found.centers[:, None] - SIX, axis=-1)
    assert set(distance.argmin(1)) == set(range(6)), "every cluster has words"
    assert distance.min(1).max() < 0.08


def test_the_same_rows_and_seed_give_the_same_words() -> None:
    images = [np.random.default_rng(seed).random((300, 8), dtype=np.float32) for seed in range(4)]
    one, other = (Vocabulary.learnt(images, VocabularyOptions(words=30)) for _ in range(2))
    np.testing.assert_array_equal(one.centers, other.centers)
    np.testing.assert_array_equal(one.weights, other.weights)


def test_there_are_no_more_words_than_rows_can_tell_apart() -> None:
    images = [np.random.default_rng(seed).random((200, 8), dtype=np.float32) for seed in range(4)]
    assert len(Vocabulary.learnt(images)) == 800 // ROWS_A_WORD


def test_every_row_belongs_to_the_nearest_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vocabulary = Vocabulary(rng.random((40, 8), dtype=np.float32), np.ones(40, dtype=np.float32))
    rows = rng.random((500, 8), dtype=np.float32)
    nearest = np.linalg.norm(rows[:, None] - vocabulary.centers, axis=-1).argmin(1)
    np.testing.assert_array_equal(vocabulary.words(rows), nearest)
    monkeypatch.setattr("modalign.retrieval.vocabulary.BLOCK", 100)
    np.testing.assert_array_equal(vocabulary.words(rows), nearest)


def test_histograms_count_words_times_their_weights_and_have_unit_length() -> None:
    histogram = six_words().histogram(rows_of([0, 0, 0, 1, 4]))
    assert isinstance(histogram, sparse.csr_array)
    wanted = np.log1p([3, 1, 0, 0, 1, 0]) * [1, 2, 1, 1, 1, 1]
    wanted /= np.linalg.norm(wanted)
    np.testing.assert_allclose(histogram.toarray()[0], wanted, rtol=1e-5)
    assert six_words().histogram(SIX[:0]).nnz == 0


def test_words_of_every_image_weigh_next_to_nothing_and_rare_ones_most() -> None:
    images = [rows_of([0] * 30 + ([1] * 20 if number == 0 else [2] * 20), seed=number) for number in range(8)]
    found = Vocabulary.learnt(images, VocabularyOptions(words=3))
    weight = dict(zip(found.words(SIX[:3]).tolist(), (0, 1, 2), strict=True))
    everywhere, rare, common = (found.weights[word] for word in sorted(weight, key=lambda word: weight[word]))
    assert everywhere == pytest.approx(LEAST_WEIGHT)
    assert rare > common > everywhere


@pytest.mark.parametrize(
    "images", [[], [SIX[:0]], [rows_of([0, 1, 2])], [rows_of([0] * 60), np.zeros((60, 4), dtype=np.float32)]]
)
def test_too_few_or_unequal_rows_are_refused(images: list[np.ndarray]) -> None:
    with pytest.raises(InvalidInputError, match="rows of one length"):
        Vocabulary.learnt(images)


def test_rows_of_another_describer_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="different describers"):
        six_words().words(np.zeros((3, 4), dtype=np.float32))


@pytest.mark.parametrize("options", [{"words": 1}, {"iterations": 0}, {"seed": -1}])
def test_options_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError):
        VocabularyOptions(**options)


def test_rows_that_are_all_alike_make_a_vocabulary_all_the_same() -> None:
    rows = np.tile(np.eye(3, dtype=np.float32), (50, 1))
    found = Vocabulary.learnt([rows], VocabularyOptions(words=6))
    assert len({tuple(word) for word in found.centers[found.words(rows)].tolist()}) == 3
