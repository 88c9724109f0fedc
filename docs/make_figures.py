"""Makes the figures of the documentation: ``make docs``."""

from pathlib import Path

from modalign.demo import DemoOptions, cases, solve, train, training_pairs
from modalign.io import write_image
from modalign.report import panel

FIGURES = Path(__file__).parent / "figures"
UPSIDE_DOWN = 1


def main() -> None:
    """Train as the demonstration does, and show its second case."""
    options = DemoOptions()
    model = train(list(training_pairs(options)), options).model
    case = list(cases(options))[UPSIDE_DOWN]
    write_image(FIGURES / "demo.png", panel(solve(case, model).pictures(), columns=3))


if __name__ == "__main__":
    main()
