"""Finding images by what they show, across modalities: local features, a vocabulary of visual words, and histograms.

Two images are alike where the words of their representations are. It knows nothing of registration.
"""

from modalign.retrieval.describers import DESCRIBERS, Describer, Rings, Sift, UprightGradients
from modalign.retrieval.folder import FolderStore
from modalign.retrieval.store import Condition, Entry, Hit, Store
from modalign.retrieval.vocabulary import Vocabulary, VocabularyOptions

__all__ = [
    "DESCRIBERS",
    "Condition",
    "Describer",
    "Entry",
    "FolderStore",
    "Hit",
    "Rings",
    "Sift",
    "Store",
    "UprightGradients",
    "Vocabulary",
    "VocabularyOptions",
]
