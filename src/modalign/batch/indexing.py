"""Building and extending an index with many workers: images are described in portions, and taken in one by one.

What a worker makes of a portion lies in a folder of its own, as of every batch, and is taken into the store in one
transaction. A build that was killed goes on with the images that the store does not have.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from scipy import sparse

from modalign.batch.files import sha256
from modalign.batch.registration import cached_model
from modalign.batch.run import Executor, sorted_out
from modalign.batch.work import FAILED, RECORD, Item, Outcome, Task, digest_of, done
from modalign.data.collection import Member
from modalign.errors import ModalignError, SearchError
from modalign.image import Image
from modalign.io import make_folder, read_arrays, read_json, read_with_pixel_size, write_arrays, write_bytes
from modalign.io.files import one_line
from modalign.retrieval import Describing, Entry, Fact, Hit, Recipe, Store, Vocabulary, VocabularyOptions

Advance = Callable[[float, str], None]
TOO_LITTLE = "all of them are blank, or too small for this describer"
PORTION = 16
"""Images that one task describes."""
SAMPLE = 2000
"""A vocabulary is learnt from so many images; of larger collections they are drawn at random."""
ROWS, HISTOGRAMS, VOCABULARY = "rows.safetensors", "histograms.safetensors", "vocabulary.safetensors"
KEPT = ("file", "digest", "side", "pixel_size", "unit")
"""Facts that are kept of every image beside those of the user."""


@dataclass(frozen=True)
class Site:
    """What describes images, in whichever process.

    Attributes:
        recipe: How.
        model: Folder of the model that the recipe names.
        device: Where its networks compute.
    """

    recipe: Recipe
    model: Path | None
    device: str = "cpu"

    def describing(self) -> Describing:
        """What describes images here."""
        if self.model is None:
            return Describing(self.recipe)
        model = cached_model(self.model)
        return Describing(self.recipe, model, model.encoders(device=self.device))


@dataclass(frozen=True)
class Sealed:
    """An image of a collection with the hash of its file."""

    member: Member
    digest: str

    def read(self, ndim: int) -> Image:
        """The image."""
        size = self.member.pixel_size or None
        return read_with_pixel_size(self.member.path, size, self.member.unit, ndim=ndim)  # type: ignore[arg-type]

    def facts(self, side: str) -> dict[str, Fact]:
        """All that is kept of it."""
        size = " ".join(f"{length:.17g}" for length in self.member.pixel_size)
        own = (str(self.member.path.resolve()), self.digest, side, size, self.member.unit if size else "")
        return {**self.member.facts, **{key: value for key, value in zip(KEPT, own, strict=True) if value}}


def open_hit(hit: Hit, ndim: int) -> Image:
    """The original image of a hit.

    Raises:
        ModalignError: It is not where it was, cannot be read, or is no longer what was described.
    """
    if "file" not in hit.facts:
        raise SearchError(f"nobody told where the file of {hit.name} lies")
    size = tuple(float(length) for length in str(hit.facts.get("pixel_size", "")).split())
    path = Path(str(hit.facts["file"]))
    member = Member(hit.name, path, "", size, str(hit.facts.get("unit", "micrometer")))
    image = Sealed(member, "").read(ndim)
    if "digest" in hit.facts and sha256(path) != hit.facts["digest"]:
        raise SearchError(f"{path} has changed since it was taken into the index: add it anew")
    return image


@dataclass(frozen=True)
class DescribeTask:
    """Rows that describe some images.

    Attributes:
        name: Of its folder.
        images: The images.
        site: Where and how.
    """

    name: str
    images: tuple[Sealed, ...]
    site: Site

    def digest(self) -> str:
        """Hash of all that the rows depend on."""
        images = [(i.member.name, i.member.side, i.member.pixel_size, i.member.unit, i.digest) for i in self.images]
        return digest_of(images, self.site.recipe.to_dict())

    def run(self, folder: Path) -> Mapping[str, Any]:
        """Describe the images and write their rows; those that fail are named in the record."""
        arrays, sides, failed = {}, {}, {}
        describing = self.site.describing()
        for number, sealed in enumerate(self.images):
            try:
                arrays[str(number)], sides[str(number)] = _described(sealed, describing)
            except ModalignError as error:
                failed[sealed.member.name] = one_line(error)
        write_arrays(folder / ROWS, arrays)
        return {"status": "done", "reasons": [], "sides": sides, "failed": failed, "files": {"rows": ROWS}}


def _described(sealed: Sealed, describing: Describing) -> tuple[np.ndarray, str]:
    image = sealed.read(describing.recipe.ndim)
    side = describing.side(image, sealed.member.side)
    places = describing.described(describing.represented(image, side))
    return places.descriptors.astype(np.float32), side


@dataclass(frozen=True)
class CountTask:
    """Histograms of some images.

    Attributes:
        describe: Describes them.
        vocabulary: File with the words.
        checksum: What tells this vocabulary from others.
        rows: Folder of the finished ``describe`` where there is one.
    """

    describe: DescribeTask
    vocabulary: Path
    checksum: str
    rows: Path | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.describe.name

    def digest(self) -> str:
        """Hash of all that the histograms depend on."""
        return digest_of(self.describe.digest(), self.checksum)

    def run(self, folder: Path) -> Mapping[str, Any]:
        """Count the words of each image and write the histograms; the record is that of the description."""
        if self.rows is None:
            record = self.describe.run(folder)
            rows = read_arrays(folder / ROWS)
            (folder / ROWS).unlink()
        else:
            record, rows = read_json(self.rows / RECORD), read_arrays(self.rows / ROWS)
        vocabulary = Vocabulary(**read_arrays(self.vocabulary))
        arrays: dict[str, np.ndarray] = {}
        for number, found in rows.items():
            histogram = vocabulary.histogram(found)
            arrays |= {f"{number}.words": histogram.indices, f"{number}.values": histogram.data}
        write_arrays(folder / HISTOGRAMS, arrays)
        told = {key: record[key] for key in ("sides", "failed")}
        return {"status": "done", "reasons": [], **told, "files": {"histograms": HISTOGRAMS}}

    def entries(self, folder: Path, outcome: Outcome, words: int) -> list[Entry]:
        """The images as a store keeps them."""
        arrays = read_arrays(folder / HISTOGRAMS)
        found = []
        for number, side in outcome.record["sides"].items():
            sealed = self.describe.images[int(number)]
            indices, values = arrays[f"{number}.words"], arrays[f"{number}.values"]
            histogram = sparse.csr_array((values, indices, [0, len(indices)]), shape=(1, words))
            found.append(Entry(sealed.member.name, histogram, sealed.facts(side)))
        return found


@dataclass
class Tally:
    """What became of the images of a collection."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    blank: list[str] = field(default_factory=list)
    """Names of images that show nothing; they are kept, and never found."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why images are not in the index."""


