"""Searching an index to the end: words find candidates, pieces of them are compared, registration has the last word.

The index knows words alone. Here its best hits are opened, cut into pieces of the query's size and ranked anew, and the
best of them are registered with the query: which of them shows the same, and where in it the query lies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from scipy import sparse

from modalign.errors import InvalidInputError, ModalignError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.registration import (
    DenseDescriptors,
    FftSearch,
    Judge,
    Registrar,
    Registration,
    refined_on_originals,
    register,
)
from modalign.representation.encoder import Model
from modalign.retrieval import Condition, Hit, Index, Piece, best_piece
from modalign.retrieval.index import SearchModel

Array = np.ndarray
METHODS: tuple[Registrar, ...] = (DenseDescriptors(), FftSearch())
"""How candidates are registered: quickly, and where none of them can be trusted, thoroughly."""
WIDE = 3.0
"""Candidates are registered whole where no side is more than so many times the longest of the query; else around the
best piece."""
MOST_KEPT = 1 << 30
"""Bytes of candidates that stay in memory."""


@dataclass(frozen=True)
class SearchOptions:
    """How far a search goes."""

    top: int = 10
    """Hits to tell."""
    candidates: int = 30
    """Hits of the index that are opened, cut into pieces of the query's size and ranked anew; 0 for none."""
    verified: int = 20
    """How many of these are then registered with the query; 0 for none."""
    refine_on_originals: bool = True
    """Refine what was found by the mutual information of the originals, where these tell it."""

    def __post_init__(self) -> None:
        if self.top < 1 or self.candidates < 0 or self.verified < 0:
            raise InvalidInputError("--top is at least 1, --rerank and --verify at least 0")
        if self.verified > self.candidates:
            raise InvalidInputError(
                f"{self.verified} hits cannot be verified of {self.candidates} that are looked at again: verify fewer"
            )


@runtime_checkable
class VerifyingModel(SearchModel, Model, Protocol):
    """A model that finds images and knows how sure to be of a registration."""


@dataclass(frozen=True, eq=False)
class Query:
    """What is searched for.

    Attributes:
        image: The original.
        representation: What the index sees of it.
        histogram: The words of it.
        side: Its modality; empty without a model.
    """

    image: Image
    representation: Image = field(repr=False)
    histogram: sparse.csr_array = field(repr=False)
    side: str = ""

    @classmethod
    def of(cls, index: Index, image: Image, side: str = "") -> "Query":
        """An image as an index sees it; errors as :meth:`modalign.retrieval.Index.query`."""
        side = index.describing.side(image, side)
        representation = index.describing.represented(image, side)
        places = index.describing.described(representation)
        return cls(image, representation, index.definition.vocabulary.histogram(places.descriptors), side)

    @property
    def grid(self) -> Grid:
        """Where it lies."""
        return self.image.grid


@dataclass(frozen=True, eq=False)
class Found:
    """A hit, and what became of it.

    Attributes:
        hit: What the index said.
        piece: The piece of it most like the query; ``None`` where it was not looked at again.
        registration: From the query (fixed) to the hit (moving), with its verdict; ``None`` where it was not verified.
        note: What the user should know, such as why it was not.
    """

    hit: Hit
    piece: Piece | None = None
    registration: Registration | None = None
    note: str = ""

    @property
    def confidence(self) -> float:
        """Probability that the query lies where it was found; 0 where nothing was verified."""
        return (self.registration.confidence or 0.0) if self.registration else 0.0

    @property
    def is_trusted(self) -> bool:
        """Whether it was verified and accepted: among many candidates, one that is unsure may be so by chance."""
        return self.registration is not None and self.registration.status == "accepted"

    def outline(self, query: Grid) -> Float[Array, "corners ndim"] | None:
        """World points of the hit at the corners of the query; ``None`` unless it was verified and not refused."""
        found = self.registration.fixed_to_moving if self.registration else None
        return None if found is None else found.map_points(query.corners)


Opened = Callable[[Hit], Image]
"""Reads the original image of a hit."""


