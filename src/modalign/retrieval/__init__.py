"""Finding images by what they show, across modalities: local features, a vocabulary of visual words, and histograms.

Two images are alike where the words of their representations are. It knows nothing of registration.
"""

from modalign.retrieval.describers import DESCRIBERS, Describer, Rings, Sift, UprightGradients
from modalign.retrieval.vocabulary import Vocabulary, VocabularyOptions

__all__ = ["DESCRIBERS", "Describer", "Rings", "Sift", "UprightGradients", "Vocabulary", "VocabularyOptions"]
