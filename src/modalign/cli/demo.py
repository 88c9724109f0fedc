"""``modalign demo``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from modalign import __version__
from modalign.cli.console import EXIT_NOT_TRUSTED, parse, print_table, progress
from modalign.demo import Case, DemoOptions, Outcome, cases, solve, train, training_pairs
from modalign.io import write_image, write_table, write_transform
from modalign.report import magenta_green, panel
from modalign.training import TrainedComir


@dataclass(frozen=True)
class Demo:
    """See it happen: train on a few pairs of made-up tissue, then align unseen pairs.

    Bright field and second harmonic of the same tissue share almost no intensities, so that no method which compares
    these can align them. Needs no data and no network, and a few minutes.
    """

    out: Path = Path("demo_out")
    """Folder for the results."""
    options: DemoOptions = DemoOptions()
    """What to do."""


def run(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    command = parse(Demo, "demo", arguments)
    started = perf_counter()
    print(f"modalign {__version__}: aligning second-harmonic and bright-field images of made-up tissue\n")
    trained = _train(command)
    trained.model.save(command.out / "model")
    print(f"{trained.message}\n")
    outcomes = _solve(command, trained)
    rows = [_row(outcome) for outcome in outcomes]
    print_table(rows)
    right = sum(outcome.is_right for outcome in outcomes)
    print(f"\n{right} of {len(outcomes)} cases right, in {perf_counter() - started:.0f} s altogether.")
    write_table(command.out / "cases.csv", rows)
    _tell_next(command)
    if right == len(outcomes):
        return 0
    print("\nNot every case came out right: this model is not to be trusted. Train it longer.")
    return EXIT_NOT_TRUSTED


def _train(command: Demo) -> TrainedComir:
    options = command.options
    pairs = []
    with progress("make tissue") as advance:
        for pair in training_pairs(options):
            pairs.append(pair)
            advance(len(pairs) / options.pairs, "")
            for role, image in (("second_harmonic", pair.fixed), ("bright_field", pair.moving)):
                write_image(command.out / "pairs" / role / f"{pair.name}.tif", image)
    with progress("train      ") as advance:
        return train(
            pairs,
            options,
            lambda now: advance(
                now.fraction,
                "calibrating the verdict"
                if now.calibrating
                else f"step {now.step}, loss {now.loss:.2f} (chance {now.chance:.2f})",
            ),
        )


def _solve(command: Demo, trained: TrainedComir) -> list[Outcome]:
    outcomes: list[Outcome] = []
    todo = list(cases(command.options))
    with progress("align      ") as advance:
        for number, case in enumerate(todo, 1):
            outcome = solve(case, trained.model)
            _write(command.out / f"case_{number}", outcome)
            outcomes.append(outcome)
            advance(number / len(todo), case.displacement.title)
    return outcomes


def _write(folder: Path, outcome: Outcome) -> None:
    case, alignment = outcome.case, outcome.alignment
    write_image(folder / "fixed.tif", case.fixed)
    write_image(folder / "moving.tif", case.moving)
    if case.fixed_to_moving is not None:
        write_transform(folder / "truth.json", case.fixed_to_moving, fixed=case.fixed.grid, moving=case.moving.grid)
    found = alignment.registration.fixed_to_moving
    if alignment.warped is not None and found is not None:
        write_image(folder / "aligned.tif", alignment.warped)
        write_image(folder / "overlay.png", magenta_green(case.fixed, alignment.warped))
        write_transform(folder / "transform.json", found, fixed=case.fixed.grid, moving=case.moving.grid)
    write_image(folder / "panel.png", panel(outcome.pictures(), columns=3))


def _row(outcome: Outcome) -> dict[str, str]:
    displacement = outcome.case.displacement
    y, x = (100 * value for value in displacement.shift)
    return {
        "case": displacement.title,
        "rotation": f"{displacement.rotation_degrees:+.0f}°",
        "shift x, y": f"{x:+.0f} %, {y:+.0f} %",
        "status": outcome.alignment.registration.status,
        "error": _pixels(outcome.case, outcome.error),
        "mutual information": _pixels(outcome.case, outcome.comparison_error),
    }


def _pixels(case: Case, error: float | None) -> str:
    if case.fixed_to_moving is None:
        return "nothing to align"
    return "refused" if error is None or error == float("inf") else f"{error:.2f} px"


def _tell_next(command: Demo) -> None:
    out = command.out
    print(f"Look at {out}/case_1/panel.png and its siblings. What to type next:\n")
    example = f"{out}/case_1/fixed.tif {out}/case_1/moving.tif --model {out}/model --out {out}/again"
    print(f"  modalign register {example}")
    print(f"  modalign evaluate {out}/again/transform.json --truth {out}/case_1/truth.json")
    print("  modalign train FIXED_DIR MOVING_DIR --out MODEL          with aligned pairs of your own")
    sys.stdout.flush()
