"""A server of files over HTTP that knows ranges, and counts what it sends."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Served:
    """A folder that is served, and what became of it."""

    folder: Path
    address: str = ""
    ranges: bool = True
    """Whether ranges are answered; else every answer is the whole file."""
    said_size: int | None = None
    """Told as the length of every file in place of its own."""
    silent: threading.Event | None = None
    """If there is one, nothing is answered before it is set."""
    busy: int = 0
    """How many of the next ranges are answered by status 503."""
    meeting: threading.Barrier | None = None
    """If there is one, nothing is answered before so many requests are there at once; 503 where no others come."""
    sent: int = 0
    """Bytes of content, so far."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and range of each, in order."""


@contextmanager
def serve(folder: Path) -> Iterator[Served]:
    """Serve a folder on a free port of this machine."""
    served = Served(folder)
    counting = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            wanted = self.headers.get("Range", "")
            with counting:
                served.requests.append((self.command, wanted))
                busy = bool(wanted) and served.busy > 0
                served.busy -= busy
            if busy:
                self.send_error(503)
                return
            if served.silent is not None:
                served.silent.wait()
            if served.meeting is not None:
                try:
                    served.meeting.wait()
                except threading.BrokenBarrierError:
                    self.send_error(503)
                    return
            path = served.folder / self.path.partition("?")[0].lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            content, version = path.read_bytes(), path.stat().st_mtime_ns
            size = served.said_size or len(content)
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted) if served.ranges else None
            if found:
                first, last = int(found[1]), int(found[2])
                content = content[first : last + 1]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{first + len(content) - 1}/{size}")
            else:
                self.send_response(200)
            self.send_header("ETag", f'"{version}"')
            self.send_header("Content-Length", str(len(content) if body else size))
            self.end_headers()
            if body:
                with counting:
                    served.sent += len(content)
                with suppress(ConnectionError):  # who wanted less has gone
                    self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
