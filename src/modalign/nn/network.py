"""The networks to choose from, and their saved form."""

from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, TypeAlias

from torch import nn

from modalign.errors import InvalidInputError
from modalign.nn.tiramisu import TiramisuOptions
from modalign.nn.unet import UNetOptions

Network: TypeAlias = UNetOptions | TiramisuOptions

NETWORKS: Mapping[str, type[Network]] = MappingProxyType({"unet": UNetOptions, "tiramisu": TiramisuOptions})


def build_network(options: Network, ndim: int, in_channels: int, out_channels: int) -> nn.Module:
    """The network that the options describe, freshly initialised."""
    return options.build(ndim, in_channels, out_channels)


def network_to_dict(options: Network) -> dict[str, Any]:
    """The saved form: ``{"name": …, "configuration": {…}}``."""
    name = next(name for name, kind in NETWORKS.items() if isinstance(options, kind))
    return {"name": name, "configuration": asdict(options)}


def network_from_dict(saved: Mapping[str, Any]) -> Network:
    """The options of a saved network.

    Raises:
        InvalidInputError: The name or an option is unknown.
    """
    kind = NETWORKS.get(saved.get("name", ""))
    if kind is None:
        raise InvalidInputError(f"unknown network {saved.get('name')!r}; known are {', '.join(NETWORKS)}")
    configuration: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in saved.get("configuration", {}).items()
    }
    unknown = configuration.keys() - kind.__dataclass_fields__.keys()
    if unknown:
        raise InvalidInputError(f"network {saved['name']!r} has no option {', '.join(sorted(unknown))}")
    return kind(**configuration)
