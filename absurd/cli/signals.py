"""Signals that end a command which would otherwise leave something unfinished behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def unwinding() -> Iterator[None]:
    """Unwind the block at the first signal that asks it to end, and exit with 128 and the signal's number.

    Those that follow are not heard: they would cut the tidying short.  What was ignored stays ignored, as nohup
    and a shell's background jobs want it.
    """
    before = {each: signal.getsignal(each) for each in ENDING}
    heard = [each for each in ENDING if before[each] != signal.SIG_IGN]
    is_leaving = False

    def leave(number: int, frame: FrameType | None) -> None:
        nonlocal is_leaving
        if not is_leaving:
            is_leaving = True
            raise SystemExit(128 + number)

    for each in heard:
        signal.signal(each, leave)
    try:
        yield
    finally:
        for each in heard:
            signal.signal(each, signal.SIG_IGN if is_leaving else before[each])
