"""Where indexes lie: a path is a folder, an address that begins with postgresql:// a server, and several are shards."""

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from modalign.errors import SearchError
from modalign.retrieval.definition import Definition
from modalign.retrieval.folder import FolderStore
from modalign.retrieval.shards import Shards, check_shards
from modalign.retrieval.store import Store

SERVER = ("postgresql://", "postgres://")
"""How addresses of servers begin."""


def is_server(place: str) -> bool:
    """Whether a place is the address of a server."""
    return place.startswith(SERVER)


def without_password(place: str) -> str:
    """A place as it may be shown."""
    return re.sub(r"(?<=://)([^@/:]*):[^@/]*@", r"\1@", place) if is_server(place) else place


def open_store(places: Sequence[str]) -> Store:
    """The store at a place, or over several.

    Raises:
        SearchError: There is none, it is damaged, or the shards do not belong together.
    """
    check_places(places)
    return _together(places, lambda place: _server(place, None) if is_server(place) else FolderStore(Path(place)))


def make_store(places: Sequence[str], definition: Definition) -> Store:
    """A new store at a place or over several, or those of the same definition that are there.

    Raises:
        SearchError: There is one of another definition, or a server cannot be used.
        OutputError: A folder cannot be written to, or holds something else.
    """
    check_places(places)
    parts = {place: replace(definition, shard=(k, len(places))) for k, place in enumerate(places, 1)}
    return _together(
        places,
        lambda place: _server(place, parts[place]) if is_server(place) else FolderStore.made(Path(place), parts[place]),
    )


def check_places(places: Sequence[str]) -> None:
    """Refuse places that cannot be shards of one index.

    Raises:
        SearchError: One is empty, or named twice.
    """
    if not all(place.strip() for place in places):
        raise SearchError("the place of an index is a folder or postgresql://..., not an empty name")
    if len({place if is_server(place) else str(Path(place).resolve()) for place in places}) < len(places):
        raise SearchError("a place is named twice: every shard of an index needs one of its own")


def _together(places: Sequence[str], opened: Callable[[str], Store]) -> Store:
    """One store, or all as shards; where one fails, those before it are closed again."""
    with ExitStack() as stack:
        stores = []
        for place in places:
            stores.append(opened(place))
            stack.callback(stores[-1].close)
        check_shards(stores)
        together = stores[0] if len(stores) == 1 else Shards(stores)
        stack.pop_all()
    return together


def _server(place: str, definition: Definition | None) -> Store:
    try:
        kind = import_module("modalign.retrieval.postgres").PostgresStore
    except ImportError as error:
        raise SearchError("an index on a server needs the package psycopg: pip install 'modalign[postgres]'") from error
    store: Store = kind(place) if definition is None else kind.made(place, definition)
    return store
