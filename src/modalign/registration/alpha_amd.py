"""Distances between fuzzy sets that combine intensity and space, descended stochastically from several starts."""

import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, product
from typing import ClassVar

import numpy as np

from modalign.errors import InvalidInputError
from modalign.geometry import Linear, corner_error, rotation_matrix
from modalign.image import Image
from modalign.registration import workspace
from modalign.registration.engine import Engine
from modalign.registration.fuzzy_pairs import FuzzyImage, FuzzyPair, Motion, Place, Schedule, Window
from modalign.registration.registrar import Registration, Status

Array = np.ndarray

FACTORS = (4, 2, 1)
"""Pixel size of each level, in units of the finest."""
BLURS = {4: 0.208, 2: 0.1225}
"""Smoothing of the coarser levels in their pixels, over the square root of the longest side; one pixel at the finest.

Both published pyramids, (4, 12), (2, 5), (1, 1) pixels for a side of 834 and (4, 7), (2, 3), (1, 1) for 300, follow it.
"""
LEAST_PIXELS, LEAST_SIDE = 500, 6
"""Coarser levels of which the smaller image would have fewer pixels in all, or along an axis, are left out."""
SEARCH = Schedule(200, 300, 1.0, 0.2)
"""The descent from every start at every level."""
REFINEMENT = Schedule(200, 3000, 0.2, 0.003)
"""The descent from the best place at the finest level."""
CARRIED, RESTARTED = 3, 8
"""Distinct places that go on to the next level, and starts, the best at first glance, that are tried there again.

What is fine texture only, as in learned representations, says nothing at coarse levels."""
CONVINCING = 0.7
"""The starts are not tried again where the distance is below that of random poses by this fraction."""
DISTINCT = 0.1
"""Two places are distinct if they move the corners apart, on average, by this fraction of the fixed image's width."""

PROBE_REACH = 0.35
"""Other poses with which the result is compared are shifted by up to this fraction of the width."""
PROBE = Schedule(100, 500, 1.0, 0.3)
"""Their descent."""
GLANCE = 2000
"""Points over which poses are compared before a descent."""
ASIDE, ASIDE_PIXELS = 0.02, 1.5
"""The result is compared with the same pose moved aside by this fraction of the width, or at least so many pixels."""
LEAST_SHARPNESS, TRUSTED_SHARPNESS = 0.04, 0.1
"""By which fraction the distance must lie below that a little aside: not to be refused; to be trusted.

On representations, tissue cores, fluorescence and textures, none of 55 unrelated or wrongly registered pairs exceeded
0.05; of 35 registrations that came out right, 33 exceeded 0.1."""
TRUSTED_CONTRAST = 0.2
"""By which fraction it must lie below that of the next best place to be trusted."""
NOTHING_VALID = "no neighbouring pixels are valid together; fill the gaps of the masks"


