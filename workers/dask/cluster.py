"""The connection to a Dask cluster: made anew when it is lost, for as long as the worker lives."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog

from absurd.errors import AbsurdError, ConfigurationError

Client = Any
"""A `distributed.Client`; that package is typed by half."""

NEED = "dask"
"""What a task of an executor that runs on a cluster needs, and a worker with one offers."""
MOST_RUNS = 10_000
"""How many of them a worker offers to run if nothing else is said: its concurrency is the bound."""
CONNECT_SECONDS = 10.0
"""How long the scheduler gets to answer."""
LONGEST_PAUSE = 15.0
"""Most seconds between two tries to connect; a connection that stood for longer is made anew at once."""
LOOK_SECONDS = 0.5
"""How often is looked whether the connection still stands."""

log = structlog.get_logger("absurd.worker")


def offer_cluster(address: str | None, offers: dict[str, float]) -> bool:
    """Have a worker with a cluster at `address` offer it; without one, whether it offers to stand in for one.

    Raises ConfigurationError where the extra for Dask is not installed.
    """
    if address is None:
        return offers.get(NEED, 0) > 0
    if importlib.util.find_spec("distributed") is None:
        raise ConfigurationError(
            f"runs cannot be sent to the Dask cluster {address}: the package distributed is not installed here; "
            "pip install 'absurd[dask]'",
            setting="worker_dask",
        )
    offers.setdefault(NEED, MOST_RUNS)
    return False


class Cluster:
    """Keeps connected to the scheduler at `address`; awaits `on_connected` each time that it has succeeded."""

    def __init__(self, address: str, *, name: str, on_connected: Callable[[], Awaitable[None]] | None = None) -> None:
        self.address = address
        self.on_lost: Callable[[Client], None] | None = None
        """Called with each client whose connection was lost, before it is closed, which may take its time."""
        self._name = name
        self._on_connected = on_connected
        self._client: Client | None = None
        self._tried = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._keeping = asyncio.create_task(self._keep(), name="dask")

    async def stop(self) -> None:
        """Disconnect."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)

    async def client(self) -> Client | None:
        """The connected client, None while the cluster is away; waits until a first try has been made."""
        await self._tried.wait()
        return self._client

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        pause, away = 0.0, False
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(LONGEST_PAUSE, 2 * pause or 0.5)
            try:
                client = await self._connect()
            except Exception as error:  # of whatever kind Dask makes it: without certificates for TLS a TypeError
                if not away:
                    log.error("cluster_away", address=self.address, error=str(error) or type(error).__name__)
                away = True
                self._tried.set()
                continue
            begun = loop.time()
            try:
                away, self._client = False, client
                self._tried.set()
                log.info("cluster_connected", address=self.address)
                await self._tell_connected()
                await _lost(client)
                log.error("cluster_away", address=self.address, error="the connection to the scheduler was lost")
                away = True
                if loop.time() - begun > LONGEST_PAUSE:
                    pause = 0.0
            finally:
                self._client = None
                if self.on_lost is not None:
                    self.on_lost(client)
                await self._disconnect(client)

    async def _tell_connected(self) -> None:
        if self._on_connected is None:
            return
        try:
            await self._on_connected()
        except AbsurdError as error:  # what was put aside for want of a cluster wakes by itself, a little later
            log.warning("cluster_unannounced", address=self.address, error=error.message)

    async def _connect(self) -> Client:
        distributed = await asyncio.to_thread(importlib.import_module, "distributed")  # it takes a second
        client = distributed.Client(
            self.address, asynchronous=True, timeout=CONNECT_SECONDS, name=self._name, set_as_default=False
        )
        try:
            return await client
        except BaseException:
            await self._disconnect(client)
            raise

    async def _disconnect(self, client: Client) -> None:
        logger = logging.getLogger("distributed.client")
        logger.addFilter(_nothing)  # a client that is closed while it connects again tells a traceback of it
        try:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_SECONDS):
                    await client.close(timeout=2)
        finally:
            logger.removeFilter(_nothing)


def _nothing(_record: logging.LogRecord) -> bool:
    return False


async def _lost(client: Client) -> None:
    """Return when the connection is lost.

    Dask connects again by itself, and forgets what was subscribed: another connection has to be another client.
    """
    first = client.scheduler_comm
    while client.status == "running" and client.scheduler_comm is first:  # noqa: ASYNC110  # Dask has no event for it
        await asyncio.sleep(LOOK_SECONDS)
