"""Whether a plan can work at all, before a long run finds out row by row."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from modalign.batch.registration import cached_model
from modalign.errors import BatchError, ModalignError
from modalign.evaluation.benchmark.plan import SLICES, WITH_MODEL, Plan
from modalign.evaluation.benchmark.task import ViewTask
from modalign.evaluation.benchmark.views import View, read_landmarks
from modalign.evaluation.peers import Peer

TRIED = 8
"""Pairs of a set that are tried until one can be read and displaced."""


def check_ready(plan: Plan, tasks: Sequence[ViewTask]) -> None:
    """Refuse a plan in which something fails on every pair: a tool, a model, a width, a number of dimensions.

    One view of every set and protocol is made. Where the first pairs alone are bad, their views fail, and no others.

    Raises:
        BatchError: A tool is not installed, a model is missing or made for other images, no pair of a set can be
            displaced as the plan wants, or landmarks do not belong together.
    """
    for registrar in plan.registrars:
        method = registrar.method
        if isinstance(method, Peer) and find_spec(method.module.partition(".")[0]) is None:
            package = method.package or method.module
            raise BatchError(
                f"{method.name} needs the package {package}: pip install 'modalign[benchmark]', or leave it out"
            )
    for dataset in plan.datasets:
        for protocol in plan.protocols_of(dataset.name):
            mine = [t for t in tasks if (t.view.dataset, t.view.label) == (dataset.name, protocol.labels[-1])]
            view = _first_view(mine)
            _check_methods(mine[0], view)
            for task in mine:
                read_landmarks(task.view.case, view.fixed.grid, view.moving.grid)


def _first_view(tasks: Sequence[ViewTask]) -> View:
    """The first view of the first pair of which one can be made."""
    first = [task for task in tasks if task.view.draw == 0][:TRIED]
    problems = []
    for task in first:
        try:
            return task.view.load()
        except ModalignError as error:
            problems.append(str(error))
    which = "no pair" if len(first) < TRIED else f"none of the first {TRIED} pairs"
    view = first[0].view
    raise BatchError(f"{which} of {view.dataset!r} can be used ({view.label}); {view.case.name!r}: {problems[0]}")


def _check_methods(task: ViewTask, view: View) -> None:
    ndim, dataset = view.fixed.ndim, task.view.dataset
    for encoder, registrar in task.methods:
        if encoder.kind in WITH_MODEL:
            _check_model(task.models[encoder.name], view, dataset, ndim - (encoder.kind == SLICES))
        method = registrar.method
        if ndim not in method.ndims:
            raise BatchError(
                f"the registrar {registrar.name!r} does not work on {ndim}D images such as those of {dataset!r}: "
                "name the others in its 'datasets'"
            )


def _check_model(folder: Path, view: View, dataset: str, ndim: int) -> None:
    card = cached_model(folder).card
    for modality, image in ((card.fixed, view.fixed), (card.moving, view.moving)):
        channels = len(image.without_alpha().data)
        if (card.ndim, len(modality.channels)) != (ndim, channels):
            raise BatchError(
                f"the model {folder} takes {card.ndim}D images with {len(modality.channels)} channels as "
                f"{modality.name}; those of {dataset!r} are {ndim}D with {channels}"
            )