@dataclass(frozen=True)
class AlphaAmd(Engine):
    """Minimise the α-AMD, the average minimal distance between the images as fuzzy sets, coarse to fine.

    Every pixel is compared with the nearest pixels of similar intensity, however far they are, so the distance has few
    local minima: for images or representations that look alike, displaced by up to some twenty degrees beyond a start
    rotation and some twenty per cent of the width.

    Source: Öfverstedt, Lindblad and Sladoje, IEEE TIP 28(7), 2019. Departures: the points are scattered evenly between
    the pixels; the derivative is that of the interpolated table itself; steps are normalised and shrink where they lead
    nowhere; the last places are averaged; starts are tried at every level, and compared over the same points.
    """

    transform: Motion = "rigid"
    """Which transforms are tried: rotations and shifts, these with one scale, or all affine ones."""
    max_rotation_degrees: float = 23.0
    """Start rotations reach up to this angle to both sides (in 3D in each plane of axes); 180 tries all."""
    start_step_degrees: float = 23.0
    """Largest angle between neighbouring start rotations."""
    levels: int = 7
    """Number of α-levels to which the intensities are rounded."""
    window: Window = "uniform"
    """Weight of the pixels: all alike, or falling to zero at the border of the image."""
    min_overlap: float = 0.2
    """Least overlap, as a fraction of the valid area of the image that overlaps more."""
    max_pixels: int = 1_048_576
    """Work on at most so many pixels of each image; the tables of both take 64 bytes for each."""
    threads: int = 0
    """Threads that share the work, which does not change the result; 0 for as many as the machine has cores."""
    seed: int = 0
    """Seed of the random samples."""

    name: ClassVar[str] = "alpha-amd"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})

    def __post_init__(self) -> None:
        if not 0 <= self.max_rotation_degrees <= 180 or not self.start_step_degrees >= 1:
            raise InvalidInputError("max_rotation_degrees lies between 0 and 180, and start_step_degrees is at least 1")
        if not 1 <= self.levels <= 254:
            raise InvalidInputError(f"levels lies between 1 and 254, not {self.levels}")
        if not 0 < self.min_overlap <= 1:
            raise InvalidInputError(f"min_overlap is a fraction above 0 and at most 1, not {self.min_overlap}")
        if self.max_pixels < LEAST_PIXELS:
            raise InvalidInputError(f"max_pixels is at least {LEAST_PIXELS}, not {self.max_pixels}")
        if self.threads < 0 or self.seed < 0:
            raise InvalidInputError(f"threads and seed are at least 0, not {self.threads} and {self.seed}")

    def find(self, fixed: Image, moving: Image) -> Registration:
        """Find the transform with the smallest symmetric distance."""
        space = workspace.harmonised(*workspace.pictures(fixed, moving))
        with ThreadPoolExecutor(self.threads or os.cpu_count() or 1) as pool:
            return _Search(self, space, pool).result()


