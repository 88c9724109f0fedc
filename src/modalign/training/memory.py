"""What a step of training needs of memory, and how to make it fit into a budget.

The batch supplies the negatives, so it is the last to give way: first what is inside the blocks of the networks is
computed twice instead of kept, then the batch is worked on in parts (see :mod:`modalign.training.step`), and only then
patches get smaller.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from modalign.data.patches import window_size
from modalign.errors import TrainingError
from modalign.nn import Network, build_network
from modalign.representation import ComirCard
from modalign.training.options import ComirOptions

GIB = 1 << 30
BASE = 0.45 * GIB
"""What the program needs before the first step: mostly the libraries."""
STATES = 4
"""Copies of the weights: themselves, their gradients, and two averages of the optimiser."""
TRANSIENT = 4
"""Copies of the largest layer that are there at once while it is computed or its gradient is."""
WINDOW_COPIES = 5
"""Copies of the windows that the augmentation makes."""
HEAP = 1 << 25
"""Smaller pieces of memory come from the heap, where what is freed leaves holes: glibc's largest threshold, bytes."""
HOLES = 2.5
"""How much of the heap is taken for one byte in use where layers come and go twice; measured on U-Net and tiramisu."""
ROOM = 1.15
"""Room above the estimate, for a plan is a promise: measured peaks then lie below it."""


@dataclass(frozen=True)
class MemoryPlan:
    """How a step is worked through.

    Attributes:
        patch: Side of the patches, pixels.
        ndim: Number of their dimensions.
        batch: Patches of each modality in a step.
        part: Patches of each modality that are in the networks at a time.
        recomputes: Whether what is inside the blocks of the networks is computed twice instead of kept.
        needed: What the process needs at most, as estimated, bytes.
    """

    patch: int
    ndim: int
    batch: int
    part: int
    recomputes: bool
    needed: float

    def __str__(self) -> str:
        size = " × ".join([str(self.patch)] * self.ndim)
        ways = [] if self.part == self.batch else [f"{self.part} at a time, all of them as negatives"]
        ways += ["layers computed twice to save memory"] if self.recomputes else []
        return "; ".join([f"{self.batch} patches of {size} a step", *ways, f"about {self.needed / GIB:.1f} GiB"])


def memory_plan(card: ComirCard, options: ComirOptions, patch: int) -> MemoryPlan:
    """The plan that fits into ``options.max_memory``; without a limit, the fastest one.

    Args:
        card: What the networks take and give.
        options: Of the training.
        patch: Largest side of the patches.

    Raises:
        TrainingError: There is none; the message says how much is needed at least.
    """
    smallest: MemoryPlan | None = None
    for plan in _plans(card, options, patch):
        if options.max_memory is None or plan.needed <= options.max_memory * GIB:
            return plan
        smallest = plan if smallest is None or plan.needed < smallest.needed else smallest
    assert smallest is not None  # there is always a plan to try
    raise TrainingError(
        f"training does not fit into {options.max_memory:g} GiB: the least is {smallest.needed / GIB:.2f} GiB, with "
        f"{smallest}. Give more (max_memory), or use a smaller network, or a smaller batch."
    )


