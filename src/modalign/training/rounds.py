"""What every training does between its first and its last step: validate, save its state, stop where it is whole."""

from abc import ABC, abstractmethod
from time import monotonic

import torch

from modalign.training.budget import Budget, learning_rate_factor
from modalign.training.checkpoint import State

MOMENTUM = 0.02
"""Of the running mean of the loss."""


class TrainingRounds(ABC):
    """Steps until a budget is used up; what a step is, and what is validated, saved and told, is the trainer's.

    Attributes:
        step: Steps done.
        elapsed: Seconds, over all runs of an interrupted training.
        loss: Running mean.
        best: Weights of the best validation; empty before the first.
    """

    def __init__(self, budget: Budget, validations: int, checkpoint_seconds: float) -> None:
        """Set the clock to the start.

        Args:
            budget: The limit on training.
            validations: How often the network is judged.
            checkpoint_seconds: How often the state is saved.
        """
        self.budget, self.validations, self.checkpoint_seconds = budget, validations, checkpoint_seconds
        self.step, self.elapsed, self.loss = 0, 0.0, float("nan")
        self.history: list[dict[str, float]] = []
        self.best: State = {}
        self.between_steps = True

    def to_the_end(self) -> None:
        """Train until the budget is used; where that is interrupted between two steps, the state is saved first."""
        try:
            self._rounds()
            self.save()
        except KeyboardInterrupt:
            if self.between_steps:  # else half of a step is in the weights: the last saved state is the one to keep
                self.save()
            raise

    def _rounds(self) -> None:
        started, saved = monotonic() - self.elapsed, monotonic()
        fraction = self.fraction()
        self.tell(fraction)
        while fraction < 1:
            self.between_steps = False
            self.train_step(fraction)
            self.elapsed = monotonic() - started
            before, fraction = fraction, self.fraction()
            if int(fraction * self.validations) > int(before * self.validations):
                self.validate()
            self.elapsed, self.between_steps = monotonic() - started, True
            if monotonic() - saved > self.checkpoint_seconds:
                self.save()
                saved = monotonic()
            self.tell(fraction)
        if not self.best:
            self.validate()

    def fraction(self) -> float:
        """How much of the budget is used."""
        return self.budget.fraction(self.step, self.elapsed)

    def count(self, loss: float) -> None:
        """Count a step and its loss."""
        self.step += 1
        forget = max(MOMENTUM, 1 / self.step)
        self.loss = loss if self.step == 1 else (1 - forget) * self.loss + forget * loss

    @abstractmethod
    def train_step(self, fraction: float) -> None:
        """Change the weights once."""

    @abstractmethod
    def validate(self) -> None:
        """Judge the network, and remember it if it is the best so far."""

    @abstractmethod
    def save(self) -> None:
        """Save the state, where there is a folder for it."""

    @abstractmethod
    def tell(self, fraction: float) -> None:
        """Report how far the training is; may raise ``KeyboardInterrupt``."""


def set_learning_rate(optimizer: torch.optim.Optimizer, largest: float, fraction: float) -> None:
    """The learning rate at some part of the budget: up to the largest, then down to zero."""
    for group in optimizer.param_groups:
        group["lr"] = largest * learning_rate_factor(fraction)
