"""What files need beyond `open`.

Names that outlive a loss of power, locks that are asked for without waiting, patience that ends where a disk hangs.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def persist_names(folder: str | Path) -> None:
    """Make the names in a folder survive a loss of power; the content of files is persisted by those who write it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Lock an open file, unless it is locked already: then False.  It ends with the last copy of the descriptor."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


_asked: dict[Callable[[], Any], tuple[float, Future[Any]]] = {}
"""Questions that are not answered yet: since when, and what will be."""


async def ask_disk(question: Callable[[], T], seconds: float) -> T:
    """The value of ``question()``, which goes to a disk, from a thread that holds up nobody.

    Raises what it raises, and TimeoutError `seconds` after it was asked.  One that hangs is not asked again before it
    has answered: each would leave another thread behind.
    """
    begun, answer = _begin(question)
    async with asyncio.timeout(begun + seconds - time.monotonic()):
        return await asyncio.wrap_future(answer)


def ask_disk_here(question: Callable[[], T], seconds: float) -> T:
    """As `ask_disk`, for who has no loop yet."""
    begun, answer = _begin(question)
    return answer.result(max(0.0, begun + seconds - time.monotonic()))


def _begin(question: Callable[[], T]) -> tuple[float, Future[T]]:
    begun, answer = _asked.get(question, (time.monotonic(), None))
    if answer is None:
        answer = Future()
        answer.set_running_or_notify_cancel()  # who waits for it may give up, it does not
        _asked[question] = begun, answer
        threading.Thread(target=_ask, args=(question, answer), name="absurd-disk", daemon=True).start()
    return begun, answer


def _ask(question: Callable[[], T], answer: Future[T]) -> None:
    try:
        value = question()
    except BaseException as error:
        _asked.pop(question, None)
        answer.set_exception(error)
    else:
        _asked.pop(question, None)
        answer.set_result(value)
