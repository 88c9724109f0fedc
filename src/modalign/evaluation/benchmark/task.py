"""All rows of one view: every encoder with every registrar, on the same pixels."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from modalign.batch.pairs import content_hash
from modalign.batch.registration import cached_model
from modalign.batch.work import digest_of
from modalign.errors import ModalignError
from modalign.evaluation.benchmark.plan import DO_NOTHING, SLICES, WITH_MODEL, EncoderPlan, RegistrarPlan, row_name
from modalign.evaluation.benchmark.protocols import Natural
from modalign.evaluation.benchmark.views import View, ViewPlan
from modalign.evaluation.peers import Peer
from modalign.geometry import Linear, identity
from modalign.image import Image
from modalign.io import make_folder, read_json, remove_leftovers, write_json
from modalign.registration import Judge, Registration, refined_on_originals, register
from modalign.representation.encoder import Encoder, Identity
from modalign.representation.handmade import HANDMADE
from modalign.representation.slices import SliceWise

ROWS = "rows"
"""Folder with the rows of a view as they come, so that an interrupted view and a longer plan keep what is done: a task
that is done again loses the files of its folder, but not the folders in it."""
Method = tuple[EncoderPlan, RegistrarPlan]
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
    methods: tuple[Method, ...]
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
        kept = make_folder(folder / ROWS)
        remove_leftovers(kept)
        rows = {
            path: method for method in (None, *self.methods) for path in [kept / f"{self._row_digest(method)}.json"]
        }
        missing = {path: method for path, method in rows.items() if not _is_row(path)}
        if missing:
            seen = _Seen(self.view.load(), self.models)
            for path, method in missing.items():
                write_json(path, self._place(seen.view, method) | self._result(seen, method))
        inputs = {str(path): content_hash(path) for path in self._inputs()}
        return {"status": "done", "reasons": [], "inputs": inputs, "rows": [read_json(path) for path in rows]}

    def _inputs(self) -> Iterator[Path]:
        yield from self.view.case.files
        yield from dict.fromkeys(self.models[encoder.name] for encoder, _ in self.methods if encoder.kind in WITH_MODEL)

    def _row_digest(self, method: Method | None) -> str:
        return digest_of(self._about_view(), *([] if method is None else [self._about(*method)]))[:32]

    def _result(self, seen: "_Seen", method: Method | None) -> dict[str, Any]:
        if method is None:
            return _finite(seen.view.errors(identity(seen.view.fixed.ndim)))
        return _row(seen, *method, self.verdict)

    def _about_view(self) -> Any:
        view = self.view
        case = {key: value for key, value in asdict(view.case).items() if not isinstance(value, Path)}
        files = [content_hash(path) for path in view.case.files]
        options = {key: value for key, value in asdict(view.protocol).items() if key != "datasets"}
        protocol = {"kind": view.protocol.kind, **options}
        return [view.dataset, case, files, protocol, view.label, view.draw, view.width, view.seed, self.verdict]

    def _about(self, encoder: EncoderPlan, registrar: RegistrarPlan) -> Any:
        model = content_hash(self.models[encoder.name]) if encoder.kind in WITH_MODEL else ""
        method = registrar.method
        refined = [True] if registrar.refine_on_originals else []  # rows of before there was the choice are kept
        return [encoder.name, encoder.kind, model, registrar.name, type(method).__name__, asdict(method), *refined]  # type: ignore[call-overload]

    def _place(self, view: View, method: Method | None) -> dict[str, Any]:
        plan = self.view
        encoder, registrar = ("", "") if method is None else (part.name for part in method)
        return {
            "dataset": plan.dataset,
            "protocol": plan.label,
            "specimen": plan.case.specimen,
            "pair": plan.case.name,
            "draw": plan.draw,
            "method": DO_NOTHING if method is None else row_name(*method),
            "encoder": encoder,
            "registrar": registrar,
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
        return (
            Judge.of_model(cached_model(self.models[encoder.name]).calibration)
            if encoder.kind in WITH_MODEL
            else Judge()
        )

    def _encoders(self, encoder: EncoderPlan) -> tuple[Encoder, Encoder]:
        if encoder.kind in WITH_MODEL:
            fixed, moving = cached_model(self.models[encoder.name]).encoders()
            if encoder.kind != SLICES:
                return fixed, moving
            # slices at the ends are empty, and must not be refused for it
            return SliceWise(replace(fixed, doubts=False)), SliceWise(replace(moving, doubts=False))
        same: Encoder = HANDMADE.get(encoder.kind, Identity())
        return same, same


def _row(seen: _Seen, encoder: EncoderPlan, registrar: RegistrarPlan, verdict: bool) -> dict[str, Any]:
    """What one method made of a view; errors are values."""
    try:
        fixed, moving, encoding = seen.through(encoder)
        method = registrar.method
        if isinstance(method, Peer):
            method.library()  # importing it is not registering
        cpu, wall = process_time(), perf_counter()
        found = register(fixed, moving, method)
        if registrar.refine_on_originals:
            found = refined_on_originals(found, seen.view.fixed, seen.view.moving)
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


def _is_row(path: Path) -> bool:
    try:
        return isinstance(read_json(path), dict)
    except ModalignError:
        return False


def all_rows(records: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of all views that are done."""
    for record in records:
        yield from record.get("rows", ())
