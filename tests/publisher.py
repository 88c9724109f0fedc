"""A publisher of image sets on this machine, and tiny look-alikes of what the real ones publish."""

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Publisher:
    """What is served, how badly, and what was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the next answers break off; whole answers once it is used up."""
    refusals: list[int] = field(default_factory=list)
    """Status codes of the next answers."""
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""

    @property
    def server(self) -> str:
        return f"{self.address}/api/records"

    def publish(self, record: int, files: Mapping[str, bytes], licence: str | None = "cc-by-4.0") -> None:
        """A record as Zenodo describes it."""
        self.files.update({f"/files/{record}/{name}": content for name, content in files.items()})
        listed = [
            {
                "key": name,
                "size": len(content),
                "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
                "links": {"self": f"{self.address}/files/{record}/{name}"},
            }
            for name, content in files.items()
        ]
        metadata = {"title": "A set"} | ({"license": {"id": licence}} if licence else {})
        self.records[record] = {"id": record, "metadata": metadata, "files": listed}


@contextmanager
def publishing() -> Iterator[Publisher]:
    """A publisher at work, until the block ends."""
    publisher = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

        def do_GET(self) -> None:
            publisher.asked.append((self.path, self.headers.get("Range")))
            if publisher.refusals:
                self.send_error(publisher.refusals.pop(0))
            elif (content := content_of(self.path)) is None:
                self.send_error(404)
            else:
                self.answer(content)

        def answer(self, content: bytes) -> None:
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and publisher.ranges else 0
            if start >= len(content) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            most = publisher.cuts.pop(0) if publisher.cuts and "/files/" in self.path else len(content)
            self.wfile.write(content[start : start + most])

    def content_of(path: str) -> bytes | None:
        if path.startswith("/api/records/"):
            record = publisher.records.get(int(path.rpartition("/")[2]))
            return None if record is None else json.dumps(record).encode()
        return publisher.files.get(path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    publisher.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield publisher
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip file of named contents."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return sink.getvalue()
