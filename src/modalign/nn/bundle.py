"""Networks in a model folder: ``model.json`` tells what they are, safetensors hold their weights."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from modalign.errors import FileError, ModelError
from modalign.io import atomic_folder, read_arrays, read_json, write_arrays, write_json

CARD = "model.json"
FORMAT = "modalign.model"
USES = {
    "comir": " (it represents two modalities: name it with --model)",
    "features": " (it is a feature extractor: name it with --features, for --engine deform --similarity deepsim)",
    "deform": " (it is a network that deforms: name it with --network, for --engine deform)",
}
"""What models of each kind are for, said where one is named in place of another."""
KEPT = 4
"""Models of a kind that are kept once they were read."""

Loaded = TypeVar("Loaded")


@runtime_checkable
class Buildable(Protocol):
    """A card that knows the form of its network."""

    def build(self) -> nn.Module:
        """The network, freshly initialised."""
        ...


Card = TypeVar("Card", bound=Buildable)


def save_networks(folder: Path, card: Mapping[str, Any], networks: Mapping[str, nn.Module]) -> None:
    """Write a model folder, all or nothing: the card, and one safetensors file a network.

    Raises:
        OutputError: The folder cannot be written.
    """
    with atomic_folder(folder) as temporary:
        write_json(temporary / CARD, card)
        for name, network in networks.items():
            weights = {key: value.detach().cpu().numpy() for key, value in network.state_dict().items()}
            write_arrays(temporary / f"{name}.safetensors", weights)


def read_card(folder: Path, method: str, version: int, how: str) -> Mapping[str, Any]:
    """The card of a model folder.

    Args:
        folder: The model.
        method: What kind of model it must be.
        version: The newest version of such a card that can be read.
        how: The command that makes such models, for the error.

    Raises:
        ModelError: The folder holds no model, one of another kind, or one of a newer version.
    """
    if not (folder / CARD).is_file():
        raise ModelError(f"{folder}: not a model folder (it has no {CARD}); make one with '{how}'")
    try:
        card = read_json(folder / CARD)
    except FileError as error:
        raise ModelError(f"{folder}: cannot load this model: {error}") from error
    if not isinstance(card, Mapping) or card.get("format") != FORMAT or card.get("method") != method:
        kind = card.get("method") if isinstance(card, Mapping) else None
        hint = USES.get(str(kind), "")
        raise ModelError(f"{folder}: this model is of the kind {kind!r}, not {method!r}{hint}; make one with '{how}'")
    if not isinstance(card.get("version"), int) or card["version"] > version:
        raise ModelError(f"{folder}: the model has version {card.get('version')}; this modalign reads up to {version}")
    return card


def load_network(
    folder: Path,
    method: str,
    version: int,
    how: str,
    read: Callable[[Mapping[str, Any]], Card],
) -> tuple[Card, Any]:
    """The card and the only network of a model folder.

    Args:
        folder: As in :func:`read_card`, and so are ``method``, ``version`` and ``how``.
        method: See there.
        version: See there.
        how: See there.
        read: Makes a card of what was saved.

    Raises:
        ModelError: See :func:`read_card`; or the card or the weights are damaged.
    """
    saved = read_card(folder, method, version, how)
    try:
        card = read(saved)
        network = card.build()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(f"{folder}: {CARD} is incomplete or damaged ({error!r})") from error
    load_weights(folder, "network", network)
    return card, network


def doubts(folder: Path) -> tuple[str, ...]:
    """What those who use the networks of a model folder should know: that they have learnt next to nothing."""
    if read_json(folder / CARD).get("training", {}).get("learnt", True):
        return ()
    return (f"the network in {folder} had learnt next to nothing when its training ended: train it longer",)


def load_weights(folder: Path, name: str, network: nn.Module) -> None:
    """Put the weights of a model folder into a network of the right form.

    Raises:
        ModelError: The file is missing or damaged, or belongs to another network.
    """
    try:
        arrays = read_arrays(folder / f"{name}.safetensors")
        network.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    except FileError as error:
        raise ModelError(f"{folder}: cannot load this model: {error}") from error
    except RuntimeError as error:
        raise ModelError(f"{folder}: the weights '{name}' do not fit the network in {CARD}") from error


def read_once(load: Callable[[Path], Loaded]) -> Callable[[Path], Loaded]:
    """A loader of model folders that reads each only once, and anew where it was written anew meanwhile."""

    @lru_cache(maxsize=KEPT)
    def kept(folder: Path, _stamp: int) -> Loaded:
        return load(folder)

    def loader(folder: Path) -> Loaded:
        card = folder / CARD
        return kept(folder, card.stat().st_mtime_ns if card.is_file() else 0)

    return loader
