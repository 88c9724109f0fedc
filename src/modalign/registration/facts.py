"""The evidence in plain words."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from modalign.registration.evidence import AGREES, Evidence

CLEAR_CONTRAST, POOR_CONTRAST = 0.35, 0.2
"""From which contrast on a place stands out, and below which it does not."""
STRONG_ECHO = 0.9
"""Correlation of a shifted place, as a fraction of that of the place itself, from which on both are as good."""
MOST_AGREE, FEW_AGREE = 0.6, 0.35
"""Shares of agreeing tiles that speak for and against a transform."""
LEAST_TILES = 4
"""Fewer tiles with structure say nothing."""
BEYOND_CHANCE, NEAR_CHANCE = 12.0, 5.0
"""Standard deviations of the mutual information above random displacements."""
LITTLE_OVERLAP = 0.3
"""Overlaps below this fraction of the smaller image are named."""
LITTLE_STRUCTURE = 0.35
"""Shares of structured tiles below this are named."""
NOVEL = 3.0
"""Distances of the representations from those of training, in units of what is usual, beyond which they are named."""
ODD_SCALE, ODD_SHEAR = math.log(1.5), math.log(1.15)
"""Changes of size and shape beyond these are named."""


@dataclass(frozen=True)
class Fact:
    """One piece of evidence.

    Attributes:
        name: What it is about.
        number: Its value, as text.
        favours: Whether it speaks for the transform, against it (``False``), or neither (``None``).
        sentence: What it says.
    """

    name: str
    number: str
    favours: bool | None
    sentence: str


def facts(evidence: Evidence) -> tuple[Fact, ...]:
    """All that the evidence says, the most telling first."""
    parts, overlap = _parts(evidence), _overlap(evidence)
    first, last = (parts, overlap) if overlap.favours else (overlap, parts)  # without overlap, nothing else tells much
    return (first, _place(evidence), _intensities(evidence), *_motion(evidence), last, *_shape(evidence))


def _favours(value: float, clear: float, poor: float) -> bool | None:
    return True if value >= clear else False if value < poor else None


def _parts(e: Evidence) -> Fact:
    number = f"{e.agreement * e.tiles:.0f} of {e.tiles:.0f}"
    if e.tiles < LEAST_TILES:
        return Fact("agreement of the parts", number, False, "hardly any part of the images holds structure in both")
    favours = _favours(e.agreement, MOST_AGREE, FEW_AGREE)
    only = "" if favours else "only "
    return Fact("agreement of the parts", number, favours, f"{only}{number} parts of the image agree with it")


def _place(e: Evidence) -> Fact:
    favours = _favours(e.contrast, CLEAR_CONTRAST, POOR_CONTRAST)
    if e.echo > STRONG_ECHO:
        sentence, favours = "shifted by a certain amount it fits as well: the texture may be periodic", False
    elif e.contrast <= 0:
        sentence = "another place fits better"
    elif favours:
        sentence = f"no other place fits nearly as well (the next best is {e.contrast:.0%} worse)"
    else:
        sentence = f"another place fits almost as well (only {e.contrast:.0%} worse)"
    return Fact("contrast with other places", f"{e.contrast:.2f}", favours, sentence)


def _intensities(e: Evidence) -> Fact:
    favours = _favours(e.original_information, BEYOND_CHANCE, NEAR_CHANCE)
    words = {True: "far beyond chance", False: "hardly more than by chance", None: "more than by chance"}
    sentence = f"the original intensities are related there {words[favours]}"
    return Fact("mutual information of the originals", f"{e.original_information:.1f} σ", favours, sentence)


def _motion(e: Evidence) -> Iterator[Fact]:
    steady = e.drift <= AGREES and e.spread <= AGREES
    if e.drift > AGREES:
        sentence = "the parts of the image would together rather lie elsewhere"
    elif e.spread > AGREES:
        sentence = "two halves of the image would rather lie in different places"
    else:
        sentence = "two halves of the image, each by itself, confirm it"
    yield Fact("motion wanted by the parts", f"{e.drift:.1%} ± {e.spread:.1%} of the width", steady, sentence)
    returns = e.consistency <= AGREES
    sentence = "it is found again with the images exchanged" if returns else "with the images exchanged it is another"
    yield Fact("forward and backward", f"{e.consistency:.1%} of the width", returns, sentence)


def _overlap(e: Evidence) -> Fact:
    if e.overlap < LITTLE_OVERLAP:
        sentence, favours = f"the images overlap by only {e.overlap:.0%}", False
    elif e.structure < LITTLE_STRUCTURE:
        sentence, favours = f"only {e.structure:.0%} of the overlap holds structure", False
    else:
        sentence, favours = f"the images overlap by {e.overlap:.0%}", True
    return Fact("overlap", f"{e.overlap:.0%}, {e.structure:.0%} of it structured", favours, sentence)


def _shape(e: Evidence) -> Iterator[Fact]:
    if e.scale > ODD_SCALE:
        factor = math.exp(e.scale)
        yield Fact("scale", f"{factor:.2f}", False, f"it changes sizes by a factor of {factor:.1f}")
    if e.novelty > NOVEL:
        number = f"{e.novelty:.1f}"
        yield Fact("distance from training", number, False, "an image looks unlike those the model was trained on")
    if e.shear > ODD_SHEAR:
        ratio = math.exp(e.shear)
        yield Fact("shape", f"{ratio:.2f}", False, f"it stretches one direction {ratio:.2f} times more than another")
