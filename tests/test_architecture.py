"""What must hold for the code as a whole."""

import ast
import importlib
from pathlib import Path

import pytest

import modalign

SOURCE = Path(modalign.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
MODULES = [
    ".".join(("modalign", *f.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__") for f in FILES
]
SHORT_FILE = 400
DIMENSION_NAMES = {"ndim", "dim", "ndims", "dims"}


@pytest.mark.parametrize("name", [m for m in MODULES if not m.endswith("__main__")])
def test_export_lists_resolve(name: str) -> None:
    module = importlib.import_module(name)
    for exported in getattr(module, "__all__", ()):
        assert getattr(module, exported) is not None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= SHORT_FILE


def dimension_branches(tree: ast.AST) -> list[int]:
    """Lines that compare a number of dimensions with 2 or 3."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            names = {
                s.attr if isinstance(s, ast.Attribute) else s.id
                for s in sides
                if isinstance(s, ast.Attribute | ast.Name)
            }
            numbers = {s.value for s in sides if isinstance(s, ast.Constant)}
            if names & DIMENSION_NAMES and numbers & {2, 3}:
                found.append(node.lineno)
    return found


def allowed(path: Path) -> bool:
    """Files cross into formats that differ between pictures and volumes; everything else is one code path."""
    return path.relative_to(SOURCE).parts[0] in ("io", "cli")


@pytest.mark.parametrize("path", [f for f in FILES if not allowed(f)], ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_branches_on_the_dimension(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    matrices = "full.ndim"  # the rank of a matrix, not of space
    lines = path.read_text(encoding="utf-8").splitlines()
    assert not [
        n for n in dimension_branches(tree) if matrices not in lines[n - 1] and "values.ndim" not in lines[n - 1]
    ]


def test_functions_are_short() -> None:
    lengths = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lengths.append((body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0)
    lengths.sort()
    assert lengths[len(lengths) // 2] <= 10
    assert lengths[int(0.9 * len(lengths))] <= 30
