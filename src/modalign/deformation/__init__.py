"""Deformations found by torch: fields on pixels, and the flow that brings one image onto another."""

from modalign.deformation.fields import bending, composed, diffusion, exponential, on_pixels, warp
from modalign.deformation.velocity import (
    Flow,
    FlowOptions,
    Level,
    Order,
    Regulariser,
    find_flow,
    unfolded,
    unlikeness_under,
)

__all__ = [
    "Flow",
    "FlowOptions",
    "Level",
    "Order",
    "Regulariser",
    "bending",
    "composed",
    "diffusion",
    "exponential",
    "find_flow",
    "on_pixels",
    "unfolded",
    "unlikeness_under",
    "warp",
]
