"""Results as pictures and pages: overlays, representations, curves, panels and reports. Nothing here opens a file."""

from modalign.report.advice import apply_commands, changed_options
from modalign.report.comparison import Comparison
from modalign.report.content import (
    Command,
    Download,
    EvidenceRow,
    InputRecord,
    PixelSizeSource,
    RegisterCommand,
    ReportContent,
)
from modalign.report.curves import error_figure, figure_bytes, success_figure
from modalign.report.matrices import transform_csv
from modalign.report.outlines import Agreement, LabelledPair
from modalign.report.overlay import Rendering, checkerboard, magenta_green, picture, pictures, plane, section, shrunk
from modalign.report.overview import OverviewRow, overview_page
from modalign.report.page import report_page
from modalign.report.panel import panel

__all__ = [
    "Agreement",
    "Command",
    "Comparison",
    "Download",
    "EvidenceRow",
    "InputRecord",
    "LabelledPair",
    "OverviewRow",
    "PixelSizeSource",
    "RegisterCommand",
    "Rendering",
    "ReportContent",
    "apply_commands",
    "changed_options",
    "checkerboard",
    "error_figure",
    "figure_bytes",
    "magenta_green",
    "overview_page",
    "panel",
    "picture",
    "pictures",
    "plane",
    "report_page",
    "section",
    "shrunk",
    "success_figure",
    "transform_csv",
]
