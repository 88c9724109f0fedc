"""Mutual information of the intensities, maximised locally from the best of many starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, get_args

from modalign.errors import InvalidInputError
from modalign.image import Image
from modalign.local_features.channels import is_rgb
from modalign.registration import workspace
from modalign.registration.engine import Engine, emptiness
from modalign.registration.information import Run, Starts, contrast
from modalign.registration.mattes import KINDS, Climb, Kind, multi_start, verdict
from modalign.registration.optical_density import Colour, hue
from modalign.registration.registrar import Registration


@dataclass(frozen=True)
class MutualInformation(Engine):
    """Maximise the mutual information of the intensities, coarse to fine, from the best of many starts.

    Needs no likeness of the modalities, only some statistical relation of their intensities. On a coarse version of
    the images, rotations around the given ones and shifts are tried in bulk, and the best few distinct places are
    climbed; the better half of them goes on to each finer level. What lies beyond the rotations and shifts that are
    tried is not found. A local optimum looks like any other, so a result is ``accepted`` only where it clearly
    outranks the optima elsewhere.

    A colour image beside one of another modality is compared by its hue or by its luminance, whichever tells more of
    the other image: in stained sections the hue often tells several times as much.

    Source: Mattes et al., IEEE TMI 22(1), 2003, as implemented in ITK; the equalised intensities, the hue and the
    choice of the starts are ours.
    """

    start_rotations_degrees: tuple[float, ...] = (-20.0, 0.0, 20.0)
    """Rotations to start from, counter-clockwise on the screen; in 3D about each axis in turn."""
    reach_degrees: float = 10.0
    """Rotations up to so far from these are tried as well."""
    max_shift: float = 0.15
    """Shifts of the image centres up to this fraction of the width are tried along each axis."""
    transform: Kind = "rigid"
    """What may change: rotation and shift, also one size for all axes, or also shear and a size for each axis."""
    colour: Colour = "auto"
    """What of a colour image is compared with another modality; auto takes what tells more."""
    candidates: int = 8
    """How many distinct places are climbed at the coarsest level."""
    bins: int = 32
    """Bins of the joint histogram along each axis."""
    samples: int = 30_000
    """Pixels drawn at random for the histogram of a level; all where there are fewer."""
    max_side: int = 1024
    """Work on at most so many pixels along the longest side."""
    seed: int = 0
    """Seed of the random samples."""

    name: ClassVar[str] = "mutual-information"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})

    def __post_init__(self) -> None:
        if not self.start_rotations_degrees:
            raise InvalidInputError("start_rotations_degrees needs at least one rotation, such as 0")
        if not 0 <= self.reach_degrees <= 180 or not 0 <= self.max_shift <= 0.5:
            raise InvalidInputError("reach_degrees lies between 0 and 180, and max_shift between 0 and 0.5")
        if self.transform not in KINDS or self.colour not in get_args(Colour):
            raise InvalidInputError(
                f"transform is one of {', '.join(KINDS)}, and colour one of auto, luminance, hue, "
                f"not {self.transform!r} and {self.colour!r}"
            )
        if self.bins < 5 or self.candidates < 2:
            raise InvalidInputError(
                f"bins must be at least 5 and candidates at least 2, not {self.bins}, {self.candidates}"
            )
        if self.samples < 1000 or self.max_side < 32:
            raise InvalidInputError("samples must be at least 1000 and max_side at least 32")

    def find(self, fixed: Image, moving: Image) -> Registration:
        """Find the transform with the highest mutual information."""
        space = workspace.harmonised(fixed, moving)
        starts = Starts(
            self.start_rotations_degrees,
            self.reach_degrees,
            self.max_shift,
            self.transform != "rigid",
            self.candidates,
            self.seed,
        )
        pairs = pictures(space.fixed, space.moving, self.colour)
        climb = Climb(self.bins, self.samples, seed=self.seed)
        return result(self, space, multi_start(pairs, starts, climb, self.transform, self.max_side))


def pictures(fixed: Image, moving: Image, colour: Colour) -> list[tuple[Image, Image]]:
    """The pairs of one-channel pictures that may be compared."""
    plain = workspace.pictures(fixed, moving)
    coloured = [is_rgb(image) for image in (fixed, moving)]
    if sum(coloured) != 1 or colour == "luminance":
        return [plain]
    hues = (hue(fixed), plain[1]) if coloured[0] else (plain[0], hue(moving))
    if any(emptiness(image) for image in hues):  # a gray picture in three channels
        return [plain]
    return [hues] if colour == "hue" else [plain, hues]


def result(method: MutualInformation, space: workspace.Workspace, history: Sequence[Sequence[Run]]) -> Registration:
    """The registration that the best run stands for, judged by its rivals at the coarsest level; later few are left."""
    best = history[-1][0]
    stats = {
        "information": best.information,
        "overlap": best.overlap,
        "contrast": contrast(space.fixed, history[0], best),
    }
    status, reasons = verdict(best, stats["contrast"])
    return Registration.judged(method.name, status, space.to_world(best.fixed_to_moving), reasons, stats)
