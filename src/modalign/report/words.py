"""Transforms, pixel sizes and confidence in words, for people who do not read matrices."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float
from scipy.linalg import polar
from scipy.spatial.transform import Rotation

from modalign.errors import InvalidInputError
from modalign.geometry import Grid, Transform
from modalign.geometry.grid import Unit
from modalign.report.comparison import Comparison, Motion
from modalign.report.content import AXES

Array = np.ndarray

SYMBOLS: dict[Unit, str] = {"pixel": "px", "nanometer": "nm", "micrometer": "µm", "millimeter": "mm", "meter": "m"}
"""Units as they stand behind numbers."""
DIRECTIONS = {"x": ("left", "right"), "y": ("up", "down"), "z": ("towards the first slice", "towards the last slice")}
"""Where smaller and larger indices of an axis lie on the screen."""
DIRECTION_SENTENCE = (
    "fixed_to_moving maps a world point of the FIXED image to the MOVING image; "
    "apply uses it to resample the moving image onto the grid of the fixed one."
)
RIGHT = "Right means: the corners of the image end up, on average, within 2 % of its width of where they belong."
"""What the confidence is the probability of."""
LEAST_DEGREES, LEAST_STRETCH, LEAST_SHIFT = 0.005, 5e-5, 0.005
"""Smaller rotations, relative changes of size, and shifts (in pixels) are called none."""


@dataclass(frozen=True)
class Phrase:
    """One part of a transform: in words, which are empty where nothing happens, and in numbers."""

    name: str
    words: str
    numbers: str


def transform_phrases(comparison: Comparison, fixed_to_moving: Transform) -> tuple[Phrase, ...]:
    """What a transform does to the moving image until it lies on the fixed one, beginning middle on middle.

    The linear part is taken apart as mirror, then stretch, then turn: the polar decomposition (Higham, *Functions of
    Matrices*, chapter 8) of what remains when left and right are exchanged where the transform mirrors.
    """
    try:
        motion = comparison.motion(fixed_to_moving)
    except InvalidInputError:
        return (Phrase("shape", "flattened to a line or a point, which cannot be undone", ""),)
    upright, mirrored = _upright(motion.linear)
    rotation = polar(upright)[0]
    grid = comparison.fixed.grid
    return (
        _mirror(mirrored),
        TURNS[grid.ndim](rotation),
        _shift(motion, grid),
        _size(upright),
        _shear(upright),
        *_bending(motion, grid),
    )


def summary(phrases: tuple[Phrase, ...]) -> str:
    """All that happens to the moving image, in one sentence."""
    parts = [phrase.words for phrase in phrases if phrase.words]
    if not parts:
        return "The moving image already lies on the fixed one, middle on middle."
    return f"To lie on the fixed image, the moving image is {_listed(parts)}."


def confidence_words(confidence: float | None) -> str:
    """A calibrated probability as a frequency; empty where there is none."""
    if confidence is None:
        return ""
    hundredths = round(100 * confidence)
    if hundredths >= 100:
        return "right in more than 99 of 100 such cases, by calibration"
    if hundredths <= 0:
        return "right in fewer than 1 of 100 such cases, by calibration"
    return f"right in {hundredths} of 100 such cases, by calibration"


def length(value: float, unit: Unit) -> str:
    """A length with its unit, to three or four digits."""
    return f"{float(f'{value:.3g}'):g} {SYMBOLS[unit]}" if abs(value) < 1000 else f"{value:.0f} {SYMBOLS[unit]}"


def _upright(linear: Float[Array, "ndim ndim"]) -> tuple[Float[Array, "ndim ndim"], bool]:
    """The linear part without its mirror, which exchanges left and right first; and whether there is one."""
    mirrored = bool(np.linalg.det(linear) < 0)
    flip = np.diag([1.0] * (len(linear) - 1) + [-1.0])
    return (linear @ flip if mirrored else linear), mirrored


def _mirror(mirrored: bool) -> Phrase:
    return Phrase("mirror", "mirrored (left and right exchanged)" if mirrored else "", "yes" if mirrored else "no")


def _turn_on_screen(rotation: Float[Array, "2 2"]) -> Phrase:
    degrees = float(np.rad2deg(np.arctan2(rotation[1, 0], rotation[0, 0])))
    sense = "counter-clockwise" if degrees > 0 else "clockwise"
    words = f"turned by {abs(degrees):.2f}° {sense}" if abs(degrees) >= LEAST_DEGREES else ""
    return Phrase("turn", words, f"{degrees:+.2f}° (positive: counter-clockwise on the screen)")


def _turn_about_axis(rotation: Float[Array, "3 3"]) -> Phrase:
    vector = Rotation.from_matrix(rotation[::-1, ::-1]).as_rotvec(degrees=True)
    degrees = float(np.linalg.norm(vector))
    about = vector / degrees if degrees else vector
    axis = ", ".join(
        f"{name} {round(value, 2) + 0.0:+.2f}" for name, value in zip(AXES[::-1], about.tolist(), strict=True)
    )
    words = f"turned by {degrees:.2f}° about the axis ({axis})" if degrees >= LEAST_DEGREES else ""
    return Phrase("turn", words, f"{degrees:.2f}° about ({axis}), from x towards y about +z")


TURNS = {2: _turn_on_screen, 3: _turn_about_axis}
"""A rotation in words, by the number of dimensions."""


def _shift(motion: Motion, grid: Grid) -> Phrase:
    """Where the middle goes, x first."""
    names = AXES[-grid.ndim :][::-1]
    axes = list(zip(names, motion.shift[::-1], grid.spacing[::-1], strict=True))
    parts = [
        f"{_both(abs(value), spacing, grid.unit)} {DIRECTIONS[name][int(value > 0)]}"
        for name, value, spacing in axes
        if abs(value) >= LEAST_SHIFT * spacing
    ]
    words = f"moved by {_listed(parts)}" if parts else ""
    return Phrase("shift of the middle", words, _numbers([(n, f"{v:+.4g} {SYMBOLS[grid.unit]}") for n, v, _ in axes]))


def _size(upright: Float[Array, "ndim ndim"]) -> Phrase:
    """Change of size along each axis of the moving image, x first."""
    stretches = dict(zip(AXES[-len(upright) :][::-1], np.linalg.norm(upright, axis=0)[::-1], strict=True))
    values = list(stretches.values())
    if np.ptp(values) < LEAST_STRETCH:
        mean = float(np.mean(values))
        return Phrase("size", _resized(mean), f"scale {mean:.4f}")
    parts = [f"{_resized(value)} along its {name}" for name, value in stretches.items() if _resized(value)]
    return Phrase("size", _listed(parts), _numbers([(name, f"scale {v:.4f}") for name, v in stretches.items()]))


def _resized(stretch: float) -> str:
    if abs(stretch - 1) < LEAST_STRETCH:
        return ""
    return f"{'enlarged' if stretch > 1 else 'made smaller'} by {abs(stretch - 1):.2%}"


def _shear(upright: Float[Array, "ndim ndim"]) -> Phrase:
    """How far right angles between the axes of the moving image are from right afterwards."""
    columns = upright / np.linalg.norm(upright, axis=0)
    names = AXES[-len(upright) :]
    cosines = [float(np.clip(columns[:, i] @ columns[:, j], -1, 1)) for i, j in combinations(range(len(names)), 2)]
    angles = {
        f"{names[j]}, {names[i]}": 90 - float(np.rad2deg(np.arccos(cosine)))
        for (i, j), cosine in zip(combinations(range(len(names)), 2), cosines, strict=True)
    }
    largest = max((abs(angle) for angle in angles.values()), default=0.0)
    words = f"sheared by {largest:.2f}°" if largest >= LEAST_DEGREES else ""
    return Phrase(
        "shear", words, _numbers([(pair, f"{round(angle, 2) + 0.0:+.2f}°") for pair, angle in angles.items()])
    )


def _bending(motion: Motion, grid: Grid) -> Iterator[Phrase]:
    if motion.bending >= LEAST_SHIFT * min(grid.spacing):
        far = _both(motion.bending, min(grid.spacing), grid.unit)
        yield Phrase("bending", f"bent, by up to {far} beyond all this", far)


def _both(value: float, spacing: float, unit: Unit) -> str:
    """A length in its unit and in pixels."""
    pixels = length(value / spacing, "pixel")
    return pixels if unit == "pixel" else f"{length(value, unit)} ({pixels})"


def _numbers(named: list[tuple[str, str]]) -> str:
    return "; ".join(f"{name} {text}" for name, text in named)


def _listed(parts: list[str]) -> str:
    """Parts of a sentence with commas, and an *and* before the last."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
