"""Learning objectives: one a file, the formula visible."""

from modalign.losses.activation_decay import activation_decay
from modalign.losses.critics import CRITICS, Critic, CriticName, standardised
from modalign.losses.deepsim import DeepSim, own_channels
from modalign.losses.infonce import chance_level, info_nce, near_misses
from modalign.losses.local_ncc import LocalNcc
from modalign.losses.mean_squares import MeanSquares
from modalign.losses.mind import MindSsc
from modalign.losses.normalized_mi import NormalizedMI
from modalign.losses.similarity import Similarity, unlikeness

__all__ = [
    "CRITICS",
    "Critic",
    "CriticName",
    "DeepSim",
    "LocalNcc",
    "MeanSquares",
    "MindSsc",
    "NormalizedMI",
    "Similarity",
    "activation_decay",
    "chance_level",
    "info_nce",
    "near_misses",
    "own_channels",
    "standardised",
    "unlikeness",
]
