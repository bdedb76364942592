"""Retries, time limits, sources in turn, and less than was asked for."""

from __future__ import annotations

import asyncio
import errno
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ticking import Clock

from absurd.tasks.cutout.circuit import CircuitBreaker
from absurd.tasks.cutout.errors import (
    AllSourcesFailedError,
    BandNotFoundError,
    ButlerConfigError,
    ButlerConnectionError,
    CircuitOpenError,
    CutoutExtractionError,
    DataIdValidationError,
    DeadlineError,
    SourceNotFoundError,
)
from absurd.tasks.cutout.resilience import (
    Deadline,
    Fallback,
    RetryPolicy,
    call_within,
    is_transient,
    policies,
    reduce_to,
)


class Scripted:
    """An operation that ends as its script says, call by call: raises what is an error, returns what is not."""

    def __init__(self, *ends: Any) -> None:
        self.ends = list(ends)
        self.calls = 0

    def __call__(self, *_: Any) -> Any:
        self.calls += 1
        end = self.ends.pop(0)
        if isinstance(end, BaseException):
            raise end
        return end

    async def later(self, *_: Any) -> Any:
        return self()


@pytest.fixture
def clock() -> Clock:
    return Clock()


AWAY = ButlerConnectionError("away")


def with_status(status: int) -> Exception:
    error = OSError("the server says no")
    error.status = status  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError(errno.EIO, "disk"), True),
        (OSError(errno.ESTALE, "stale handle"), True),
        (AWAY, True),
        (DeadlineError("late"), True),
        (ButlerConnectionError("no entry", status=401), False),
        (ButlerConnectionError("busy", status=503), True),
        (with_status(404), False),
        (with_status(429), True),
        (CircuitOpenError("left alone"), False),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (PermissionError(errno.EACCES, "no"), False),
        (OSError(errno.ENOSPC, "full"), False),
        (BandNotFoundError("no r"), False),
        (DataIdValidationError("ra"), False),
        (CutoutExtractionError("damaged"), False),
        (TypeError(), False),
        (KeyError(), False),
        (ValueError(), False),
        (KeyboardInterrupt(), False),
        (asyncio.CancelledError(), False),
    ],
    ids=repr,
)
def test_which_errors_may_pass(error: BaseException, expected: bool) -> None:
    """Connections, time-outs and troubled servers may; requests, permissions, absences and bugs do not."""
    assert is_transient(error) == expected


def test_errors_of_other_packages_are_known_by_name() -> None:
    """A registry's lost connection may pass, and so may a client's; neither package has to be installed."""
    lost = type("OperationalError", (Exception,), {"__module__": "sqlalchemy.exc"})
    derived = type("ConnectError", (type("TransportError", (Exception,), {"__module__": "httpx"}),), {})

    assert is_transient(lost())
    assert is_transient(derived())
    assert not is_transient(type("OperationalError", (Exception,), {"__module__": "elsewhere"})())


@settings(deadline=None)
@given(st.integers(1, 2000), st.floats(0, 100), st.floats(1, 10), st.floats(0, 1000), st.randoms())
def test_pauses_are_a_random_part_of_a_growing_bound(
    attempt: int, delay: float, factor: float, longest: float, chance: random.Random
) -> None:
    """Never longer than the bound, however many attempts."""
    policy = RetryPolicy(delay=delay, factor=factor, longest=longest)

    assert 0 <= policy.pause(attempt, chance=chance) <= longest
    if attempt == 1:
        assert policy.pause(attempt, chance=chance) <= delay


def test_pauses_are_jittered_in_full() -> None:
    """They spread over the whole of the bound, from nothing to all of it; those of two callers differ."""
    policy = RetryPolicy(delay=1, factor=2)
    chance = random.Random(5)

    pauses = sorted(policy.pause(3, chance=chance) for _ in range(1000))

    assert pauses[0] < 0.1
    assert pauses[-1] > 3.9
    assert 1.8 < pauses[500] < 2.2


def test_a_server_that_says_when_is_obeyed() -> None:
    """Up to the longest pause."""
    policy = RetryPolicy(delay=0, longest=60)

    assert policy.pause(1, ButlerConnectionError("busy", retry_after=20)) == 20
    assert policy.pause(1, ButlerConnectionError("busy", retry_after=3600)) == 60


def run_sync(policy: RetryPolicy, operation: Scripted, **options: Any) -> Any:
    return policy.call(operation, **options)


