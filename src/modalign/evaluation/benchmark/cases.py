"""The pairs of a benchmark: aligned pairs to displace, or misaligned ones with a truth."""

from dataclasses import dataclass
from pathlib import Path

from modalign.errors import BatchError
from modalign.io.tables import parse_table

PATHS = (
    "fixed",
    "moving",
    "mask",
    "truth",
    "fixed_landmarks",
    "moving_landmarks",
    "fixed_labels",
    "moving_labels",
)


@dataclass(frozen=True)
class CaseFiles:
    """One pair.

    Attributes:
        name: Name of the pair.
        specimen: What it shows; pairs of one specimen are not independent.
        fixed: The fixed image.
        moving: The moving image, aligned with it where pairs are displaced.
        mask: Where both are valid.
        truth: Transform from the fixed to the moving image, as ``modalign register`` writes it.
        fixed_landmarks: Points in the fixed image.
        moving_landmarks: The same points in the moving image.
        fixed_labels: Label map of the fixed image.
        moving_labels: Label map of the moving image.
    """

    name: str
    specimen: str
    fixed: Path
    moving: Path
    mask: Path | None = None
    truth: Path | None = None
    fixed_landmarks: Path | None = None
    moving_landmarks: Path | None = None
    fixed_labels: Path | None = None
    moving_labels: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files."""
        found = (getattr(self, key) for key in PATHS)
        return tuple(path for path in found if path is not None)


def read_cases(path: Path) -> list[CaseFiles]:
    """The pairs of a table; paths are relative to its folder.

    Raises:
        BatchError: A column is unknown or missing, a file does not exist, or a name occurs twice.
        UnreadableFileError: The table cannot be read.
    """
    table = parse_table(path)
    known = ("name", "specimen", *PATHS)
    wrong = [column for column in table.columns if column not in known]
    missing = [column for column in ("fixed", "moving") if column not in table.columns]
    if wrong or missing:
        what = [f"unknown column {c!r}" for c in wrong] + [f"no column {c!r}" for c in missing]
        raise BatchError(f"{path}: {', '.join(what)}; known are {', '.join(known)}")
    cases: dict[str, CaseFiles] = {}
    for line, row in table.rows:
        files = {key: path.parent / row[key] for key in PATHS if row.get(key)}
        name = row.get("name") or Path(row["fixed"]).name.partition(".")[0]
        gone = [str(file) for file in files.values() if not file.is_file()]
        if gone or not {"fixed", "moving"} <= files.keys() or name in cases:
            why = f"there is no file {gone[0]}" if gone else f"{name!r} occurs twice, or a file is not named"
            raise BatchError(f"{path}, line {line}: {why}")
        cases[name] = CaseFiles(name, row.get("specimen") or name, **files)
    if not cases:
        raise BatchError(f"{path}: the table has no rows")
    return list(cases.values())
