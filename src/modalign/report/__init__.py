"""Results as pictures: overlays, representations, curves and panels. Nothing here opens a file."""

from modalign.report.curves import figure_bytes, success_figure
from modalign.report.overlay import Rendering, checkerboard, magenta_green, picture, pictures, section
from modalign.report.panel import panel

__all__ = [
    "Rendering",
    "checkerboard",
    "figure_bytes",
    "magenta_green",
    "panel",
    "picture",
    "pictures",
    "section",
    "success_figure",
]