def sealed(members: Sequence[Member], tally: Tally, advance: Advance) -> list[Sealed]:
    """The images with the hashes of their files; those that cannot be read are noted as failed."""

    def seal(member: Member) -> Sealed | str:
        if not member.path.exists():
            return f"{member.path}: there is no such file"
        try:
            return Sealed(member, sha256(member.path))
        except OSError as error:
            return f"{member.path} cannot be read ({error.strerror})"

    found = []
    with ThreadPoolExecutor(4) as pool:
        for number, (member, one) in enumerate(zip(members, pool.map(seal, members), strict=True)):
            if isinstance(one, Sealed):
                found.append(one)
            else:
                tally.failed[member.name] = one
            advance((number + 1) / len(members), "")
    return found


@dataclass(frozen=True)
class Work:
    """Who describes images, and where what they make lies until it is taken in.

    Attributes:
        site: What describes images.
        executor: Who does it.
        folder: The same one after an interruption; all workers see it.
    """

    site: Site
    executor: Executor
    folder: Path

    @property
    def described(self) -> Path:
        """Folder of the rows that a vocabulary is learnt from."""
        return make_folder(self.folder / "described")

    def portions(self, images: Sequence[Sealed]) -> list[DescribeTask]:
        """The images in tasks."""
        starts = range(0, len(images), PORTION)
        return [DescribeTask(f"{k // PORTION:06d}", tuple(images[k : k + PORTION]), self.site) for k in starts]

    def learn(self, images: Sequence[Sealed], options: VocabularyOptions, advance: Advance) -> Vocabulary:
        """A vocabulary of the images, or of a sample of them.

        Raises:
            SearchError: There is too little to learn from, with the reasons why images failed.
            BatchError: The work cannot start or go on.
        """
        tasks = _sample(self.portions(images), options.seed)
        failed: dict[str, str] = {}
        for _, outcome in _done(tasks, self.described, self.executor, advance):
            failed |= _failed(outcome)
        rows = [image for task in tasks for image in _rows(self.described / task.name)]
        if not sum(map(len, rows)):
            why = "; ".join(f"{name}: {reason}" for name, reason in list(failed.items())[:3]) or TOO_LITTLE
            raise SearchError(f"none of the images could be described: {why}")
        return Vocabulary.learnt(rows, options)

    def take_in(self, store: Store, images: Sequence[Sealed], tally: Tally, advance: Advance) -> None:
        """Describe images and add them to a store, portion by portion; those that it has already are left as they are.

        Raises:
            SearchError: The store cannot be written.
            BatchError: The work cannot start or go on; what is added stays.
        """
        tasks = self._missing(store, images)
        tally.unchanged += len(images) - sum(len(task.describe.images) for task in tasks)
        counted = make_folder(self.folder / "counted")
        for task, outcome in _done(tasks, counted, self.executor, advance):
            tally.failed |= _failed(outcome)
            if outcome.status != FAILED:
                entries = task.entries(counted / task.name, outcome, store.definition.words)
                there = len(store.facts([entry.name for entry in entries]))
                store.add(entries)
                tally.added += len(entries) - there
                tally.replaced += there
                tally.blank += [entry.name for entry in entries if not entry.histogram.nnz]
            shutil.rmtree(counted / task.name, ignore_errors=True)

    def _missing(self, store: Store, images: Sequence[Sealed]) -> list[CountTask]:
        """Tasks for the images that a store does not have, or had with another content."""
        facts = store.facts([image.member.name for image in images])
        known = {name: told.get("digest") for name, told in facts.items()}
        _check_names(images, facts)
        card, content = store.definition.packed
        vocabulary = self.folder / VOCABULARY
        write_bytes(vocabulary, content)
        tasks = []
        for portion in self.portions(images):
            new = tuple(image for image in portion.images if known.get(image.member.name) != image.digest)
            task, rows = replace(portion, images=new), self.described / portion.name
            is_there = done(Item(task, task.digest()), self.described) is not None
            if new:
                tasks.append(CountTask(task, vocabulary, digest_of(card), rows if is_there else None))
        return tasks


