"""Short dense rows for histograms, whose inner products come near to those of the histograms: what HNSW can search.

Every word has one of the columns and a sign, by a hash of its number; each column is the sum of its words. Histograms
with inner product p have one of p ± 1/16 here, so the nearest by these rows are only candidates.

Source: the count sketch of Charikar, Chen & Farach-Colton, ICALP 2002; inner products: Weinberger et al., ICML 2009.
"""

import numpy as np
from jaxtyping import Float16, Int, Integer, UInt64
from scipy import sparse

Array = np.ndarray
COLUMNS = 256


def projected(histograms: sparse.csr_array) -> Float16[Array, "n 256"]:
    """A row of unit length for each histogram; all 0 for a histogram that is."""
    parts = histograms.tocoo()
    columns, signs = _column_and_sign(parts.col)
    dense = np.zeros((histograms.shape[0], COLUMNS), dtype=np.float32)
    np.add.at(dense, (parts.row, columns), signs * parts.data)
    length = np.linalg.norm(dense, axis=1, keepdims=True)
    return (dense / np.where(length > 0, length, 1)).astype(np.float16)


def _column_and_sign(words: Integer[Array, " n"]) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
    """Of each word; rows that are kept depend on it, so it may never change."""
    mixed = _mixed(words.astype(np.uint64))
    return (mixed % COLUMNS).astype(np.int64), 1 - 2 * (mixed >> np.uint64(63)).astype(np.int64)


def _mixed(numbers: UInt64[Array, " n"]) -> UInt64[Array, " n"]:
    """SplitMix64: Steele, Lea & Flood, OOPSLA 2014."""
    mixed = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
