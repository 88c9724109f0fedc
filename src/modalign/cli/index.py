"""``modalign index``."""

import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import tyro

from modalign.batch.cluster import Cluster
from modalign.batch.indexing import KEPT, Sealed, Site, Tally, Work, sealed
from modalign.batch.processes import Processes
from modalign.batch.registration import cached_model
from modalign.cli.console import checked, parse, print_json, progress, remembered_interrupts
from modalign.cli.engine_choice import with_options
from modalign.data.collection import find_members
from modalign.errors import InvalidInputError, ModalignError, NoIndexError, SearchError
from modalign.geometry.grid import Unit
from modalign.io import make_folder
from modalign.retrieval import (
    DESCRIBERS,
    Definition,
    DescriberOptions,
    ModelMark,
    Recipe,
    Sift,
    Store,
    VocabularyOptions,
    make_store,
    open_store,
)
from modalign.retrieval.folder import check_free
from modalign.retrieval.places import check_places, is_server, without_password
from modalign.retrieval.store import check_keys

SHOWN = 3
"""Images named of those that failed."""
DescriberName = Literal["sift", "upright-gradients", "rings"]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Where an index lies."""

    index: tuple[str, ...]
    """The index: a folder, or a PostgreSQL server as postgresql://user@host/database; several are its shards."""
    json: bool = False
    """Print the result as one JSON object."""

    def __post_init__(self) -> None:
        if not self.index:
            raise InvalidInputError("--index needs a place: a folder, or postgresql://...")


@dataclass(frozen=True, kw_only=True)
class Filling(Placed):
    """How images are described."""

    collection: tyro.conf.Positional[Path]
    """Folder of images, or a CSV table with a column image, and if wanted name, side, pixel_size, unit; all other
    columns are facts that searches may be limited by, such as case, stain or date."""
    model: Path | None = None
    """Model folder of 'modalign train'; without one the intensities themselves are described. Where the index exists,
    the model that it was made with is found where it lay."""
    side: Literal["fixed", "moving"] | None = None
    """Which modality of the model the images belong to, where neither the table nor the number of channels tells."""
    prefix: str = ""
    """Put before the name of every image, such as nir/, to tell images of equally named files apart."""
    device: str = "cpu"
    """Where the networks compute."""
    workers: int = 1
    """Processes on this machine."""
    threads: int = 1
    """Threads of each process."""
    dask: str | None = None
    """Address of the scheduler of a Dask cluster that describes the images instead."""
    work: Path | None = None
    """Folder for what is not yet in the index, which all workers see; by default inside the index, where it is a
    folder. What was interrupted goes on from there."""

    def executor(self) -> "Processes | Cluster":
        """Who describes the images."""
        return Cluster(self.dask) if self.dask else Processes(self.workers, self.threads)


@dataclass(frozen=True, kw_only=True)
class Build(Filling):
    """Make an index of a collection: learn its visual words, and describe every image by them."""

    describer: DescriberName = "sift"
    """What describes places of an image; every one has options of its own, see --describer NAME --help."""
    words: int = VocabularyOptions.words
    """Most visual words; fewer where there are not 20 rows for each. The publication has 2000."""
    seed: int = VocabularyOptions.seed
    """Seed of the vocabulary."""
    pixel_size: tuple[float, ...] | None = None
    """Bring images to this pixel size first, where theirs is known; by default to that of the model."""
    unit: Unit = "micrometer"
    """Unit of the pixel size."""
    dimensions: Literal[2, 3] = 2
    """Dimensions of the images, where no model tells."""
    resume: bool = False
    """Go on where an earlier build was interrupted."""
    describer_options: DescriberOptions = field(default_factory=Sift)
    """The describer with its options."""


@dataclass(frozen=True, kw_only=True)
class Add(Filling):
    """Add the images of a collection to an index; those that it has are left as they are, changed ones replaced."""


