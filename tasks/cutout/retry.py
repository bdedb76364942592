"""Asking again what failed: how often, after what pause, for how long in all, and for which errors."""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from absurd.errors import AbsurdError, InvalidInputError, NotFoundError
from absurd.tasks.cutout.errors import (
    ButlerConfigError,
    ButlerConnectionError,
    CircuitOpenError,
    DeadlineError,
    ImageUnreadableError,
)

T = TypeVar("T")
_log = logging.getLogger(__name__)

PROGRAMMING = (
    AssertionError, AttributeError, ImportError, LookupError, NameError, NotImplementedError, SyntaxError, TypeError,
)  # fmt: skip
"""Errors of a program, not of the world: no policy tries them again, no breaker counts them."""

_PASSING = frozenset({
    errno.EAGAIN, errno.EBUSY, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH,
    errno.EINTR, errno.EIO, errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH, errno.EPIPE, errno.ESTALE,
    errno.ETIMEDOUT,
})  # fmt: skip
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_PASSING_NAMES = frozenset({
    "sqlalchemy.exc.OperationalError", "sqlalchemy.exc.TimeoutError",  # of a Butler's registry
    "httpx.TransportError", "requests.exceptions.ConnectionError", "requests.exceptions.Timeout",
    "requests.exceptions.ChunkedEncodingError", "aiohttp.client_exceptions.ClientConnectionError",
    "aiohttp.client_exceptions.ClientPayloadError", "urllib3.exceptions.TimeoutError",
    "urllib3.exceptions.ProtocolError", "urllib.error.URLError", "http.client.IncompleteRead",
})  # fmt: skip
"""Classes of packages that may not be installed, by their full names."""


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later: no connection, no answer in time, a server or a disk in trouble.

    An HTTP status (``status``, ``status_code``, of the error or its ``response``, or in ``details``) decides where
    there is one.  Errors of the program, of the request, and what was not found are never transient.
    """
    if isinstance(error, ImageUnreadableError) and error.__cause__ is not None:
        error = error.__cause__  # what the disk said; it is no fault of the file
    if isinstance(error, (*PROGRAMMING, InvalidInputError, NotFoundError, CircuitOpenError)):
        return False
    status = _status(error)
    if status is not None:
        return status in _PASSING_STATUS
    if isinstance(error, ButlerConnectionError | DeadlineError | ConnectionError | TimeoutError):
        return True
    names = {f"{each.__module__}.{each.__qualname__}" for each in type(error).__mro__}
    return not names.isdisjoint(_PASSING_NAMES) or (isinstance(error, OSError) and error.errno in _PASSING)


def _status(error: BaseException) -> int | None:
    holders = (error, getattr(error, "response", None))
    found: Any = [getattr(holder, name, None) for holder in holders for name in ("status", "status_code", "code")]
    if isinstance(error, AbsurdError):
        found = [error.details.get("status")]
    return next((each for each in found if isinstance(each, int) and 100 <= each < 600), None)


class Deadline:
    """A moment by which all has to be done; `seconds` from now, None: there is none."""

    def __init__(self, seconds: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._until = None if seconds is None else clock() + seconds

    def remaining(self) -> float | None:
        """Seconds that are left, at least 0; None without a deadline."""
        return None if self._until is None else max(0.0, self._until - self._clock())

    def check(self, what: str) -> None:
        """Raise DeadlineError if the time for `what` is over."""
        if self.remaining() == 0:
            raise _late(what, self.seconds or 0.0)


def call_within(seconds: float, operation: Callable[[], T], what: str = "an answer") -> T:
    """What ``operation()`` gives, from a thread of its own.  Raises DeadlineError after `seconds`.

    The thread cannot be ended: it goes on until its call returns, and its answer is dropped.  Give time limits of
    their own to what can have them, sockets above all; this is for what cannot.
    """
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()

    def run() -> None:
        try:
            answer.set_result(operation())
        except BaseException as error:  # it is raised where the answer is waited for
            answer.set_exception(error)

    threading.Thread(target=run, name=f"cutout-{what}", daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        if answer.done():  # the operation's own
            raise
        raise _late(what, seconds) from None


def _late(what: str, seconds: float) -> DeadlineError:
    return DeadlineError(
        f"{what} took longer than {seconds:g} s", advice="allow more time (timeout), or ask for less", seconds=seconds
    )


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter: the pause after attempt n is a random part of ``delay * factor**(n - 1)``.

    Full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015) parts callers that failed
    together better than a fixed pause with a little noise.  An error that names ``retry_after`` seconds in its details
    is obeyed, up to `longest`.
    """

    attempts: int = 3
    """In all; 1: no other after the first."""
    delay: float = 1.0
    """Longest pause after the first attempt, seconds."""
    factor: float = 2.0
    longest: float = 30.0
    """Longest pause after any attempt, seconds."""
    timeout: float | None = None
    """Seconds for one attempt; None: no limit."""
    within: float | None = None
    """Seconds for all attempts and pauses together; None: no limit.  No pause begins that would not end before."""
    worthwhile: Callable[[BaseException], bool] = is_transient
    """Which errors another attempt may cure.  Those of `PROGRAMMING` are not even asked about."""

    def __post_init__(self) -> None:
        for name, low in (("attempts", 1), ("delay", 0), ("factor", 1), ("longest", 0)):
            if not low <= getattr(self, name) < float("inf"):  # so that NaN does not pass
                raise ButlerConfigError(f"{name} of a retry policy is {getattr(self, name)}; it must be {low} or more")
        for name in ("timeout", "within"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ButlerConfigError(f"{name} of a retry policy is {getattr(self, name)}; it must be above 0")

    def is_worthwhile(self, error: BaseException) -> bool:
        """Whether another attempt may cure `error`."""
        return isinstance(error, Exception) and not isinstance(error, PROGRAMMING) and self.worthwhile(error)

    def pause(self, attempt: int, error: BaseException | None = None, chance: random.Random | None = None) -> float:
        """Seconds to wait after failed attempt `attempt`, counted from 1."""
        try:
            bound = min(self.longest, self.delay * self.factor ** (attempt - 1))
        except OverflowError:
            bound = self.longest
        asked = error.details.get("retry_after", 0.0) if isinstance(error, AbsurdError) else 0.0
        return max((chance or random).uniform(0.0, bound), min(float(asked), self.longest))

    def call(
        self,
        operation: Callable[[Deadline], T],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        chance: random.Random | None = None,
        on_retry: Callable[[int, Exception, float], object] | None = None,
    ) -> T:
        """What ``operation(deadline)`` gives, at the first attempt that does not fail.

        It gets the deadline of the attempt, to set its own time limits by.  `on_retry` is told the number of the
        attempt, its error and the pause before the next.  Raises the error of the last attempt, with a note of how many
        there were.
        """
        whole = Deadline(self.within, clock=clock)
        attempt = 1
        while True:
            try:
                return operation(self._attempt(whole, clock))
            except Exception as error:
                pause = self._next(attempt, error, whole, chance)
                if pause is None:
                    raise
                if on_retry is not None:
                    on_retry(attempt, error, pause)
            sleep(pause)
            attempt += 1

    async def call_async(
        self,
        operation: Callable[[Deadline], Awaitable[T]],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        chance: random.Random | None = None,
        on_retry: Callable[[int, Exception, float], object] | None = None,
    ) -> T:
        """As `call`, in an event loop; an attempt that outlasts the deadline is cancelled and raises DeadlineError."""
        whole = Deadline(self.within, clock=clock)
        attempt = 1
        while True:
            try:
                deadline = self._attempt(whole, clock)
                return await _awaited(operation(deadline), deadline)
            except Exception as error:
                pause = self._next(attempt, error, whole, chance)
                if pause is None:
                    raise
                if on_retry is not None:
                    on_retry(attempt, error, pause)
            await sleep(pause)
            attempt += 1

    def _attempt(self, whole: Deadline, clock: Callable[[], float]) -> Deadline:
        """The deadline of an attempt that begins now."""
        limits = [each for each in (self.timeout, whole.remaining()) if each is not None]
        return Deadline(min(limits, default=None), clock=clock)

    def _next(self, attempt: int, error: Exception, whole: Deadline, chance: random.Random | None) -> float | None:
        """The pause before the next attempt; None if there is to be none, which `error` then says."""
        if not self.is_worthwhile(error):
            return None
        remaining = whole.remaining()
        if attempt < self.attempts:
            pause = self.pause(attempt, error, chance)
            if remaining is None or pause < remaining:
                _log.info("attempt %d of %d failed, the next is in %.1f s: %s", attempt, self.attempts, pause, error)
                return pause
        if attempt > 1 or self.attempts > 1:
            why = "" if attempt >= self.attempts else f"; no other fits into {whole.seconds:g} s"
            error.add_note(f"attempt {attempt} of {self.attempts}{why}")
        if isinstance(error, AbsurdError):
            error.details["attempts"] = attempt
        return None


ONCE = RetryPolicy(attempts=1)


async def _awaited(answer: Awaitable[T], deadline: Deadline) -> T:
    limit = asyncio.timeout(deadline.remaining())
    try:
        async with limit:
            return await answer
    except TimeoutError:
        if limit.expired():
            raise _late("the call", deadline.seconds or 0.0) from None
        raise


def policies(attempts: int = 3, delay: float = 1.0, timeout: float | None = 30.0) -> Mapping[str, RetryPolicy]:
    """A policy for each operation, from what a configuration says of all.

    ``connect`` and ``query``: as told.  ``read``: pixels or rows, of which there are many: shorter pauses, and no
    longer in all than two attempts that get no answer.  ``health``: once, for a check tells what is now.
    """
    return {
        "connect": RetryPolicy(attempts, delay, timeout=timeout),
        "query": RetryPolicy(attempts, delay, timeout=timeout),
        "read": RetryPolicy(attempts, delay / 4, timeout=timeout, within=None if timeout is None else 2 * timeout),
        "health": RetryPolicy(1, delay, timeout=timeout),
    }


READING = policies()["read"]
"""Of headers and pixels, where no configuration says otherwise."""
