"""The circuit breaker, against a model of it: every order of calls, failures, slow answers and pauses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ticking import Clock

from absurd.tasks.cutout.circuit import CircuitBreaker, Recoveries, Transition
from absurd.tasks.cutout.errors import BandNotFoundError, ButlerConnectionError, CircuitOpenError, DataIdValidationError

COOL_DOWN, SLOW = 30.0, 5.0

ENDS: dict[str, tuple[Callable[[], BaseException | None], str]] = {
    "answer": (lambda: None, "success"),
    "not found": (lambda: BandNotFoundError("no r"), "success"),
    "refused": (lambda: DataIdValidationError("ra"), "success"),
    "away": (lambda: ButlerConnectionError("away"), "failure"),
    "reset": (ConnectionResetError, "failure"),
    "bug": (lambda: KeyError("x"), "neither"),
    "interrupted": (KeyboardInterrupt, "neither"),
}
"""How a call can end, and what that says of the source."""


class Machine(RuleBasedStateMachine):
    """Calls begin and end in any order while time passes; the model is written from the breaker's description."""

    @initialize(threshold=st.integers(1, 4))
    def begin(self, threshold: int) -> None:
        self.clock = Clock()
        self.told: list[Transition] = []
        self.breaker = CircuitBreaker(
            "butler", threshold=threshold, cool_down=COOL_DOWN, slow_after=SLOW, clock=self.clock,
            listener=self.told.append,
        )  # fmt: skip
        self.threshold = threshold
        self.state = "closed"
        self.failures = 0
        self.round = 0
        self.since = 0.0
        self.trial: tuple[AbstractContextManager[None], int, float] | None = None
        self.running: list[tuple[AbstractContextManager[None], int, float]] = []
        self.changes = ["closed"]

    def change(self, state: str) -> None:
        self.state = state
        self.changes.append(state)
        self.failures = 0
        self.round += 1
        self.since = self.clock()
        self.trial = None

    @rule()
    def enter(self) -> None:
        """A call begins, if it may."""
        over = self.clock() >= self.since + COOL_DOWN
        if self.state == "open" and over:
            self.change("half-open")
        elif self.state == "half-open" and self.trial is not None and over:
            self.round += 1
            self.trial = None
        allowed = self.state == "closed" or (self.state == "half-open" and self.trial is None)
        guard = self.breaker.guard()
        if not allowed:
            with pytest.raises(CircuitOpenError, match="butler is left alone after failures"):
                guard.__enter__()
            return
        guard.__enter__()
        call = (guard, self.round, self.clock())
        self.running.append(call)
        if self.state == "half-open":
            self.trial = call
            self.since = self.clock()

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 100), how=st.sampled_from(sorted(ENDS)))
    def leave(self, which: int, how: str) -> None:
        """One of the calls ends."""
        call = self.running.pop(which % len(self.running))
        guard, number, begun = call
        make, verdict = ENDS[how]
        error = make()
        if error is None:
            guard.__exit__(None, None, None)
        else:
            assert not guard.__exit__(type(error), error, None)
        if number != self.round:
            return
        self.trial = None
        if verdict == "success" and self.clock() - begun > SLOW:
            verdict = "failure"
        if verdict == "failure":
            self.failures += 1
            if self.state == "half-open" or self.failures >= self.threshold:
                self.change("open")
        elif verdict == "success":
            self.failures = 0
            if self.state == "half-open":
                self.change("closed")

    @rule(seconds=st.sampled_from([1.0, 4.0, 6.0, 15.0, 30.0, 100.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.tick(seconds)

    @rule()
    def reset(self) -> None:
        """Someone closes it."""
        if self.state == "closed":
            self.failures = 0
            self.round += 1
            self.since = self.clock()
        else:
            self.change("closed")
        self.breaker.reset()

    @invariant()
    def agrees(self) -> None:
        """The state is the model's, and the listener has heard every change, in order."""
        if not hasattr(self, "breaker"):
            return
        over = self.state == "open" and self.clock() >= self.since + COOL_DOWN
        assert self.breaker.state == ("half-open" if over else self.state)
        assert ["closed", *(each.after for each in self.told)] == self.changes
        assert [each.before for each in self.told] == self.changes[:-1]


TestCircuit = Machine.TestCase
TestCircuit.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(breaker: CircuitBreaker, error: BaseException) -> None:
    with pytest.raises(type(error)), breaker.guard():
        raise error


def test_how_long_a_source_was_away_is_measured(clock: Clock) -> None:
    """From the opening to the closing, trials that failed included; of all times together, and the last."""
    breaker = CircuitBreaker("butler", threshold=1, cool_down=30, clock=clock)
    assert breaker.recoveries == Recoveries() and breaker.recoveries.mean == 0

    fail(breaker, ConnectionResetError("reset"))
    clock.tick(30)
    fail(breaker, ConnectionResetError("reset"))  # its trial
    clock.tick(40)
    assert breaker.recoveries.count == 0
    with breaker.guard():
        pass
    clock.tick(1000)
    fail(breaker, ConnectionResetError("reset"))
    clock.tick(30)
    with breaker.guard():
        pass

    fail(breaker, ConnectionResetError("reset"))
    breaker.reset()

    assert breaker.recoveries == Recoveries(count=2, seconds=100.0, last=30.0)
    assert breaker.recoveries.mean == 50


def test_the_refusal_tells_why_and_when_to_come_again(clock: Clock) -> None:
    """The last failure in words, and the seconds that are left."""
    breaker = CircuitBreaker("data.lsst.cloud", threshold=2, cool_down=30, clock=clock)
    fail(breaker, ButlerConnectionError("502 Bad Gateway"))
    fail(breaker, ButlerConnectionError("503 Service Unavailable"))
    clock.tick(10)

    with pytest.raises(CircuitOpenError) as caught, breaker.guard():
        raise AssertionError("it went through")

    assert str(caught.value) == (
        "data.lsst.cloud is left alone after failures, the last: ButlerConnectionError: 503 Service Unavailable: "
        "it is tried again in 20.0 s"
    )
    assert caught.value.details == {"source": "data.lsst.cloud", "seconds": 20.0}


def test_calls_of_an_earlier_time_no_longer_count(clock: Clock) -> None:
    """One that began before the breaker opened and fails late changes nothing, nor does a lost trial."""
    breaker = CircuitBreaker("butler", threshold=1, cool_down=30, clock=clock)
    states = []
    early = breaker.guard()
    early.__enter__()
    fail(breaker, ConnectionResetError())
    clock.tick(30)
    early.__exit__(ConnectionResetError, ConnectionResetError(), None)
    states.append(breaker.state)

    lost = breaker.guard()
    lost.__enter__()
    clock.tick(30)
    with breaker.guard():
        states.append(breaker.state)
    lost.__exit__(ConnectionResetError, ConnectionResetError(), None)
    states.append(breaker.state)

    assert states == ["half-open", "half-open", "closed"]


def test_one_thread_tries_while_others_are_refused(clock: Clock) -> None:
    """Half-open, of eight threads at once exactly one goes through."""
    breaker = CircuitBreaker("butler", threshold=1, cool_down=30, clock=clock)
    fail(breaker, ConnectionResetError())
    clock.tick(30)
    all_asked = threading.Barrier(8)
    through = []

    def ask() -> bool:
        try:
            with breaker.guard():
                through.append(threading.get_ident())
                all_asked.wait(20)
                return True
        except CircuitOpenError:
            all_asked.wait(20)
            return False

    with ThreadPoolExecutor(8) as pool:
        outcomes = [each.result() for each in [pool.submit(ask) for _ in range(8)]]

    assert sum(outcomes) == len(through) == 1
    assert breaker.state == "closed"


def test_a_listener_may_use_the_breaker_and_may_fail(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """What it raises is logged, as is the change; the call that was guarded has its own error."""

    def listen(transition: Transition) -> None:
        assert breaker.state == "open"
        raise ValueError(f"cannot tell of {transition.after}")

    breaker = CircuitBreaker("butler", threshold=1, clock=clock, listener=listen)

    fail(breaker, ConnectionResetError())

    assert "source butler: breaker is open, " in caplog.text
    assert "the listener of breaker butler failed" in caplog.text
    assert "cannot tell of open" in caplog.text


async def test_it_guards_coroutines(clock: Clock) -> None:
    """The same guard stands around an await."""
    breaker = CircuitBreaker("butler", threshold=1, clock=clock)

    async def away() -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError), breaker.guard():
        await away()

    assert breaker.state == "open"
