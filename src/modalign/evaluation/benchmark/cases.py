"""The pairs of a benchmark: aligned pairs to displace, or misaligned ones with a truth."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modalign.batch.manifest import FORBIDDEN
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
TWINS = (("fixed_landmarks", "moving_landmarks"), ("fixed_labels", "moving_labels"))
"""Columns of which one says nothing without the other."""
LONGEST_NAME = 80
"""Bytes; the names of a set, a displacement and a pair together are the name of a folder."""


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
        try:
            case = _case(path.parent, row)
            if case.name.casefold() in cases:
                raise BatchError(f"the name {case.name!r} occurs twice")  # noqa: TRY301
        except BatchError as error:
            raise BatchError(f"{path}, line {line}: {error}") from error
        cases[case.name.casefold()] = case
    if not cases:
        raise BatchError(f"{path}: the table has no rows")
    return list(cases.values())


def check_name(what: str, name: str) -> None:
    """Refuse a name that no folder can have.

    Raises:
        BatchError: It is one.
    """
    usable = name and not FORBIDDEN & set(name) and name[0] != "." and name.isprintable()
    if not usable or len(name.encode()) > LONGEST_NAME:
        raise BatchError(
            f"the {what} name {name!r} is no name for a folder: give it 1 to {LONGEST_NAME} characters, no dot first, "
            f"and none of {' '.join(sorted(FORBIDDEN))}"
        )


def _case(folder: Path, row: Mapping[str, str]) -> CaseFiles:
    files = {key: folder / row[key] for key in PATHS if row.get(key)}
    unnamed = [key for key in ("fixed", "moving") if key not in files]
    alone = [other for pair in TWINS for key, other in (pair, pair[::-1]) if key in files and other not in files]
    if unnamed or alone:
        raise BatchError(f"no file is named in {', '.join(unnamed + alone)}")
    gone = [file for file in files.values() if not file.is_file()]
    if gone:
        raise BatchError(f"there is no file {gone[0]}")
    name = row.get("name") or files["fixed"].name.partition(".")[0]
    check_name("pair's", name)
    return CaseFiles(name, row.get("specimen") or name, **files)
