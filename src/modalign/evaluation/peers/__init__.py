"""What people use, as registration methods: for benchmarks, so that a claim of being better can be checked.

Each peer is a thin adapter to the tool with the settings that its own documentation or the literature recommends, tuned
where these do poorly on plane images; its docstring tells which and why. The tools are imported when they are first
used; elastix and ANTs come with ``pip install modalign[benchmark]``.
"""

from types import MappingProxyType

from modalign.evaluation.peers.itk_tools import Ants, Elastix, SimpleItkMI
from modalign.evaluation.peers.peer import Peer
from modalign.evaluation.peers.pixel_tools import OpenCvEcc, SkimageFourierMellin, SkimagePhaseCorrelation
from modalign.registration.registrar import Registrar

KINDS = (SimpleItkMI, Elastix, Ants, OpenCvEcc, SkimagePhaseCorrelation, SkimageFourierMellin)
PEERS: MappingProxyType[str, Registrar] = MappingProxyType({kind.name: kind() for kind in KINDS})
"""The peers with their tuned settings, by name."""

__all__ = [
    "PEERS",
    "Ants",
    "Elastix",
    "OpenCvEcc",
    "Peer",
    "SimpleItkMI",
    "SkimageFourierMellin",
    "SkimagePhaseCorrelation",
]
