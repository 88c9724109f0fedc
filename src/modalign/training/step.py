"""The gradient of one step: at once, or in parts that keep all negatives of the batch.

In parts, the latents of the whole batch are computed first, and nothing else is kept; the loss over all of them gives
the gradient of every latent; then each part is computed again and takes its gradient from there. The result is the
gradient of the whole batch, but for batch normalisation, whose statistics are those of the parts.

Source: Gao et al., Scaling deep contrastive learning batch size under memory limited setup, RepL4NLP 2021.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Latents = tuple[Tensor, Tensor]
Backward = Callable[[Tensor], None]


def backpropagated(
    networks: nn.Module,
    inputs: Latents,
    loss: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    part: int,
    backward: Backward = Tensor.backward,
) -> Tensor:
    """Add the gradient of a loss over the latents of a batch to the weights of the networks.

    Args:
        networks: Maps both modalities ``(n, channels, *spatial)`` to their latents.
        inputs: The batch of both modalities.
        loss: What to report and what to minimise, of the latents of the batch.
        part: Patches of each modality in the networks at a time.
        backward: Computes the gradient of a scalar.

    Returns:
        What the loss reports.
    """
    if part >= len(inputs[0]):
        told, total = loss(*networks(*inputs))
        backward(total)
        return told.detach()
    parts = list(zip(*(torch.split(modality, part) for modality in inputs), strict=True))
    states, pieces = [], []
    with torch.no_grad(), _without_tracking(networks):
        for one in parts:
            states.append(_random_state(inputs[0].device))
            pieces.append(networks(*one))
    latents = [torch.cat(side).requires_grad_() for side in zip(*pieces, strict=True)]
    told, total = loss(*latents)
    total.backward()  # type: ignore[no-untyped-call]
    gradients = [torch.split(latent.grad, part) for latent in latents if latent.grad is not None]
    after = _random_state(inputs[0].device)
    for one, state, *wanted in zip(parts, states, *gradients, strict=True):
        _restore(state, inputs[0].device)
        again = networks(*one)
        products = [(z * gradient).sum() for z, gradient in zip(again, wanted, strict=True)]
        backward(torch.stack(products).sum())
    _restore(after, inputs[0].device)
    return told.detach()


@contextmanager
def _without_tracking(networks: nn.Module) -> Iterator[None]:
    """Batch normalisation does not count what it sees twice."""
    layers = [module for module in networks.modules() if isinstance(module, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _restore(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
