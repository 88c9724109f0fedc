from math import exp, log

import pytest
import torch
from torch import Tensor

from modalign.losses import CRITICS, activation_decay, chance_level, info_nce, near_misses


def literal_info_nce(a: Tensor, b: Tensor, temperature: float) -> float:
    """The double loop of the released code, with the negative MSE written out."""
    latents = [*a, *b]
    count = len(a)
    total = 0.0
    for i, anchor in enumerate(latents):
        partner = (i + count) % (2 * count)
        similarity = [-float(((anchor - other) ** 2).mean()) / temperature for other in latents]
        others = sum(exp(s) for k, s in enumerate(similarity) if k != i)
        total += -similarity[partner] + log(others)
    return total / (2 * count)


@pytest.mark.parametrize("shape", [(5, 2, 4, 3), (3, 1, 2, 3, 4)], ids=["2d", "3d"])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_loss_equals_the_double_loop(shape: tuple[int, ...], temperature: float) -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    loss = info_nce(a, b, CRITICS["mse"], temperature)
    assert float(loss) == pytest.approx(literal_info_nce(a, b, temperature), rel=1e-5)


def test_loss_is_symmetric_in_the_modalities() -> None:
    generator = torch.Generator().manual_seed(2)
    a, b = (torch.randn(4, 1, 3, 3, generator=generator) for _ in range(2))
    one, other = info_nce(a, b, CRITICS["mse"], 0.5), info_nce(b, a, CRITICS["mse"], 0.5)
    assert float(one) == pytest.approx(float(other), rel=1e-6)


@pytest.mark.parametrize("count", [2, 8, 32])
def test_equal_latents_score_the_chance_level(count: int) -> None:
    same = torch.ones(count, 1, 4, 4)
    assert float(info_nce(same, same, CRITICS["mse"], 0.5)) == pytest.approx(chance_level(count), abs=1e-6)
    assert chance_level(32) == pytest.approx(4.143, abs=1e-3)


def test_perfect_latents_score_near_zero() -> None:
    a = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(3)) * 10
    assert float(info_nce(a, a.clone(), CRITICS["mse"], 0.1)) < 1e-3


def test_parts_of_a_batch_with_everyone_as_negatives_make_the_whole() -> None:
    generator = torch.Generator().manual_seed(4)
    a, b = (torch.randn(6, 2, 3, 3, generator=generator) for _ in range(2))
    whole = info_nce(a, b, CRITICS["mse"], 0.5)
    parts = [
        info_nce(a[rows], b[rows], CRITICS["mse"], 0.5, everyone=(a, b), offset=rows.start)
        for rows in (slice(0, 3), slice(3, 6))
    ]
    assert float(sum(parts) / 2) == pytest.approx(float(whole), rel=1e-6)


@pytest.mark.parametrize("power", [1, 2])
def test_activation_decay_is_the_mean_power(power: int) -> None:
    a, b = torch.full((2, 1, 3, 3), -2.0), torch.full((2, 1, 3, 3), 4.0)
    assert float(activation_decay(a, b, power)) == pytest.approx((2.0**power + 4.0**power) / 2)


@pytest.mark.parametrize("ndim", [2, 3])
def test_near_misses_compare_each_latent_with_its_shifted_partner(ndim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, 2, *(9,) * ndim, generator=generator) for _ in range(2))
    shifts = [(2, *(0,) * (ndim - 1)), (*(-1,) * ndim,)]
    found = near_misses(a, b, CRITICS["mse"], shifts)
    assert found.shape == (6, 2)
    inner = tuple(slice(2, 7) for _ in range(ndim))
    for row in range(6):
        here, there = (a, b) if row < 3 else (b, a)
        for column, shift in enumerate(shifts):
            moved = tuple(slice(2 + s, 7 + s) for s in shift)
            difference = here[row % 3][(slice(None), *inner)] - there[row % 3][(slice(None), *moved)]
            assert float(found[row, column]) == pytest.approx(-float(difference.square().mean()), abs=1e-5)


def test_near_misses_are_further_negatives() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, 1, 8, 8, generator=generator) for _ in range(2))
    misses = near_misses(a, b, CRITICS["mse"], [(1, 0), (0, -1), (1, 1)])
    found = info_nce(a, b, CRITICS["mse"], 0.3, near_misses=misses)
    p = torch.cat([a, b])
    similarities = CRITICS["mse"](p, p) / 0.3
    expected = 0.0
    for i in range(8):
        others = [similarities[i, j] for j in range(8) if j != i] + list(misses[i] / 0.3)
        expected += float(torch.logsumexp(torch.stack(others), 0) - similarities[i, (i + 4) % 8]) / 8
    assert float(found) == pytest.approx(expected, rel=1e-5)
    alike = torch.zeros(4, 1, 8, 8)
    nothing = near_misses(alike, alike, CRITICS["mse"], [(1, 0), (0, 1)])
    level = float(info_nce(alike, alike, CRITICS["mse"], 1.0, near_misses=nothing))
    assert level == pytest.approx(chance_level(4, 2), rel=1e-5)
