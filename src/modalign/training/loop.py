"""The loop that trains one network on one task: budget, learning rate, validation, checkpoints, interruption."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from modalign.errors import InvalidInputError, TrainingError
from modalign.io import plain
from modalign.training.budget import Budget
from modalign.training.checkpoint import Checkpoint, copied, optimizer_state, restore_optimizer
from modalign.training.rounds import TrainingRounds, set_learning_rate

GRADIENT_NORM = 1.0
"""Gradients are clipped to this norm."""
WHERE = ("accelerator", "checkpoint_seconds")
"""Options that may differ when an interrupted training goes on: where and how often, not what."""


@dataclass(frozen=True)
class FitOptions:
    """How long, how fast and where a network is trained."""

    steps: int | None = None
    """Number of training steps; the result is then the same on every machine of a kind."""
    minutes: float | None = None
    """Wall time to train; 4 where no number of steps is given. Where both are, whichever ends first counts."""
    seed: int = 0
    """Seed of every random draw."""
    learning_rate: float = 2e-3
    """Largest learning rate, reached after 5 % of the training; it then falls to zero along a cosine."""
    validations: int = 8
    """How often the network is judged; the best one is kept."""
    accelerator: str = "auto"
    """Where to compute: auto, cpu, cuda or mps."""
    checkpoint_seconds: float = 60.0
    """How often an unfinished training is saved, where a folder for it is given."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "checkpoint_seconds"):
            if not 0 < getattr(self, name) < inf:
                raise InvalidInputError(f"{name} must be more than 0 and finite, not {getattr(self, name):g}")
        if self.validations < 1:
            raise InvalidInputError(f"the network must be judged at least once, not {self.validations} times")
        if not 0 <= self.seed < 2**63:
            raise InvalidInputError(f"the seed must be a whole number from 0 to 2⁶³ − 1, not {self.seed}")
        _ = self.budget

    @property
    def budget(self) -> Budget:
        """The limit on training."""
        minutes = 4.0 if self.minutes is None and self.steps is None else self.minutes
        return Budget(self.steps, None if minutes is None else 60 * minutes)


@runtime_checkable
class Task(Protocol):
    """What is learnt: the loop knows nothing else about it."""

    @property
    def network(self) -> nn.Module:
        """Whose weights change."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What must be the same for an interrupted training to go on, besides the options: the data."""
        ...

    def loss(self, generator: np.random.Generator, device: torch.device) -> Tensor:
        """The loss of one step."""
        ...

    def score(self, device: torch.device) -> float:
        """How good the network is on what it was not trained on; higher is better."""
        ...


@dataclass(frozen=True)
class FitProgress:
    """What training tells while it runs.

    Attributes:
        step: Steps done.
        fraction: Used part of the budget, 0 to 1.
        loss: Running mean.
        score: Of the last validation, if any.
    """

    step: int
    fraction: float
    loss: float
    score: float | None


@dataclass(frozen=True)
class Fitted:
    """How a training went; the network holds the weights of the best validation.

    Attributes:
        steps: Steps done.
        seconds: Wall time.
        loss: Running mean at the end.
        score: Of the best validation.
        history: Of every validation: step, seconds, loss and score.
    """

    steps: int
    seconds: float
    loss: float
    score: float
    history: tuple[Mapping[str, float], ...]


def fit(
    task: Task,
    options: FitOptions,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    report: Callable[[FitProgress], None] = lambda _: None,
) -> Fitted:
    """Train the network of a task; a training that was interrupted goes on where it was saved.

    Args:
        task: What to learn.
        options: How long, how fast and where.
        checkpoint: Folder that holds the state of an unfinished training.
        resume: Go on from that folder, if it exists.
        report: Called before the first step and after every one; may raise ``KeyboardInterrupt``.

    Raises:
        TrainingError: The device does not exist, the loss is no longer a number, or the training to resume was another.
    """
    loop = _Loop(task, options, checkpoint, report)
    if resume and checkpoint and checkpoint.is_dir():
        loop.restore(checkpoint)
    loop.to_the_end()
    return loop.finished()


class _Loop(TrainingRounds):
    """The state that changes with every step."""

    def __init__(
        self, task: Task, options: FitOptions, folder: Path | None, report: Callable[[FitProgress], None]
    ) -> None:
        super().__init__(options.budget, options.validations, options.checkpoint_seconds)
        self.task, self.options, self.folder, self.report = task, options, folder, report
        self.device = _device(options.accelerator)
        self.network = task.network.to(self.device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=options.learning_rate)

    def finished(self) -> Fitted:
        self.network.load_state_dict(self.best)
        self.network.eval()
        best = max(entry["score"] for entry in self.history)
        return Fitted(self.step, self.elapsed, self.loss, best, tuple(self.history))

    def tell(self, fraction: float) -> None:
        score = self.history[-1]["score"] if self.history else None
        self.report(FitProgress(self.step, fraction, self.loss, score))

    def train_step(self, fraction: float) -> None:
        set_learning_rate(self.optimizer, self.options.learning_rate, fraction)
        generator = np.random.default_rng([self.options.seed, self.step])
        self.network.train()
        loss = self.task.loss(generator, self.device)
        told = float(loss.detach())
        if not isfinite(told):
            raise TrainingError("the loss is no longer a number; train with a smaller learning rate")
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
        self.optimizer.step()
        self.count(told)

    def validate(self) -> None:
        self.network.eval()
        with torch.no_grad():
            score = float(self.task.score(self.device))
        best = max((entry["score"] for entry in self.history), default=-inf)
        if not self.best or score >= best:
            self.best = copied(self.network)
        entry = {"step": self.step, "seconds": round(self.elapsed, 2), "loss": self.loss, "score": score}
        self.history.append(entry)

    def _identity(self) -> dict[str, Any]:
        options = {key: value for key, value in asdict(self.options).items() if key not in WHERE}
        identity: dict[str, Any] = plain({**options, **self.task.identity})
        return identity

    def save(self) -> None:
        if self.folder is None:
            return
        progress = {"step": self.step, "elapsed": self.elapsed, "loss": self.loss, "history": self.history}
        state = copied(self.network)
        Checkpoint(self._identity(), progress, state, self.best, optimizer_state(self.optimizer)).save(self.folder)

    def restore(self, folder: Path) -> None:
        checkpoint = Checkpoint.load(folder, self._identity())
        self.network.load_state_dict(checkpoint.networks)
        if checkpoint.optimizer:
            restore_optimizer(self.optimizer, checkpoint.optimizer)
        progress = checkpoint.progress
        self.step, self.elapsed, self.loss = progress["step"], progress["elapsed"], progress["loss"]
        self.history, self.best = list(progress["history"]), checkpoint.best


def _device(accelerator: str) -> torch.device:
    """Where to compute.

    Raises:
        TrainingError: There is no such device here.
    """
    if accelerator == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(accelerator)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # what torch raises for unknown and for absent devices
        raise TrainingError(f"cannot train on {accelerator!r} here; try --accelerator cpu") from error
    return device
