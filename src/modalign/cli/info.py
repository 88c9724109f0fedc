"""``modalign info``."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from modalign.batch.run import MARKER, TASKS
from modalign.batch.work import RECORD
from modalign.cli.console import parse, print_json
from modalign.errors import UnreadableFileError
from modalign.geometry import Linear
from modalign.io import StoredTransform, describe_image, is_image_folder, read_json, read_transform

RESULT = ("status", "confidence", "reasons", "notes", "engine", "files")
"""What is told of the record of a registration; the file itself holds more."""


@dataclass(frozen=True)
class Info:
    """Tell what an image, a model folder, a transform or a result is."""

    path: tyro.conf.Positional[Path]
    """An image file or folder, a model folder, a transform, or what 'modalign register' or 'modalign batch' wrote."""
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
        return _folder_facts(path)
    if not path.exists():
        raise UnreadableFileError(path, "no such file or folder")
    suffix = path.suffix.lower()
    if suffix == ".json" and _is_result(record := read_json(path)):
        return _result_facts(record)
    if suffix in (".json", ".tfm", ".txt"):
        return {"kind": "transform", **_transform_facts(read_transform(path))}
    return {"kind": "image", **describe_image(path)}


def _folder_facts(path: Path) -> dict[str, Any]:
    """What a folder holds: a result, a batch of results, an image, or else a model."""
    if (path / RECORD).is_file():
        if _is_result(record := read_json(path / RECORD)):
            return _result_facts(record)
        raise UnreadableFileError(path / RECORD, "is not the record of a registration")
    if (path / MARKER).is_file():
        return {"kind": "batch", **_batch_facts(path / TASKS)}
    if is_image_folder(path):
        return {"kind": "image", **describe_image(path)}
    if not (path / "model.json").is_file():
        raise UnreadableFileError(path, "holds no model, no result, no DICOM series and no OME-Zarr image")
    from modalign.deformation import DeformModel
    from modalign.representation import ComirModel, FeatureModel

    kinds = {"features": FeatureModel, "deform": DeformModel}
    saved = read_json(path / "model.json")
    kind: Any = kinds.get(str(saved.get("method")) if isinstance(saved, Mapping) else "", ComirModel)
    return {"kind": "model", **kind.load(path).card.to_dict()}


def _is_result(record: Any) -> bool:
    return isinstance(record, Mapping) and {"status", "reasons"} <= record.keys()


def _result_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "result", **{key: record[key] for key in RESULT if key in record}}


def _batch_facts(folder: Path) -> dict[str, Any]:
    found = [read_json(path) for path in sorted(folder.glob(f"*/{RECORD}"))]
    counts = Counter(str(record["status"]) for record in found if _is_result(record))
    return {"pairs": len(found), "status": {status: counts[status] for status in sorted(counts)}}


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
            is_words = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
            if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
                lines = (", ".join(f"{name} {_short(number)}" for name, number in item.items()) for item in value)
                print(f"{indent}{key}:", *lines, sep=f"\n{indent}  ")
                continue
            print(f"{indent}{key}: {'; '.join(value) if is_words else value}")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
