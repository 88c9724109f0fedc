"""Judging a model by what it is for: does registration succeed on displaced views of unseen pairs?"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from modalign.data.displacement import DisplacedPair, DisplacementProtocol, displaced_pairs
from modalign.data.pairs import Pair
from modalign.errors import InvalidInputError
from modalign.geometry import corner_error
from modalign.registration import FftSearch
from modalign.representation import ComirModel

SUCCESS = 0.02
"""A registration succeeds where the mean corner error is at most this fraction of the patch width (comir protocol)."""


@dataclass(frozen=True)
class ValidationOptions:
    """How a model is validated while it trains."""

    times: int = 4
    """How often, evenly over the training; the best model is kept."""
    draws: int = 2
    """Simulated displacements of each validation pair."""
    most_pairs: int = 8
    """Validate on no more pairs than this."""
    patch_fraction: float = 0.6
    """Side of the displaced patches, as a fraction of the image."""
    max_rotation_degrees: float = 180.0
    """Rotations are drawn uniformly up to this angle in both directions."""
    shift_fraction: float = 0.12
    """Shifts are drawn uniformly up to this fraction of the patch, along each axis."""

    def __post_init__(self) -> None:
        if min(self.times, self.draws, self.most_pairs) < 1:
            raise InvalidInputError("validation needs at least one time, one draw and one pair")
        if not (
            0 < self.patch_fraction <= 1 and 0 <= self.shift_fraction < 1 and 0 <= self.max_rotation_degrees <= 180
        ):
            raise InvalidInputError(
                "patch_fraction lies above 0 and up to 1, shift_fraction from 0 to below 1, and rotations up to 180°"
            )


@dataclass(frozen=True)
class Validation:
    """The outcome of one validation.

    Attributes:
        success: Fraction of displaced pairs registered to within 2 % of the patch width.
        median_error: Median mean corner error in pixels; ``None`` where for most nothing was found.
        count: Number of displaced pairs.
    """

    success: float
    median_error: float | None
    count: int

    @property
    def score(self) -> tuple[float, float]:
        """What the best model has most of: success, then accuracy."""
        return self.success, float("-inf") if self.median_error is None else -self.median_error


@dataclass(frozen=True)
class Validator:
    """Displaced views of the validation pairs, drawn once, and the search that must find them."""

    views: tuple[DisplacedPair, ...]
    engine: FftSearch = field(default_factory=FftSearch)

    @classmethod
    def draw(cls, pairs: Sequence[Pair], options: ValidationOptions, seed: int) -> "Validator":
        """Draw the displaced views of some pairs."""
        views: list[DisplacedPair] = []
        for pair in pairs[: options.most_pairs]:
            side = int(min(pair.fixed.grid.shape) * options.patch_fraction)
            protocol = DisplacementProtocol(
                patch_shape=(side,) * pair.fixed.ndim,
                max_rotation_degrees=options.max_rotation_degrees,
                max_shift_pixels=side * options.shift_fraction,
                draws=options.draws,
                seed=seed,
            )
            views += displaced_pairs(pair.fixed, pair.moving.with_grid(pair.fixed.grid), protocol, pair.name)
        return cls(tuple(views))

    def judge(self, model: ComirModel, device: str) -> Validation:
        """Register all views with the representations of a model."""
        fixed, moving = model.encoder("fixed", device=device), model.encoder("moving", device=device)
        errors, widths = [], []
        for view in self.views:
            found = self.engine.register(fixed.encode(view.fixed), moving.encode(view.moving)).candidate
            grid = view.fixed.grid
            pixel = float(np.mean(grid.spacing))
            errors.append(corner_error(grid, found, view.fixed_to_moving) / pixel if found else float("inf"))
            widths.append(float(np.mean(grid.shape)))
        success = np.mean(np.array(errors) <= SUCCESS * np.array(widths))
        median = float(np.median(errors))
        return Validation(float(success), median if np.isfinite(median) else None, len(errors))
