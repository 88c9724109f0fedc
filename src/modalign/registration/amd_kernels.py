"""Compiled loops of the distance between fuzzy sets and of its descent; import inside functions, numba is slow to load.

Coordinates here are pixels of a pyramid level, counted from the centre of each image along its own axes. A pose is
``(3, ndim, ndim)``: the linear part, its inverse, and the shift as the first row of the third, so that
``moving = linear @ fixed + shift``. Places are tuples, whose length the compiler knows: one code for all dimensions.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float
from numba.cpython.unsafe.tuple import tuple_setitem

from modalign.registration.compiled import compiled

Array = np.ndarray
with_item: Any = tuple_setitem
"""A tuple with one item replaced: ``(items, number, value)``."""
Pose = Float[Array, "3 ndim ndim"]
Points = Float[Array, "points columns"]
"""A point a row: coordinates, level, weight."""
Table = Float[Array, "levels pixels"]
Vector = tuple[float, ...]
Problem = tuple[tuple[Points, Points], tuple[Table, Table], tuple[tuple[int, ...], ...], tuple[Vector, Vector]]
"""Points, tables, shapes, and the indices of the middles, each of the fixed and of the moving image."""
Sums = Float[Array, "2 sums"]
"""For each direction: weight of the points that met valid pixels; means of distance, slope, slope times coordinates."""

WINDOW = 10
"""Steps after which it is asked whether the descent still gets anywhere."""
STALLED = 0.3
"""It does not where the way made in a window is less than this fraction of the steps taken: steps become shorter."""
SHRINKAGE = 0.5
"""Factor by which they do."""
MEMORY, SQUARE_MEMORY = 0.9, 0.99
"""Decay of the means of the gradient and of its square."""
LATENESS = 3.0
"""How much more later places count in the average (Shamir and Zhang, ICML 2013, section 4)."""
TERMS = 9
"""Terms of the exponential series: steps turn by far less than one radian."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Increment of the random counter (Steele, Lea and Flood, OOPSLA 2014)."""


@compiled
def distance_at(row: Float[Array, " pixels"], shape: tuple[int, ...], place: Vector) -> tuple[float, Vector]:
    """Multilinear interpolation of a row of a table at a place in indices, and its exact derivative.

    NaN outside of the image and beside masked pixels.
    """
    part, slope, base, inside = place, place, 0, True
    for a in range(len(shape)):
        inside = inside and place[a] >= 0 and place[a] <= shape[a] - 1
        cell = min(int(place[a]), shape[a] - 2)
        part, slope = with_item(part, a, place[a] - cell), with_item(slope, a, 0.0)
        base = base * shape[a] + cell
    value = 0.0
    if not inside:
        return math.nan, slope
    for corner in range(1 << len(shape)):
        step, share = 0, 1.0
        for a in range(len(shape)):
            step = step * shape[a] + ((corner >> a) & 1)
            share *= _share(corner, a, part)
        height = row[base + step]
        value += share * height
        for a in range(len(shape)):
            rise = height if (corner >> a) & 1 else -height
            for b in range(len(shape)):
                rise *= _share(corner, b, part) if b != a else 1.0
            slope = with_item(slope, a, slope[a] + rise)
    return value, slope


@compiled
def _share(corner: int, axis: int, part: Vector) -> float:
    return part[axis] if (corner >> axis) & 1 else 1 - part[axis]


@compiled
def add_point(
    point: Float[Array, " columns"], linear: Array, origin: Vector, shape: tuple[int, ...], table: Table, sums: Array
) -> None:
    """Add to the sums one point's weight, and its distance, slope, and slope times coordinates times the weight.

    The point is found at ``linear @ coordinates + origin``, in indices.
    """
    ndim = len(shape)
    place = origin
    for a in range(ndim):
        for b in range(ndim):
            place = with_item(place, a, place[a] + linear[a, b] * point[b])
    value, slope = distance_at(table[int(point[ndim])], shape, place)
    if math.isnan(value):
        return
    weight = point[ndim + 1]
    sums[0] += weight
    sums[1] += weight * value
    for a in range(ndim):
        sums[2 + a] += weight * slope[a]
        for b in range(ndim):
            sums[2 + ndim + a * ndim + b] += weight * slope[a] * point[b]


