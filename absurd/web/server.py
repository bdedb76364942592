"""From settings to a web interface that takes requests until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog
import uvicorn

from absurd import tokens
from absurd.config import Settings
from absurd.database import AsyncDatabase
from absurd.errors import ConfigurationError, PortInUseError
from absurd.product_file import open_product_file
from absurd.resolve import resolve_database
from absurd.systemd import ServiceManager, stop_signals
from absurd.telemetry import Event
from absurd.web.access import is_loopback
from absurd.web.app import build_app
from absurd.web.services.pictures import Painter

log = structlog.get_logger("absurd.web")

GRACE_SECONDS = 10
"""How long requests underway may take to end, once the interface was told to stop."""
CONNECTIONS = 8
"""To the database: as many requests are at work in it at once, others wait their turn."""


class _Server(uvicorn.Server):
    """Leaves signals to us: its own way ends the process by the signal, and not in good order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: Settings, ready: Callable[[str], None], painter: Painter | None = None) -> None:
    """Take requests until SIGTERM, SIGINT or SIGHUP; `ready` is told the URL.  Another signal ends it at once.

    `painter` makes pictures of FITS files, see `build_app`.

    Raises what opening the database raises, PortInUseError, ConfigurationError where other hosts would reach it and
    no token was made.
    """
    asyncio.run(_serve(settings, ready, painter, ServiceManager.take()))


async def _serve(
    settings: Settings, ready: Callable[[str], None], painter: Painter | None, manager: ServiceManager
) -> None:
    async with _opened(settings) as database:
        guarded = database is not None and await database.run(tokens.has_tokens())
        if database is None and not is_loopback(settings.web_host):
            raise ConfigurationError(
                f"web_host is {settings.web_host}, which other hosts reach; a file of products has no tokens, "
                "and is shown on this machine alone",
                setting="web_host",
            )
        if not guarded and not is_loopback(settings.web_host):
            raise ConfigurationError(
                f"web_host is {settings.web_host}, which other hosts reach, and no token was made: "
                "run `absurd token create NAME --scope admin` first",
                setting="web_host",
            )
        with listening(settings.web_host, settings.web_port) as listener:
            host = f"[{settings.web_host}]" if ":" in settings.web_host else settings.web_host
            address = f"http://{host}:{listener.getsockname()[1]}"
            app = build_app(settings, database, painter)
            server = _Server(
                uvicorn.Config(
                    app,
                    log_config=None,
                    log_level="warning",
                    access_log=False,
                    proxy_headers=False,  # see absurd.web.access
                    server_header=False,
                    ws="websockets-sansio",
                    ws_max_size=settings.web_body_limit,
                    ws_ping_interval=settings.timeout_websocket_ping,
                    ws_ping_timeout=settings.timeout_websocket_ping,
                    timeout_graceful_shutdown=GRACE_SECONDS,
                )
            )

            def asked() -> None:
                manager.stopping(GRACE_SECONDS)
                server.force_exit = server.should_exit
                server.should_exit = True
                if database is not None:
                    app.state.feed.close()  # who watches would never end

            for number in stop_signals():
                asyncio.get_running_loop().add_signal_handler(number, asked)
            shown = str(settings.web_products) if database is None else database.address
            log.info(Event.WEB_STARTED, url=address, database=shown, guarded=guarded)
            ready(address)
            manager.tell(READY=1, STATUS=f"serves {address}")
            async with manager.attended():
                await server.serve([listener])
    log.info(Event.WEB_STOPPED, url=address)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[AsyncDatabase | None]:
    """The database, open; None where the settings name a file of products instead."""
    if settings.web_products is not None:
        open_product_file(settings.web_products).close()  # what is none is refused before anything listens
        yield None
        return
    url = await asyncio.to_thread(resolve_database, settings)
    async with AsyncDatabase(
        url,
        schema=settings.schema,
        prepared_statements=settings.prepared_statements,
        max_connections=CONNECTIONS,
        patience=settings.timeout_db_connection,
    ) as database:
        yield database


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that connections can be made to already.  Raises PortInUseError, ConfigurationError."""
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(place[:2], family=family, backlog=2048)
        # Inherited by what it accepts.  The loop sets it only on sockets whose protocol is told; without it the body of
        # an answer waits for the acknowledgement of its headers, which callers put off for 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(f"port {port} of {host} is taken by another program", port=port) from None
        raise ConfigurationError(f"cannot listen on port {port} of {host}: {error}", setting="web_host") from None
    with listener:
        yield listener