def _sample(tasks: Sequence[DescribeTask], seed: int) -> list[DescribeTask]:
    """Enough tasks for a vocabulary."""
    most = SAMPLE // PORTION
    if len(tasks) <= most:
        return list(tasks)
    chosen = np.random.default_rng(seed).choice(len(tasks), most, replace=False)
    return [tasks[k] for k in sorted(chosen)]


T = TypeVar("T", bound=Task)


def _done(tasks: Sequence[T], folder: Path, executor: Executor, advance: Advance) -> Iterator[tuple[T, Outcome]]:
    """Each task with its end: first those that were done before, then the others as they end."""
    by_name = {task.name: task for task in tasks}
    known, todo = sorted_out(tasks, folder, "nothing", lambda _: None)
    with closing(executor.run(todo, folder)) if todo else nullcontext(()) as ending:
        for number, outcome in enumerate(chain(known, ending)):
            yield by_name[outcome.name], outcome
            advance((number + 1) / len(tasks), f"{number + 1} of {len(tasks)} portions")


def _check_names(images: Sequence[Sealed], known: Mapping[str, Mapping[str, Fact]]) -> None:
    """Refuse other images under names that are there.

    Raises:
        SearchError: Files of another place and content have the names of images of the index.
    """
    odd = [
        image.member.name
        for image in images
        for told in [known.get(image.member.name, {})]
        if told and told.get("file") != str(image.member.path.resolve()) and told.get("digest") != image.digest
    ]
    if odd:
        raise SearchError(
            f"the index has other images of the names {', '.join(odd[:3])}{' and more' if len(odd) > 3 else ''}: "
            "tell these apart by --prefix or by a column 'name' of a table, or remove those first"
        )


def _rows(folder: Path) -> list[np.ndarray]:
    """The rows of each image of a portion, in its order, which the file does not keep; nothing where it failed."""
    found = read_arrays(folder / ROWS) if (folder / ROWS).is_file() else {}
    return [found[number] for number in sorted(found, key=int)]


def _failed(outcome: Outcome) -> dict[str, str]:
    if outcome.status == FAILED:
        return {f"portion {outcome.name}": outcome.record["reasons"][0]}
    return dict(outcome.record["failed"])
