"""An index: images by what they show, to which images are added, and which is asked with one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from scipy import sparse

from modalign.errors import ModelError, SearchError
from modalign.image import Image
from modalign.local_features import KeyPoints
from modalign.representation.encoder import Encoder, Identity
from modalign.retrieval.definition import Definition, Recipe
from modalign.retrieval.store import Condition, Entry, Fact, Hit, Store

SIDES = ("fixed", "moving")
"""The modalities of a model."""


@runtime_checkable
class SearchModel(Protocol):
    """What an index needs of a model."""

    def fingerprint(self) -> str:
        """Hash of what its representations depend on."""

    def encoders(self) -> tuple[Encoder, Encoder]:
        """The encoders of the fixed and of the moving modality."""

    def channels(self) -> tuple[int, int]:
        """How many channels the images of the fixed and of the moving modality have."""


@dataclass(frozen=True, eq=False)
class Describing:
    """What describes images: a recipe, and the model that it names.

    Attributes:
        recipe: The recipe.
        model: The model; ``None`` where the recipe names none.
        encoders: Used in place of those of the model, for instance on another device.

    Raises:
        SearchError: It is not the model of the recipe.
    """

    recipe: Recipe
    model: SearchModel | None = None
    encoders: tuple[Encoder, Encoder] | None = None

    def __post_init__(self) -> None:
        self.recipe.check_model(self.model.fingerprint() if self.model else None)

    def side(self, image: Image, wanted: str = "") -> str:
        """The modality of an image: the one wanted, or the only one that has so many channels; empty without a model.

        Raises:
            ModelError: Both have, or neither has.
        """
        if self.model is None:
            return ""
        own, channels = len(image.without_alpha().data), self.model.channels()
        fits = [side for side, count in zip(SIDES, channels, strict=True) if count == own]
        if wanted:
            fits = [side for side in fits if side == wanted]
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise ModelError(f"both modalities of the model have images of {own} channels: say which with --side")
        raise ModelError(
            f"the {wanted or 'fixed and the moving'} images of the model have "
            f"{' and '.join(str(c) for s, c in zip(SIDES, channels, strict=True) if wanted in ('', s))} channels; this "
            f"one has {own}"
        )

    def represented(self, image: Image, side: str = "") -> Image:
        """The representation of an image, see :meth:`modalign.retrieval.Recipe.represented`."""
        return self.recipe.represented(image, self.encoder(self.side(image, side)))

    def encoder(self, side: str) -> Encoder:
        """The encoder of a side, the identity of none."""
        if self.model is None:
            return Identity()
        return (self.encoders or self.model.encoders())[SIDES.index(side)]

    def described(self, representation: Image) -> KeyPoints:
        """The strongest places of a representation."""
        return self.recipe.described(representation)


@dataclass(frozen=True, eq=False)
class Index:
    """See the module. Laws: a member finds itself first; what was added survives a kill.

    Attributes:
        store: Where histograms are kept.
        describing: What describes images, for the recipe of the store.
    """

    store: Store
    describing: Describing

    @classmethod
    def of(
        cls, store: Store, model: SearchModel | None = None, encoders: tuple[Encoder, Encoder] | None = None
    ) -> "Index":
        """A store with the model that it was made with; ``None`` where it was made without.

        Raises:
            SearchError: It is another model.
        """
        return cls(store, Describing(store.definition.recipe, model, encoders))

    @property
    def definition(self) -> Definition:
        """What all images have in common."""
        return self.store.definition

    def add(self, name: str, image: Image, side: str = "", facts: Mapping[str, Fact] | None = None) -> None:
        """Keep an image; one of the same name is replaced."""
        self.store.add([Entry(name, self.histogram(image, side), facts or {})])

    def histogram(self, image: Image, side: str = "") -> sparse.csr_array:
        """How often each word appears in an image."""
        places = self.describing.described(self.describing.represented(image, side))
        return self.definition.vocabulary.histogram(places.descriptors)

    def query(self, image: Image, count: int = 10, side: str = "", where: Sequence[Condition] = ()) -> list[Hit]:
        """The images most like one, best first.

        Args:
            image: What to search with: an image of either modality, or a piece of one.
            count: Most hits.
            side: Its modality, ``"fixed"`` or ``"moving"``; not needed where its channels tell.
            where: What the facts of hits must fit.

        Raises:
            SearchError: It shows nothing, or the store cannot be read.
            ModelError: It does not suit the model.
        """
        return self.ask(self.histogram(image, side), count, where)

    def ask(self, histogram: sparse.csr_array, count: int, where: Sequence[Condition] = ()) -> list[Hit]:
        """The same with a histogram."""
        if not histogram.nnz:
            raise SearchError("the query shows nothing that could be described: it is blank, too small, or masked")
        return self.store.search(histogram, count, where)