def run_async(policy: RetryPolicy, operation: Scripted, *, sleep: Callable[[float], object], **options: Any) -> Any:
    async def rest(seconds: float) -> None:
        sleep(seconds)

    return asyncio.run(policy.call_async(operation.later, sleep=rest, **options))


BOTH = pytest.mark.parametrize("run", [run_sync, run_async])


@BOTH
def test_it_is_tried_until_it_works(run: Callable[..., Any], clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """With the pauses of the policy, of which the caller and the log are told."""
    caplog.set_level("INFO", "absurd.tasks.cutout.retry")
    told: list[tuple[int, str, float]] = []
    slept: list[float] = []
    operation = Scripted(AWAY, ConnectionResetError("reset"), "pixels")

    value = run(
        RetryPolicy(attempts=3, delay=1),
        operation,
        clock=clock,
        sleep=slept.append,
        chance=random.Random(1),
        on_retry=lambda attempt, error, pause: told.append((attempt, str(error), pause)),
    )

    chance = random.Random(1)
    assert value == "pixels"
    assert slept == [chance.uniform(0, 1), chance.uniform(0, 2)]
    assert told == [(1, "away", slept[0]), (2, "reset", slept[1])]
    assert caplog.messages == [
        f"attempt {number} of 3 failed, the next is in {pause:.1f} s: {error}" for number, error, pause in told
    ]


@BOTH
def test_the_last_error_is_raised_as_it_is(run: Callable[..., Any], clock: Clock) -> None:
    """Of its own class, not None, and it tells how often it was tried."""
    operation = Scripted(AWAY, AWAY, last := ButlerConnectionError("still away"))

    with pytest.raises(ButlerConnectionError, match="still away") as caught:
        run(RetryPolicy(attempts=3), operation, clock=clock, sleep=clock.tick)

    assert caught.value is last
    assert last.details["attempts"] == 3
    assert last.__notes__ == ["attempt 3 of 3"]


@BOTH
@pytest.mark.parametrize("error", [TypeError("bug"), KeyError("bug"), AttributeError("bug"), NotImplementedError()])
def test_a_bug_is_never_tried_again(run: Callable[..., Any], error: Exception, clock: Clock) -> None:
    """Not even under a policy that calls every error worthwhile."""
    operation = Scripted(error)

    with pytest.raises(type(error)):
        run(RetryPolicy(attempts=5, worthwhile=lambda _: True), operation, clock=clock, sleep=clock.tick)

    assert operation.calls == 1


@BOTH
def test_a_wrong_request_is_not_tried_again(run: Callable[..., Any], clock: Clock) -> None:
    """Nor is what is not there."""
    for error in (DataIdValidationError("ra"), BandNotFoundError("no r"), FileNotFoundError()):
        operation = Scripted(error)
        with pytest.raises(type(error)):
            run(RetryPolicy(attempts=5), operation, clock=clock, sleep=clock.tick)
        assert operation.calls == 1


@BOTH
def test_no_attempt_begins_that_would_be_too_late(run: Callable[..., Any], clock: Clock) -> None:
    """The time for all of it bounds attempts and pauses together, and the error says so."""
    operation = Scripted(*[ButlerConnectionError("away")] * 99)

    class Longest(random.Random):
        def uniform(self, _: float, high: float) -> float:
            return high

    with pytest.raises(ButlerConnectionError) as caught:
        run(RetryPolicy(attempts=99, delay=1, within=10.0), operation, clock=clock, sleep=clock.tick, chance=Longest())

    assert operation.calls == 4  # after pauses of 1, 2 and 4 s
    assert caught.value.__notes__ == ["attempt 4 of 99; no other fits into 10 s"]


def test_each_attempt_has_its_deadline(clock: Clock) -> None:
    """The time-out of an attempt, or what is left of the whole."""
    seen = []

    def operation(deadline: Deadline) -> None:
        seen.append(deadline.remaining())
        clock.tick(4)
        assert deadline.remaining() in (1, 0)
        raise AWAY

    policy = RetryPolicy(attempts=3, delay=0, timeout=5, within=10)
    with pytest.raises(ButlerConnectionError):
        policy.call(operation, clock=clock, sleep=clock.tick)

    assert seen == [5, 5, 2]
    with pytest.raises(DeadlineError, match="the query took longer than 3 s: allow more time"):
        deadline = Deadline(3, clock=clock)
        deadline.check("the query")
        clock.tick(3)
        deadline.check("the query")


async def test_a_coroutine_that_hangs_is_cancelled() -> None:
    """At the end of its time, and the error says what is to be done."""
    cancelled = asyncio.Event()

    async def hang(_: Deadline) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(DeadlineError, match=r"took longer than 0\.01 s"):
        await RetryPolicy(attempts=2, delay=0, timeout=0.01).call_async(hang)

    assert cancelled.is_set()


@pytest.fixture
def hang() -> Iterator[Callable[..., Any]]:
    """A call that returns once the test is over."""
    over = threading.Event()
    yield lambda *_: over.wait(60)
    over.set()


def test_a_call_that_hangs_is_left(hang: Callable[..., Any]) -> None:
    """In time the caller goes on; values and errors of calls that do not hang come through as they are."""
    with pytest.raises(DeadlineError, match=r"the registry took longer than 0\.01 s"):
        call_within(0.01, hang, "the registry")

    assert call_within(30, lambda: 5) == 5
    for error in (KeyError("x"), TimeoutError("its own"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught:
            call_within(30, Scripted(error))
        assert caught.value is error


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"delay": -1}, {"factor": 0.5}, {"longest": float("nan")}, {"timeout": 0}]
)
def test_a_policy_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    """With the field and its value."""
    [(name, value)] = wrong.items()
    with pytest.raises(ButlerConfigError, match=f"{name} of a retry policy is {value}"):
        RetryPolicy(**wrong)


