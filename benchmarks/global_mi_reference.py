"""The engine ``global-mi`` beside the exhaustive search that it shortens: error and CPU time on the same pairs.

    python benchmarks/global_mi_reference.py
    python benchmarks/global_mi_reference.py --pairs 6 --max-rotation-degrees 180

Both register originals of two sets that were rotated and shifted by known amounts. The exhaustive version is literal:
Öfverstedt, Lindblad and Sladoje (Pattern Recognition Letters 159, 2022), at full resolution, 16 × 16 classes by
k-means, every whole-pixel shift with at least half of the overlap, rotations 2° apart, then 20 random rotations within
2° of the three best. Every count of every shift is an inverse transform of its own. It shares nothing with the engine
but the quantisation, and transforms in single precision as well. Expect minutes a pair.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from time import process_time

import numpy as np
import tyro
from datasets import Split, bf_shg, gfp_dna, require_data, rgb_nir
from scipy import fft, ndimage

from modalign.data.displacement import DisplacedPair, DisplacementProtocol, displaced_pairs
from modalign.geometry import Grid, Linear, Rigid, corner_error, rotation_matrix
from modalign.image import Image
from modalign.registration import GlobalMI
from modalign.registration.quantisation import planes, quantised

Array = np.ndarray

CLASSES = 16
STEP_DEGREES, BEST_ANGLES, RANDOM_ANGLES = 2.0, 3, 20
MIN_OVERLAP = 0.5
SUCCESS = 0.02
"""Mean corner error that counts as success, as a fraction of the width."""
SETS: Mapping[str, tuple[Callable[[], Split], int]] = {
    "bf_shg": (bf_shg, 300),
    "rgb_nir": (rgb_nir, 160),
    "gfp_dna": (gfp_dna, 300),
}
"""Loader, and width of the patches."""


@dataclass(frozen=True)
class Options:
    """What to compare on."""

    sets: tuple[str, ...] = ("bf_shg", "rgb_nir")
    """Image sets."""
    pairs: int = 2
    """Pairs of each set, one a specimen."""
    max_rotation_degrees: float = 30.0
    """Rotations up to this angle are drawn, and searched by both."""
    seed: int = 0
    """Seed of the displacements."""


@dataclass
class Tally:
    """What one of the two has done so far."""

    errors: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    successes: int = 0

    def timed(self, pair: DisplacedPair, find: Callable[[], Linear | None]) -> str:
        """Register a pair, and say how that went."""
        start = process_time()
        found = find()
        self.seconds.append(process_time() - start)
        error = float("inf") if found is None else corner_error(pair.fixed.grid, found, pair.fixed_to_moving)
        self.errors.append(error)
        self.successes += error <= SUCCESS * max(pair.fixed.grid.extent)
        return f"{error:7.2f} px {self.seconds[-1]:8.2f} s"

    def __str__(self) -> str:
        return f"{self.successes} of {len(self.errors)}, median error {np.median(self.errors):.2f} px"


def main() -> None:
    """Print both results pair by pair, then the ratio of their times."""
    options = tyro.cli(Options)
    require_data()
    engine, exhaustive = Tally(), Tally()
    method = GlobalMI(max_rotation_degrees=options.max_rotation_degrees)
    for name, pair in pairs(options):
        ours = engine.timed(pair, lambda pair=pair: method.register(pair.fixed, pair.moving).candidate)
        literal = exhaustive.timed(pair, lambda pair=pair: exhaustively(pair, options.max_rotation_degrees))
        print(f"{name} {pair.specimen}: global-mi {ours}, exhaustive {literal}", flush=True)
    print(f"global-mi:  {engine}, {np.mean(engine.seconds):.2f} CPU-s a pair")
    print(f"exhaustive: {exhaustive}, {np.mean(exhaustive.seconds):.2f} CPU-s a pair")
    print(f"ratio of CPU times: {sum(exhaustive.seconds) / sum(engine.seconds):.0f}")


def pairs(options: Options) -> Iterator[tuple[str, DisplacedPair]]:
    """One displaced pair of each of the first unseen specimens."""
    for name in options.sets:
        load, width = SETS[name]
        protocol = replace(DisplacementProtocol.comir(width), max_rotation_degrees=options.max_rotation_degrees)
        for pair in load()[1][: options.pairs]:
            single = replace(protocol, draws=1, seed=options.seed)
            yield from ((name, displaced) for displaced in displaced_pairs(pair.fixed, pair.moving, single, pair.name))


def exhaustively(pair: DisplacedPair, limit: float) -> Linear:
    """The transform of highest mutual information over all shifts, for rotations on a grid and then at random."""
    grid = np.arange(-limit, limit + 1e-9, STEP_DEGREES)
    fixed, moving = (one_hot(image) for image in (pair.fixed, pair.moving))
    tried = [best_shift(fixed, moving, degrees) for degrees in grid]
    best = sorted(tried, key=lambda trial: -trial[0])[:BEST_ANGLES]
    rng = np.random.default_rng(0)
    turns = rng.uniform(-STEP_DEGREES, STEP_DEGREES, RANDOM_ANGLES)
    tried += [best_shift(fixed, moving, best[k % len(best)][1] + turn) for k, turn in enumerate(turns)]
    _, degrees, shift = max(tried, key=lambda trial: trial[0])
    return transform(pair.fixed.grid, degrees, shift)


def one_hot(image: Image) -> Array:
    """A plane a class."""
    return planes(*quantised(image, CLASSES))


def transform(grid: Grid, degrees: float, shift: Array) -> Rigid:
    """Pixel x of the fixed image meets pixel x + shift of the moving image turned about its centre."""
    turn = rotation_matrix(grid.ndim, degrees)
    return Rigid.about(grid.center, turn, turn @ shift)


def best_shift(fixed: Array, moving: Array, degrees: float) -> tuple[float, float, Array]:
    """Highest mutual information over all shifts of a turned image; the angle; and the shift."""
    turned, margin = rotated(moving, degrees)
    shape = tuple(
        int(fft.next_fast_len(n + m, real=True)) for n, m in zip(fixed.shape[1:], turned.shape[1:], strict=True)
    )
    spectra_a, spectra_b = (
        [fft.rfftn(plane, shape) for plane in (*labels, labels.sum(0))] for labels in (fixed, turned)
    )

    def count(a: int, b: int) -> Array:
        return np.rint(fft.irfftn(np.conj(spectra_a[a]) * spectra_b[b], shape))

    total = count(-1, -1)
    classes_a, classes_b = range(len(fixed)), range(len(turned))
    area = np.maximum(total, 1)
    information = -sum(entropy(count(a, -1) / area) for a in classes_a)
    information -= sum(entropy(count(-1, b) / area) for b in classes_b)
    information += sum(entropy(count(a, b) / area) for a in classes_a for b in classes_b)
    information[total < MIN_OVERLAP * total.max()] = -1
    index = np.array(np.unravel_index(int(information.argmax()), shape))
    shift = np.where(index < turned.shape[1:], index, index - shape)
    return float(information.max()), degrees, shift - margin


def rotated(moving: Array, degrees: float) -> tuple[Array, Array]:
    """The planes turned about their centre, by nearest neighbour, on a box that holds them; and its margin."""
    size = np.array(moving.shape[1:])
    box = np.full(len(size), int(np.ceil(np.linalg.norm(size))))
    box += (box - size) % 2  # the margin is of whole pixels
    turn = rotation_matrix(len(size), degrees)
    offset = (size - 1) / 2 - turn @ (box - 1) / 2
    turned = [ndimage.affine_transform(plane, turn, offset, tuple(box), order=0) for plane in moving]
    return np.stack(turned), (box - size) // 2


def entropy(share: Array) -> Array:
    """The terms p log p of a negative entropy, 0 where nothing is."""
    return share * np.log(np.maximum(share, 1e-9))


if __name__ == "__main__":
    main()
