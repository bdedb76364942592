"""``/metrics`` of a daemon: as much of HTTP as a scrape needs, on the daemon's own loop."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from http import HTTPStatus

import structlog

from absurd.errors import ConfigurationError, DatabaseUnavailableError, PortInUseError
from absurd.metrics import CONTENT_TYPE
from absurd.telemetry import Event

REQUEST_SECONDS = 10.0
"""How long a request may take to arrive: nobody holds a connection open by saying nothing."""
MOST_BYTES = 16_384
"""How long a request may be."""

Tell = Callable[[], Awaitable[str]]
"""Makes the page."""

log = structlog.get_logger("absurd.metrics")


@asynccontextmanager
async def answering(address: str | None, tell: Tell) -> AsyncIterator[None]:
    """Answer scrapes at ``http://ADDRESS:PORT/metrics`` with what `tell` makes; None: not at all.

    Raises PortInUseError, and ConfigurationError for an address that is not this machine's.
    """
    if address is None:
        yield
        return
    host, _, port = address.rpartition(":")
    one_at_a_time = asyncio.Lock()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            async with one_at_a_time:
                writer.write(await _response(head, tell))
            async with asyncio.timeout(REQUEST_SECONDS):
                await writer.drain()

    try:
        server = await asyncio.start_server(answer, host.strip("[]"), int(port), limit=MOST_BYTES)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(f"port {port} of {host} is taken by another program", port=int(port)) from None
        raise ConfigurationError(f"cannot listen on {address} for metrics: {error}", setting="metrics") from None
    with closing(server):  # and no waiting for who is connected: the daemon leaves when its work is done
        for each in server.sockets:
            log.info(Event.METRICS_STARTED, address="{}:{}".format(*each.getsockname()[:2]))
        yield


async def _response(head: bytes, tell: Tell) -> bytes:
    method, path, *_ = [*head.split(b"\r\n", 1)[0].split(b" "), b"", b""]
    if method not in (b"GET", b"HEAD"):
        return _written(HTTPStatus.METHOD_NOT_ALLOWED, "only GET\n")
    if path.partition(b"?")[0] != b"/metrics":
        return _written(HTTPStatus.NOT_FOUND, "there is /metrics\n")
    try:
        page = await tell()
    except DatabaseUnavailableError:
        return _written(HTTPStatus.SERVICE_UNAVAILABLE, "the database does not answer\n")
    except Exception:  # of ours: the daemon's work goes on
        log.exception(Event.METRICS_FAILED)
        return _written(HTTPStatus.INTERNAL_SERVER_ERROR, "the log tells why\n")
    return _written(HTTPStatus.OK, page, only_head=method == b"HEAD")


def _written(status: HTTPStatus, text: str, *, only_head: bool = False) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if only_head else body)
