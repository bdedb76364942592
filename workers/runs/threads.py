"""Daemon threads that run one function at a time and are used again.

Not a ThreadPoolExecutor: one that hangs there takes a place away from all that follow, and holds up
the end of the program.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_Order = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class DaemonThreads:
    """As many threads as there are functions running at once; bound to one loop."""

    def __init__(self) -> None:
        self._idle: list[SimpleQueue[_Order | None]] = []
        self._numbers = itertools.count(1)
        self._closed = False

    async def run(self, function: Callable[[], T]) -> T:
        """The value of ``function()``.  When this is cancelled, the function goes on and nobody waits for it."""
        inbox = self._idle.pop() if self._idle else self._start()
        future = asyncio.get_running_loop().create_future()
        inbox.put((function, future))
        result: T = await future
        return result

    def close(self) -> None:
        """Let idle threads end at once, and the others when they are done."""
        self._closed = True
        while self._idle:
            self._idle.pop().put(None)

    def _start(self) -> SimpleQueue[_Order | None]:
        inbox: SimpleQueue[_Order | None] = SimpleQueue()
        name = f"absurd-run-{next(self._numbers)}"
        threading.Thread(target=self._serve, args=(inbox,), name=name, daemon=True).start()
        return inbox

    def _serve(self, inbox: SimpleQueue[_Order | None]) -> None:
        while (order := inbox.get()) is not None:
            function, future = order
            result, error = None, None
            try:
                result = function()
            except BaseException as raised:
                error = raised
            try:
                future.get_loop().call_soon_threadsafe(self._done, inbox, future, result, error)
            except RuntimeError:  # the loop was closed over a function that nobody waits for
                return
            del order, function, future, result, error  # an idle thread keeps nothing alive

    def _done(
        self, inbox: SimpleQueue[_Order | None], future: asyncio.Future[Any], result: Any, error: BaseException | None
    ) -> None:
        if self._closed:
            inbox.put(None)
        else:
            self._idle.append(inbox)
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
