"""Learning objectives: one a file, the formula visible."""

from modalign.losses.activation_decay import activation_decay
from modalign.losses.critics import CRITICS, Critic, CriticName, standardised
from modalign.losses.infonce import chance_level, info_nce, near_misses

__all__ = [
    "CRITICS",
    "Critic",
    "CriticName",
    "activation_decay",
    "chance_level",
    "info_nce",
    "near_misses",
    "standardised",
]
