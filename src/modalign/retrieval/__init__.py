"""Finding images by what they show, across modalities: local features, a vocabulary of visual words, and histograms.

Two images are alike where the words of their representations are. It knows nothing of registration.
"""

from modalign.retrieval.definition import Definition, ModelMark, Recipe
from modalign.retrieval.describers import DESCRIBERS, Describer, DescriberOptions, Rings, Sift, UprightGradients
from modalign.retrieval.folder import FolderStore
from modalign.retrieval.index import Describing, Index
from modalign.retrieval.pieces import Piece, best_piece
from modalign.retrieval.places import make_store, open_store
from modalign.retrieval.shards import Shards
from modalign.retrieval.store import Condition, Entry, Fact, Hit, Store, fact
from modalign.retrieval.vocabulary import Vocabulary, VocabularyOptions

__all__ = [
    "DESCRIBERS",
    "Condition",
    "Definition",
    "Describer",
    "DescriberOptions",
    "Describing",
    "Entry",
    "Fact",
    "FolderStore",
    "Hit",
    "Index",
    "ModelMark",
    "Piece",
    "Recipe",
    "Rings",
    "Shards",
    "Sift",
    "Store",
    "UprightGradients",
    "Vocabulary",
    "VocabularyOptions",
    "best_piece",
    "fact",
    "make_store",
    "open_store",
]
