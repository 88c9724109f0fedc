"""``modalign search``."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from modalign.batch.indexing import open_hit
from modalign.batch.registration import cached_model
from modalign.cli.console import (
    EXIT_NOT_TRUSTED,
    checked,
    keep_inputs,
    parse,
    print_json,
    print_table,
    progress,
    remembered_interrupts,
)
from modalign.cli.engine_choice import EngineName, with_engine_options
from modalign.cli.index import Placed, fact_names, model_folder
from modalign.errors import InvalidInputError, ModalignError, OutputError, SearchError
from modalign.geometry import Transform
from modalign.geometry.grid import Unit
from modalign.geometry.rotations import angle_degrees
from modalign.image import Image
from modalign.io import (
    make_folder,
    read_with_pixel_size,
    stem,
    write_text,
    write_transform,
)
from modalign.registration import Method
from modalign.report.findings import Finding, findings_page
from modalign.retrieval import Condition, Hit, Index, Recipe, Store, open_store
from modalign.retrieval.places import is_server, without_password
from modalign.search import METHODS, Found, Query, SearchOptions, search


@dataclass(frozen=True, kw_only=True)
class Search(Placed):
    """Find the image of an index, of either modality, that shows what a query shows, and the place in it.

    The words of the index find candidates; these are opened, cut into pieces of the query's size and compared again,
    and the best are registered with the query. Exit status 3 where all registrations are refused.
    """

    query: tyro.conf.Positional[Path]
    """An image of either modality, or a piece of one, turned in any way."""
    model: Path | None = None
    """Model folder, where it no longer lies where it lay when the index was made."""
    side: Literal["fixed", "moving"] | None = None
    """Which modality of the model the query belongs to, where the number of its channels does not tell."""
    pixel_size: tuple[float, ...] | None = None
    """Pixel size of the query where its file has none or a wrong one; one number, or one an axis (z y x)."""
    unit: Unit = "micrometer"
    """Unit of the pixel size given here."""
    where: tuple[str, ...] = ()
    """Conditions on the facts of hits, such as side=moving stain=HE 'date>=2020-01-31'; all must hold."""
    top: int = SearchOptions.top
    """Hits to tell."""
    rerank: int = SearchOptions.candidates
    """Hits of the index that are opened and ranked anew by their pieces; 0 for none, which is quickest."""
    verify: int = SearchOptions.verified
    """How many of these are registered with the query; 0 for none."""
    engine: EngineName | None = None
    """How they are registered; by default by dense descriptors, and where nothing is found by FFT search. Every engine
    has options of its own, see --engine NAME --help."""
    refine_on_originals: bool = SearchOptions.refine_on_originals
    """Refine the place by the mutual information of the originals, where these tell it."""
    report: Path | None = None
    """HTML page to write, with the hits and where in them the query lies."""
    transforms: Path | None = None
    """Folder to write the transform to each verified hit into, as JSON for 'modalign apply'."""
    device: str = "cpu"
    """Where the networks compute."""
    method: tyro.conf.Suppress[Method | None] = None
    """The engine with its options."""


def run(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    named = any(word.partition("=")[0] == "--engine" for word in arguments)
    command = parse(with_engine_options(Search, arguments) if named else Search, "search", arguments)
    methods = METHODS if command.method is None else (command.method,)
    verified = min(command.verify, command.rerank)
    options = SearchOptions(command.top, command.rerank, verified, command.refine_on_originals)
    where = [Condition.parsed(text) for text in command.where]
    _check_outputs(command)
    with closing(open_store(command.index)) as store:
        recipe = store.definition.recipe
        folder = model_folder(recipe, command.model)
        model = None if folder is None else cached_model(folder)
        _check_pixel_size(command, recipe)
        index = Index.of(store, model, None if model is None else model.encoders(device=command.device))
        image = read_with_pixel_size(command.query, command.pixel_size, command.unit, ndim=recipe.ndim)
        query = Query.of(index, image, command.side or "")
        with progress("search") as advance, remembered_interrupts() as check:
            tell = checked(advance, check)
            found = search(index, query, _opener(recipe.ndim), options, methods=methods, where=where, advance=tell)
        if not found:
            _check_facts(where, store)
    files = _files(command, image, found, recipe.ndim)
    _tell(command, image, found, files)
    placed = any(one.registration and one.registration.status != "refused" for one in found)
    return 0 if placed or not verified else EXIT_NOT_TRUSTED


def _check_outputs(command: Search) -> None:
    """Refuse to write where something is read, before anything is searched."""
    if command.report is not None and command.report.suffix.lower() not in (".html", ".htm"):
        raise OutputError(command.report, "a report is an HTML page: give it a name that ends in .html")
    read = [command.query, *(Path(place) for place in command.index if not is_server(place))]
    for out in filter(None, (command.report, command.transforms)):
        keep_inputs(out, read)
    if command.report is not None and command.report.is_dir():
        raise OutputError(command.report, "is a folder; name a file")
    if command.transforms is not None and command.transforms.exists() and not command.transforms.is_dir():
        raise OutputError(command.transforms, "is a file; name a folder for the transforms")


def _check_pixel_size(command: Search, recipe: Recipe) -> None:
    """Refuse a length that nothing can be compared with."""
    if command.pixel_size is not None and command.unit != "pixel" and recipe.pixel_size and recipe.unit == "pixel":
        raise InvalidInputError(
            f"the model of this index knows no pixel size, so one in {command.unit} tells nothing: bring the query to "
            "the scale of the images, or give --unit pixel"
        )


def _check_facts(where: Sequence[Condition], store: Store) -> None:
    """Tell a fact that no image has from images that do not fit."""
    known = fact_names(store, store.names())
    odd = [condition.key for condition in where if condition.key not in known]
    if odd:
        raise SearchError(f"no image of the index has a fact {odd[0]!r}; there are {', '.join(known) or 'none'}")


def _opener(ndim: int) -> Callable[[Hit], Image]:
    return lambda hit: open_hit(hit, ndim)


def _files(command: Search, image: Image, found: Sequence[Found], ndim: int) -> dict[str, str]:
    """Write what was asked for; returns the path of the transform of each hit that has one."""
    pictures = {one.hit.name: _opened(one, ndim) for one in found} if command.report or command.transforms else {}
    files = {}
    if command.transforms is not None:
        folder = make_folder(command.transforms)
        for rank, one in enumerate(found, 1):
            hit, registration = pictures[one.hit.name], one.registration
            if hit is not None and registration is not None and registration.fixed_to_moving is not None:
                path = folder / f"{rank:03d}_{stem(one.hit.name)}.json"
                info = {"status": registration.status, "confidence": one.confidence}
                write_transform(path, registration.fixed_to_moving, fixed=image.grid, moving=hit.grid, info=info)
                files[one.hit.name] = str(path)
    if command.report is not None:
        findings = [Finding(one, pictures[one.hit.name]) for one in found]
        about = [
            ("file", str(command.query)),
            ("index", " ".join(map(without_password, command.index))),
            ("conditions", " ".join(command.where)),
        ]
        write_text(command.report, findings_page(command.query.name, image, findings, [a for a in about if a[1]]))
    return files


def _opened(one: Found, ndim: int) -> Image | None:
    """The image of a hit; ``None`` where it cannot be read, which its note tells."""
    try:
        return open_hit(one.hit, ndim)
    except ModalignError:
        return None


def _tell(command: Search, image: Image, found: Sequence[Found], files: Mapping[str, str]) -> None:
    rows = [_row(rank, one, image) for rank, one in enumerate(found, 1)]
    if command.json:
        transforms = [{"transform": files.get(one.hit.name)} for one in found]
        print_json({"hits": [{**row, **more} for row, more in zip(rows, transforms, strict=True)]})
        return
    if not found:
        print("nothing found: no image that fits the conditions shares a visual word with the query")
        return
    print_table([{key: _cell(row[key]) for key in SHOWN} for row in rows])
    for one in found:
        for note in filter(None, (one.note, *(one.registration.notes if one.is_trusted and one.registration else ()))):
            print(f"note: {one.hit.name}: {note}", file=sys.stderr)
    if files:
        print(f"{len(files)} transforms written to {command.transforms}: modalign apply HIT TRANSFORM --out FILE")
    if command.report is not None:
        print(f"report written to {command.report}")


SHOWN = ("rank", "image", "words", "piece", "verdict", "confidence", "place", "turn")
"""What the table tells of a hit."""


def _row(rank: int, one: Found, image: Image) -> dict[str, Any]:
    registration = one.registration
    transform = registration.fixed_to_moving if registration else None
    place, turn, matrix = None, None, None
    if transform is not None:
        place = transform.map_points(image.grid.center[None])[0].tolist()
        matrix = _matrix(transform, image.ndim)
        left, _, right = np.linalg.svd(matrix[:-1, :-1])
        turn = angle_degrees(left @ right)
    return {
        "rank": rank,
        "image": one.hit.name,
        "words": round(one.hit.score, 4),
        "piece": round(one.piece.score, 4) if one.piece else None,
        "verdict": registration.status if registration else "not verified",
        "confidence": round(one.confidence, 3) if registration else None,
        "place": place,
        "turn": turn,
        "query_to_hit": None if matrix is None else matrix.tolist(),
        "reasons": list(registration.reasons) if registration else [],
        "facts": dict(one.hit.facts),
        "note": one.note,
    }


def _matrix(transform: Transform, ndim: int) -> np.ndarray:
    """The homogeneous matrix of a linear transform, in world units, axes as of arrays."""
    points = transform.map_points(np.vstack([np.zeros(ndim), np.eye(ndim)]))
    matrix = np.eye(ndim + 1)
    matrix[:-1] = np.column_stack([(points[1:] - points[0]).T, points[0]])
    return matrix


def _cell(value: Any) -> str:
    """A number of the table as text; places x first."""
    if isinstance(value, list):
        return " ".join(f"{number:.1f}" for number in value[::-1])
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)
