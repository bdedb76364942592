"""A worker's regular rounds: each poll interval while there is something to do, else when something is due."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from absurd.database import AsyncDatabase
from absurd.loop import Loop
from absurd.maintenance import LONGEST_BACKOFF, LONGEST_REST, Rest, Round, make_round
from absurd.notify import Listener
from absurd.workers.life.heartbeat import Heartbeat
from absurd.workers.publisher import Publisher
from absurd.workers.pump.pump import Pump


class Rounds:
    """Makes the rounds, and passes on what the listener hears: to them, to the pump, to the heartbeat.

    While notifications arrive and nothing waits in the worker's queues, nobody polls: the round tells.  When they
    do not arrive any more, all go back to the poll interval at once.
    """

    def __init__(
        self,
        database: AsyncDatabase,
        pump: Pump,
        publisher: Publisher,
        listener: Listener,
        *,
        poll: float,
        pulse: float,
    ) -> None:
        self._database = database
        self._pump = pump
        self._publisher = publisher
        self._listener = listener
        self._poll = poll
        self._rest = Rest(poll=poll, pulse=pulse)
        self._loop = Loop("maintenance", self._round, pause=poll, longest=LONGEST_REST, longest_backoff=LONGEST_BACKOFF)
        self.resting = False
        """Whether there is nothing to do."""
        # When the pump began to listen for that time, transactions up to this one may have looked for listeners before.
        self._listened = self._looked_before = 0

    async def start(self) -> None:
        """Begin."""
        self._listener.on_deaf = self._look_everywhere
        await self._loop.start()

    async def stop(self) -> None:
        """Let the present round end, and make no more."""
        await self._loop.stop()

    def stir(self) -> None:
        """Something goes on: look soon whether there is more to do."""
        self.resting = False
        self._loop.wake_in(self._poll)

    def probed(self) -> None:
        """A beat has probed the listener."""
        self._listener.probed()

    @contextmanager
    def hearing(self, heartbeat: Heartbeat, worker_id: int) -> Iterator[None]:
        """Pass on what is heard meanwhile: claimable work and what is due, late children, lost claims."""

        def ready(queue: str) -> None:
            self._pump.wake(queue or None)
            self.stir()
            if not queue:
                self._loop.wake()

        def lease(number: str) -> None:
            if not number or int(number) >> 32 == worker_id:
                heartbeat.beat_now()

        subscribe = self._listener.subscribe
        with subscribe("ready", ready), subscribe("lease", lease), subscribe("due", self._hear_due):
            yield

    def _hear_due(self, at: str) -> None:
        self._loop.wake_in(self._rest.until(at))

    def _look_everywhere(self) -> None:
        self.resting = False
        self._pump.wake()
        self._loop.wake()

    async def _round(self) -> float:
        hears = self._listener.listening and self._pump.listening
        heard = [source.heard for source in self._pump.sources]
        listened = self._pump.listened
        done = await make_round(self._database)
        if done.moved:
            self._pump.wake()
        await self._publisher.publish_overdue(some=done.unpublished)
        hears = hears and self._listener.listening and self._pump.listening and self._hears_all(listened, done)
        for source, before in zip(self._pump.sources, heard, strict=True):
            found = source.queue_id in done.ready
            if source.quiet and found:  # and was not heard
                self._pump.wake(source.name)
            source.quiet = hears and source.heard == before and not found
            if source.quiet:
                source.due = time.monotonic() + 2 * LONGEST_REST
        self.resting = hears and all(source.quiet for source in self._pump.sources)
        return self._rest.after(done, idle=self.resting)

    def _hears_all(self, listened: int, done: Round) -> bool:
        """Whether all who looked for listeners before this worker was one have committed what they spawned."""
        if listened != self._listened:
            self._listened, self._looked_before = listened, done.newest
        return listened == self._pump.listened and done.oldest > self._looked_before
