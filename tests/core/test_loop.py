"""Background loops: on time, woken, and not ended by errors."""

from __future__ import annotations

import asyncio

from absurd.errors import DatabaseUnavailableError
from absurd.loop import JITTER, LONGEST_BACKOFF, Loop

HOUR = 3600.0


class Counter:
    """Counts its rounds, and can be waited for."""

    def __init__(self, *errors: Exception, wanted: float | None = None) -> None:
        self.rounds = 0
        self.errors = list(errors)
        self.wanted = wanted
        self._moved = asyncio.Event()

    async def __call__(self) -> float | None:
        """One round."""
        self.rounds += 1
        self._moved.set()
        if self.errors:
            raise self.errors.pop(0)
        return self.wanted

    async def reach(self, rounds: int) -> None:
        """Wait until there were so many rounds."""
        async with asyncio.timeout(30):
            while self.rounds < rounds:
                self._moved.clear()
                await self._moved.wait()


async def test_goes_round_until_stopped() -> None:
    """It goes round again and again; after `stop` never again."""
    counter = Counter()
    loop = Loop("test", counter, pause=0.001)

    await loop.start()
    await counter.reach(3)
    await loop.stop()
    rounds = counter.rounds
    await asyncio.sleep(0)

    assert rounds == counter.rounds


async def test_wakes() -> None:
    """`wake` ends a pause at once, also one that has not begun yet."""
    counter = Counter()
    loop = Loop("test", counter, pause=HOUR)

    await loop.start()
    for rounds in (1, 2, 3):
        await counter.reach(rounds)
        loop.wake()
    await counter.reach(4)
    await loop.stop()


async def test_stops_within_a_pause() -> None:
    """`stop` does not wait for the end of a pause, nor mind being called twice or too early."""
    counter = Counter()
    loop = Loop("test", counter, pause=HOUR)

    await loop.stop()
    await loop.start()
    await counter.reach(1)
    async with asyncio.timeout(30):
        await loop.stop()
        await loop.stop()


async def test_can_start_again() -> None:
    """A loop that was stopped can be started again."""
    counter = Counter()
    loop = Loop("test", counter, pause=HOUR)

    for rounds in (1, 2):
        await loop.start()
        await counter.reach(rounds)
        await loop.stop()


async def test_survives_errors() -> None:
    """Errors of the database and others are logged, and the next round comes."""
    counter = Counter(DatabaseUnavailableError("away"), RuntimeError("broken"))
    loop = Loop("test", counter, pause=0.001)

    await loop.start()
    await counter.reach(4)
    await loop.stop()


async def test_pauses() -> None:
    """The pause jitters, is as short as the round wants, doubles with each failure in a row, and has a limit."""
    usual = await Loop("test", Counter(), pause=10).run_once()
    assert 10 * (1 - JITTER) <= usual <= 10 * (1 + JITTER)
    assert 0.5 == await Loop("test", Counter(wanted=0.5), pause=10).run_once()
    assert await Loop("test", Counter(wanted=0.0), pause=10).run_once() > 0
    assert await Loop("test", Counter(wanted=HOUR), pause=10).run_once() <= 10 * (1 + JITTER)

    failing = Loop("test", Counter(*[RuntimeError("broken")] * 10), pause=1)
    pauses = [await failing.run_once() for _ in range(10)]
    for failures, pause in enumerate(pauses):
        expected = min(LONGEST_BACKOFF, 2.0**failures)
        assert expected * (1 - JITTER) <= pause <= expected * (1 + JITTER)
    assert await failing.run_once() <= 1 + JITTER