@compiled
def add_points(
    points: Points,
    first: int,
    count: int,
    linear: Array,
    shift: Array,
    middle: Vector,
    shape: tuple[int, ...],
    table: Table,
    sums: Array,
) -> None:
    """Add so many points from the ``first`` on; after the last of the list comes its beginning.

    Afterwards the sums hold the weight of the points that met valid pixels, and means over these.
    """
    for s in range(len(sums)):
        sums[s] = 0.0
    origin = middle
    for a in range(len(shape)):
        origin = with_item(origin, a, middle[a] + shift[a])
    for j in range(min(count, len(points))):
        add_point(points[(first + j) % len(points)], linear, origin, shape, table, sums)
    for s in range(1, len(sums)):
        sums[s] /= max(sums[0], 1e-30)


@compiled
def uniform(counter: int) -> float:
    """A random number in [0, 1) that depends on the counter only."""
    z = np.uint64(counter) * GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return float(z >> np.uint64(11)) * 2.0**-53


@compiled
def distance(
    problem: Problem, pose: Pose, first: int, count: int, sums: Sums, by_shift: Array, by_linear: Array
) -> float:
    """The symmetric distance under a pose, in pixels, with its derivatives.

    For the pose with the linear part ``linear @ exp(E)`` and the shift ``shift + τ``, ``by_shift`` receives the
    derivative by τ and ``by_linear`` that by E, at zero. ``sums`` receives the sums of both directions.
    """
    points, tables, shapes, middles = problem
    ndim = len(shapes[0])
    linear, inverse, shift, back_shift = pose[0], pose[1], pose[2, 0], np.zeros(ndim)
    for a in range(ndim):
        for b in range(ndim):
            back_shift[a] -= inverse[a, b] * shift[b]
    add_points(points[0], first, count, linear, shift, middles[1], shapes[1], tables[1], sums[0])
    add_points(points[1], first, count, inverse, back_shift, middles[0], shapes[0], tables[0], sums[1])
    _derivatives(pose, sums, by_shift, by_linear)
    return float(0.5 * (sums[0, 1] + sums[1, 1]))


@compiled
def _derivatives(pose: Pose, sums: Sums, by_shift: Array, by_linear: Array) -> None:
    """Map the slopes of both directions to the parameters: the inverse changes to ``exp(-E) @ inverse``."""
    linear, inverse, shift, ndim = pose[0], pose[1], pose[2, 0], pose.shape[1]
    slope, back = sums[0, 2 : 2 + ndim], sums[1, 2 : 2 + ndim]
    turn, back_turn = sums[0, 2 + ndim :], sums[1, 2 + ndim :]
    for a in range(ndim):
        by_shift[a] = 0.5 * slope[a]
        for b in range(ndim):
            by_shift[a] -= 0.5 * inverse[b, a] * back[b]
            by_linear[a, b] = 0.0
            for c in range(ndim):
                there = (back_turn[a * ndim + c] - back[a] * shift[c]) * inverse[b, c]
                by_linear[a, b] += 0.5 * (linear[c, a] * turn[c * ndim + b] - there)


