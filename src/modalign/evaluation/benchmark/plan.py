"""The plan of a benchmark, from a TOML file: everything that its rows depend on."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from modalign.errors import BatchError, ModalignError
from modalign.evaluation.benchmark.cases import CaseFiles, check_name, read_cases
from modalign.evaluation.benchmark.protocols import PROTOCOLS, Natural, Protocol, check_width
from modalign.evaluation.benchmark.values import checked_values
from modalign.evaluation.peers import PEERS
from modalign.io.files import require_file
from modalign.registration import ENGINES, Registrar
from modalign.representation.handmade import HANDMADE

Part = TypeVar("Part")
IDENTITY, COMIR, SLICES = "identity", "comir", "comir-slices"
ENCODER_KINDS = (IDENTITY, *HANDMADE, COMIR, SLICES)
WITH_MODEL = (COMIR, SLICES)
DO_NOTHING = "do nothing"
SHOWN = 8
"""Names listed in a message."""


@dataclass(frozen=True)
class DatasetPlan:
    """Image pairs to register."""

    name: str
    """What to call the set."""
    pairs: Path
    """CSV file with the columns fixed and moving, and if there are any name, specimen, mask, truth, fixed_landmarks,
    moving_landmarks, fixed_labels and moving_labels."""
    only: tuple[str, ...] = ("*",)
    """Names of pairs, or patterns of names; only these take part."""
    width: int | None = None
    """Side of the patches that are displaced, in pixels of the fixed image."""


@dataclass(frozen=True)
class EncoderPlan:
    """How images are represented before they are registered."""

    name: str
    """What to call it in the tables."""
    kind: str = IDENTITY
    """identity, a hand-made representation, comir, or comir-slices: volumes slice by slice, with a 2D model."""
    model: str | None = None
    """Model folder of the last two kinds; {dataset} in it stands for the name of the set."""
    datasets: tuple[str, ...] = ("*",)
    """Names or patterns of the sets it is used on."""

    def __post_init__(self) -> None:
        if self.kind not in ENCODER_KINDS:
            raise BatchError(f"unknown kind of encoder {self.kind!r}; known are {', '.join(ENCODER_KINDS)}")
        if self.name in ENCODER_KINDS and self.name != self.kind:
            raise BatchError(
                f"the encoder {self.name!r} is of kind {self.kind}: name another kind, or call it otherwise"
            )
        if self.model is None and self.kind in WITH_MODEL:
            raise BatchError(
                f"the encoder {self.name!r} is of kind {self.kind} and needs a model folder: add model = …"
            )
        if self.model is not None and self.kind not in WITH_MODEL:
            raise BatchError(f"the encoder {self.name!r}: a model belongs to the kind comir, not to {self.kind}")


@dataclass(frozen=True)
class RegistrarPlan:
    """How representations are registered."""

    name: str
    """What to call it in the tables."""
    engine: str = ""
    """Name of an engine or a peer; by default the name of the row."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of it."""
    encoders: tuple[str, ...] = ("*",)
    """Names or patterns of the encoders it is combined with."""
    datasets: tuple[str, ...] = ("*",)
    """Names or patterns of the sets it is used on."""
    refine_on_originals: bool = False
    """Refine what was found on the originals, as the verb register does."""

    @property
    def method(self) -> Registrar:
        """The engine with its options.

        Raises:
            BatchError: There is no such engine, option or value.
        """
        known: dict[str, Any] = {**ENGINES, **PEERS}
        name = self.engine or self.name
        if name not in known:
            raise BatchError(f"unknown engine {name!r}; known are {', '.join(known)}")
        values = checked_values(name, type(known[name]), self.options)
        try:
            made: Registrar = replace(known[name], **values)
        except (ModalignError, TypeError, ValueError) as error:
            raise BatchError(f"options of {self.name!r}: {error}") from error
        return made