def _plans(card: ComirCard, options: ComirOptions, largest: int) -> Iterator[MemoryPlan]:
    """Plans in the order in which they are wanted."""
    for patch in _patches(card, largest):
        plain, saving = (_Costs.of(card, patch, recomputes) for recomputes in (False, True))
        whole = MemoryPlan(patch, card.ndim, options.batch, options.batch, False, 0.0)
        ways = [(plain, whole), (saving, replace(whole, recomputes=True))]
        part = options.batch
        while part > 1:
            part = -(-part // 2)
            ways.append((saving, replace(whole, part=part, recomputes=True)))
        yield from (replace(plan, needed=costs.needed(plan, options)) for costs, plan in ways)


def _patches(card: ComirCard, largest: int) -> list[int]:
    """Sides of patches from the largest to half of it, in steps that the networks allow."""
    stride = max(
        int(_network(side.network, len(side.channels), card.latent_channels, card.ndim).stride)  # type: ignore[arg-type]
        for side in (card.fixed, card.moving)
    )
    return list(range(largest, max(2 * stride, largest // 2) - 1, -stride)) or [largest]


@dataclass(frozen=True)
class _Costs:
    """Bytes that networks need.

    Attributes:
        weights: All weights.
        kept: Each tensor that is kept of one patch of each modality for the gradient.
        layer: The largest input or output of a layer for one patch.
        inside: Each tensor kept inside the block that keeps most, while its gradient is computed.
        pixel: One pixel of both modalities.
        holes: How much of the heap is taken for one byte in use.
    """

    weights: int
    kept: tuple[int, ...]
    layer: int
    inside: tuple[int, ...]
    pixel: int
    holes: float

    @classmethod
    def of(cls, card: ComirCard, patch: int, recomputes: bool) -> "_Costs":
        channels = [len(modality.channels) for modality in (card.fixed, card.moving)]
        traces = [
            _trace(modality.network, count, card.latent_channels, patch, card.ndim, recomputes)
            for modality, count in zip((card.fixed, card.moving), channels, strict=True)
        ]
        weights, kept, layer, inside = zip(*traces, strict=True)
        holes = HOLES if recomputes else 1.0
        return cls(sum(weights), sum(kept, ()), max(layer), max(inside, key=sum), 4 * sum(channels), holes)

    def needed(self, plan: MemoryPlan, options: ComirOptions) -> float:
        """Peak of a step by a plan."""
        window = window_size(plan.patch, plan.ndim, options.augmentation.largest_scale)
        windows = WINDOW_COPIES * plan.batch * self.pixel * window**plan.ndim
        latents = 4 * 2 * plan.batch * options.latent_channels * plan.patch**plan.ndim * 4
        tensors = [plan.part * one for one in self.kept + self.inside]
        passing = sum(n * (self.holes if n < HEAP else 1) for n in tensors) + TRANSIENT * plan.part * self.layer
        return float(ROOM * (BASE + STATES * self.weights + latents + max(windows, passing)))


def _network(options: Network, channels: int, latents: int, ndim: int) -> nn.Module:
    with torch.device("meta"):
        return build_network(options, ndim, channels, latents)


@lru_cache(maxsize=256)
def _trace(
    options: Network, channels: int, latents: int, patch: int, ndim: int, recomputes: bool
) -> tuple[int, tuple[int, ...], int, tuple[int, ...]]:
    """Bytes of the weights, kept for the gradient of one patch, of the largest layer, and inside the greediest block.

    The network is on the meta device, where tensors have a shape and no content.
    """
    network = _network(options, channels, latents, ndim)
    layers: list[int] = []
    inputs: dict[nn.Module, Tensor] = {}
    blocks = [block for part in network.children() for block in (part if isinstance(part, nn.ModuleList) else [part])]
    for module in network.modules():
        module.register_forward_hook(lambda _, given, output: layers.extend(t.nbytes for t in (*given, output)))
    for block in blocks:
        block.register_forward_pre_hook(lambda block, given: inputs.update({block: given[0]}))
    x = torch.empty((1, channels, *(patch,) * ndim), device="meta")
    network.recomputes = recomputes  # type: ignore[assignment]
    kept = _kept(network.train(), x)
    inside = max((_kept(block, inputs[block]) for block in blocks), key=sum) if recomputes else ()
    return sum(weight.nbytes for weight in network.parameters()), kept, max(layers), inside


def _kept(module: nn.Module, x: Tensor) -> tuple[int, ...]:
    """Bytes of each tensor that a module keeps of one input for its gradient, beside its weights."""
    weights = {p.untyped_storage()._cdata for p in module.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def look(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            storages[storage._cdata] = storage  # held, lest its number be given to another one
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        module(x)
    return tuple(storage.nbytes() for storage in storages.values())
