import pytest
import torch
from torch import Tensor

from modalign.losses import CRITICS, standardised


def literal_mse(x: Tensor, y: Tensor) -> Tensor:
    return -((x - y) ** 2).mean()


def literal_l1(x: Tensor, y: Tensor) -> Tensor:
    return -(x - y).abs().mean()


def literal_l2(x: Tensor, y: Tensor) -> Tensor:
    return -((x - y) ** 2).sum(0).sqrt().mean()


def literal_cosine(x: Tensor, y: Tensor) -> Tensor:
    return ((x * y).sum(0) / ((x**2).sum(0).sqrt() * (y**2).sum(0).sqrt())).mean()


def literal_map_cosine(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum() / ((x**2).sum().sqrt() * (y**2).sum().sqrt())


def literal_correlation(x: Tensor, y: Tensor) -> Tensor:
    x, y = (z - z.flatten(1).mean(1).reshape(-1, *(1,) * (z.ndim - 1)) for z in (x, y))
    return literal_map_cosine(x, y)


LITERAL = {
    "mse": literal_mse,
    "l1": literal_l1,
    "l2": literal_l2,
    "cosine": literal_cosine,
    "map-cosine": literal_map_cosine,
    "correlation": literal_correlation,
}


@pytest.fixture(params=[(3, 5, 4), (2, 3, 4, 5)], ids=["2d", "3d"])
def latents(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    channels_and_space = request.param
    a = torch.randn(4, *channels_and_space, generator=generator)
    return a, torch.randn(6, *channels_and_space, generator=generator)


def test_every_critic_has_an_oracle() -> None:
    assert LITERAL.keys() == CRITICS.keys()


@pytest.mark.parametrize("name", CRITICS)
def test_critic_equals_its_closed_form(name: str, latents: tuple[Tensor, Tensor]) -> None:
    a, b = latents
    expected = torch.stack([torch.stack([LITERAL[name](x, y) for y in b]) for x in a])
    torch.testing.assert_close(CRITICS[name](a, b), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CRITICS)
def test_nothing_is_more_alike_than_itself(name: str, latents: tuple[Tensor, Tensor]) -> None:
    a, b = latents
    similarities = CRITICS[name](a, torch.cat([a, b]))
    assert (similarities.argmax(1) == torch.arange(len(a))).all()


@pytest.mark.parametrize("name", CRITICS)
def test_gradients_are_finite_where_latents_are_equal(name: str, latents: tuple[Tensor, Tensor]) -> None:
    a = latents[0].requires_grad_()
    CRITICS[name](a, a.detach().clone()).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_mean_squared_difference_of_standardised_latents_is_their_decorrelation(latents: tuple[Tensor, Tensor]) -> None:
    a, b = latents
    mse = -CRITICS["mse"](standardised(a), standardised(b))
    torch.testing.assert_close(mse, 2 * (1 - CRITICS["correlation"](a, b)), atol=1e-5, rtol=1e-5)