@dataclass(frozen=True, eq=False)
class _Search:
    """One run of the method: the images at all levels, and the threads that work on them."""

    method: AlphaAmd
    space: workspace.Workspace
    pool: ThreadPoolExecutor

    def result(self) -> Registration:
        """Descend level by level, look for better places elsewhere, and refine the best of all."""
        pairs = self._pairs()
        if not pairs:
            return Registration(self.method.name, "refused", None, (NOTHING_VALID,))
        found: list[Place] = []
        ends: list[Place] = []
        for pair in pairs:
            starts = [] if self._convinced(pair, found) else self._starts(pair)
            again = self._ranked(pair.valued(start, GLANCE) for start in starts)[:RESTARTED] if found else starts
            found = self._searched(pair, [*found[:CARRIED], *again])
            ends, found = ends or found, self._distinct(found)
        probes = self._probes(pair, found[0])
        probed = self._descended(pair, probes, "rigid", PROBE)
        first, *others = self._distinct([*found, *probed])
        [best] = self._descended(pair, [first], self.method.transform, REFINEMENT)
        return self._judged(pair, best, others, ends, probes, probed)

    def _convinced(self, pair: FuzzyPair, found: Sequence[Place]) -> bool:
        """Whether the best place of the level before stands out from random poses at this one."""
        if not found:
            return False
        best = pair.valued(found[0], GLANCE)
        return _below(best.rank, self._typical(self._probes(pair, best))) > CONVINCING

    def _typical(self, probes: Sequence[Place]) -> float:
        """The median of the ranks of random poses."""
        return float(np.median([place.rank for place in probes if self._allowed(place)] or [math.inf]))

    def _pairs(self) -> list[FuzzyPair]:
        """Both images at all levels, coarsest first; the largest tables, which take longest, are begun first."""
        spacing = finest_spacing(self.space, self.method.max_pixels)
        both = (self.space.fixed, self.space.moving)
        factors = level_factors(self.space, spacing)
        jobs = [(factor, number) for factor in reversed(factors) for number in range(2)]

        def fuzzy(job: tuple[int, int]) -> FuzzyImage:
            image = workspace.isotropic(both[job[1]], spacing * job[0])
            blur = BLURS[job[0]] * math.sqrt(max(image.grid.shape)) if job[0] in BLURS else 1.0
            return FuzzyImage.of(image, blur, self.method.levels, self.method.window, self.method.seed)

        made = dict(zip(jobs, self.pool.map(fuzzy, jobs), strict=True))
        pairs = [FuzzyPair(made[factor, 0], made[factor, 1]) for factor in factors]
        return [pair for pair in pairs if pair.fixed.weight > 0 and pair.moving.weight > 0]

    def _starts(self, pair: FuzzyPair) -> list[Place]:
        """The start rotations, centre on centre."""
        fixed, moving = pair.fixed.grid, pair.moving.grid
        turns = start_rotations(fixed.ndim, self.method.max_rotation_degrees, self.method.start_step_degrees)
        return [Place.of(turn, np.zeros(fixed.ndim), fixed, moving, pair.spacing) for turn in turns]

    def _searched(self, pair: FuzzyPair, places: Sequence[Place]) -> list[Place]:
        """The places to which rigid motions lead, and then those that are asked for."""
        found = self._descended(pair, places, "rigid", SEARCH)
        motion = self.method.transform
        return found if motion == "rigid" else self._descended(pair, found, motion, SEARCH)

    def _descended(self, pair: FuzzyPair, places: Sequence[Place], motion: Motion, schedule: Schedule) -> list[Place]:
        def one(job: tuple[int, Place]) -> Place:
            number, place = job
            state = np.random.SeedSequence((self.method.seed, number)).generate_state(1, np.uint64)
            return pair.valued(pair.descended(place, motion, schedule, int(state[0] >> np.uint64(2))))

        return list(self.pool.map(one, enumerate(places)))

    def _probes(self, pair: FuzzyPair, best: Place) -> list[Place]:
        """Poses shifted from the best along every axis to both sides, and as many turned at random as well."""
        generator = np.random.default_rng(self.method.seed)
        fixed, moving = pair.fixed.grid, pair.moving.grid
        transform = best.transform(fixed, moving, "affine")
        base = transform.map_points(fixed.center) - moving.center
        still = np.eye(fixed.ndim)
        probes = []
        for direction in (*still, *-still):
            for turn in (still, random_rotation(fixed.ndim, generator)):
                shift = base + generator.uniform(0.5, 1) * PROBE_REACH * max(fixed.extent) * direction
                place = Place.of(turn @ transform.linear, shift, fixed, moving, pair.spacing)
                probes.append(pair.valued(place, GLANCE))
        return probes

    def _ranked(self, places: Iterable[Place]) -> list[Place]:
        """Places by their rank; those that overlap too little last."""
        return sorted(places, key=lambda place: (not self._allowed(place), place.rank))

    def _allowed(self, place: Place) -> bool:
        return place.overlap >= self.method.min_overlap

    def _world(self, place: Place) -> Linear:
        return place.transform(self.space.fixed.grid, self.space.moving.grid, self.method.transform)

    def _near(self, one: Place, other: Place) -> bool:
        grid = self.space.fixed.grid
        return corner_error(grid, self._world(one), self._world(other)) < DISTINCT * max(grid.extent)

    def _distinct(self, places: Iterable[Place]) -> list[Place]:
        """The best places, best first, without those near a better one."""
        kept: list[Place] = []
        for place in self._ranked(places):
            if not any(self._near(place, better) for better in kept):
                kept.append(place)
        return kept

    def _aside(self, pair: FuzzyPair, best: Place) -> float:
        """The smallest distance after a small shift along any axis."""
        step = max(ASIDE * max(pair.fixed.grid.shape), ASIDE_PIXELS)
        distances = []
        for shift in (*np.eye(pair.fixed.grid.ndim), *-np.eye(pair.fixed.grid.ndim)):
            pose = best.pose.copy()
            pose[2, 0] += step * shift
            distances.append(pair.valued(Place(pose, best.spacing)).distance)
        return min(distances)

    def _judged(
        self,
        pair: FuzzyPair,
        best: Place,
        others: Sequence[Place],
        ends: Sequence[Place],
        probes: Sequence[Place],
        probed: Sequence[Place],
    ) -> Registration:
        """The registration, judged by where the starts and the probes led and how good these places are."""
        rivals = [place.rank for place in others if self._allowed(place) and not self._near(place, best)]
        stats = {
            "distance": best.distance * best.spacing,
            "overlap": best.overlap,
            "contrast": _below(best.rank, min(rivals, default=math.inf)),
            "gain": _below(best.rank, self._typical(probes)),
            "sharpness": _below(best.distance, self._aside(pair, best)),
            "starts": float(len(ends)),
            "agreeing_starts": float(sum(self._near(end, best) for end in ends)),
            "returned": sum(self._near(place, best) for place in probed) / len(probed),
        }
        status, reasons = verdict(stats, self.method.min_overlap)
        return Registration.judged(self.method.name, status, self.space.to_world(self._world(best)), reasons, stats)


