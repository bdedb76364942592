"""The processes of ``absurd up``: started, watched, started again, and stopped together."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from absurd.cli.output import duration
from absurd.errors import AbsurdError
from absurd.orphans import stop_with_parent

if TYPE_CHECKING:
    from absurd.config import Settings

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Pauses in seconds before a child that died is started again; they double."""
HEALTHY = 60.0
"""Seconds a child must live for the next pause to be the first again."""
WATCH = 5.0
"""Seconds between two looks at the embedded server."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Say = Callable[[str], None]


class Child:
    """A process that runs until it is stopped."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.pid: int | None = None
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._asked = False
        """Whether the process that runs was asked to end."""

    async def start(self) -> None:
        """Start the process, in a session of its own: Ctrl-C at the terminal reaches it through us only.

        What it prints is no part of what we print: it goes to where messages go.
        """
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=2,
            start_new_session=True,
            preexec_fn=stop_with_parent,
        )
        self._asked = False
        self.pid = self._process.pid

    async def watch(self, say: Say) -> None:
        """Start the process again, after a pause, whenever it dies; returns once it was stopped, or has left well."""
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            assert self._process is not None
            begun = time.monotonic()
            code = await self._process.wait()
            if self._stopping.is_set():
                return
            if code == 0:
                say(f"The {self.name} has left, as it was told; it is not started again.")
                return
            pause = FIRST_PAUSE if time.monotonic() - begun > HEALTHY else pause
            how = f"with exit code {code}" if code >= 0 else f"by signal {signal.Signals(-code).name}"
            say(f"The {self.name} ended {how}; it is started again in {duration(pause)}.")
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)
            try:
                await self.start()
            except OSError as error:  # no memory, no processes or no files left: the end of the last one counts again
                say(f"The {self.name} does not start: {error}.")

    def stop(self, *, again: bool = True) -> None:
        """Ask the process to end; asked again, it hands back its work at once, and is not without `again`."""
        self._stopping.set()
        if self._process is not None and self._process.returncode is None and (again or not self._asked):
            self._asked = True
            with suppress(ProcessLookupError):
                self._process.terminate()

    async def ended(self) -> None:
        """Wait for the end of the process."""
        if self._process is not None:
            await self._process.wait()


class Embedded:
    """The embedded server, as far as it is ours to keep running."""

    def __init__(self, settings: Settings) -> None:
        from absurd.embedded import EmbeddedServer

        self._server = EmbeddedServer(settings)
        self._ours = self._server.status().state != "running"

    async def watch(self, say: Say) -> None:
        """Start the server again when it is gone, for ever."""
        while True:
            await asyncio.sleep(WATCH)
            if (await asyncio.to_thread(self._server.status)).state != "stopped":
                continue
            say("The embedded database is gone; it is started again.")
            try:
                await asyncio.to_thread(self._server.start)
                self._ours = True
            except AbsurdError as error:
                say(f"The embedded database does not start: {error.message}")

    def stop(self) -> None:
        """Stop the server if we have started it."""
        if self._ours:
            self._server.stop()


async def supervise(
    settings: Settings, embedded: Embedded | None, children: Sequence[Child], *, ready: Callable[[str], None], say: Say
) -> None:
    """Run database and children until a signal; then stop them, the database last."""
    from absurd.database_sync import SyncDatabase
    from absurd.resolve import resolve_database

    stop = asyncio.Event()

    def asked() -> None:
        if not stop.is_set():
            say("Stopping …")
        stop.set()
        for each in children:
            each.stop()

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, asked)
    watchers: list[asyncio.Task[None]] = []
    try:
        url = await asyncio.to_thread(resolve_database, settings)
        with SyncDatabase(url, schema=settings.schema) as database:  # what is wrong is said before anything starts
            address = database.address
        if not stop.is_set():
            for each in children:
                await each.start()
            ready(address)
            watched: list[Child | Embedded] = [*children, *([embedded] if embedded else [])]
            watchers = [asyncio.create_task(each.watch(say)) for each in watched]
            await stop.wait()
    finally:
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        for each in children:
            each.stop(again=False)  # perhaps it had not begun when all were asked
        await asyncio.gather(*(each.ended() for each in children))
        if embedded is not None:
            await asyncio.to_thread(embedded.stop)
