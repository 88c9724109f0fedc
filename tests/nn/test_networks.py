import pytest
import torch
from torch import nn

from modalign.errors import InvalidInputError
from modalign.nn import Network, TiramisuOptions, UNetOptions, network_from_dict, network_to_dict

ZURICH = TiramisuOptions(16, 12, (2, 2, 2), 3, (2, 2, 2), 1.0, 0.0)
SMALL: list[Network] = [UNetOptions((4, 8)), UNetOptions((3, 4, 5)), TiramisuOptions(4, 2, (1, 2), 1, (2, 1))]


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("options", "in_channels", "out_channels", "published"),
    [
        (TiramisuOptions(), 1, 1, 1_053_244),
        (TiramisuOptions(), 3, 1, 1_053_820),
        (ZURICH, 1, 3, 164_776),
        (ZURICH, 3, 3, 165_064),
    ],
)
def test_tiramisu_has_the_parameters_of_the_paper(
    options: TiramisuOptions, in_channels: int, out_channels: int, published: int
) -> None:
    assert parameters(options.build(2, in_channels, out_channels)) == published


def test_tiramisu_bottleneck_has_the_shape_of_the_paper() -> None:
    network = TiramisuOptions().build(2, 1, 1).eval()
    shapes: list[torch.Size] = []
    network.bottleneck.register_forward_hook(lambda _, inputs, output: shapes.extend([inputs[0].shape, output.shape]))
    with torch.inference_mode():
        network(torch.zeros(1, 1, 128, 128))
    assert [tuple(shape) for shape in shapes] == [(1, 123, 2, 2), (1, 48, 2, 2)]


def test_default_unet_is_light() -> None:
    assert 100_000 <= parameters(UNetOptions().build(2, 3, 1)) <= 1_000_000


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("options", SMALL, ids=lambda options: type(options).__name__)
def test_output_has_the_size_of_the_input(options: Network, ndim: int) -> None:
    network = options.build(ndim, 2, 3).eval()
    side = 4 * network.stride
    assert network(torch.zeros(1, 2, *(side,) * ndim)).shape == (1, 3, *(side,) * ndim)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("options", SMALL, ids=lambda options: type(options).__name__)
def test_radius_is_the_exact_reach(options: Network, ndim: int) -> None:
    """With positive weights no path cancels, so the gradient shows every pixel that an output depends on."""
    network = options.build(ndim, 1, 1).eval().double()
    for parameter in network.parameters():
        parameter.data.abs_()
    side = -(-2 * (network.radius + network.stride) // network.stride) * network.stride
    x = torch.rand(1, 1, *(side,) * ndim, dtype=torch.float64, requires_grad=True)
    reach = 0
    for offset in range(network.stride):
        center = (side // 2 + offset,) * ndim
        (gradient,) = torch.autograd.grad(network(x)[(0, 0, *center)], x)
        reached = gradient[0, 0].nonzero() - torch.tensor(center)
        reach = max(reach, int(reached.abs().max()))
    assert reach == network.radius


@pytest.mark.parametrize("options", [UNetOptions((8, 16)), ZURICH], ids=["unet", "tiramisu"])
def test_saved_form_round_trip(options: Network) -> None:
    assert network_from_dict(network_to_dict(options)) == options


def test_unknown_network_or_option_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"unknown network 'resnet'.*unet"):
        network_from_dict({"name": "resnet"})
    with pytest.raises(InvalidInputError, match="no option depth"):
        network_from_dict({"name": "unet", "configuration": {"depth": 3}})
