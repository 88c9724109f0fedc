"""Where in an image a query lies, as far as words tell: the image is cut into pieces of its size, and each compared."""

from dataclasses import dataclass
from math import gamma, pi, prod

import numpy as np
from jaxtyping import Float
from scipy import sparse

from modalign.local_features import KeyPoints
from modalign.retrieval.vocabulary import Vocabulary

Array = np.ndarray
STEP = 0.25
"""Distance of the middles of pieces, as a fraction of the side of the query."""
MOST_PIECES = 4096
"""Of larger images the pieces lie further apart."""


@dataclass(frozen=True)
class Piece:
    """The piece of an image that is most like a query.

    Attributes:
        center: Its middle in world units.
        score: Cosine similarity of the histograms, 0 to 1.
    """

    center: tuple[float, ...]
    score: float


def best_piece(
    places: KeyPoints, vocabulary: Vocabulary, query: sparse.csr_array, extent: tuple[float, ...]
) -> Piece | None:
    """The best of overlapping pieces; ``None`` where the image shows nothing.

    A piece is a disc, in volumes a ball, as large as the query: nobody knows how that is turned.

    Args:
        places: Described places of the image.
        vocabulary: Counts them.
        query: Histogram of the query, of unit length.
        extent: Sides of the query in world units.
    """
    if not len(places):
        return None
    centers = _centers(places.points, min(extent))
    ball = pi ** (len(extent) / 2) / gamma(len(extent) / 2 + 1)
    radius = (prod(extent) / ball) ** (1 / len(extent))
    members = [
        np.flatnonzero(((places.points - center) ** 2).sum(1) <= radius**2).astype(np.int32) for center in centers
    ]
    starts = np.concatenate([[0], np.cumsum([len(some) for some in members])]).astype(np.int32)
    every = np.concatenate(members)
    words = vocabulary.words(places.descriptors)[every]
    shape = len(centers), len(vocabulary)
    histograms = sparse.csr_array((np.ones(len(words), np.float32), words.astype(np.int32), starts), shape=shape)
    histograms.sum_duplicates()
    histograms.data = vocabulary.weighted(histograms.indices, histograms.data)
    lengths = np.sqrt(np.asarray(histograms.multiply(histograms).sum(axis=1)).ravel())
    scores = (histograms @ query.T).toarray().ravel() / np.maximum(lengths, 1e-12)
    best = int(scores.argmax())
    return Piece(tuple(centers[best].tolist()), float(scores[best]))


def _centers(points: Float[Array, "places ndim"], side: float) -> Float[Array, "pieces ndim"]:
    """Middles of pieces all over the places, so that none reaches far beyond them."""
    low, high = points.min(0), points.max(0)
    middle = (low + high) / 2
    low, high = np.minimum(low + side / 2, middle), np.maximum(high - side / 2, middle)
    step = max(STEP * side, float((prod(high - low + STEP * side) / MOST_PIECES) ** (1 / len(low))))
    axes = [
        np.linspace(a, b, max(1, round((b - a) / step) + 1)) if b > a else [a] for a, b in zip(low, high, strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(low))
