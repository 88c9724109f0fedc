"""Networks, for two and three dimensions alike."""

from modalign.nn.network import Network, build_network, network_from_dict, network_to_dict
from modalign.nn.tiramisu import Tiramisu, TiramisuOptions
from modalign.nn.unet import UNet, UNetOptions

__all__ = [
    "Network",
    "Tiramisu",
    "TiramisuOptions",
    "UNet",
    "UNetOptions",
    "build_network",
    "network_from_dict",
    "network_to_dict",
]
