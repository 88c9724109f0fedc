"""A vocabulary of visual words: which rows of numbers count as the same, and how much each of them says."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer, Shaped
from scipy import sparse

from modalign.errors import InvalidInputError
from modalign.local_features.matching import Descriptors

Array = np.ndarray
ROWS_A_WORD = 20
"""A word stands for at least so many rows that the vocabulary is learnt from, on average."""
MOST_ROWS_A_WORD = 100
"""More rows a word make a vocabulary no better; so many are drawn at random."""
BLOCK = 1 << 24
"""Distances computed at a time."""


@dataclass(frozen=True)
class VocabularyOptions:
    """How a vocabulary is learnt."""

    words: int = 20_000
    """Most words; there are fewer where there are fewer than 20 rows for each."""
    iterations: int = 20
    """Rounds of k-means."""
    seed: int = 0
    """Seed of the k-means."""

    def __post_init__(self) -> None:
        if self.words < 2 or self.iterations < 1 or self.seed < 0:
            raise InvalidInputError(
                "a vocabulary has at least 2 words, from at least one round, and a seed of 0 or more"
            )


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Visual words and their weights.

    Attributes:
        centers: ``(words, numbers)``, of unit length or shorter.
        weights: ``(words,)``: the logarithm of how many times rarer than images each word is (inverse document
            frequency), among the images that the vocabulary was learnt from. It stays as it is when a collection
            grows, so that what is stored stays comparable.
    """

    centers: Float[Array, "words numbers"]
    weights: Float[Array, " words"]

    @classmethod
    def learnt(
        cls, images: Sequence[Float[Array, "_ _"]], options: VocabularyOptions = VocabularyOptions()
    ) -> "Vocabulary":
        """k-means over the rows of all images.

        Args:
            images: The rows of each image.
            options: Size and seed.

        Raises:
            InvalidInputError: There are too few rows for a vocabulary, or the rows have different lengths.
        """
        lengths = {rows.shape[1] for rows in images if len(rows)}
        total = sum(map(len, images))
        if len(lengths) != 1 or total < 2 * ROWS_A_WORD:
            raise InvalidInputError(
                f"a vocabulary needs at least {2 * ROWS_A_WORD} described places, with rows of one length; these "
                f"images have {total} of {' and '.join(map(str, sorted(lengths))) or 'no'} numbers: they are too few "
                "or too small, or show too little"
            )
        rows = np.concatenate([image for image in images if len(image)]).astype(np.float32)
        words = min(options.words, total // ROWS_A_WORD)
        centers = _k_means(rows, words, options)
        bare = cls(centers, np.ones(words, dtype=np.float32))
        appears = np.zeros(words)
        for image in images:
            appears[np.unique(bare.words(image))] += 1
        weights = np.log((len(images) + 1) / (appears + 1)) + LEAST_WEIGHT
        return cls(centers, weights.astype(np.float32))

    def __len__(self) -> int:
        return len(self.centers)

    def words(self, rows: Descriptors) -> Integer[Array, " rows"]:
        """The number of the nearest word of each row."""
        if len(rows) and rows.shape[1] != self.centers.shape[1]:
            raise InvalidInputError(
                f"these rows have {rows.shape[1]} numbers and the words {self.centers.shape[1]}: they are of different "
                "describers or models"
            )
        lengths = (self.centers**2).sum(1) / 2
        nearest = [(lengths - block @ self.centers.T).argmin(1) for block in self._blocks(rows)]
        return np.concatenate(nearest) if nearest else np.zeros(0, dtype=int)

    def histogram(self, rows: Descriptors) -> sparse.csr_array:
        """How often each word appears, times its weight, of unit length: ``(1, words)`` float32; all 0 for no rows.

        Source: tf-idf for images, Sivic and Zisserman, ICCV 2003.
        """
        words, counts = np.unique(self.words(rows), return_counts=True)
        values = self.weighted(words, counts)
        values = (values / max(float(np.linalg.norm(values)), 1e-12)).astype(np.float32)
        return sparse.csr_array((values, words.astype(np.int32), [0, len(words)]), shape=(1, len(self)))

    def weighted(self, words: Shaped[Array, " n"], counts: Shaped[Array, " n"]) -> Float[Array, " n"]:
        """How much words that appear so often say, before histograms are brought to unit length.

        A word that appears again says less than the first time: the logarithm of one more than its count is taken.
        Source: Manning, Raghavan and Schütze, Introduction to Information Retrieval, 2008, section 6.4.1.
        """
        return np.asarray(np.log1p(counts) * self.weights[words])

    def _blocks(self, rows: Descriptors) -> Iterator[Descriptors]:
        step = max(1, BLOCK // len(self.centers))
        return (rows[start : start + step] for start in range(0, len(rows), step))


LEAST_WEIGHT = 1e-3
"""Of words that appear in every image: next to nothing, so that no histogram is empty for that alone."""


def _k_means(rows: Descriptors, words: int, options: VocabularyOptions) -> Float[Array, "words numbers"]:
    """Centres of clusters; on one thread, for sums over several come out in another order each time."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    most = MOST_ROWS_A_WORD * words
    if len(rows) > most:
        rows = rows[np.random.default_rng(options.seed).choice(len(rows), most, replace=False)]
    means = KMeans(words, init="random", n_init=1, max_iter=options.iterations, tol=0, random_state=options.seed)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer rows may differ than there are words
        return np.asarray(means.fit(rows).cluster_centers_)