def test_operations_have_policies_of_their_own() -> None:
    """What a configuration says of attempts, delay and time-out reaches each of them; a health check asks once."""
    made = policies(attempts=4, delay=2.0, timeout=7.0)

    assert {name: (each.attempts, each.delay, each.timeout) for name, each in made.items()} == {
        "connect": (4, 2.0, 7.0), "query": (4, 2.0, 7.0), "read": (4, 0.5, 7.0), "health": (1, 2.0, 7.0),
    }  # fmt: skip


# Fallback -------------------------------------------------------------------------------------------


def test_the_first_source_answers_and_the_others_are_not_asked() -> None:
    """The answer says whose it is, and tells of no trouble."""
    second = Scripted()
    answer = Fallback({"butler": Scripted("pixels"), "folder": second}).call(lambda source: source())

    assert (answer.value, answer.source, answer.errors, answer.told) == ("pixels", "butler", {}, "")
    assert second.calls == 0


def test_another_source_answers_and_says_so() -> None:
    """With the error of each source before it, in order."""
    lost = SourceNotFoundError("not here")
    sources = {"server": Scripted(AWAY), "butler": Scripted(lost), "folder": Scripted(None)}

    answer = Fallback(sources).call(lambda source: source())

    assert (answer.value, answer.source) == (None, "folder")
    assert answer.errors == {"server": AWAY, "butler": lost}
    assert answer.told == "folder answered in place of server (away); butler (not here)"


def test_when_all_fail_all_errors_are_told() -> None:
    """In the message, in the details, and the last one as its cause."""
    last = OSError("disk")
    with pytest.raises(AllSourcesFailedError) as caught:
        Fallback({"server": Scripted(AWAY), "folder": Scripted(last)}).call(lambda source: source())

    assert str(caught.value) == "none of 2 sources answered: server (away); folder (disk)"
    assert caught.value.details["errors"] == {"server": "away", "folder": "disk"}
    assert caught.value.__cause__ is last


def test_what_no_source_has_is_not_found() -> None:
    """And a single source speaks for itself."""
    with pytest.raises(SourceNotFoundError, match=r"none of 2 sources answered: a \(no r\); b \(no r\)"):
        Fallback({name: Scripted(BandNotFoundError("no r")) for name in "ab"}).call(lambda source: source())
    with pytest.raises(BandNotFoundError, match=r"^no r$"):
        Fallback({"a": Scripted(BandNotFoundError("no r"))}).call(lambda source: source())


@pytest.mark.parametrize("error", [DataIdValidationError("ra"), TypeError("bug")])
def test_what_would_fail_everywhere_is_raised_at_once(error: Exception) -> None:
    """A wrong request, and a bug, are not asked about elsewhere."""
    other = Scripted()
    with pytest.raises(type(error)):
        Fallback({"a": Scripted(error), "b": other}).call(lambda source: source())
    assert other.calls == 0


