"""Bright field with second-harmonic generation, by the collagen of both: the baseline known as CurveAlign."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import numpy as np

from modalign.errors import InvalidInputError
from modalign.geometry import Linear, Rigid, as_rows
from modalign.geometry.grid import METERS
from modalign.image import Image
from modalign.local_features.channels import is_rgb
from modalign.registration import workspace
from modalign.registration.collagen import collagen
from modalign.registration.engine import Engine
from modalign.registration.information import Level, Run, Starts, contrast, scored
from modalign.registration.mattes import KINDS, Climb, Evolution, Kind, Pair, multi_start, verdict
from modalign.registration.registrar import Registration

Array = np.ndarray
Search = Literal["single-start", "multi-start"]

SHRINKS = (4, 2, 1)
"""Pixel size of each level, in units of the finest."""
SATURATED_PERCENT = 1.0
"""Percentage of the SHG pixels that the contrast stretch makes black, and white."""
LEAST_COLLAGEN = 0.005
"""A smaller fraction of collagen in the H&E image is nothing to align."""


@dataclass(frozen=True)
class CurveAlign(Engine):
    """Find the collagen of an H&E image by its colour and align it with the second-harmonic (SHG) image.

    For one RGB image of an H&E section and one SHG image of one channel, in either order. As published: segmentation of
    the collagen (:mod:`modalign.registration.collagen`), contrast stretch of the SHG image, then two passes of a (1+1)
    evolution strategy on Mattes' mutual information over three levels, from the centres on each other; 50 bins,
    first steps of 0.00625 / 3.5, growth 1.05, epsilon 1.5e-6. ``rigid`` in both passes is the form in which
    MultiRegEval compared it, with 1000 steps a level; ``affine`` the original, a similarity and then an affine.

    Our readings: an SHG image is smoothed by the area means of the levels alone; first steps are radians, and shares of
    the diagonal; ``multi-start`` is no part of the method, but the search of the engine ``mutual-information`` on the
    collagen, for a comparison of the pictures without the limits of the search. A single start has no rivals, so its
    result is never ``accepted``.

    Source: Keikhosravi et al., Biomedical Optics Express 11(1), 2020, and its published scripts; Lu et al., PLOS ONE
    17(11): e0276196, 2022.
    """

    transform: Kind = "rigid"
    """What may change: rotation and shift, also one size for all axes, or also shear and a size for each axis."""
    search: Search = "single-start"
    """The published local search, or the best of many starts."""
    iterations: int = 1000
    """Most steps of the evolution strategy at a level."""
    samples: int = 10_000
    """Pixels drawn at random for the histogram of a level; the publication uses all, which takes several times as long.
    """
    pixels_per_micrometer: float = 1.0
    """Pixel size of an H&E image that states none: how large its nuclei are."""
    max_side: int = 1024
    """Work on at most so many pixels along the longest side."""
    seed: int = 0
    """Seed of the clusters, the evolution strategy and the samples."""

    name: ClassVar[str] = "curvealign"
    ndims: ClassVar[frozenset[int]] = frozenset({2})

    def __post_init__(self) -> None:
        if self.transform not in KINDS or self.search not in get_args(Search):
            raise InvalidInputError(
                f"transform is one of {', '.join(KINDS)}, and search one of {', '.join(get_args(Search))}, "
                f"not {self.transform!r} and {self.search!r}"
            )
        if self.iterations < 1 or self.samples < 1000 or self.max_side < 32 or not self.pixels_per_micrometer > 0:
            raise InvalidInputError(
                "iterations must be at least 1, samples 1000, max_side 32, and pixels_per_micrometer above 0"
            )

    def find(self, fixed: Image, moving: Image) -> Registration:
        """Find the transform under which the collagen of the H&E image tells most of the SHG image."""
        stained = [is_rgb(image) for image in (fixed, moving)]
        if sum(stained) != 1 or sorted(len(image.data) for image in (fixed, moving)) != [1, 3]:
            reason = (
                f"one image must be RGB and the other have one channel, not {_channels(fixed)} and {_channels(moving)}"
            )
            return Registration(self.name, "refused", None, (f"{reason}; use mutual-information or a representation",))
        section, signal = (fixed, moving) if stained[0] else (moving, fixed)
        picture = collagen(section, self._pixels_per_micrometer(section), self.seed)
        if (share := float((picture.data[0] > 0)[picture.valid].mean())) < LEAST_COLLAGEN:
            reason = f"hardly any collagen was found in the H&E image ({share:.1%}); use mutual-information"
            return Registration(self.name, "refused", None, (reason,))
        space = workspace.harmonised(stretched(signal), picture)
        history = self._searched((space.fixed, space.moving))
        return self._result(space, history, turned=stained[0], share=share)

    def _pixels_per_micrometer(self, section: Image) -> float:
        if section.grid.unit == "pixel":
            return self.pixels_per_micrometer
        return METERS["micrometer"] / (METERS[section.grid.unit] * min(section.grid.spacing))

    def _searched(self, pair: Pair) -> list[list[Run]]:
        if self.search == "multi-start":
            starts = Starts(scaled=self.transform != "rigid", seed=self.seed)
            return multi_start([pair], starts, Climb(seed=self.seed), self.transform, self.max_side)
        return [[self._evolved(pair)]]

    def _evolved(self, pair: Pair) -> Run:
        """The two published passes, each from the coarsest level to the finest."""
        finest = workspace.finest_spacing(*pair, self.max_side)
        levels = [Level(*(workspace.isotropic(image, finest * shrink) for image in pair)) for shrink in SHRINKS]
        climb = Evolution(50, self.samples, self.iterations, self.seed, initial_radius=0.00625 / 3.5)
        shift = pair[1].grid.center - pair[0].grid.center
        found: Linear = Rigid(as_rows(np.eye(len(shift))), tuple(shift.tolist()))
        first: Kind = "rigid" if self.transform == "rigid" else "similarity"
        for kind in (first, self.transform):
            for level in levels:
                found = climb.climbed(level, found, kind)
        return scored(levels[-1], found, self.seed)

    def _result(
        self, space: workspace.Workspace, history: Sequence[Sequence[Run]], turned: bool, share: float
    ) -> Registration:
        best = history[-1][0]
        outranks = contrast(space.fixed, history[0], best)
        status, reasons = verdict(best, outranks)
        if self.search == "single-start" and status != "refused":
            reasons = ("a single local search has nothing to compare its result with; look at the overlay",)
        found = space.to_world(best.fixed_to_moving)
        numbers = {"information": best.information, "overlap": best.overlap, "contrast": outranks, "collagen": share}
        return Registration.judged(self.name, status, found.inverse() if turned else found, reasons, numbers)


def stretched(signal: Image) -> Image:
    """The first channel, linear from 0 to 1 between its percentiles: a few bright pixels must not use up the bins."""
    values = signal.data[0].astype(np.float32)
    low, high = np.percentile(values[signal.valid], (SATURATED_PERCENT, 100 - SATURATED_PERCENT))
    if high <= low:  # nearly all pixels have one value
        low, high = values[signal.valid].min(), values[signal.valid].max()
    return replace(signal, data=np.clip((values - low) / (high - low), 0, 1).astype(np.float32)[None])


def _channels(image: Image) -> str:
    return "RGB" if is_rgb(image) else f"{len(image.data)} of another kind"
