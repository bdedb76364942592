"""A circuit breaker: a source that fails again and again is left alone for a while, then tried with care.

Own lines rather than pybreaker or aiobreaker: neither counts slow calls, takes a clock, or forgets a trial that hangs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from absurd.errors import AbsurdError
from absurd.tasks.cutout.errors import ButlerConfigError, CircuitOpenError
from absurd.tasks.cutout.retry import is_transient

State = Literal["closed", "open", "half-open"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Transition:
    """A breaker changed its state."""

    breaker: str
    before: State
    after: State
    reason: str


@dataclass(frozen=True, slots=True)
class Recoveries:
    """How often a source came back, and for how long it had been away, from the opening of its breaker to a success.

    A breaker that is reset counts for nothing.
    """

    count: int = 0
    seconds: float = 0.0
    """Of all together."""
    last: float = 0.0
    """Seconds of the last."""

    @property
    def mean(self) -> float:
        """Seconds; 0 before the first."""
        return self.seconds / self.count if self.count else 0.0


class CircuitBreaker:
    """Stands before one source; closed, open or half-open.

    Closed: calls go through, and `threshold` failures in a row open it.  Open: calls are refused with CircuitOpenError
    for `cool_down` seconds.  Half-open: one call at a time goes through as a trial; its success closes the breaker, its
    failure opens it again.

    A failure is an error that `counts`, or a call that took longer than `slow_after` seconds, even if it succeeded.  An
    AbsurdError that does not count is an answer, and so a success; what else is raised, by a bug or an interruption,
    says nothing about the source and changes nothing.  A trial that has not ended after another `cool_down` is given
    up for lost.  Calls that began before the last change of state no longer count when they end.  Safe for threads.
    """

    def __init__(
        self,
        name: str,
        *,
        threshold: int = 5,
        cool_down: float = 30.0,
        slow_after: float | None = None,
        counts: Callable[[BaseException], bool] = is_transient,
        clock: Callable[[], float] = time.monotonic,
        listener: Callable[[Transition], object] | None = None,
    ) -> None:
        if threshold < 1 or not cool_down > 0 or (slow_after is not None and not slow_after > 0):
            raise ButlerConfigError(
                f"the breaker of {name} has threshold {threshold}, cool_down {cool_down}, slow_after {slow_after}; "
                "all must be above 0"
            )
        self.name = name
        self.threshold = threshold
        self.cool_down = cool_down
        self.slow_after = slow_after
        self._counts = counts
        self._clock = clock
        self._listener = listener
        self._lock = threading.Lock()
        self._telling = threading.RLock()
        self._untold: deque[Transition] = deque()
        self._state: State = "closed"
        self._round = 0
        self._failures = 0
        self._since = 0.0
        self._last = "it has not been called"
        self._on_trial = False
        self._opened = 0.0
        self.recoveries = Recoveries()

    @property
    def state(self) -> State:
        """What the next call meets: an open breaker whose cool-down is over is half-open."""
        with self._lock:
            return "half-open" if self._state == "open" and self._waits_for() <= 0 else self._state

    @property
    def last_failure(self) -> str:
        """What went wrong last, in words."""
        return self._last

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Around one call, in threads and in coroutines alike.  Raises CircuitOpenError instead of entering."""
        number = self._enter()
        begun = self._clock()
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._leave(number, error, self._clock() - begun)

    def reset(self) -> None:
        """Close it: someone knows that the source is well again."""
        with self._lock:
            self._change("closed", "it was reset")
        self._tell()

    # Inside --------------------------------------------------------------------------------------

    def _enter(self) -> int:
        """The number of the round in which the call begins."""
        with self._lock:
            waits = self._waits_for()
            if self._state == "open" and waits <= 0:
                self._change("half-open", f"{self.cool_down:g} s have passed")
            elif self._state == "half-open" and self._on_trial and waits <= 0:
                self._begin_round()  # the trial hangs; should it end after all, it no longer counts
            refused = self._state == "open" or (self._state == "half-open" and self._on_trial)
            if not refused:
                self._on_trial = self._state == "half-open"
                if self._on_trial:
                    self._since = self._clock()
            number = self._round
        self._tell()
        if refused:
            raise CircuitOpenError(
                f"{self.name} is left alone after failures, the last: {self._last}",
                advice=f"it is tried again in {max(0.0, waits):.1f} s",
                source=self.name,
                seconds=max(0.0, waits),
            )
        return number

    def _leave(self, number: int, error: BaseException | None, seconds: float) -> None:
        with self._lock:
            if number != self._round:
                return
            self._on_trial = False
            failure = self._failure(error, seconds)
            if failure:
                self._last = failure
                self._failures += 1
                if self._state == "half-open" or self._failures >= self.threshold:
                    self._change("open", failure)
            elif error is None or isinstance(error, AbsurdError):
                self._failures = 0
                if self._state == "half-open":
                    away, before = self._clock() - self._opened, self.recoveries
                    self.recoveries = Recoveries(before.count + 1, before.seconds + away, away)
                    self._change("closed", "it answered")
        self._tell()

    def _failure(self, error: BaseException | None, seconds: float) -> str | None:
        if isinstance(error, Exception) and self._counts(error):
            return f"{type(error).__name__}: {error}"
        answered = error is None or isinstance(error, AbsurdError)
        if answered and self.slow_after is not None and seconds > self.slow_after:
            return f"it took {seconds:.3g} s, more than {self.slow_after:g} s"
        return None

    def _waits_for(self) -> float:
        return self._since + self.cool_down - self._clock()

    def _change(self, state: State, reason: str) -> None:
        if state != self._state:
            self._untold.append(Transition(self.name, self._state, state, reason))
            if self._state == "closed":
                self._opened = self._clock()
        self._state = state
        self._begin_round()

    def _begin_round(self) -> None:
        self._round += 1
        self._failures = 0
        self._on_trial = False
        self._since = self._clock()

    def _tell(self) -> None:
        """Tell the log and the listener, in order, and not under the lock: the listener may use the breaker."""
        with self._telling:
            while self._untold:
                transition = self._untold.popleft()
                level = logging.WARNING if transition.after == "open" else logging.INFO
                _log.log(level, "source %s: breaker is %s, %s", self.name, transition.after, transition.reason)
                if self._listener is None:
                    continue
                try:
                    self._listener(transition)
                except Exception:  # the call that is guarded must not fail by it
                    _log.exception("the listener of breaker %s failed", self.name)
