"""Services beside the web interface: each is asked, and what does not answer is told."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from absurd.config import load_settings
from absurd.errors import ConfigurationError, NotFoundError
from absurd.web.services.cache import Cache
from absurd.web.services.neighbours import NeighbourService


class Answers(BaseHTTPRequestHandler):
    """The status that the path names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/?a=")))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: what is asked is the tests' own."""


@contextmanager
def web_server() -> Iterator[int]:
    """A port on which `Answers` answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def listening() -> Iterator[int]:
    """A port that takes connections, and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener.getsockname()[1]


def test_each_service_is_asked() -> None:
    """Up is what answers: any status below 500, any connection; what does not is told with why, and has no latency."""
    with closing(socket.create_server(("127.0.0.1", 0))) as gone:
        closed = gone.getsockname()[1]
    with web_server() as web, listening() as silent:
        addresses = {
            "fine": f"http://127.0.0.1:{web}/200?a=",
            "moved": f"http://127.0.0.1:{web}/302",
            "broken": f"http://127.0.0.1:{web}/503",
            "open": f"tcp://127.0.0.1:{silent}",
            "silent": f"http://127.0.0.1:{silent}/",
            "closed": f"tcp://127.0.0.1:{closed}",
            "mute": f"http://127.0.0.1:{closed}",
            "no-tls": f"https://127.0.0.1:{web}/",
        }
        found = asyncio.run(NeighbourService(addresses, 0.5).probe_all())

    assert sorted(addresses) == [each["name"] for each in found]
    told = {each["name"]: each for each in found}
    assert {"fine", "moved", "open"} == {name for name, each in told.items() if each["up"]}
    assert [200, 302, 503, None] == [told[name]["status"] for name in ("fine", "moved", "broken", "open")]
    assert {"silent", "closed", "mute", "no-tls"} == {name for name, each in told.items() if each["error"]}
    assert all((each["latency_seconds"] is None) == bool(each["error"]) for each in found)
    assert "no answer within 0.5 s" == told["silent"]["error"]


def test_no_other_address_is_asked() -> None:
    """A caller names a service, and never where it is."""
    with pytest.raises(NotFoundError, match=r"no service http.* is configured"):
        asyncio.run(NeighbourService({}, 1).probe("http://127.0.0.1"))


@pytest.mark.parametrize(
    ("given", "services"),
    [
        ("grafana=https://host/api/health?a=b, db=tcp://[::1]:5432",
         {"grafana": "https://host/api/health?a=b", "db": "tcp://[::1]:5432"}),
        ({"a": "http://host"}, {"a": "http://host"}),
        *((each, None) for each in ("host", "a=ftp://host", "a=tcp://host", "a=http://", "a=http://me:secret@host",
                                    "a b=http://host", "a=http://host:99999", "a=file:/etc/passwd")),
    ],
)  # fmt: skip
def test_addresses_are_checked(given: Any, services: dict[str, str] | None) -> None:
    """Only addresses that can be asked, and without a password, which answers would show."""
    if services is None:
        with pytest.raises(ConfigurationError, match="names with addresses"):
            load_settings(environ={}, web_services=given)
    else:
        assert services == load_settings(environ={}, web_services=given).web_services


def test_a_cache_keeps_what_was_asked_for_last() -> None:
    """Up to its limit, for as long as it counts; what is larger than all of it is not kept."""
    now = 0.0
    cache = Cache(10, lambda: now)
    for key in "abc":
        cache.put(key, key, size=4)
        cache.get("b")
    assert [None, "b", "c"] == [cache.get(key) for key in "abc"]
    cache.put("large", 1, size=11)
    assert cache.get("large") is None
    cache.put("b", "new", size=1, seconds=5)
    assert 5 == cache.statistics()["bytes"]
    now = 4.9
    assert "new" == cache.get("b")
    now = 5.0
    assert cache.get("b") is None
    assert (1, 4) == (cache.statistics()["entries"], cache.statistics()["bytes"])
    assert [0, 1, 0] == [cache.invalidate(pattern) for pattern in ("x*", "?", "*")]
    empty = Cache(0, lambda: now)
    empty.put("a", b"", size=1)
    assert empty.get("a") is None
