"""Steps in parts have the gradient of the whole batch, and plans keep to their budget."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from modalign.data.intensity import IntensityScaling
from modalign.errors import TrainingError
from modalign.losses import CRITICS, info_nce
from modalign.nn import Network, TiramisuOptions, UNetOptions
from modalign.representation import ComirCard, Modality
from modalign.training import ComirOptions
from modalign.training.memory import GIB, MemoryPlan, memory_plan
from modalign.training.step import backpropagated

SCALING = IntensityScaling((0.0,), (1.0,), 0.0, (0.5,), (0.25,), (0.0, 0.25, 0.5, 0.75, 1.0))
SMALL: list[Network] = [UNetOptions((4, 6)), TiramisuOptions(4, 3, (1, 1), 1, (1, 1), dropout=0.3)]


class Both(nn.Module):
    def __init__(self, options: Network, ndim: int) -> None:
        super().__init__()
        self.fixed, self.moving = options.build(ndim, 1, 2), options.build(ndim, 1, 2)

    def forward(self, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        return self.fixed(fixed), self.moving(moving)


def loss(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    contrast = info_nce(a, b, CRITICS["mse"], 0.2)
    return contrast, contrast + 1e-3 * a.abs().mean()


def batch(ndim: int, count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(count, 1, *(8,) * ndim, generator=generator) for _ in range(2))


def gradients(networks: nn.Module) -> list[Tensor]:
    return [weight.grad.clone() for weight in networks.parameters() if weight.grad is not None]


def both(options: Network, ndim: int) -> Both:
    torch.manual_seed(0)
    return Both(options, ndim)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("part", [1, 2, 4])
@pytest.mark.parametrize("options", SMALL, ids=["unet", "tiramisu"])
def test_a_batch_in_parts_has_the_gradient_of_the_whole_batch(options: Network, part: int, ndim: int) -> None:
    """With the statistics of normalisation held: these alone differ between a whole batch and its parts."""
    whole, parts = both(options, ndim).eval(), both(options, ndim).eval()
    torch.manual_seed(5)
    told = backpropagated(whole, batch(ndim), loss, 6)
    torch.manual_seed(5)
    assert backpropagated(parts, batch(ndim), loss, part) == pytest.approx(float(told), rel=1e-5)
    for one, other in zip(gradients(whole), gradients(parts), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("options", SMALL, ids=["unet", "tiramisu"])
def test_in_training_each_part_is_computed_twice_alike(options: Network) -> None:
    """The same normalisation and dropout both times, as if all parts had been kept in one graph."""
    literal, parts = both(options, 2).train(), both(options, 2).train()
    inputs = batch(2)
    torch.manual_seed(5)
    pieces = [literal(*one) for one in zip(*(side.split(2) for side in inputs), strict=True)]
    _, total = loss(*(torch.cat(side) for side in zip(*pieces, strict=True)))
    total.backward()
    torch.manual_seed(5)
    backpropagated(parts, inputs, loss, 2)
    for one, other in zip(gradients(literal), gradients(parts), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    for one, other in zip(literal.buffers(), parts.buffers(), strict=True):
        if one.dtype.is_floating_point:  # running statistics count every part once
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", SMALL, ids=["unet", "tiramisu"])
def test_layers_computed_twice_change_no_gradient(options: Network) -> None:
    plain, again = both(options, 3).train(), both(options, 3).train()
    for network in (again.fixed, again.moving):
        network.recomputes = True
    for networks in (plain, again):
        torch.manual_seed(5)
        backpropagated(networks, batch(3), loss, 6)
    for one, other in zip(gradients(plain), gradients(again), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def card(network: Network, ndim: int = 3) -> ComirCard:
    side = Modality("a", ("gray",), SCALING, network)
    return ComirCard(side, copy.copy(side), ndim, 1, (1.0,) * ndim, "millimeter")


def less(card: ComirCard, options: ComirOptions, needed: float) -> MemoryPlan | None:
    """The plan for a little less memory, if there is one."""
    try:
        return memory_plan(card, replace(options, max_memory=0.98 * needed / GIB), options.patch)
    except TrainingError:
        return None


@pytest.mark.parametrize("network", [UNetOptions((8, 16, 32, 64)), TiramisuOptions(down=(4,) * 4, up=(4,) * 4)])
def test_the_smaller_the_budget_the_more_is_given_up_in_order(network: Network) -> None:
    options = ComirOptions(steps=1, batch=16, patch=64)
    plans = [memory_plan(card(network), options, 64)]
    while (plan := less(card(network), options, plans[-1].needed)) is not None:
        plans.append(plan)
    first, second = plans[:2]
    assert (first.part, first.recomputes, first.patch) == (16, False, 64)
    assert (second.part, second.recomputes, second.patch) == (16, True, 64)
    assert {plan.batch for plan in plans} == {16}, "the negatives stay"
    assert plans[-1].patch <= 32
    assert [plan.needed for plan in plans] == sorted((plan.needed for plan in plans), reverse=True)


def test_a_plan_says_what_it_does() -> None:
    options = ComirOptions(steps=1, batch=8, patch=48)
    told = str(memory_plan(card(TiramisuOptions(down=(4,) * 3, up=(4,) * 3)), replace(options, max_memory=2.5), 48))
    assert told.startswith("8 patches of 48 × 48 × 48 a step; ")
    assert "layers computed twice to save memory" in told
    assert told.endswith("GiB")


def test_a_budget_too_small_names_the_least() -> None:
    with pytest.raises(TrainingError, match=r"does not fit into 0.1 GiB: the least is 0\.\d+ GiB, with 4 patches of"):
        memory_plan(card(UNetOptions((4, 8))), ComirOptions(steps=1, batch=4, patch=16, max_memory=0.1), 16)
