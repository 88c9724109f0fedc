"""Saving training so that it goes on after a kill as if nothing had happened."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modalign.errors import TrainingError
from modalign.io import atomic_folder, read_arrays, read_json, write_arrays, write_json

State = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What training needs to go on.

    Attributes:
        identity: What must be the same to go on: options and training pairs.
        progress: Step, elapsed seconds, history, best score.
        networks: Weights and running statistics.
        best: Those of the best validated model so far; empty before the first validation.
        optimizer: Moments of the optimiser, flat.
    """

    identity: Mapping[str, Any]
    progress: Mapping[str, Any]
    networks: State
    best: State
    optimizer: State

    def save(self, folder: Path) -> None:
        """Write the checkpoint, all or nothing."""
        with atomic_folder(folder, marker="progress.json") as temporary:
            write_json(temporary / "progress.json", {"identity": self.identity, "progress": self.progress})
            for name in ("networks", "best", "optimizer"):
                arrays = {key: value.detach().cpu().numpy() for key, value in getattr(self, name).items()}
                write_arrays(temporary / f"{name}.safetensors", arrays)

    @classmethod
    def load(cls, folder: Path, identity: Mapping[str, Any]) -> "Checkpoint":
        """Read a checkpoint of the same training.

        Raises:
            TrainingError: It belongs to other options or other pairs.
            UnreadableFileError: A file is missing or damaged.
        """
        saved = read_json(folder / "progress.json")
        changed = sorted(key for key in identity if saved["identity"].get(key) != identity[key])
        if changed:
            raise TrainingError(
                f"{folder}: this interrupted training had other settings ({', '.join(changed)}). "
                "Go on with the same ones, or delete the folder to start anew."
            )
        states = {
            name: {key: torch.from_numpy(array) for key, array in read_arrays(folder / f"{name}.safetensors").items()}
            for name in ("networks", "best", "optimizer")
        }
        return cls(identity, saved["progress"], **states)


def optimizer_state(optimizer: torch.optim.Optimizer) -> State:
    """The moments of an optimiser as flat named tensors."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, moments in state.items() for name, value in moments.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, flat: State) -> None:
    """Put back what :func:`optimizer_state` took."""
    moments: dict[int, State] = {}
    for key, value in flat.items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def copied(module: nn.Module) -> State:
    """A copy of the weights and running statistics of a module, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
