"""Suspects of the loop and of threads, each in a process of its own: so many at a time, and only where that can be."""

from __future__ import annotations

import asyncio

from absurd.executor import Executor
from absurd.model import Claim
from absurd.outcome import Outcome
from absurd.workers.child.children import Children
from absurd.workers.child.process import BrokenChildError
from absurd.workers.child.starting import NotNowError, put_off
from absurd.workers.failures import describe
from absurd.workers.runs.origin import Origin, is_hidden, not_found, origin_of

PLACES = 16
"""Most suspects at once: a worker of five hundred slots in its loop has not asked for as many processes."""
PLACE_SECONDS = 10.0
"""How long a suspect waits for a place, in its slot."""
NO_PLACE_SECONDS = 30.0
"""How long it is put off after that, so that others have the slot."""


class Apart:
    """Runs suspects in child processes."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self._places = asyncio.Semaphore(PLACES)
        self._nowhere: dict[Origin, BrokenChildError] = {}
        """Executors that no process can execute, and why; it stays so for as long as the worker lives."""

    async def run(self, claim: Claim, executor: Executor) -> Outcome | None:
        """As `Children.run`, but raises BrokenChildError where no process can execute this executor."""
        origin = origin_of(executor)
        if is_hidden(origin):  # the program is not run a second time to find that out
            raise BrokenChildError(describe(not_found(claim.name, origin)))
        try:
            async with asyncio.timeout(PLACE_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            return put_off(NO_PLACE_SECONDS)
        try:
            if origin in self._nowhere:
                raise self._nowhere[origin]
            return await self._children.attempt(claim, executor)
        except BrokenChildError as broken:
            self._nowhere[origin] = broken
            raise
        except NotNowError as paused:
            if isinstance(paused.cause, BrokenChildError):
                raise paused.cause from None
            return put_off(paused.seconds)
        finally:
            self._places.release()
