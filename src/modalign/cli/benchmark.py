"""``modalign benchmark``."""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from modalign.batch.run import TASKS, records
from modalign.batch.work import FAILED, digest_of
from modalign.cli.console import parse, print_json
from modalign.cli.many import Many, do_tasks
from modalign.evaluation.benchmark.outputs import write_outputs
from modalign.evaluation.benchmark.plan import WITH_MODEL, DatasetPlan, Plan, read_plan
from modalign.evaluation.benchmark.ready import check_ready
from modalign.evaluation.benchmark.task import ViewTask, all_rows
from modalign.evaluation.benchmark.views import ViewPlan

EXIT_INCOMPLETE = 3


@dataclass(frozen=True)
class Benchmark(Many):
    """Measure registration methods: datasets × protocols × encoders × registrars, as a plan in TOML lists them.

    Every method sees the same pixels. Writes rows.csv, summary.md with intervals and comparisons, figures, the worst
    cases and an overview. Exit status 3 where some pairs could not be made at all.
    """

    plan: tyro.conf.Positional[Path]
    """The plan; paths in it are relative to its folder. docs/benchmark.md tells what it may say."""


def run(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    command = parse(Benchmark, "benchmark", arguments)
    plan = read_plan(command.plan.absolute())  # workers may run in other folders
    tasks = view_tasks(plan)
    check_ready(plan, tasks)
    about = {"kind": "benchmark", "plan": digest_of([task.name for task in tasks], plan.seed)}
    ours = do_tasks(command, tasks, about, what="views", rerun="failed", goes_on=command.resume)
    return _finish(command, plan, tasks, ours)


def view_tasks(plan: Plan) -> list[ViewTask]:
    """A task for every view of the plan."""
    return [
        ViewTask(view, tuple(plan.combinations(dataset.name)), _models(plan, dataset), plan.verdict)
        for dataset in plan.datasets
        for view in _views(plan, dataset)
    ]


def _views(plan: Plan, dataset: DatasetPlan) -> list[ViewPlan]:
    return [
        ViewPlan(dataset.name, case, protocol, label, draw, dataset.width, plan.seed)
        for case in plan.cases(dataset)
        for protocol in plan.protocols_of(dataset.name)
        for label in protocol.labels
        for draw in range(protocol.draws)
    ]


def _models(plan: Plan, dataset: DatasetPlan) -> dict[str, Path]:
    return {
        encoder.name: plan.folder / str(encoder.model).replace("{dataset}", dataset.name)
        for encoder in plan.encoders
        if encoder.kind in WITH_MODEL
    }


def _finish(command: Benchmark, plan: Plan, tasks: Sequence[ViewTask], mine: Collection[str]) -> int:
    found = records(tasks, command.out / TASKS)
    broken = [record for record in found if record["status"] == FAILED]
    for record in broken[:5]:
        print(f"{record['name']}: {record['reasons'][0]}", file=sys.stderr)
    status = EXIT_INCOMPLETE if any(record["name"] in mine for record in broken) else 0
    rows = list(all_rows(found))
    if not rows:
        return status
    outputs = write_outputs(plan, tasks, found, command.out)
    missing = len(tasks) - len(found)
    if command.json:
        paths = {"rows": str(outputs.rows), "summary": str(outputs.summary), "overview": str(outputs.index)}
        print_json({"views": len(tasks), "failed": len(broken), "not_done": missing, "rows": len(rows), "files": paths})
    else:
        print(outputs.summary.read_text(encoding="utf-8"))
        for path in (outputs.rows, outputs.summary, outputs.index):
            print(f"  {path}")
        if missing:
            print(f"{missing} of {len(tasks)} views are not done yet: add --resume")
    return status
