"""What all images of an index have in common: how they are described, and by which words."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from modalign.errors import InvalidInputError, SearchError, UnreadableFileError
from modalign.geometry.grid import Unit
from modalign.image import Image
from modalign.io import arrays_of_bytes, bytes_of_arrays
from modalign.local_features import KeyPoints
from modalign.representation.encoder import Encoder
from modalign.representation.pixel_size import brought_to, working_grid
from modalign.retrieval.describers import DESCRIBERS, DescriberOptions
from modalign.retrieval.vocabulary import Vocabulary

FORMAT, VERSION = "modalign.index", 1


@dataclass(frozen=True)
class ModelMark:
    """Which model represents the images of an index.

    Attributes:
        folder: Where it lay when the index was made.
        fingerprint: Of its networks, see :meth:`modalign.representation.ComirModel.fingerprint`.
        fixed: Name of its first modality.
        moving: Name of its second one.
    """

    folder: str
    fingerprint: str
    fixed: str
    moving: str


@dataclass(frozen=True)
class Recipe:
    """How an image becomes rows of numbers.

    Attributes:
        describer: What describes places of its representation.
        ndim: Number of dimensions of all images.
        pixel_size: To which images are brought first, along each axis; ``None`` for theirs.
        unit: Of the pixel size.
        model: What represents images; ``None`` for the intensities themselves.
    """

    describer: DescriberOptions
    ndim: int = 2
    pixel_size: tuple[float, ...] | None = None
    unit: Unit = "pixel"
    model: ModelMark | None = None

    def represented(self, image: Image, encoder: Encoder) -> Image:
        """The representation of an image, at the pixel size of the index where both are known.

        Raises:
            InvalidInputError: The image has another number of dimensions.
            ModelError: It does not suit the encoder, or would have next to no pixels.
        """
        if image.ndim != self.ndim:
            raise InvalidInputError(f"the index is of {self.ndim}D images; this one is {image.ndim}D")
        image = image.without_alpha().without_gaps()
        grid = image.grid if self.pixel_size is None else working_grid(image.grid, self.pixel_size, self.unit)
        return encoder.encode(image if grid == image.grid else brought_to(image, grid))

    def described(self, representation: Image) -> KeyPoints:
        """The strongest places of a representation."""
        return self.describer.describe(representation)

    def check_model(self, fingerprint: str | None) -> None:
        """Refuse another model than that of the index.

        Raises:
            SearchError: It is another one, or there should be none.
        """
        if self.model is None:
            if fingerprint is not None:
                raise SearchError("this index was made without a model: leave --model out")
        elif fingerprint != self.model.fingerprint:
            raise SearchError(
                f"this index was made with another model, of {self.model.fixed} and {self.model.moving}, that lay in "
                f"{self.model.folder}: name that one, or build an index with this one"
            )

    def to_dict(self) -> dict[str, Any]:
        """The saved form."""
        describer = {"name": self.describer.name, "configuration": asdict(self.describer)}
        return {**asdict(self), "describer": describer}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "Recipe":
        """The recipe from its saved form."""
        kind = DESCRIBERS[saved["describer"]["name"]]
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in saved["describer"]["configuration"].items()
        }
        size, mark = saved["pixel_size"], saved["model"]
        return cls(
            kind(**values),
            saved["ndim"],
            None if size is None else tuple(size),
            saved["unit"],
            None if mark is None else ModelMark(**mark),
        )


@dataclass(frozen=True, eq=False)
class Definition:
    """A recipe, and the words that its rows are counted as.

    Attributes:
        recipe: How an image becomes rows.
        vocabulary: The words.
        shard: Which part of the index a store keeps, and of how many.
    """

    recipe: Recipe
    vocabulary: Vocabulary
    shard: tuple[int, int] = (1, 1)

    @property
    def words(self) -> int:
        """Size of the vocabulary."""
        return len(self.vocabulary)

    @cached_property
    def packed(self) -> tuple[str, bytes]:
        """The saved form: JSON text, and the vocabulary as safetensors, whose checksum the text has."""
        content = bytes_of_arrays({"centers": self.vocabulary.centers, "weights": self.vocabulary.weights})
        record = {
            "format": FORMAT,
            "version": VERSION,
            "words": self.words,
            "checksum": zlib.crc32(content),
            "shard": self.shard,
            "recipe": self.recipe.to_dict(),
        }
        return json.dumps(record, indent=2), content

    @classmethod
    def unpacked(cls, text: str, content: bytes, where: str) -> "Definition":
        """The definition from its saved form.

        Args:
            text: The JSON.
            content: The vocabulary.
            where: What to call the place in errors.

        Raises:
            SearchError: It is no definition, of a newer version, damaged, or with another vocabulary than its own.
        """
        try:
            record = json.loads(text)
            if record["format"] != FORMAT:
                raise SearchError(f"{where} is not an index of modalign")
            if record["version"] != VERSION:
                raise SearchError(f"{where} is an index of version {record['version']}; this modalign reads {VERSION}")
            if zlib.crc32(content) != record["checksum"]:
                raise SearchError(
                    f"the vocabulary of {where} is damaged or of another index: its checksum differs; build it anew"
                )
            arrays = arrays_of_bytes(content)
            number, of = record["shard"]
            words = Vocabulary(arrays["centers"], arrays["weights"])
            return cls(Recipe.from_dict(record["recipe"]), words, (int(number), int(of)))
        except (ValueError, KeyError, TypeError, UnreadableFileError) as error:
            raise SearchError(f"the description of {where} is damaged ({error!r}); build the index anew") from error

    def same_as(self, other: "Definition") -> bool:
        """Whether histograms of both are comparable; where a model lies does not matter, nor which part is kept."""
        own, others = (
            replace(recipe, model=recipe.model and replace(recipe.model, folder=""))
            for recipe in (self.recipe, other.recipe)
        )
        return own == others and self.packed[1] == other.packed[1]