@compiled
def descend(problem: Problem, pose: Pose, generators: Array, schedule: tuple[int, int, float, float], key: int) -> int:
    """Change a pose to one nearby with a smaller distance, and count the steps taken.

    Steps follow the gradient of the sampled distance, normalised by its own recent size (Kingma and Ba, ICLR 2015,
    algorithm 1): none is longer than a given number of pixels, which shrinks where they lead nowhere.

    Args:
        problem: Points, tables, shapes and middles of both images.
        pose: Changed in place.
        generators: ``(motions, ndim, ndim)``: how the linear part may change, so that each unit is a pixel.
        schedule: Most steps, points a step and direction, longest step at first, and when to stop, in pixels.
        key: Where the random numbers begin.
    """
    ndim = pose.shape[1]
    most, count, length, shortest = schedule
    sums, by_shift, by_linear = np.zeros((2, 2 + ndim + ndim * ndim)), np.zeros(ndim), np.zeros((ndim, ndim))
    state = np.zeros((7, ndim + len(generators)))
    path, age, steps = 0.0, 0, 0
    while steps < most and length >= shortest:
        first = int(uniform(key + steps) * len(problem[0][0]))
        distance(problem, pose, first, count, sums, by_shift, by_linear)
        _project(generators, by_shift, by_linear, state[0])
        steps, age = steps + 1, age + 1
        path += _choose_step(state, steps, length)
        move(pose, generators, state[3])
        _average(state, age)
        if steps % WINDOW == 0:
            if _norm(state[4]) < STALLED * path:
                move(pose, generators, state[6] - state[5])
                state[5:] = 0.0
                length, age = length * SHRINKAGE, 0
            path, state[4] = 0.0, 0.0
    move(pose, generators, state[6] - state[5])
    return steps


@compiled
def _project(generators: Array, by_shift: Array, by_linear: Array, gradient: Array) -> None:
    """The derivatives by the shift and by each motion."""
    ndim = len(by_shift)
    for a in range(ndim):
        gradient[a] = by_shift[a]
    for m in range(len(generators)):
        gradient[ndim + m] = 0.0
        for a in range(ndim):
            for b in range(ndim):
                gradient[ndim + m] += generators[m, a, b] * by_linear[a, b]


@compiled
def _choose_step(state: Array, time: int, length: float) -> float:
    """Update the means and the step, and add it to the way; the length of the step."""
    for p in range(state.shape[1]):
        gradient = state[0, p]
        state[1, p] += (1 - MEMORY) * (gradient - state[1, p])
        state[2, p] += (1 - SQUARE_MEMORY) * (gradient * gradient - state[2, p])
        size = math.sqrt(state[2, p] / (1 - SQUARE_MEMORY**time)) + 1e-12
        state[3, p] = -length * state[1, p] / (1 - MEMORY**time) / size
        state[4, p] += state[3, p]
    return _norm(state[3])


@compiled
def _average(state: Array, age: int) -> None:
    """Update the place since the last change of the length, and the average of such places."""
    for p in range(state.shape[1]):
        state[5, p] += state[3, p]
        state[6, p] += (1 + LATENESS) / (age + LATENESS) * (state[5, p] - state[6, p])


@compiled
def _norm(vector: Array) -> float:
    total = 0.0
    for value in vector:
        total += value * value
    return math.sqrt(total)


@compiled
def move(pose: Pose, generators: Array, step: Array) -> None:
    """Change a pose by a step in pixels: first along the axes, then by each motion."""
    ndim = pose.shape[1]
    change, back = np.zeros((ndim, ndim)), np.zeros((ndim, ndim))
    for a in range(ndim):
        pose[2, 0, a] += step[a]
        for b in range(ndim):
            for m in range(len(generators)):
                change[a, b] += step[ndim + m] * generators[m, a, b]
            back[a, b] = -change[a, b]
    pose[0] = _product(pose[0], _exponential(change))
    pose[1] = _product(_exponential(back), pose[1])


@compiled
def _exponential(change: Array) -> Array:
    """The matrix exponential of a small matrix, by its series (Horner)."""
    result = np.eye(len(change))
    for term in range(TERMS, 0, -1):
        result = _product(change, result)
        for a in range(len(change)):
            for b in range(len(change)):
                result[a, b] = result[a, b] / term + (1.0 if a == b else 0.0)
    return result


@compiled
def _product(left: Array, right: Array) -> Array:
    """The matrix product without the start-up time of a library."""
    result = np.zeros((len(left), len(left)))
    for a in range(len(left)):
        for b in range(len(left)):
            for c in range(len(left)):
                result[a, b] += left[a, c] * right[c, b]
    return result