def search(
    index: Index,
    query: Query,
    opened: Opened,
    options: SearchOptions = SearchOptions(),
    *,
    methods: Sequence[Registrar] = METHODS,
    where: Sequence[Condition] = (),
    advance: Callable[[float, str], None] = lambda _fraction, _text: None,
) -> list[Found]:
    """The images that show what a query shows, best first.

    Verified hits come first, in order of the confidence that the query lies where it was found; then those whose pieces
    were compared, then all others, each in order of the similarity of words.

    Args:
        index: Where to look.
        query: What to look for.
        opened: Reads the image of a hit. Where it fails for a hit, its note says why.
        options: How far to go.
        methods: How candidates are registered with the query; each further one only where none is accepted after
            those before it, and of each candidate the more confident registration stays.
        where: What the facts of hits must fit.
        advance: Called with the finished fraction and a few words.

    Raises:
        SearchError: The query shows nothing, or the store cannot be read.
    """
    hits = index.ask(query.histogram, max(options.top, options.candidates), where)
    look = _Look(index, query, opened, options.refine_on_originals)
    again, rest = hits[: options.candidates], hits[options.candidates :]
    steps = 1 + len(methods)
    seen = []
    for number, hit in enumerate(again):
        advance(number / len(again) / steps, f"compare pieces of {hit.name}")
        seen.append(look.again(hit))
    seen.sort(key=lambda each: -each.piece.score if each.piece else 0.0)
    verified, others = seen[: options.verified], seen[options.verified :]
    for step, method in enumerate(methods, 1):
        for number, one in enumerate(verified):
            advance((step + number / len(verified)) / steps, f"{method.name} with {one.hit.name}")
            verified[number] = look.registered(one, method, judge_all=step == len(methods))
        if any(one.is_trusted for one in verified):
            break
    advance(1.0, "")
    verified.sort(key=lambda each: -each.confidence)
    return [*verified, *others, *map(Found, rest)][: options.top]


@dataclass(frozen=True)
class _Look:
    """Looks at candidates; the last ones stay in memory between the two stages, as many as fit."""

    index: Index
    query: Query
    opened: Opened
    refine_on_originals: bool
    kept: dict[str, tuple[Image, Image, str]] = field(default_factory=dict)

    def again(self, hit: Hit) -> Found:
        """Compare pieces of a hit."""
        try:
            original, representation, side = self._read(hit)
        except ModalignError as error:
            return Found(hit, note=f"not looked at again: {' '.join(str(error).split())}")
        if sum(r.data.nbytes + o.data.nbytes for o, r, _ in self.kept.values()) < MOST_KEPT:
            self.kept[hit.name] = original, representation, side
        places = self.index.describing.described(representation)
        vocabulary = self.index.definition.vocabulary
        extent = extent_in(self.query.grid, original.grid)
        piece = best_piece(places, vocabulary, self.query.histogram, extent)
        larger = max(extent) > max(original.grid.extent)
        return Found(hit, piece, note="the query is larger than this image" if larger else "")

    def registered(self, found: Found, method: Registrar, *, judge_all: bool) -> Found:
        """Register the query with a hit, whole or around its best piece; the more confident result stays.

        What the method itself refuses, as it does with most wrong candidates, is judged only where ``judge_all``.
        """
        if found.piece is None:
            return found
        try:
            original, representation, side = self.kept.get(found.hit.name) or self._read(found.hit)
        except ModalignError as error:
            return replace(found, note=f"not verified: {' '.join(str(error).split())}")
        reach = WIDE * max(extent_in(self.query.grid, original.grid))
        seen, shown = (around(image, found.piece.center, reach) for image in (representation, original))
        both, originals = (self.query.representation, seen), (self.query.image, shown)
        registration = register(*both, method)
        if judge_all or registration.status != "refused":
            judge = self._judge(side)
            registration = judge.judge(registration, *both, originals)
            if self.refine_on_originals and registration.status != "refused":
                registration = judge.judge(refined_on_originals(registration, *originals), *both, originals)
        better = replace(found, registration=registration)
        return better if found.registration is None or better.confidence > found.confidence else found

    def _read(self, hit: Hit) -> tuple[Image, Image, str]:
        original = self.opened(hit)
        side = self.index.describing.side(original, str(hit.facts.get("side", "")))
        return original, self.index.describing.represented(original, side), side

    def _judge(self, side: str) -> Judge:
        model = self.index.describing.model
        if not isinstance(model, VerifyingModel):
            return Judge()
        return Judge.of_model(model.calibration, (self.query.side, side))


def around(image: Image, center: tuple[float, ...], reach: float) -> Image:
    """The part of an image about a point, ``reach`` wide; all along axes that are no longer."""
    middle = image.grid.world_to_index(np.array(center))
    widths = np.minimum(np.ceil(reach / np.array(image.grid.spacing)).astype(int), image.grid.shape)
    starts = np.clip(np.rint(middle - widths / 2).astype(int), 0, np.array(image.grid.shape) - widths)
    if tuple(widths) == image.grid.shape:
        return image
    return image.cropped(tuple(starts.tolist()), tuple(widths.tolist()))


def extent_in(grid: Grid, other: Grid) -> tuple[float, ...]:
    """Sides of a grid in the unit of another one; where one has no pixel size, both have the same pixels."""
    if (grid.unit == "pixel") == (other.unit == "pixel"):
        return grid.in_unit(other.unit).extent
    return tuple(n * size for n, size in zip(grid.shape, other.spacing, strict=True))