@dataclass(frozen=True, kw_only=True)
class Remove(Placed):
    """Take images out of an index."""

    images: tyro.conf.Positional[tuple[str, ...]]
    """Names of images, or a folder or table whose images are meant."""


@dataclass(frozen=True, kw_only=True)
class Info(Placed):
    """Tell what an index holds."""

    names: bool = False
    """Print the names of all images."""


ACTIONS: dict[str, type[Placed]] = {"build": Build, "add": Add, "remove": Remove, "info": Info}


def run(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    if not arguments or arguments[0] not in ACTIONS:
        return _usage(arguments)
    name, *rest = arguments
    kind = ACTIONS[name]
    if kind is Build:
        parts = {name: describer() for name, describer in DESCRIBERS.items()}
        kind = with_options(Build, rest, "describer", "describer_options", parts, "sift")
    command = parse(kind, f"index {name}", rest)
    if isinstance(command, Build):
        _build(command)
    elif isinstance(command, Add):
        _add(command)
    elif isinstance(command, Remove):
        _remove(command)
    elif isinstance(command, Info):
        _info(command)
    return 0


def _usage(arguments: Sequence[str]) -> int:
    """Tell the actions; returns the exit status."""
    lines = [f"  {name:<8}{str(kind.__doc__).splitlines()[0]}" for name, kind in ACTIONS.items()]
    asked = arguments and arguments[0] in ("--help", "-h")
    text = "\n".join(["usage: modalign index ACTION [options]    modalign index ACTION --help tells about one", *lines])
    print(text, file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def _build(command: Build) -> None:
    made = _made(command)
    if made is not None and not command.resume:
        made.close()
        raise SearchError(
            f"there is an index in {command.index[0]} already: name a new place, or use 'modalign index add' for "
            "more images, or --resume to go on with a build that was interrupted"
        )
    with _workplace(command) as work:
        tally, images = _images(command)
        site = _site(command, _recipe(command) if made is None else made.definition.recipe)
        labour = Work(site, command.executor(), work)
        if made is None:
            with progress("describe") as advance, remembered_interrupts() as check:
                words = labour.learn(
                    images, VocabularyOptions(command.words, seed=command.seed), checked(advance, check)
                )
            made = make_store(command.index, Definition(site.recipe, words))
        _take_in(command, made, labour, images, tally)


def _made(command: Build) -> Store | None:
    """The index that an earlier build has begun."""
    check_places(command.index)
    try:
        return open_store(command.index)
    except NoIndexError:
        for place in command.index:
            if not is_server(place):
                check_free(Path(place))
        return None


def _recipe(command: Build) -> Recipe:
    if command.model is None:
        return Recipe(command.describer_options, command.dimensions, command.pixel_size, command.unit)
    model = cached_model(command.model)
    card = model.card
    mark = ModelMark(str(command.model.resolve()), model.fingerprint(), card.fixed.name, card.moving.name)
    size, unit = (command.pixel_size, command.unit) if command.pixel_size else (card.pixel_size, card.unit)
    return Recipe(command.describer_options, card.ndim, size, unit, mark)


def _add(command: Add) -> None:
    with closing(open_store(command.index)) as store, _workplace(command) as work:
        site = _site(command, store.definition.recipe)
        tally, images = _images(command)
        _take_in(command, store, Work(site, command.executor(), work), images, tally)


def _site(command: Filling, recipe: Recipe) -> Site:
    """What describes the images, once it is sure that the model is that of the index."""
    site = Site(recipe, model_folder(recipe, command.model), command.device)
    site.describing()
    return site


def model_folder(recipe: Recipe, given: Path | None) -> Path | None:
    """The folder of the model of an index: the one given, or where it lay.

    Raises:
        SearchError: There is none any more.
    """
    if given is not None or recipe.model is None:
        return given
    folder = Path(recipe.model.folder)
    if not folder.is_dir():
        raise SearchError(f"the model of this index no longer lies in {folder}: say with --model where it is")
    return folder


def _images(command: Filling) -> tuple[Tally, list[Sealed]]:
    members = find_members(command.collection, _check_facts)
    members = [replace(m, name=command.prefix + m.name, side=m.side or command.side or "") for m in members]
    tally = Tally()
    with progress("read    ") as advance:
        return tally, sealed(members, tally, advance)


def _check_facts(names: Collection[str]) -> None:
    check_keys(names)
    if own := [name for name in names if name in KEPT]:
        raise InvalidInputError(f"{own[0]!r} is what an index calls a fact of its own; give this column another name")


def _take_in(command: Filling, store: Store, work: Work, images: Sequence[Sealed], tally: Tally) -> None:
    with closing(store), progress("index   ") as advance, remembered_interrupts() as check:
        work.take_in(store, images, tally, checked(advance, check))
        count = len(store)
    if command.json:
        print_json({"images": count, **asdict(tally)})
        return
    replaced = f", {tally.replaced} replaced" if tally.replaced else ""
    print(f"{tally.added} images added{replaced}, {tally.unchanged} were there; the index has {count}")
    told = (
        ("show nothing that could be described, and are never found", tally.blank),
        ("could not be described", [f"{name} ({reason})" for name, reason in tally.failed.items()]),
    )
    for title, names in told:
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            print(f"{len(names)} images {title}: {'; '.join(names[:SHOWN])}{more}", file=sys.stderr)


@contextmanager
def _workplace(command: Filling) -> Iterator[Path]:
    """The folder for what is not yet in the index; gone once all is."""
    place = command.index[0]
    if command.work is None and is_server(place):
        with tempfile.TemporaryDirectory(prefix="modalign-") as temporary:
            yield Path(temporary)
        return
    folder, is_new = command.work or Path(place) / ".work", not Path(place).exists()
    try:
        yield make_folder(folder)
    except ModalignError:  # another try would end like this one; what was interrupted stays
        shutil.rmtree(folder, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # not if there is an index in it
                Path(place).rmdir()
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _remove(command: Remove) -> None:
    names: list[str] = []
    for image in command.images:
        names += [m.name for m in find_members(Path(image))] if _is_collection(Path(image)) else [image]
    with closing(open_store(command.index)) as store:
        known = store.facts(names)
        gone, left = store.remove(names), len(store)
    if command.json:
        print_json({"removed": gone, "images": left})
        return
    print(f"{gone} images removed; the index has {left}")
    if unknown := [name for name in names if name not in known]:
        print(f"{len(unknown)} were not in it: {', '.join(unknown[:SHOWN])}", file=sys.stderr)


def _is_collection(path: Path) -> bool:
    return path.is_dir() or (path.is_file() and path.suffix.lower() == ".csv")


def _info(command: Info) -> None:
    with closing(open_store(command.index)) as store:
        definition, count, names = store.definition, len(store), store.names()
        facts = fact_names(store, names)
    recipe = definition.recipe
    told = {
        "places": [without_password(place) for place in command.index],
        "images": count,
        "facts": facts,
        "words": definition.words,
        "describer": recipe.to_dict()["describer"],
        "dimensions": recipe.ndim,
        "pixel_size": recipe.pixel_size and [*recipe.pixel_size, recipe.unit],
        "model": recipe.model and asdict(recipe.model),
        **({"names": names} if command.names else {}),
    }
    if command.json:
        print_json(told)
        return
    for key, value in told.items():
        if key != "names" and value is not None:
            print(f"{key.replace('_', ' '):<12}{_line(value)}")
    for name in names if command.names else ():
        print(f"  {name}")


def fact_names(store: Store, names: Sequence[str]) -> list[str]:
    """What is known of images, looked up for some of them."""
    return sorted({key for told in store.facts(names[:ASKED]).values() for key in told if key not in HIDDEN})


ASKED = 1000
"""Images that are asked for their facts."""
HIDDEN = ("digest", "file", "pixel_size", "unit")
"""Facts that nobody searches by."""


def _line(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_line(inner)}" for key, inner in value.items())
    return " ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
