"""``modalign info``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from modalign.cli.console import parse, print_json
from modalign.errors import UnreadableFileError
from modalign.geometry import Linear
from modalign.io import StoredTransform, describe_image, read_transform


@dataclass(frozen=True)
class Info:
    """Tell what an image, a model folder or a transform is."""

    path: tyro.conf.Positional[Path]
    """An image file, a model folder, or a transform."""
    json: bool = False
    """Print one JSON object."""


def run(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    command = parse(Info, "info", arguments)
    facts = _facts(command.path)
    if command.json:
        print_json(facts)
    else:
        _print(facts)
    return 0


def _facts(path: Path) -> dict[str, Any]:
    if path.is_dir():
        from modalign.representation import ComirModel

        return {"kind": "model", **ComirModel.load(path).card.to_dict()}
    if not path.exists():
        raise UnreadableFileError(path, "no such file or folder")
    if path.suffix.lower() in (".json", ".tfm", ".txt"):
        return {"kind": "transform", **_transform_facts(read_transform(path))}
    return {"kind": "image", **describe_image(path)}


def _transform_facts(stored: StoredTransform) -> dict[str, Any]:
    facts = {
        "type": type(stored.transform).__name__.lower(),
        "direction": "fixed_to_moving",
        "ndim": stored.transform.ndim,
        "info": dict(stored.info),
    }
    if isinstance(stored.transform, Linear):
        facts["matrix_zyx"] = stored.transform.matrix.round(6).tolist()
        facts["mirrored"] = stored.transform.is_mirrored
    for role, grid in (("fixed", stored.fixed), ("moving", stored.moving)):
        if grid is not None:
            facts[role] = {"shape": grid.shape, "spacing": grid.spacing, "unit": grid.unit}
    return facts


def _print(facts: dict[str, Any], indent: str = "") -> None:
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"{indent}{key}:")
            _print(value, indent + "  ")
        else:
            print(f"{indent}{key}: {value}")