@dataclass(frozen=True)
class Plan:
    """All parts of a benchmark."""

    datasets: tuple[DatasetPlan, ...]
    protocols: tuple[Protocol, ...]
    registrars: tuple[RegistrarPlan, ...]
    encoders: tuple[EncoderPlan, ...] = (EncoderPlan("originals"),)
    seed: int = 0
    """Seed of the displacements and of the bootstrap."""
    success: float = 0.02
    """Largest error that counts as success, as a fraction of the width."""
    reference: str = ""
    """The row, as "encoder / registrar", that the others are compared with; by default the one of most successes."""
    verdict: bool = False
    """Also judge every result by its evidence, as the verb register does; takes about half a second a row."""
    worst: int = 8
    """Worst cases of the reference in each set that get a report page and a place in the montage."""
    folder: Path = Path()
    """Paths in the plan are relative to this folder: that of the file."""

    def cases(self, dataset: DatasetPlan) -> list[CaseFiles]:
        """The pairs of a set that take part."""
        cases = read_cases(self.folder / dataset.pairs)
        check_patterns(f"dataset {dataset.name!r}: only", dataset.only, [case.name for case in cases])
        return [case for case in cases if matches(case.name, dataset.only)]

    def protocols_of(self, dataset: str) -> list[Protocol]:
        """How the pairs of a set are misaligned."""
        return [protocol for protocol in self.protocols if matches(dataset, protocol.datasets)]

    def combinations(self, dataset: str) -> list[tuple[EncoderPlan, RegistrarPlan]]:
        """The rows of every view of a set."""
        return [
            (encoder, registrar)
            for encoder in self.encoders
            if matches(dataset, encoder.datasets)
            for registrar in self.registrars
            if matches(dataset, registrar.datasets) and matches(encoder.name, registrar.encoders)
        ]


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name is one of some names or patterns such as ``core_*``."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_patterns(what: str, patterns: Sequence[str], names: Sequence[str]) -> None:
    """Refuse a pattern that means nothing: most often it is a name with a slip of the pen.

    Raises:
        BatchError: There is no pattern, or one matches none of the names.
    """
    idle = [pattern for pattern in patterns if not any(matches(name, [pattern]) for name in names)]
    if idle or not patterns:
        more = ", …" if len(names) > SHOWN else ""
        wrong = f"nothing is called {idle[0]!r}" if idle else "an empty list matches nothing"
        raise BatchError(f"{what}: {wrong}; there are {', '.join(names[:SHOWN])}{more}")


def read_plan(path: Path) -> Plan:
    """The plan of a TOML file.

    Raises:
        UnreadableFileError: There is no such file.
        BatchError: It is not TOML, or a part of it is unknown, missing, doubled or makes no sense; the message names it
            and what is known.
    """
    path = require_file(path)
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BatchError(f"{path}: not valid TOML ({error})") from error
    try:
        plan = _plan(told, path.parent)
        _check(plan)
    except ModalignError as error:
        raise BatchError(f"{path}: {error}") from error
    return plan


def _plan(told: Mapping[str, Any], folder: Path) -> Plan:
    parts: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "datasets": lambda values: _part(DatasetPlan, "dataset", values),
        "protocols": _protocol,
        "registrars": lambda values: _part(RegistrarPlan, "registrar", values),
        "encoders": lambda values: _part(EncoderPlan, "encoder", values),
    }
    unknown = sorted(set(told) - set(parts) - {"benchmark"})
    if unknown:
        raise BatchError(f"unknown part {', '.join(unknown)}; a plan has benchmark, {', '.join(parts)}")
    missing = [name for name in ("datasets", "protocols", "registrars") if not told.get(name)]
    if missing:
        raise BatchError(f"nothing is said of {', '.join(missing)}; write at least one [[{missing[0]}]]")
    values: dict[str, Any] = {
        key: tuple(map(read, _tables(key, told[key]))) for key, read in parts.items() if key in told
    }
    general = told.get("benchmark", {})
    if not isinstance(general, dict):
        raise BatchError(f"benchmark is a table, written as [benchmark], not {general!r}")
    return Plan(**values, **checked_values("benchmark", Plan, general, (*parts, "folder")), folder=folder)


