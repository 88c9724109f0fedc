"""Finding images by what they show, across modalities: local features, a vocabulary of visual words, and histograms.

Two images are alike where the words of their representations are. It knows nothing of registration.
"""

from modalign.retrieval.definition import Definition, ModelMark, Recipe
from modalign.retrieval.describers import DESCRIBERS, Describer, Rings, Sift, UprightGradients
from modalign.retrieval.folder import FolderStore
from modalign.retrieval.places import make_store, open_store
from modalign.retrieval.shards import Shards
from modalign.retrieval.store import Condition, Entry, Fact, Hit, Store, fact
from modalign.retrieval.vocabulary import Vocabulary, VocabularyOptions

__all__ = [
    "DESCRIBERS",
    "Condition",
    "Definition",
    "Describer",
    "Entry",
    "Fact",
    "FolderStore",
    "Hit",
    "ModelMark",
    "Recipe",
    "Rings",
    "Shards",
    "Sift",
    "Store",
    "UprightGradients",
    "Vocabulary",
    "VocabularyOptions",
    "fact",
    "make_store",
    "open_store",
]
