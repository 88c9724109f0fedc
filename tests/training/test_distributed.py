"""Two processes with half of the batch each do exactly what one process does with the whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from modalign.losses import CRITICS, info_nce
from modalign.nn import UNetOptions
from modalign.nn.collectives import gathered


class Twins(nn.Module):
    """Two small networks with batch normalisation, called together."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = (UNetOptions((4, 6)).build(2, channels, 2) for channels in (1, 3))

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(a), self.b(b)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 1, 8, 8, generator=generator), torch.randn(6, 3, 8, 8, generator=generator)


def gradients(twins: nn.Module) -> np.ndarray:
    return torch.cat([p.grad.flatten() for p in twins.parameters() if p.grad is not None]).numpy()


def work(fabric: Fabric, folder: str) -> None:
    twins = fabric.setup(Twins())
    rows = slice(3 * fabric.global_rank, 3 * fabric.global_rank + 3)
    a, b = twins(*(part[rows] for part in batch()))
    loss = info_nce(a, b, CRITICS["mse"], 0.5, everyone=(gathered(a), gathered(b)), offset=rows.start)
    fabric.backward(loss)
    mean_loss = float(fabric.all_reduce(loss.detach(), reduce_op="mean"))
    running = twins.module.a.down[0][1].running_var.numpy()
    if fabric.is_global_zero:
        np.savez(Path(folder) / "two.npz", loss=mean_loss, gradients=gradients(twins), running=running)


@pytest.mark.filterwarnings("ignore")  # of torch's own launcher and of its collectives
def test_two_processes_equal_one(tmp_path: Path) -> None:
    twins = Twins()
    a, b = twins(*batch())
    loss = info_nce(a, b, CRITICS["mse"], 0.5)
    loss.backward()
    Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn").launch(work, str(tmp_path))
    two = np.load(tmp_path / "two.npz")
    assert float(two["loss"]) == pytest.approx(float(loss.detach()), rel=1e-5)
    np.testing.assert_allclose(two["gradients"], gradients(twins), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(two["running"], twins.a.down[0][1].running_var.numpy(), rtol=1e-5)