def _tables(key: str, value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise BatchError(f"{key} is a list of tables, each written as [[{key}]]")
    return value


def _part(kind: type[Part], what: str, values: Mapping[str, Any]) -> Part:
    label = f"{what} {values.get('name', '')!r}"
    checked = checked_values(label, kind, values)
    needed = [e.name for e in fields(kind) if e.default is MISSING and e.default_factory is MISSING]  # type: ignore[arg-type]
    missing = [name for name in needed if not values.get(name)]
    if missing:
        raise BatchError(f"{label} has no {', '.join(missing)}")
    return kind(**checked)


def _protocol(values: Mapping[str, Any]) -> Protocol:
    name = values.get("kind")
    if not isinstance(name, str) or name not in PROTOCOLS:
        raise BatchError(f"unknown kind of protocol {name!r}; known are {', '.join(PROTOCOLS)}")
    rest = {key: value for key, value in values.items() if key != "kind"}
    return PROTOCOLS[name](**checked_values(f"protocol {name}", PROTOCOLS[name], rest))


def _check(plan: Plan) -> None:
    for what, parts in (("datasets", plan.datasets), ("encoders", plan.encoders), ("registrars", plan.registrars)):
        names = [part.name for part in parts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise BatchError(f"two {what} are called {twice[0]!r}")
    for registrar in plan.registrars:
        registrar.method  # noqa: B018 - its errors are those of the plan
    _check_patterns(plan)
    for dataset in plan.datasets:
        _check_dataset(plan, dataset)
    rows = [row_name(e, r) for dataset in plan.datasets for e, r in plan.combinations(dataset.name)]
    if plan.reference and plan.reference not in rows:
        raise BatchError(f"no row is called {plan.reference!r}; there are {', '.join(dict.fromkeys(rows))}")
    if not 0 < plan.success < 1:
        raise BatchError(f"success is a fraction of the width between 0 and 1, not {plan.success:g}")
    for key, value in (("seed", plan.seed), ("worst", plan.worst)):
        if value < 0:
            raise BatchError(f"{key} is not negative, but {value} is")


def _check_patterns(plan: Plan) -> None:
    datasets, encoders = ([part.name for part in parts] for parts in (plan.datasets, plan.encoders))
    users: list[tuple[str, Protocol | EncoderPlan | RegistrarPlan]] = [
        *((f"protocol {protocol.name}", protocol) for protocol in plan.protocols),
        *((f"encoder {encoder.name!r}", encoder) for encoder in plan.encoders),
        *((f"registrar {registrar.name!r}", registrar) for registrar in plan.registrars),
    ]
    for what, part in users:
        check_patterns(f"{what}: datasets", part.datasets, datasets)
        if isinstance(part, RegistrarPlan):
            check_patterns(f"{what}: encoders", part.encoders, encoders)


def _check_dataset(plan: Plan, dataset: DatasetPlan) -> None:
    """A set has a name for folders, methods to try, and displacements that its views can be told apart by."""
    check_name("dataset", dataset.name)
    protocols = plan.protocols_of(dataset.name)
    if not protocols or not plan.combinations(dataset.name):
        raise BatchError(
            f"the dataset {dataset.name!r} has no protocol, encoder or registrar: look at their 'datasets'"
        )
    labels = [label for protocol in protocols for label in protocol.labels]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise BatchError(f"two protocols of the dataset {dataset.name!r} make {twice[0]!r}")
    if not all(isinstance(protocol, Natural) for protocol in protocols):
        check_width(dataset.width, dataset.name)


def row_name(encoder: EncoderPlan, registrar: RegistrarPlan) -> str:
    """What a row is called in the tables."""
    return f"{encoder.name} / {registrar.name}"
