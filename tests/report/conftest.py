"""Registrations to report on, as a fixture."""

from collections.abc import Callable

import pytest
from report_contents import reported, textured, turned

from modalign.report import ReportContent


@pytest.fixture
def make_content() -> Callable[..., ReportContent]:
    """Makes contents of any status, dimensions and channels; gray on colours by default."""

    def make(status: str = "accepted", ndim: int = 2, channels: tuple[int, int] = (1, 3), **others) -> ReportContent:
        fixed, moving = (textured(ndim, count, seed) for seed, count in enumerate(channels))
        transform = turned(fixed.grid, moving.grid)
        return reported(fixed, moving, transform, status, **others)

    return make
