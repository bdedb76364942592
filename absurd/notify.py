"""Being told instead of asking: LISTEN on a connection of its own, as long as that can be had."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

from absurd.database_errors import is_driver_error
from absurd.errors import AbsurdError, DatabaseUnavailableError
from absurd.queue import notify

if TYPE_CHECKING:
    from absurd.database import AsyncDatabase

Callback = Callable[[str], None]

PROBE_INTERVAL = 30.0
"""Seconds between two checks that notifications arrive: a half-open connection is silent for ever."""
PROBE_TIMEOUT = 5.0
"""Seconds within which a probe must arrive."""

_SHORTEST, _LONGEST = 0.2, 30.0  # pauses before a new connection is made, in seconds


class Listener:
    """Calls back on notifications of ``<schema>_<topic>``, and makes its connection anew when it is lost.

    A callback gets the payload, and an empty one whenever something may have been missed: after
    each (re)connection.  `listening` says whether notifications arrive now; through a pooler in
    transaction mode they never do, and whoever waits must look from time to time (he must anyway, at
    a slower pace).
    """

    def __init__(self, database: AsyncDatabase, topics: Sequence[str]) -> None:
        self._database = database
        self._channels = {f"{database.schema}_{topic}": topic for topic in topics}
        self.probe_channel = f"{database.schema}_probe_{secrets.token_hex(3)}"
        """What a statement of somebody else may notify, to save a probe; then `probed` is to be called."""
        self._heard_at = -math.inf
        self._lost: asyncio.Event | None = None
        self._callbacks: dict[tuple[str, str | None], list[Callback]] = {}
        self._runner: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._heard = asyncio.Event()
        self.listening = False
        """Whether notifications arrive."""
        self.reason: str | None = None
        """Why not, while they do not."""
        self.on_deaf: Callable[[], None] | None = None
        """Called when they do not arrive any more."""

    async def __aenter__(self) -> Self:
        self.start()
        await self.settled()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def start(self) -> None:
        """Begin to listen, in the background."""
        if self._runner is None:
            self._runner = asyncio.create_task(self._run(), name="absurd-listener")

    async def settled(self) -> bool:
        """Wait until it is known whether listening works, and tell."""
        await self._settled.wait()
        return self.listening

    async def stop(self) -> None:
        """Listen no more."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
            await asyncio.wait([runner])  # not awaited itself: who cancels the caller would be taken for it
            if not runner.cancelled():
                runner.result()

    def probed(self) -> None:
        """A statement was answered that has notified `probe_channel`: that must arrive here."""
        if self.listening:
            since = time.monotonic() - PROBE_TIMEOUT  # it may have come before the answer
            asyncio.get_running_loop().call_later(PROBE_TIMEOUT, self._expect, since)

    def _expect(self, since: float) -> None:
        if self._lost is not None and self._heard_at < since:
            self._lost.set()

    @contextmanager
    def subscribe(self, topic: str, callback: Callback, *, only: str | None = None) -> Iterator[None]:
        """Have `callback` called within the block for each notification of `topic`, or those with the payload `only`.

        It must not block.
        """
        callbacks = self._callbacks.setdefault((topic, only), [])
        callbacks.append(callback)
        try:
            yield
        finally:
            callbacks.remove(callback)
            if not callbacks:
                self._callbacks.pop((topic, only), None)

    async def _run(self) -> None:
        pause = _SHORTEST
        while True:
            try:
                await self._listen()
            except Exception as error:
                if not (isinstance(error, AbsurdError | OSError) or is_driver_error(error)):
                    raise
                self.reason = str(error)
            finally:
                pause = _SHORTEST if self.listening else min(2 * pause, _LONGEST)
                deaf, self.listening = self.listening, False
                self._settled.set()
                if deaf and self.on_deaf is not None:
                    self.on_deaf()
            # Not all clients of a server that came back at the same moment.
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))

    async def _listen(self) -> None:
        """Listen until the connection is lost or silent."""
        connection = await self._database.connect()
        lost = self._lost = asyncio.Event()
        self._heard_at = -math.inf
        try:
            connection.add_termination_listener(lambda _: lost.set())
            for channel in (*self._channels, self.probe_channel):
                await connection.add_listener(channel, self._notified)
            while True:
                if time.monotonic() - self._heard_at > PROBE_INTERVAL / 2:
                    await self._probe()
                if not self.listening:
                    self.listening, self.reason = True, None
                    self._settled.set()
                    self._tell_all()
                # Not wait_for: until Python 3.12 it loses a cancellation that comes with what it waits for.
                with suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_INTERVAL * random.uniform(0.8, 1.0)):
                        await lost.wait()
                    raise DatabaseUnavailableError("the listening connection was lost, or has become silent")
        finally:
            self._lost = None
            connection.terminate()

    async def _probe(self) -> None:
        """Raise DatabaseUnavailableError unless a notification sent on another connection arrives here."""
        self._heard.clear()
        await self._database.run(notify(self.probe_channel, ""))
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await self._heard.wait()
        except TimeoutError:
            raise DatabaseUnavailableError(
                "notifications do not arrive on this connection; is there a pooler in transaction mode between?"
            ) from None

    def _notified(self, _connection: Any, _pid: int, channel: str, payload: Any) -> None:
        if channel == self.probe_channel:
            self._heard_at = time.monotonic()
            self._heard.set()
            return
        topic = self._channels[channel]
        for callback in (*self._callbacks.get((topic, None), ()), *self._callbacks.get((topic, payload), ())):
            callback(payload)

    def _tell_all(self) -> None:
        for callbacks in list(self._callbacks.values()):
            for callback in list(callbacks):
                callback("")


class Heard:
    """Waits for what a callback of a listener hears."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._event = asyncio.Event()

    def hear(self, _payload: str) -> None:
        """The callback."""
        self._event.set()

    def clear(self) -> None:
        """Forget what was heard."""
        self._event.clear()

    async def wait(self, seconds: float) -> None:
        """Wait until something is heard, so long at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()

    def arrive(self) -> bool:
        """Whether notifications arrive."""
        return self._listener.listening
