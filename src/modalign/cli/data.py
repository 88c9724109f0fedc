"""``modalign data``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from modalign.cli.console import parse, print_json, print_table, progress
from modalign.data.catalogue import ENTRIES, SERVER, Entry, Offer, get, offer
from modalign.errors import InvalidInputError


@dataclass(frozen=True)
class List:
    """Tell which public sets there are."""

    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Get:
    """Get a public set: show its licence, fetch its files, check and unpack them.

    What was interrupted goes on with the same command.
    """

    name: tyro.conf.Positional[str]
    """Name of the set, see 'modalign data list'."""
    to: Path
    """Folder for sets; this one becomes a folder of its name in it."""
    accept_licence: bool = False
    """Accept the licence of the set without being asked."""
    server: str = SERVER
    """Where records are described; another one for a mirror."""


Action = (
    Annotated[List, tyro.conf.subcommand("list", prefix_name=False)]
    | Annotated[Get, tyro.conf.subcommand("get", prefix_name=False)]
)


@dataclass(frozen=True)
class Data:
    """List public image sets, and get one."""

    action: tyro.conf.OmitArgPrefixes[Action]


def run(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    action = parse(Data, "data", arguments).action
    if isinstance(action, List):
        _list(action)
    else:
        _get(action)
    return 0


def _list(command: List) -> None:
    if command.json:
        print_json([_facts(entry) for entry in ENTRIES.values()])
        return
    print_table([{"name": e.name, "fixed": e.fixed, "moving": e.moving, "source": e.doi} for e in ENTRIES.values()])
    for entry in ENTRIES.values():
        print(f"\n{entry.name}: {entry.title}\n  {entry.contents}")
        if entry.by_hand:
            print(f"  to be brought by hand: {entry.by_hand}")
    print("\nSizes, checksums and licences are those of the publisher's record, which is asked by:")
    print("  modalign data get NAME --to FOLDER")


def _get(command: Get) -> None:
    entry = ENTRIES.get(command.name)
    if entry is None:
        raise InvalidInputError(f"there is no set {command.name!r}; there are {', '.join(ENTRIES)}")
    if command.to.exists() and not command.to.is_dir():
        raise InvalidInputError(f"{command.to} is a file; --to names a folder")
    if not command.server.startswith(("http://", "https://")):
        raise InvalidInputError(f"--server is an address that begins with http:// or https://, not {command.server!r}")
    offered = offer(entry, command.server)
    _show(entry, offered)
    if not command.accept_licence:
        _ask(entry, offered)
    with progress(entry.name) as advance:
        folder = get(entry, offered, command.to, _Total(offered, advance).tell)
    print(folder)
    if entry.by_hand:
        print(f"Still to be brought by hand: {entry.by_hand}", file=sys.stderr)


def _show(entry: Entry, offered: Offer) -> None:
    lines = [
        f"{entry.name}: {offered.title}",
        f"  {entry.contents}",
        f"  licence: {offered.licence or 'none is stated'} ({entry.page})",
        f"  please cite: {entry.citation}",
        f"  files: {', '.join(f'{file.name} ({_bytes(file.size)})' for file in offered.files)}",
    ]
    if offered.unchecked:
        lines.append(f"  not verified, for no checksum is stated: {', '.join(offered.unchecked)}")
    print("\n".join(lines), file=sys.stderr)


def _ask(entry: Entry, offered: Offer) -> None:
    licence = offered.licence or "no licence is stated"
    refusal = f"the licence of {entry.name} ({licence}) was not accepted: nothing was fetched"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidInputError(f"{refusal}; read it at {entry.page} and add --accept-licence")
    print("Do you accept this licence? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise InvalidInputError(refusal)


class _Total:
    """Turns the progress of single files into that of all."""

    def __init__(self, offered: Offer, advance: Any) -> None:
        self._size, self._advance = offered.size, advance
        self._done: dict[str, int] = {}

    def tell(self, name: str, done: int, size: int | None) -> None:  # noqa: ARG002 - what all files have counts
        self._done[name] = done
        total = sum(self._done.values())
        self._advance(total / self._size if self._size else 0.0, f"{_bytes(total)} of {_bytes(self._size)}")


def _bytes(size: int | None) -> str:
    if size is None:
        return "unknown size"
    units = ("B", "kB", "MB", "GB", "TB")
    power = min(max(0, (len(str(size)) - 1) // 3), len(units) - 1)
    return f"{size / 1000**power:.3g} {units[power]}"


def _facts(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "title": entry.title,
        "fixed": entry.fixed,
        "moving": entry.moving,
        "doi": entry.doi,
        "page": entry.page,
        "contents": entry.contents,
        "folds": entry.folds,
        "levels": entry.levels,
        "citation": entry.citation,
        "by_hand": entry.by_hand or None,
        "licence": None,
        "checksums": None,
    }
