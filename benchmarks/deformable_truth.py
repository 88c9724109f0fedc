"""Deformable registration across modalities, with a known deformation: end-point errors.

    python benchmarks/deformable_truth.py bf-shg --model MODEL --out results/deformable_truth

Unseen pairs, aligned by acquisition; the moving image is bent by a random cubic B-spline field and found again without
a linear part. `brain` is T1 and T2 of patient 002 on voxels of 2 mm. The error is the mean distance between what was
found and the truth, in pixels, over the fixed image without a rim of 24 pixels, or an eighth of the side where that is
less. ANTs SyN compares Mattes mutual information, its usual metric, on gray images. `--deep` is a CoMIR with several
channels. Rows are kept in ``rows.csv``; to repeat a row, delete it.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import process_time
from typing import Any, Literal

import numpy as np
import tyro
from datasets import require_data
from deformable import deformer
from deformable_comirs import brain
from deformable_peers import Run, ants_syn
from retrieval import SETS, SetName
from scipy import ndimage

from modalign.data.pairs import Pair
from modalign.evaluation.statistics import bootstrap_interval
from modalign.geometry import DisplacementField, deformation, identity
from modalign.image import Image
from modalign.io import read_table, write_table
from modalign.local_features.channels import gray
from modalign.registration import Deform
from modalign.registration.similarity_choice import CHANNELS_WEIGHT, SimilarityName
from modalign.representation import ComirModel

RIM = 24
KEYS = ("set", "pair", "draw", "method")


@dataclass(frozen=True)
class Study:
    """What to measure."""

    set: tyro.conf.Positional[SetName | Literal["brain"]]
    """Which images."""
    out: Path = field(kw_only=True)
    """Folder for the results."""
    model: Path | None = None
    """CoMIR model folder."""
    deep: Path | None = None
    """CoMIR model folder with several channels, whose vectors DeepSim compares."""
    knots: int = 64
    """Distance of the knots, pixels."""
    pixels: float = 12.0
    """Largest displacement."""
    draws: int = 1
    """Deformations of each pair."""
    most: int = 100
    """Pairs at most."""
    seed: int = 0
    """Of the deformations."""


def main() -> None:
    """Measure what is not there yet."""
    study = tyro.cli(Study)
    require_data()
    models = {name: ComirModel.load(path) for name, path in (("", study.model), (" deep", study.deep)) if path}
    table = study.out / "rows.csv"
    rows: list[dict[str, Any]] = list(read_table(table)) if table.is_file() else []
    known = {tuple(str(row[key]) for key in KEYS) for row in rows}
    for pair in test_pairs(study.set)[: study.most]:
        for draw in range(study.draws):
            truth = random_field(pair, study, draw)
            moving = bent(pair, truth)
            for name, images, run in methods(pair.fixed, moving, models):
                key = (study.set, pair.name, str(draw), name)
                if key not in known:
                    rows.append(dict(zip(KEYS, key, strict=True)) | measured(images, run, truth, pair))
                    write_table(table, rows)
                    print(f"\r{' '.join(key)}            ", end="", file=sys.stderr, flush=True)
    print(f"\n{summary(rows)}")


def test_pairs(name: str) -> Sequence[Pair]:
    """Unseen pairs of a set."""
    if name != "brain":
        return SETS[name]()[1]  # type: ignore[index]  # another name is refused by the command line
    pair = brain("002")
    return [replace(pair, fixed=replace(pair.fixed, mask=np.asarray(pair.fixed.data[0] > 0)))]


def random_field(pair: Pair, study: Study, draw: int) -> DisplacementField:
    """What the fixed image's points are displaced by, in the moving one."""
    grid = pair.fixed.grid
    rng = np.random.default_rng([study.seed, draw, *map(ord, pair.name)])
    places = [np.linspace(1.5, n / study.knots + 1.5, n) for n in grid.shape]
    knots = [rng.uniform(-1, 1, tuple(n // study.knots + 5 for n in grid.shape)) for _ in grid.shape]
    lattice = np.meshgrid(*places, indexing="ij")
    field_ = np.stack([ndimage.map_coordinates(k, lattice, order=3, prefilter=False) for k in knots])
    scale = study.pixels * min(grid.spacing) / np.linalg.norm(field_, axis=0).max()
    return DisplacementField((scale * field_).astype(np.float32), grid)


def bent(pair: Pair, truth: DisplacementField) -> Image:
    """The moving image, so that the truth leads from the fixed image to it."""
    return pair.moving.with_grid(pair.fixed.grid).resampled(pair.fixed.grid, truth.inverse(), order=1)


def methods(
    fixed: Image, moving: Image, models: Mapping[str, ComirModel]
) -> Iterator[tuple[str, tuple[Image, Image], Run]]:
    """Each method with the images that it sees."""
    yield "identity", (fixed, moving), lambda one, _: (identity(one.ndim), {})
    yield "ANTs SyN, mutual information", (gray(fixed), gray(moving)), ants_syn
    originals: list[tuple[SimilarityName, float]] = [("nmi", 1.0), ("mind", 3.0), ("mind", 0.5)]
    for name, weight in originals:
        yield (
            f"deform {name} {weight:g}",
            (fixed, moving),
            deformer(Deform("none", name, weight=weight, check_back=False)),
        )
    for name, model in models.items():
        encoders = model.encoders()
        images = encoders[0].encode(fixed), encoders[1].encode(moving)
        kinds: list[tuple[SimilarityName, float]] = [("ncc", 3.0), ("mind", 1.0)]
        if not name:
            yield "ANTs SyN, mutual information, on CoMIRs", (gray(images[0]), gray(images[1])), ants_syn
        if model.card.latent_channels > 1:
            kinds = [("deepsim", CHANNELS_WEIGHT), ("ncc", 3.0)]
        for kind, weight in kinds:
            label = f"deform {kind} {weight:g} on{name} CoMIRs"
            yield label, images, deformer(Deform("none", kind, weight=weight, check_back=False))


def measured(images: tuple[Image, Image], run: Run, truth: DisplacementField, pair: Pair) -> dict[str, Any]:
    """One pair by one method."""
    started = process_time()
    found, _ = run(*images)
    seconds = process_time() - started
    grid = truth.grid
    inner = tuple(slice(min(RIM, n // 8), -min(RIM, n // 8)) for n in grid.shape)
    points = grid.points[inner][pair.fixed.valid[inner]]
    away = np.linalg.norm(found.map_points(points) - truth.map_points(points), axis=-1) / min(grid.spacing)
    return {
        "error": round(float(away.mean()), 4),
        "median": round(float(np.median(away)), 4),
        "folded": f"{deformation(found, grid).folded:.3g}",
        "cpu_seconds": round(seconds, 2),
    }


def summary(rows: list[dict[str, Any]]) -> str:
    """Means over the pairs."""
    lines = ["| set | method | mean error, px | median, px | folded | CPU-s | cases |", "|---" * 7 + "|"]
    for name, method in dict.fromkeys((str(row["set"]), str(row["method"])) for row in rows):
        some = [row for row in rows if (row["set"], row["method"]) == (name, method)]
        error, median, folded, seconds = (
            np.array([float(row[key]) for row in some]) for key in ("error", "median", "folded", "cpu_seconds")
        )
        span = bootstrap_interval(error, [str(row["pair"]) for row in some], lambda v: float(np.mean(v)))
        lines.append(
            f"| {name} | {method} | {error.mean():.2f} ({span.low:.2f}–{span.high:.2f}) | {median.mean():.2f} "
            f"| {folded.mean():.2%} | {seconds.mean():.1f} | {len(some)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
