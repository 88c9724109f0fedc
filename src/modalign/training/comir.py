"""Training a CoMIR: two networks learn to give both modalities of a place the same representation.

Source: Pielawski et al., CoMIR: Contrastive Multimodal Image Representation for Registration, NeurIPS 2020.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from modalign.data.pairs import Pair
from modalign.data.patches import largest_patch
from modalign.data.shelf import Shelf
from modalign.errors import TrainingError
from modalign.io import plain
from modalign.losses import CRITICS, activation_decay, chance_level, info_nce, near_misses, standardised
from modalign.nn.collectives import gathered
from modalign.nn.layers import MEMORY_FORMATS
from modalign.representation import ComirModel
from modalign.training.batches import BatchSource, random_shifts, turned, without_rim
from modalign.training.calibration import calibrated
from modalign.training.checkpoint import Checkpoint, copied, optimizer_state, restore_optimizer
from modalign.training.memory import MemoryPlan, memory_plan
from modalign.training.options import PATCHES, ComirOptions
from modalign.training.precision import choose_precision
from modalign.training.preparation import at_pixel_size, group_to_follow, new_card
from modalign.training.rounds import TrainingRounds, set_learning_rate
from modalign.training.step import backpropagated
from modalign.training.validation import Validation, Validator

NOTHING_LEARNT = 0.9
"""A loss above this fraction of the chance level means that the networks cannot tell partners from strangers."""


@dataclass(frozen=True)
class TrainingProgress:
    """What training tells while it runs.

    Attributes:
        step: Steps done.
        fraction: Used part of the budget, 0 to 1.
        loss: Running mean of the contrastive loss.
        chance: The loss at which nothing is learnt.
        validation: The last validation, if any.
        plan: How a step is worked through, and what it needs of memory.
        group: Name of the rotations that the representations follow.
        calibrating: Whether training is over and ``fraction`` is that of the calibration of the verdict.
    """

    step: int
    fraction: float
    loss: float
    chance: float
    validation: Validation | None
    plan: MemoryPlan
    group: str
    calibrating: bool = False


@dataclass(frozen=True)
class TrainedComir:
    """The outcome of training.

    Attributes:
        model: The best validated model.
        validation: How it did.
        learnt: Whether it learnt anything.
        message: One plain sentence about that, with advice where it did not.
        is_main: Whether this process is the one, of several that trained together, to write the model.
    """

    model: ComirModel
    validation: Validation
    learnt: bool
    message: str
    is_main: bool = True


def fit_comir(
    pairs: Sequence[Pair],
    validation_pairs: Sequence[Pair],
    options: ComirOptions,
    *,
    modalities: tuple[str, str] = ("fixed", "moving"),
    about: Mapping[str, Any] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    report: Callable[[TrainingProgress], None] = lambda _: None,
    shelf: Shelf | None = None,
) -> TrainedComir:
    """Train two networks on aligned pairs.

    Args:
        pairs: Pairs to train on; one is enough to start.
        validation_pairs: Pairs to validate on; where empty, the training pairs are used and the card says so.
        options: See :class:`ComirOptions`.
        modalities: Names of the two modalities.
        about: Facts for the card, such as the licence of the data.
        checkpoint: Folder that holds the state of an unfinished training.
        resume: Go on from that folder, if it exists.
        report: Called before the first step and after every one.
        shelf: Keeps the pixels that are made for the training; by default in memory as far as they fit.

    Raises:
        TrainingError: There is no pair, the images are too small, or the training to resume was another one.
        InvalidInputError: The images of a modality have different channels or are constant.
    """
    if not pairs:
        raise TrainingError("there is no pair to train on")
    shelf = shelf or Shelf()
    training, validation = (
        [at_pixel_size(pair, options.pixel_size, shelf) for pair in part] for part in (pairs, validation_pairs)
    )
    trainer = _Trainer(training, validation, options, modalities, checkpoint, report, shelf)
    return trainer.run(resume=resume, about=about or {})


class _Networks(nn.Module):
    """Both networks as one module, with the scaling of their inputs."""

    def __init__(self, model: ComirModel) -> None:
        super().__init__()
        self.fixed, self.moving = model.networks["fixed"], model.networks["moving"]

    def forward(self, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        return self.fixed(fixed).float(), self.moving(moving).float()


class _Trainer(TrainingRounds):
    """One training run: what is fixed at its start, and the state that changes with every step."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        validation_pairs: Sequence[Pair],
        options: ComirOptions,
        modalities: tuple[str, str],
        checkpoint: Path | None,
        report: Callable[[TrainingProgress], None],
        shelf: Shelf,
    ) -> None:
        super().__init__(options.budget, options.validation.times, options.checkpoint_seconds)
        self.options, self.folder, self.report = options, checkpoint, report
        self.fabric = _fabric(options)
        torch.manual_seed(options.seed)
        self.model = ComirModel.untrained(new_card(pairs, options, modalities))
        stride = max(int(network.stride) for network in self.model.networks.values())  # type: ignore[arg-type]
        wanted = options.patch or max(PATCHES[self.model.card.ndim], 2 * stride)
        largest = largest_patch(pairs, wanted, stride, options.augmentation.largest_scale)
        self.plan = memory_plan(self.model.card, options, largest)
        self.patch = self.plan.patch
        for network in self.model.networks.values():
            network.recomputes = self.plan.recomputes  # type: ignore[assignment]  # a plain attribute
        self.batches = BatchSource.of(pairs, self.model.card, self.patch, options.augmentation, shelf)
        self.judged_on = list(validation_pairs or pairs)
        self.validator = Validator.draw(self.judged_on, options.validation, options.seed)
        self.names = {"pairs": [p.name for p in pairs], "validation_pairs": [p.name for p in validation_pairs]}
        self.group = group_to_follow(self.model.card, options)
        networks = _Networks(self.model)
        networks.to(memory_format=MEMORY_FORMATS[self.model.card.ndim])  # type: ignore[call-overload]  # stub lacks it
        optimizer = torch.optim.AdamW(
            networks.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self.networks, self.optimizer = self.fabric.setup(networks, optimizer)
        self.best_validation: Validation | None = None

    @property
    def chance(self) -> float:
        return chance_level(self.options.batch * self.fabric.world_size, self.options.near_misses)

    def run(self, *, resume: bool, about: Mapping[str, Any]) -> TrainedComir:
        if resume and self.folder and self.folder.is_dir():
            self._restore()
        self.to_the_end()  # and saved: the calibration that follows can be interrupted, too
        return self._outcome(about)

    def tell(self, fraction: float, *, calibrating: bool = False) -> None:
        if self.fabric.is_global_zero:
            state = (self.step, fraction, self.loss, self.chance, self.best_validation)
            self.report(TrainingProgress(*state, self.plan, self.group.name, calibrating))

    def fraction(self) -> float:
        fraction = super().fraction()
        if self.fabric.world_size == 1:
            return fraction
        return float(self.fabric.broadcast(fraction))  # all devices must stop at the same step

    def train_step(self, fraction: float) -> None:
        set_learning_rate(self.optimizer, self.options.learning_rate, fraction)
        generator = np.random.default_rng([self.options.seed, self.fabric.global_rank, self.step])
        fixed, moving = self.batches.draw(self.options.batch, generator, self.fabric.device)
        turns = [self.group.draw(self.options.batch, generator) for _ in range(2)]

        shifts = random_shifts(self.options.near_misses, self.patch, fixed.ndim - 2, generator)

        def loss(*latents: Tensor) -> tuple[Tensor, Tensor]:
            whole = (turned(z, [g.inverse() for g in turn]) for z, turn in zip(latents, turns, strict=True))
            a, b = (without_rim(z, self.options.rim) for z in whole)
            contrast = self._contrast(a, b, shifts)
            decay = sum(
                weight * activation_decay(a, b, power) for power, weight in enumerate(self.options.activation_decay, 1)
            )
            return contrast, contrast + decay

        self.optimizer.zero_grad()
        inputs = turned(fixed, turns[0]), turned(moving, turns[1])
        contrast = backpropagated(self.networks, inputs, loss, self.plan.part, self.fabric.backward)
        for network in (self.networks.module.fixed, self.networks.module.moving):
            clip_grad_norm_(network.parameters(), self.options.gradient_norm)
        self.optimizer.step()
        self._count(float(contrast))

    def _count(self, loss: float) -> None:
        if not np.isfinite(loss):
            raise TrainingError("the loss is no longer a number; train with a smaller learning rate or in float32")
        self.count(loss)

    def _contrast(self, a: Tensor, b: Tensor, shifts: list[tuple[int, ...]]) -> Tensor:
        critic, everyone, offset = CRITICS[self.options.critic], None, 0
        normalise = standardised if self.options.standardise else torch.nn.Identity()
        misses = near_misses(a, b, critic, shifts, normalise) if shifts else None
        a, b = normalise(a), normalise(b)
        if self.fabric.world_size > 1:
            everyone, offset = (gathered(a), gathered(b)), len(a) * self.fabric.global_rank
        temperature = self.options.temperature
        return info_nce(a, b, critic, temperature, everyone=everyone, offset=offset, near_misses=misses)

    def validate(self) -> None:
        if not all(bool(weight.isfinite().all()) for weight in self.networks.parameters()):
            raise TrainingError("the weights are no longer numbers; train with a smaller learning rate or in float32")
        validation = self.validator.judge(self.model, str(self.fabric.device))
        self.networks.train()
        self.history.append({"step": self.step, "loss": self.loss, **asdict(validation)})
        if self.best_validation is None or validation.score >= self.best_validation.score:
            self.best_validation, self.best = validation, copied(self.networks.module)

    def _identity(self) -> dict[str, Any]:
        # what may differ between the interrupted run and the one that goes on: where and how often, not what
        options = asdict(self.options)
        for name in ("accelerator", "devices", "checkpoint_seconds"):
            options.pop(name)
        identity: dict[str, Any] = plain({**options, **self.names})
        return identity

    def save(self) -> None:
        if self.folder is None or not self.fabric.is_global_zero:
            return
        progress = {
            "step": self.step,
            "elapsed": self.elapsed,
            "loss": self.loss,
            "history": self.history,
            "best": asdict(self.best_validation) if self.best_validation else None,
        }
        state = copied(self.networks.module)
        Checkpoint(self._identity(), progress, state, self.best, optimizer_state(self.optimizer)).save(self.folder)

    def _restore(self) -> None:
        assert self.folder is not None  # the caller has looked
        checkpoint = Checkpoint.load(self.folder, self._identity())
        progress = checkpoint.progress
        self.networks.module.load_state_dict(checkpoint.networks)
        if checkpoint.optimizer:
            restore_optimizer(self.optimizer, checkpoint.optimizer)
        self.step, self.elapsed, self.loss = progress["step"], progress["elapsed"], progress["loss"]
        self.history, self.best = progress["history"], checkpoint.best
        self.best_validation = Validation(**progress["best"]) if progress["best"] else None

    def _calibrated(self, model: ComirModel) -> ComirModel:
        return calibrated(
            model, self.judged_on, self.options.calibration, lambda fraction: self.tell(fraction, calibrating=True)
        )

    def _outcome(self, about: Mapping[str, Any]) -> TrainedComir:
        assert self.best_validation is not None  # the loop validates at least once
        self.networks.module.load_state_dict(self.best)
        self.networks.eval()
        learnt, message = _judgement(self.loss, self.chance, self.best_validation)
        training = {
            **about,
            **self.names,
            "options": asdict(self.options),
            "patch": self.patch,
            "group": self.group.name,
            "plan": str(self.plan),
            "steps": self.step,
            "seconds": round(self.elapsed, 1),
            "loss": self.loss,
            "chance_level": self.chance,
            "validated_on_training_pairs": not self.names["validation_pairs"],
            "validation": asdict(self.best_validation),
            "history": self.history,
            "learnt": learnt,
        }
        card = replace(self.model.card, training=plain(training))
        model = ComirModel(card, self.model.networks)
        if learnt and self.fabric.is_global_zero:
            model = self._calibrated(model)
        return TrainedComir(model, self.best_validation, learnt, message, self.fabric.is_global_zero)


def _fabric(options: ComirOptions) -> Fabric:
    strategy = "ddp" if options.devices > 1 else "auto"
    configured = partial(Fabric, accelerator=options.accelerator, devices=options.devices, strategy=strategy)
    try:
        precision: Any = choose_precision(options.precision, configured().device.type)
        fabric = configured(precision=precision)
        fabric.launch()
    except (ValueError, RuntimeError, AttributeError) as error:  # what lightning raises for devices that are not there
        wanted = f"{options.devices} × {options.accelerator}"
        raise TrainingError(f"cannot train on {wanted} here ({error}); try --accelerator cpu --devices 1") from error
    return fabric


def _judgement(loss: float, chance: float, validation: Validation) -> tuple[bool, str]:
    found = f"{validation.success:.0%} of {validation.count} simulated displacements were registered"
    if loss > NOTHING_LEARNT * chance:
        return False, (
            f"Nothing was learnt: the loss {loss:.2f} is at its chance level {chance:.2f}. Check that the pairs are "
            "aligned pixel on pixel and share structure, or train longer."
        )
    if validation.success == 0:
        return False, (
            f"The model is of no use for registration yet: {found}. Train longer, or check that the pairs are aligned."
        )
    median = "" if validation.median_error is None else f", median error {validation.median_error:.2f} pixels"
    return True, f"The model has learnt: {found}{median}."
