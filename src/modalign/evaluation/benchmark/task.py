"""All rows of one view: every encoder with every registrar, on the same pixels."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from modalign.batch.pairs import content_hash
from modalign.batch.work import digest_of
from modalign.errors import ModalignError
from modalign.evaluation.benchmark.plan import COMIR, DO_NOTHING, EncoderPlan, RegistrarPlan, row_name
from modalign.evaluation.benchmark.protocols import Natural
from modalign.evaluation.benchmark.views import View, ViewPlan
from modalign.geometry import Linear, identity
from modalign.image import Image
from modalign.io import read_json, write_json
from modalign.registration import Judge, Registration, register
from modalign.representation.encoder import Encoder, Identity
from modalign.representation.handmade import HANDMADE

if TYPE_CHECKING:
    from modalign.representation import ComirModel

ROWS = "rows.json"
"""The rows of a view as they come, so that an interrupted view and a longer plan keep what is done."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class ViewTask:
    """One view and the methods to try on it.

    Attributes:
        view: The view.
        methods: Encoders and registrars, in the order of the rows.
        models: Model folders by name of the encoder.
        verdict: Whether to judge the results.
    """

    view: ViewPlan
    methods: tuple[tuple[EncoderPlan, RegistrarPlan], ...]
    models: Mapping[str, Path]
    verdict: bool = False

    @property
    def name(self) -> str:
        """Name of the view."""
        return self.view.name

    def digest(self) -> str:
        """Hash of the view and of all its methods."""
        return digest_of(self._about_view(), [self._about(*method) for method in self.methods])

    def run(self, folder: Path) -> Mapping[str, Any]:
        """The rows that are missing are made, and all are returned."""
        known = _known_rows(folder / ROWS)
        digests = [digest_of(self._about_view(), self._about(*method)) for method in self.methods]
        rows = {digest: known[digest] for digest in digests if digest in known}
        if len(rows) < len(digests):
            view = self.view.load()
            seen = _Seen(view, self.models)
            for digest, (encoder, registrar) in zip(digests, self.methods, strict=True):
                if digest not in rows:
                    rows[digest] = self._place(view, encoder, registrar) | _row(seen, encoder, registrar, self.verdict)
                    write_json(folder / ROWS, rows)
            nothing = self._place(view) | _finite(view.errors(identity(view.fixed.ndim)))
            write_json(folder / "do_nothing.json", nothing)
        first = read_json(folder / "do_nothing.json")
        return {"status": "done", "reasons": [], "rows": [first, *(rows[digest] for digest in digests)]}

    def _about_view(self) -> Any:
        view = self.view
        case = {key: value for key, value in asdict(view.case).items() if not isinstance(value, Path)}
        files = [content_hash(path) for path in view.case.files]
        protocol = {"kind": view.protocol.kind, **asdict(view.protocol)}
        return [view.dataset, case, files, protocol, view.label, view.draw, view.width, view.seed, self.verdict]

    def _about(self, encoder: EncoderPlan, registrar: RegistrarPlan) -> Any:
        model = content_hash(self.models[encoder.name]) if encoder.kind == COMIR else ""
        method = registrar.method
        return [encoder.name, encoder.kind, model, registrar.name, type(method).__name__, asdict(method)]  # type: ignore[call-overload]

    def _place(
        self, view: View, encoder: EncoderPlan | None = None, registrar: RegistrarPlan | None = None
    ) -> dict[str, Any]:
        plan = self.view
        named = encoder is not None and registrar is not None
        return {
            "dataset": plan.dataset,
            "protocol": plan.label,
            "specimen": plan.case.specimen,
            "pair": plan.case.name,
            "draw": plan.draw,
            "method": row_name(encoder, registrar) if encoder and registrar else DO_NOTHING,
            "encoder": encoder.name if named and encoder else "",
            "registrar": registrar.name if named and registrar else "",
            "width": view.width,
            "truth": _matrix(view.truth) if not isinstance(plan.protocol, Natural) else None,
        }


class _Seen:
    """A view as each encoder sees it; every encoder works once."""

    def __init__(self, view: View, models: Mapping[str, Path]) -> None:
        self.view, self.models = view, models
        self._done: dict[str, tuple[Image, Image, float]] = {}

    def through(self, encoder: EncoderPlan) -> tuple[Image, Image, float]:
        """The two representations, and the CPU seconds that they took."""
        if encoder.name not in self._done:
            start = process_time()
            fixed, moving = self._encoders(encoder)
            images = fixed.encode(self.view.fixed), moving.encode(self.view.moving)
            self._done[encoder.name] = (*images, process_time() - start)
        return self._done[encoder.name]

    def judge(self, encoder: EncoderPlan) -> Judge:
        """Who judges results on these representations."""
        return Judge.of_model(_model(self.models[encoder.name]).calibration) if encoder.kind == COMIR else Judge()

    def _encoders(self, encoder: EncoderPlan) -> tuple[Encoder, Encoder]:
        if encoder.kind == COMIR:
            return _model(self.models[encoder.name]).encoders()
        same: Encoder = HANDMADE.get(encoder.kind, Identity())
        return same, same


@lru_cache(maxsize=4)
def _model(folder: Path) -> "ComirModel":
    from modalign.representation import ComirModel

    return ComirModel.load(folder)


def _row(seen: _Seen, encoder: EncoderPlan, registrar: RegistrarPlan, verdict: bool) -> dict[str, Any]:
    """What one method made of a view; errors are values."""
    try:
        fixed, moving, encoding = seen.through(encoder)
        cpu, wall = process_time(), perf_counter()
        found = register(fixed, moving, registrar.method)
        seconds = {"cpu": process_time() - cpu, "wall": perf_counter() - wall, "encoding_cpu": encoding}
        if verdict:
            found = seen.judge(encoder).judge(found, fixed, moving, (seen.view.fixed, seen.view.moving))
    except (ModalignError, MemoryError) as error:
        return _failed(str(error))
    except Exception as error:
        return _failed(f"{type(error).__name__}: {error}")
    return {**_judged(seen.view, found), **{name: round(value, 4) for name, value in seconds.items()}}


def _judged(view: View, found: Registration) -> dict[str, Any]:
    """Errors of what was found, whether the method trusts it or not."""
    candidate = found.candidate
    errors = {"error": math.inf, "error_pixels": math.inf} if candidate is None else view.errors(candidate)
    return {
        **_finite(errors),
        "status": found.status,
        "confidence": found.confidence,
        "reasons": list(found.reasons),
        "matrix": _matrix(candidate),
    }


def _failed(reason: str) -> dict[str, Any]:
    return {"error": None, "error_pixels": None, "status": "failed", "confidence": None, "reasons": [reason]}


def _finite(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """What JSON can hold: no result has no error, rather than an infinite one."""
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def _matrix(transform: object) -> list[list[float]] | None:
    return transform.matrix.tolist() if isinstance(transform, Linear) else None


def _known_rows(path: Path) -> dict[str, Row]:
    try:
        rows = read_json(path)
    except ModalignError:
        return {}
    return rows if isinstance(rows, dict) else {}


def all_rows(records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of all views that are done."""
    for record in records:
        yield from record.get("rows", ())
