"""How long to train: steps, minutes, or whichever ends first."""

from dataclasses import dataclass
from math import cos, inf, pi

from modalign.errors import InvalidInputError


@dataclass(frozen=True)
class Budget:
    """A limit on training; with steps alone the result is the same on every machine of a kind.

    Attributes:
        steps: Number of optimiser steps, or ``None``.
        seconds: Wall time, or ``None``.
    """

    steps: int | None
    seconds: float | None

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise InvalidInputError("training needs a limit: a number of steps, or of minutes")
        if (self.steps is not None and self.steps < 1) or (self.seconds is not None and not 0 < self.seconds < inf):
            raise InvalidInputError("the number of steps or minutes to train must be a positive number")

    def fraction(self, step: int, elapsed: float) -> float:
        """How much of the budget is used after some steps and seconds, 0 to 1."""
        by_steps = step / self.steps if self.steps else 0.0
        by_time = elapsed / self.seconds if self.seconds else 0.0
        return min(1.0, max(by_steps, by_time))


def learning_rate_factor(fraction: float, warmup: float = 0.05) -> float:
    """Linear rise over the first part of the budget, then a cosine fall to zero (Loshchilov & Hutter, ICLR 2017)."""
    if fraction < warmup:
        return max(fraction / warmup, 0.02)
    return 0.5 * (1 + cos(pi * (fraction - warmup) / (1 - warmup)))