def test_a_slow_source_opens_its_breaker_and_the_other_answers(clock: Clock) -> None:
    """Its answers are taken until then; afterwards it is not even asked, until its cool-down is over."""

    def slow() -> str:
        asked.append("slow")
        clock.tick(10)
        return "late"

    asked: list[str] = []
    breaker = CircuitBreaker("slow", threshold=2, cool_down=30, slow_after=5, clock=clock)
    sources: dict[str, Callable[[], str]] = {"slow": slow, "quick": lambda: "soon"}
    fallback = Fallback(sources, breakers={"slow": breaker})

    answers = [fallback.call(lambda source: source()) for _ in range(5)]

    assert [each.value for each in answers] == ["late", "late", "soon", "soon", "soon"]
    assert len(asked) == 2
    assert "slow is left alone after failures, the last: it took 10 s" in answers[2].told
    clock.tick(30)
    assert fallback.call(lambda source: source()).source == "slow"


def test_sources_that_hang_are_left(hang: Callable[..., Any]) -> None:
    """The time-out of the policy holds for sources that know none; each is given up, and the next is asked."""
    fallback = Fallback({"one": hang, "two": hang}, retry=RetryPolicy(attempts=2, delay=0, timeout=0.01))

    with pytest.raises(AllSourcesFailedError, match="an answer of one took longer") as caught:
        fallback.call(lambda source: source())

    assert "an answer of two took longer" in str(caught.value)
    assert isinstance(caught.value.__cause__, DeadlineError)


def test_each_source_is_retried_before_the_next_is_asked() -> None:
    """Its own policy first; every attempt counts for its breaker."""
    first, second = Scripted(AWAY, AWAY, "pixels"), Scripted("others")
    fallback = Fallback({"a": first, "b": second}, retry=RetryPolicy(attempts=3, delay=0))

    assert fallback.call(lambda source: source()).source == "a"
    assert first.calls == 3
    fallback.breakers["a"] = CircuitBreaker("a", threshold=2)
    first.ends = [AWAY, AWAY, "never asked"]
    assert fallback.call(lambda source: source()).source == "b"
    assert first.calls == 5


# Reduced mode -----------------------------------------------------------------------------------------


def test_nothing_is_left_out_where_nothing_failed() -> None:
    """The order is that of the request."""
    reduced = reduce_to(["r", "g"], ["image", "mask"], {})

    assert (reduced.bands, reduced.planes, reduced.told) == (("r", "g"), ("image", "mask"), "")


def test_a_band_goes_without_its_image_and_a_plane_goes_from_all_bands() -> None:
    """What is left is complete, and what is missing is said."""
    failed: dict[tuple[str, str], Exception | str] = {
        ("z", "image"): AWAY,
        ("z", "mask"): "gone too",
        ("r", "psf"): "no model",
    }

    reduced = reduce_to(["g", "r", "z"], ["image", "mask", "psf"], failed)

    assert (reduced.bands, reduced.planes) == (("g", "r"), ("image", "mask"))
    assert reduced.told == "without band z (away); plane psf (no model, in band r)"


def test_what_is_needed_is_never_left_out() -> None:
    """A needed band, a needed plane, and at least one band: or the error says what failed."""
    with pytest.raises(CutoutExtractionError, match=r"nothing can be given without band r \(away\)") as caught:
        reduce_to(["g", "r"], ["image"], {("r", "image"): AWAY}, needed_bands=["r"])
    assert caught.value.details["failed"] == {"r.image": "away"}
    with pytest.raises(BandNotFoundError, match=r"without band g \(no mask\); band r \(away\)"):
        reduce_to(
            ["g", "r"], ["image", "mask"], {("r", "image"): AWAY, ("g", "mask"): "no mask"},
            needed_planes=["image", "mask"],
        )  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_what_is_left_never_holds_what_failed(data: st.DataObject) -> None:
    """Whatever failed: every plane of every band that is left can be had, and all else is told."""
    bands, planes = ["u", "g", "r", "i"], ["image", "mask", "variance"]
    failed = data.draw(
        st.dictionaries(st.tuples(st.sampled_from(bands), st.sampled_from(planes)), st.just("away"), max_size=9)
    )
    try:
        reduced = reduce_to(bands, planes, failed)
    except BandNotFoundError:
        assert all((band, "image") in failed for band in bands)
        return

    assert not [place for place in failed if place[0] in reduced.bands and place[1] in reduced.planes]
    assert {*reduced.bands, *(each.band for each in reduced.left_out if each.band)} == set(bands)
    assert {*reduced.planes, *(each.plane for each in reduced.left_out if each.plane)} == set(planes)
