"""Cross-modal search measured: pieces of unseen images of one modality, searched among all images of the other.

    python benchmarks/retrieval.py bf-shg --model MODEL --out results/retrieval

Protocol after Breznik et al., Scientific Reports 14:18798, 2024: queries are patches of unseen images, rotated and
shifted at random, the collection holds all images of the other modality, and a query is answered rightly where the
image of the same place is among the first k. The vocabulary is learnt from the training images of both modalities.
Pieces of the first hits are compared anew. Patches with less than half of the contrast of their image (standard
deviation), or with more than 5 % outside of it, are drawn again. Rows are kept in ``rows.csv``.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Any, Literal

import numpy as np
import tyro
from datasets import Split, bf_shg, gfp_dna, motor_neurons, phase_fluorescence, require_data, rgb_nir

from modalign.data.pairs import Pair
from modalign.evaluation.statistics import bootstrap_interval
from modalign.geometry import Grid, Rigid, corner_error, rotation_matrix
from modalign.image import Image
from modalign.io import read_table, write_table
from modalign.local_features import KeyPoints
from modalign.registration import FftSearch
from modalign.representation import ComirModel
from modalign.retrieval import (
    DESCRIBERS,
    Definition,
    Describing,
    Entry,
    FolderStore,
    Hit,
    Index,
    ModelMark,
    Recipe,
    Vocabulary,
    VocabularyOptions,
)
from modalign.search import METHODS, Query, SearchOptions, search

SETS: dict[str, Callable[[], Split]] = {
    "bf-shg": bf_shg,
    "rgb-nir": rgb_nir,
    "gfp-dna": gfp_dna,
    "motor-neurons": motor_neurons,
    "phase-fluorescence": phase_fluorescence,
}
SetName = Literal["bf-shg", "rgb-nir", "gfp-dna", "motor-neurons", "phase-fluorescence"]
SIDES = ("fixed", "moving")
KEYS = ("set", "size", "degrees", "representation", "features", "words", "stage")
FIRST = (1, 5, 10)
LEAST_CONTRAST, LEAST_VALID = 0.5, 0.95


@dataclass(frozen=True)
class Study:
    """One row of the table: a set, a representation, a describer."""

    set: tyro.conf.Positional[SetName]
    """Which images."""
    out: Path = field(kw_only=True)
    """Folder for the results."""
    model: Path | None = None
    """Model folder; the originals themselves without."""
    representation: str = "originals"
    """What to call it in the table."""
    features: tuple[str, ...] = ("sift", "upright-gradients", "rings")
    """Describers."""
    sizes: tuple[int, ...] = (256,)
    """Sides of the queries, pixels."""
    degrees: float = 180.0
    """Largest rotation of the queries to either side; the publication has about 30."""
    draws: int = 4
    """Queries of each unseen image."""
    words: int = 2000
    """Most words."""
    candidates: int = 30
    """Hits whose pieces are compared."""
    verify: int = 0
    """How many hits are registered; 0 for words and pieces alone."""
    every: bool = False
    """Register every image by FFT search, whatever the words say: the slow upper bound."""
    seed: int = 0
    """Of the queries."""


@dataclass(frozen=True, eq=False)
class Remembering(Describing):
    """Represents and describes each image once."""

    seen: dict[int, tuple[Any, ...]] = field(default_factory=dict)

    def represented(self, image: Image, side: str = "") -> Image:
        """See :class:`modalign.retrieval.Describing`."""
        if id(image) not in self.seen:
            self.seen[id(image)] = image, super().represented(image, side)
        representation: Image = self.seen[id(image)][1]
        return representation

    def described(self, representation: Image) -> KeyPoints:
        """See :class:`modalign.retrieval.Describing`."""
        if id(representation) not in self.seen:
            self.seen[id(representation)] = representation, super().described(representation)
        places: KeyPoints = self.seen[id(representation)][1]
        return places


@dataclass(frozen=True, eq=False)
class Asked:
    """A query, the pair that it is of, and where in it it lies."""

    pair: Pair
    side: str
    number: int
    image: Image
    truth: Rigid


def queries(pairs: Sequence[Pair], size: int, study: Study) -> Iterator[Asked]:
    """Patches of each image, for both sides."""
    rng = np.random.default_rng([study.seed, size, round(study.degrees)])
    for pair in pairs:
        for number in range(study.draws):
            for side in SIDES:
                image = getattr(pair, side)
                patch, truth = drawn(image, size, study.degrees, rng)
                yield Asked(pair, side, number, patch, truth)


def drawn(image: Image, size: int, degrees: float, rng: np.random.Generator) -> tuple[Image, Rigid]:
    """A patch inside an image with enough to see."""
    grid, sides = Grid((size, size)), np.array(image.grid.shape)
    for _ in range(1000):
        angle = rng.uniform(-degrees, degrees)
        half = size / 2 * (abs(np.cos(np.deg2rad(angle))) + abs(np.sin(np.deg2rad(angle))))
        if 2 * half > sides.min() - 1:
            continue
        center, turn = rng.uniform(half, sides - 1 - half), rotation_matrix(2, angle)
        truth = Rigid(turn, center - turn @ grid.center)
        patch = image.resampled(grid, truth)
        if patch.valid.mean() > LEAST_VALID and patch.data.std() > LEAST_CONTRAST * image.data.std():
            return patch, truth
    raise SystemExit(f"no patch of {size} pixels with enough contrast")


def main() -> None:
    """Measure the rows that the command line names."""
    study = tyro.cli(Study)
    require_data()
    model = None if study.model is None else ComirModel.load(study.model)
    train, test = SETS[study.set]()
    table = study.out / "rows.csv"
    rows = read_table(table) if table.is_file() else []
    for features in study.features:
        recipe = Recipe(DESCRIBERS[features](), model=None if model is None else mark(model))
        describing = Remembering(recipe, model, None if model is None else model.encoders())
        words = vocabulary(train, describing, study)
        with tempfile.TemporaryDirectory() as folder:
            stores = {side: filled(Path(folder) / side, [*train, *test], side, describing, words) for side in SIDES}
            for size in study.sizes:
                key = {
                    "set": study.set,
                    "size": size,
                    "degrees": study.degrees,
                    "representation": study.representation,
                    "features": features,
                    "words": len(words),
                }
                new = list(asked(study, key, [*train, *test], test, stores, describing))
                stale = {tuple(str(row[name]) for name in KEYS) for row in new}
                rows = [row for row in rows if tuple(str(row[name]) for name in KEYS) not in stale] + new
                write_table(table, rows)
                print(summary(new))


def mark(model: ComirModel) -> ModelMark:
    """What tells the model."""
    return ModelMark("", model.fingerprint(), model.card.fixed.name, model.card.moving.name)


def vocabulary(train: Sequence[Pair], describing: Describing, study: Study) -> Vocabulary:
    """Words of the training images of both modalities."""
    images = [(getattr(pair, side), side) for pair in train for side in SIDES]
    rows = [describing.described(describing.represented(image, side)).descriptors for image, side in images]
    return Vocabulary.learnt(rows, VocabularyOptions(study.words))


def filled(folder: Path, pairs: Sequence[Pair], side: str, describing: Describing, words: Vocabulary) -> FolderStore:
    """A store of all images of one modality."""
    store = FolderStore.made(folder, Definition(describing.recipe, words))
    places = {p.name: describing.described(describing.represented(getattr(p, side), side)) for p in pairs}
    store.add([Entry(name, words.histogram(some.descriptors), {"side": side}) for name, some in places.items()])
    return store


def asked(
    study: Study,
    key: dict[str, Any],
    pairs: Sequence[Pair],
    test: Sequence[Pair],
    stores: dict[str, FolderStore],
    describing: Describing,
) -> Iterator[dict[str, Any]]:
    """A row for each query and stage."""
    by_name = {pair.name: pair for pair in pairs}
    for number, one in enumerate(queries(test, key["size"], study)):
        other = SIDES[1 - SIDES.index(one.side)]
        index = Index(stores[other], describing)
        query = Query.of(index, one.image, one.side)

        def opened(hit: Hit, other: str = other) -> Image:
            image: Image = getattr(by_name[hit.name], other)
            return image

        stages: dict[str, tuple[SearchOptions, Any]] = {
            "words": (SearchOptions(len(pairs), 0, 0), ()),
            "pieces": (SearchOptions(len(pairs), study.candidates, 0), ()),
        }
        if study.verify:
            stages["verified"] = (SearchOptions(len(pairs), study.candidates, study.verify), METHODS)
        if study.every:
            stages["every image"] = (SearchOptions(len(pairs), len(pairs), len(pairs)), (FftSearch(),))
        for stage, (options, methods) in stages.items():
            started = process_time()
            found = search(index, query, opened, options, methods=methods)
            ranks = [place for place, hit in enumerate(found) if hit.hit.name == one.pair.name]
            first = found[0] if found else None
            registration = first.registration if first else None
            transform = registration.fixed_to_moving if registration else None
            is_right = bool(first) and first.hit.name == one.pair.name
            yield key | {
                "stage": stage,
                "direction": f"{one.side} → {other}",
                "specimen": one.pair.name,
                "number": one.number,
                "rank": ranks[0] + 1 if ranks else "",
                "status": registration.status if registration else "",
                "error": corner_error(one.image.grid, transform, one.truth) / key["size"]
                if transform is not None and is_right
                else "",
                "seconds": round(process_time() - started, 3),
            }
        print(f"\r{key['features']} {key['size']} query {number}", end="", file=sys.stderr, flush=True)


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Shares of queries answered within the first, with intervals by specimen."""
    lines = []
    for stage in dict.fromkeys(row["stage"] for row in rows):
        for direction in dict.fromkeys(row["direction"] for row in rows):
            some = [row for row in rows if (row["stage"], row["direction"]) == (stage, direction)]
            ranks = np.array([float(row["rank"] or np.inf) for row in some])
            names = [str(row["specimen"]) for row in some]
            cells = []
            for k in FIRST:
                hits = (ranks <= k).astype(float)
                interval = bootstrap_interval(hits, names, lambda v: float(np.mean(v)))
                cells.append(f"{hits.mean():.1%} ({interval.low:.0%}–{interval.high:.0%})")
            status = [row["status"] for row in some]
            trusted = [row for row in some if row["status"] in ("accepted", "unsure")]
            near = [row for row in trusted if row["error"] != "" and float(row["error"]) <= 0.02]
            wrong = sum(row["status"] == "accepted" and row["rank"] != 1 for row in some)
            told = f"| {status.count('accepted')}/{status.count('unsure')} | {wrong} | {len(near)}/{len(trusted)} "
            row = some[0]
            head = f"| {row['set']} {row['size']} ±{row['degrees']:.0f}° | {row['representation']} | {row['features']} "
            seconds = np.median([row["seconds"] for row in some])
            lines.append(f"{head}| {stage} | {direction} | {' | '.join(cells)} {told}| {len(some)} | {seconds:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
