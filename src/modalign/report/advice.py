"""What to type next: how to use a result, and what to try where it looks wrong."""

import os
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING

from modalign.report.content import Command, RegisterCommand, ReportContent

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

NOTHING_TO_ALIGN = ("image is too small", "image has no valid pixel", "image is constant", "fields of view are")
"""Reasons for which the images themselves have to be mended, and no option helps."""
MOST = 4
"""Pieces of advice on a page."""
Options = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Remedy:
    """A change of the command that was run, for one cause of failure.

    Attributes:
        words: Parts of reasons, notes or evidence that point to this cause.
        purpose: When to try it, as a sentence.
        options: Options of the verb to set, with their values.
        engine_options: Options of the engine to set.
        engines: The engines that have these options; any other is replaced by the first. Empty: the engine stays.
        applies: Whether it can help this pair at all.
    """

    words: tuple[str, ...]
    purpose: str
    options: Options
    engine_options: Options
    engines: tuple[str, ...] = ()
    applies: Callable[[ReportContent], bool] = lambda _: True


def _has_no_model(content: ReportContent) -> bool:
    return content.command is not None and "--model" not in content.command.options


def _lacks_pixel_size(content: ReportContent) -> bool:
    return any(record.unit == "pixel" for record in content.inputs)


def _is_not(engine: str) -> Callable[[ReportContent], bool]:
    return lambda content: content.command is not None and content.command.engine != engine


def _search(words: tuple[str, ...], purpose: str, engine_options: Options) -> Remedy:
    """A remedy of the engines that search everywhere."""
    return Remedy(words, purpose, {}, engine_options, ("fft-search", "auto"))


REMEDIES = (
    Remedy(
        ("pixel size", "of one scale", "changes sizes"),
        "A pixel size is missing or wrong: tell both (here 0.5 µm; put in yours).",
        {"--fixed-pixel-size": ("0.5",), "--moving-pixel-size": ("0.5",), "--unit": ("micrometer",)},
        {},
        applies=_lacks_pixel_size,
    ),
    Remedy(
        ("correlate", "key points", "matches agree", "representation", "by chance", "too little", "use a model"),
        "If the modalities look different: compare them through a model made for them (modalign train).",
        {"--model": ("MODEL",)},
        {},
        applies=_has_no_model,
    ),
    _search(
        ("hardly correlate", "fits better", "parts of the image"),
        "One of the images may be mirrored, such as a slide that lay upside down: try both.",
        {"--mirror": ()},
    ),
    _search(
        ("another place", "fits almost as well", "repeat"),
        "The right place is roughly known: try small rotations only (here 20°).",
        {"--max-rotation-degrees": ("20",)},
    ),
    _search(
        ("overlap", "correlate nowhere"),
        "The images share little more than a corner: allow less overlap.",
        {"--min-overlap": ("0.1",)},
    ),
    _search(
        ("changes sizes", "of one scale", "hardly correlate"),
        "The true sizes are not known: search the scale too, which takes longer.",
        {"--min-scale": ("0.5",), "--max-scale": ("2",)},
    ),
    _search(
        ("stretches", "lie elsewhere", "different places", "matches lie close"),
        "The images are stretched to each other: allow an affine transform.",
        {"--transform": ("affine",)},
    ),
    Remedy(
        ("masked", "structure", "constant", "unlike those"),
        "Labels, frames or artefacts disturb: mask them (pixels of 0 are left out).",
        {"--fixed-mask": ("FIXED_MASK.tif",), "--moving-mask": ("MOVING_MASK.tif",)},
        {},
    ),
    Remedy(
        ("detail", "matches", "runs led", "start closer"),
        "The images lie nearly right already: climb from there by mutual information.",
        {},
        {},
        ("mutual-information",),
        _is_not("mutual-information"),
    ),
)
"""Causes of failure, the most frequent first."""


def advice(content: ReportContent) -> tuple[Command, ...]:
    """Commands to try where a result looks wrong: first those that its reasons point to, then the most usual ones."""
    command = content.command
    if command is None:
        return ()
    told = " ".join((*content.registration.reasons, *content.registration.notes, *_against(content))).lower()
    if content.registration.candidate is None and any(words in told for words in NOTHING_TO_ALIGN):
        return ()
    fitting = [remedy for remedy in REMEDIES if remedy.applies(content) and not _was_tried(command, remedy)]
    ordered = sorted(fitting, key=lambda remedy: not any(word in told for word in remedy.words))
    changed = [(remedy, changed_command(command, remedy, f"try{k}")) for k, remedy in enumerate(ordered[:MOST], 1)]
    return tuple(Command(remedy.purpose, command_line(other.words)) for remedy, other in changed)


def _was_tried(command: RegisterCommand, remedy: Remedy) -> bool:
    """Whether all options of a remedy were given, so that the user knows what they do."""
    names = {*remedy.options, *remedy.engine_options}
    return bool(names) and names <= {*command.options, *command.engine_options}


def changed_command(command: RegisterCommand, remedy: Remedy, suffix: str) -> RegisterCommand:
    """A command with a remedy, and with another output folder, so that no result is overwritten."""
    keeps = not remedy.engines or command.engine in remedy.engines
    options = {**command.options, **remedy.options}
    if "--out" in options:
        options["--out"] = (f"{options['--out'][0]}-{suffix}",)
    return replace(
        command,
        options=options,
        engine=command.engine if keeps else remedy.engines[0],
        engine_options={**(command.engine_options if keeps else {}), **remedy.engine_options},
    )


def changed_options(options: "DataclassInstance", defaults: "DataclassInstance") -> dict[str, tuple[str, ...]]:
    """The options of the command line that make a dataclass of options from another of the same class.

    Fields that are dataclasses themselves are left out.
    """
    found = {}
    for entry in fields(options):
        value, default = getattr(options, entry.name), getattr(defaults, entry.name)
        if value != default and not is_dataclass(value):
            name = entry.name.replace("_", "-")
            found[f"--no-{name}" if value is False else f"--{name}"] = _values(value)
    return found


def _values(value: object) -> tuple[str, ...]:
    if isinstance(value, bool):
        return ()
    return tuple(map(str, value)) if isinstance(value, tuple | list) else (str(value),)


def apply_commands(transform: str, fixed: str, moving: str) -> tuple[Command, ...]:
    """Commands that use a transform file, to copy."""
    apply = ("modalign", "apply")
    like = ("--like", fixed)
    return (
        Command(
            "Another image of the moving side: one interpolation; its type and channels are kept.",
            command_line((*apply, moving, transform, *like, "--out", "aligned.tif")),
        ),
        Command(
            "A label map: values are copied, never mixed.",
            command_line((*apply, "LABELS.tif", transform, *like, "--labels", "--out", "labels_aligned.tif")),
        ),
        Command(
            "Points of the moving image, in world units (columns x, y and in 3D z).",
            command_line((*apply, "POINTS.csv", transform, "--out", "points_aligned.csv")),
        ),
        Command(
            "How exact it is, at landmarks that you have set in both images.",
            command_line(("modalign", "evaluate", transform, "--landmarks", "FIXED.csv", "MOVING.csv")),
        ),
    )


def command_line(words: Sequence[str]) -> str:
    """Words as one line that this machine's shell takes apart in the same way."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _against(content: ReportContent) -> list[str]:
    return [f"{row.name} {row.meaning}" for row in content.evidence if row.good is False]
