"""Training on small textures: it learns, it is reproducible, and it survives interruption."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from modalign.data.augmentation import Augmentation
from modalign.data.pairs import Pair
from modalign.data.shelf import Shelf
from modalign.errors import InvalidInputError, TrainingError
from modalign.nn import UNetOptions
from modalign.training import ComirOptions, TrainingProgress, fit_comir
from modalign.training.calibration import CalibrationOptions
from modalign.training.validation import ValidationOptions

QUICK = ComirOptions(
    steps=6,
    network=UNetOptions((4, 8)),
    patch=16,
    batch=4,
    accelerator="cpu",
    validation=ValidationOptions(times=1, draws=1, most_pairs=1),
    calibration=CalibrationOptions(displaced=2, unrelated=1, missed=1),
)


def weights(model: object) -> dict[str, torch.Tensor]:
    return {f"{side}.{k}": v for side, n in model.networks.items() for k, v in n.state_dict().items()}  # type: ignore[attr-defined]


def assert_same(a: object, b: object) -> None:
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


def test_loss_falls_well_below_chance(pairs: list[Pair]) -> None:
    losses: list[TrainingProgress] = []
    options = replace(QUICK, steps=120, batch=8, augmentation=Augmentation(gamma=0, contrast=0))
    fit_comir(pairs[:2], pairs[2:3], options, report=losses.append)
    assert np.isnan(losses[0].loss), "told before the first step"
    assert losses[1].loss > 0.8 * losses[1].chance
    assert losses[-1].loss < 0.6 * losses[-1].chance


def test_same_seed_same_model_and_another_seed_another(pairs: list[Pair]) -> None:
    one, again, other = (fit_comir(pairs[:2], [], replace(QUICK, seed=seed)).model for seed in (3, 3, 4))
    assert_same(one, again)
    with pytest.raises(AssertionError):
        assert_same(one, other)


@pytest.mark.parametrize("at", [2, 4])
def test_interrupted_training_goes_on_as_if_nothing_had_happened(pairs: list[Pair], tmp_path: Path, at: int) -> None:
    """Ctrl-C at any step leaves a state from which the same weights result; half-way validation included."""
    options = replace(QUICK, validation=ValidationOptions(times=3, draws=1, most_pairs=1))

    def interrupt(progress: TrainingProgress) -> None:
        if progress.step == at:
            raise KeyboardInterrupt

    undisturbed = fit_comir(pairs[:2], pairs[3:], options)
    with pytest.raises(KeyboardInterrupt):
        fit_comir(pairs[:2], pairs[3:], options, checkpoint=tmp_path / "state", report=interrupt)
    resumed = fit_comir(pairs[:2], pairs[3:], options, checkpoint=tmp_path / "state", resume=True)
    assert_same(undisturbed.model, resumed.model)
    assert resumed.validation == undisturbed.validation


def test_state_of_another_training_is_refused(pairs: list[Pair], tmp_path: Path) -> None:
    def interrupt(_: TrainingProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_comir(pairs[:2], [], QUICK, checkpoint=tmp_path / "state", report=interrupt)
    with pytest.raises(TrainingError, match="temperature"):
        fit_comir(pairs[:2], [], replace(QUICK, temperature=0.1), checkpoint=tmp_path / "state", resume=True)
    with pytest.raises(TrainingError, match="pairs"):
        fit_comir(pairs[:3], [], QUICK, checkpoint=tmp_path / "state", resume=True)


def test_a_single_pair_is_enough_and_the_card_says_so(pairs: list[Pair]) -> None:
    trained = fit_comir(pairs[:1], [], QUICK, modalities=("colour", "signal"), about={"licence": "MIT"})
    training = trained.model.card.training
    assert training["validated_on_training_pairs"]
    assert training["pairs"] == ["p0"]
    assert training["licence"] == "MIT"
    assert training["steps"] == 6
    assert trained.model.card.fixed.name == "colour"


def test_pairs_without_anything_in_common_teach_nothing(make_pair: Callable[..., Pair]) -> None:
    strangers = [Pair(f"s{k}", make_pair(k).fixed, make_pair(50 + k).moving) for k in range(3)]
    trained = fit_comir(strangers, [], replace(QUICK, steps=20))
    assert not trained.learnt
    assert "Nothing was learnt" in trained.message


def test_a_time_budget_ends_training(pairs: list[Pair]) -> None:
    trained = fit_comir(pairs[:1], [], replace(QUICK, steps=None, minutes=0.005))
    assert trained.model.card.training["steps"] >= 1


def test_volumes_train_with_the_same_code(make_pair: Callable[..., Pair]) -> None:
    volume = make_pair(0, (24, 26, 28))
    patch_source = fit_volume_step(volume)
    assert np.isfinite(patch_source)


def fit_volume_step(volume: Pair) -> float:
    """One training step on volumes; registration in 3D, and with it validation, is another engine's business."""
    from modalign.training import comir

    trainer = comir._Trainer([volume], [], replace(QUICK, patch=8), ("a", "b"), None, lambda _: None, Shelf())
    trainer.train_step(0.5)
    return trainer.loss


def test_images_that_are_too_small_are_named(make_pair: Callable[..., Pair]) -> None:
    with pytest.raises(TrainingError, match="'p1' is too small"):
        fit_comir([make_pair(0), make_pair(1, (12, 12))], [], QUICK)


def test_no_pairs_are_refused() -> None:
    with pytest.raises(TrainingError, match="no pair"):
        fit_comir([], [], QUICK)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"minutes": -1.0}, {"batch": 1}, {"temperature": 0.0}, {"latent_channels": 0}]
)
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError):
        replace(QUICK, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed",
    [
        {"latent_channels": 2},
        {"patch": 12},
        {"batch": 6},
        {"critic": "l1"},
        {"temperature": 2.0},
        {"standardise": False},
        {"equivariance": False},
        {"activation_decay": (1.0, 1.0)},
        {"learning_rate": 1e-4},
        {"weight_decay": 10.0},
        {"gradient_norm": 1e-3},
        {"augmentation": Augmentation(flip=False)},
        {"network": UNetOptions((4, 10))},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_option_has_an_effect(pairs: list[Pair], changed: dict[str, object]) -> None:
    options = replace(QUICK, steps=3)
    plain, other = (fit_comir(pairs[:1], [], o).model for o in (options, replace(options, **changed)))  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        assert_same(plain, other)