def _below(value: float, other: float) -> float:
    """By which fraction a value lies below another one."""
    return 1.0 - value / other if other > 0 else 0.0


def finest_spacing(space: workspace.Workspace, max_pixels: int) -> float:
    """Pixel size at which neither image has more detail to offer, or the larger one has ``max_pixels``."""
    both = (space.fixed, space.moving)
    volume = max(math.prod(image.grid.extent) for image in both)
    detail = max(min(image.grid.spacing) for image in both)
    thinnest = min(min(image.grid.extent) for image in both)
    wanted = max(detail, float(volume / max_pixels) ** (1 / both[0].ndim))
    return float(min(wanted, thinnest / LEAST_SIDE))


def level_factors(space: workspace.Workspace, finest: float) -> list[int]:
    """Pixel sizes of the levels in units of the finest, coarsest first."""

    def fits(factor: int) -> bool:
        grids = [image.grid.resized((finest * factor,) * image.ndim) for image in (space.fixed, space.moving)]
        return all(math.prod(g.shape) >= LEAST_PIXELS and min(g.shape) >= LEAST_SIDE for g in grids)

    return [factor for factor in FACTORS if factor == 1 or fits(factor)]


def start_rotations(ndim: int, limit: float, step: float) -> list[Array]:
    """Rotations to start from: every combination of angles in the planes of the axes, none and the smallest first."""
    count = math.ceil(limit / step - 1e-9)
    angles = [limit * k / max(count, 1) for k in range(-count, count + 1)]
    angles = angles[1:] if limit == 180 and len(angles) > 1 else angles
    planes = list(combinations(range(ndim), 2))
    turns = sorted(product(angles, repeat=len(planes)), key=lambda turn: sum(np.abs(turn)))
    return [_turned(ndim, turn, planes) for turn in turns]


def _turned(ndim: int, degrees: Sequence[float], planes: Sequence[tuple[int, int]]) -> Array:
    matrix = np.eye(ndim)
    for angle, plane in zip(degrees, planes, strict=True):
        matrix = matrix @ rotation_matrix(ndim, angle, plane)
    return matrix


def random_rotation(ndim: int, generator: np.random.Generator) -> Array:
    """A rotation drawn evenly from all (Stewart, SIAM J. Numer. Anal. 17(3), 1980)."""
    q, r = np.linalg.qr(generator.standard_normal((ndim, ndim)))
    q = q * np.sign(np.diag(r))
    q[:, 0] *= np.linalg.det(q)
    return np.asarray(q)


def verdict(stats: dict[str, float], min_overlap: float) -> tuple[Status, tuple[str, ...]]:
    """Status and reason, by the numbers of the registration."""
    contrast, sharpness = stats["contrast"], stats["sharpness"]
    if stats["overlap"] < min_overlap:
        return "refused", (f"the images overlap by {stats['overlap']:.0%} only; give a start closer to the truth",)
    if sharpness < LEAST_SHARPNESS:
        return "refused", (
            f"moved a little aside, the images fit almost as well (distance {sharpness:.0%} larger); "
            "use a representation in which they look alike, or more start rotations",
        )
    told = f"distance {sharpness:.0%} below that a little aside and {contrast:.0%} below that of the next best place"
    if contrast < TRUSTED_CONTRAST or sharpness < TRUSTED_SHARPNESS:
        return "unsure", (f"{told}; look at the overlay",)
    return "accepted", (told,)
