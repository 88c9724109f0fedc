"""The connection to a server of an index: made anew where it was lost, and every failure told in one line."""

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import set_json_loads

from modalign.errors import SearchError

T = TypeVar("T")
Link: TypeAlias = psycopg.Connection[tuple[Any, ...]]
LEAST_SERVER = 13
LEAST_VECTOR = (0, 7)
"""The first pgvector with sparse vectors."""
PATIENCE = 10
"""Seconds to wait for a server to answer a new connection."""
SETTINGS = """
SELECT current_schema(),
  set_config('search_path', concat_ws(', ', quote_ident(current_schema()), (
    SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
    WHERE extname = 'vector')), false),
  set_config('jit', 'off', false),
  set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), false)
"""
"""The schema of the index comes first, that of pgvector second. Compiling takes longer than any of these queries. What
was added must be on the disk."""
VECTOR_VERSIONS = """
SELECT (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
       (SELECT default_version FROM pg_available_extensions WHERE name = 'vector')
"""
VECTOR_SCHEMA = """
SELECT nspname FROM pg_namespace
WHERE nspname IN ('public', current_schema()) AND has_schema_privilege(oid, 'CREATE')
ORDER BY nspname <> 'public' LIMIT 1
"""
"""Where every index of the database may use it, if possible, so that it does not go away with one of them."""


class Server:
    """A database on a server. Threads may share it; they take turns."""

    def __init__(self, uri: str) -> None:
        """Of this address; the first call connects.

        Raises:
            SearchError: It is no address.
        """
        given = _parsed(uri)
        self._parameters = {
            "connect_timeout": PATIENCE,
            "application_name": "modalign",
            **given,
            "client_encoding": "utf8",
        }
        self.where = _shown(given)
        self._lock = threading.RLock()
        self._link: Link | None = None

    def read(self, work: Callable[[Link], T]) -> T:
        """What work that only reads returns; done again where the connection was lost.

        Raises:
            SearchError: The server cannot be reached, or refuses.
        """
        with self._lock, self._telling("read"):
            try:
                return work(self._connected())
            except psycopg.OperationalError as error:
                if not self._lost(error):
                    raise
                self.close()
                return work(self._connected())

    def ask(self, query: str | sql.Composed, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query that only reads."""
        return self.read(lambda link: link.execute(query, values).fetchall())

    @contextmanager
    def writing(self) -> Iterator[Link]:
        """A transaction, never repeated: where it fails, nothing of it is kept.

        Raises:
            SearchError: The server cannot be reached, or refuses.
        """
        self.ask("SELECT 1")  # a connection that was lost since the last call is replaced before anything is written
        with self._lock, self._telling("written"):
            link = self._connected()
            with link.transaction():
                yield link

    def provide_vector(self) -> None:
        """Make sure that the database has pgvector.

        Raises:
            SearchError: The server does not have it, it is too old, or the user may not create it.
        """
        ((installed, available),) = self.ask(VECTOR_VERSIONS)
        check_vector(installed or available, self.where)
        if installed:
            return
        try:
            with self.writing() as link:
                (schema,) = link.execute(VECTOR_SCHEMA).fetchone() or (None,)
                place = sql.SQL(" SCHEMA {}").format(sql.Identifier(schema)) if schema else sql.SQL("")
                link.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS vector{}").format(place))
        except SearchError as error:
            if not isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
                raise
            raise SearchError(
                f"the user of {self.where} may not create the extension vector: let an administrator of the database "
                "run CREATE EXTENSION vector"
            ) from error
        self.close()  # the next connection knows where it is

    def close(self) -> None:
        """Let go of the connection; a later call makes a new one."""
        with self._lock:
            if self._link is not None:
                self._link.close()
            self._link = None

    def _connected(self) -> Link:
        if self._link is None or self._link.closed:
            self._link = self._new()
        return self._link

    def _new(self) -> Link:
        try:
            link: Link = psycopg.connect(**self._parameters, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            raise SearchError(
                f"the server of the index cannot be reached: {self.where}: {self._line(error)}"
            ) from error
        try:
            self._set_up(link)
        except BaseException:
            link.close()
            raise
        return link

    def _set_up(self, link: Link) -> None:
        check_server(link.info.server_version, self.where)
        set_json_loads(partial(json.loads, parse_int=float), link)  # the server writes 1e30 as an integer
        ((schema, *_),) = link.execute(SETTINGS).fetchall()
        if schema is None:
            raise SearchError(f"{self.where} has no schema to hold an index; create the one that its address names")

    def _lost(self, error: psycopg.Error) -> bool:
        ended = (error.sqlstate or "").startswith("57P")  # shut down, or killed beside another connection's crash
        return ended or self._link is None or self._link.closed

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            line = self._line(error)
            if self._lost(error):
                self.close()
                again = "; do it again: it may have been kept, or nothing of it" if what == "written" else ""
                raise SearchError(
                    f"the server of the index was lost while it was {what}: {self.where}: {line}{again}"
                ) from error
            raise SearchError(f"the index {self.where} cannot be {what}: {line}") from error
        except UnicodeEncodeError as error:
            raise SearchError(f"{error.object!r} is no text that a server knows: {error.reason}") from error

    def _line(self, error: psycopg.Error) -> str:
        text = " ".join(str(error).split())
        password = str(self._parameters.get("password") or "")
        return text.replace(password, "***") if password else text


def check_server(number: int, where: str) -> None:
    """Refuse a server that is too old.

    Args:
        number: As libpq tells it: 130004 is 13.4.
        where: What to call it.

    Raises:
        SearchError: It is.
    """
    if number < LEAST_SERVER * 10_000:
        raise SearchError(
            f"{where} is PostgreSQL {number // 10_000}.{number % 10_000}; an index needs {LEAST_SERVER} or newer"
        )


def check_vector(version: str | None, where: str) -> None:
    """Refuse a server without pgvector, or with one that is too old.

    Raises:
        SearchError: It is one.
    """
    least = ".".join(map(str, LEAST_VECTOR))
    if version is None:
        raise SearchError(f"{where} has no pgvector; an index needs it there, version {least} or newer")
    if tuple(map(int, re.findall(r"\d+", version)))[:2] < LEAST_VECTOR:
        raise SearchError(
            f"{where} has pgvector {version}; an index needs {least} or newer: ALTER EXTENSION vector UPDATE"
        )


def _parsed(uri: str) -> dict[str, Any]:
    """The parts of an address. Parts of a password with odd letters look like a host or port: nothing of it is told."""
    advice = "in passwords, write / as %2F and @ as %40"
    form = "postgresql://user:password@host:port/database"
    try:
        given: dict[str, Any] = conninfo_to_dict(uri)
    except psycopg.ProgrammingError:
        raise SearchError(f"the address of the index is none of a server; write {form}; {advice}") from None
    told = f"{given.get('host', '')}{given.get('dbname', '')}"
    if "@" in told or not re.fullmatch(r"[\d,]*", str(given.get("port", ""))):
        raise SearchError(f"the address of the index is none of a server; write {form}; {advice}")
    return given


def _shown(given: dict[str, Any]) -> str:
    """Host, port, database and options of an address, for errors: no user, and no password."""
    usual = {each.keyword.decode(): each.val.decode() for each in pq.Conninfo.get_defaults() if each.val}
    known = {**usual, **given}
    options = f" ({known['options']})" if known.get("options") else ""
    return f"{known.get('host', 'localhost')}:{known['port']}/{known.get('dbname', '')}{options}"
