"""Deformations found by torch: fields on pixels, and the flow that brings one image onto another."""

from modalign.deformation.fields import bending, composed, diffusion, exponential, on_pixels, warp
from modalign.deformation.network import DeformCard, DeformModel, DeformNet, DeformNetOptions, load_deform_model
from modalign.deformation.velocity import (
    Flow,
    FlowOptions,
    Level,
    Order,
    Regulariser,
    before_and_after,
    find_flow,
    unfolded,
)

__all__ = [
    "DeformCard",
    "DeformModel",
    "DeformNet",
    "DeformNetOptions",
    "Flow",
    "FlowOptions",
    "Level",
    "Order",
    "Regulariser",
    "before_and_after",
    "bending",
    "composed",
    "diffusion",
    "exponential",
    "find_flow",
    "load_deform_model",
    "on_pixels",
    "unfolded",
    "warp",
]
