"""What becomes of a run: whatever an executor returns or raises is an outcome that can be stored."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict
from uuid import UUID

import pytest
from memory_port import MemoryPort, claim_of

from absurd.context import RunContext, run_here
from absurd.errors import InvalidOptionError, InvalidParamsError, StaleClaimError, TaskNotFoundError
from absurd.executor import Executor
from absurd.outcome import Cancel, Cancelled, Completed, Failed, Outcome, Reject, RetryLater, Snooze, Suspend, Suspended
from absurd.retry import ErrorRule, RetryPolicy
from absurd.workers.failures import MESSAGE_LIMIT, TRACEBACK_LIMIT
from absurd.workers.runs.execution import Defaults, run_in_loop, run_sync

DEFAULTS = Defaults(RetryPolicy(max_attempts=5, base=2.0, jitter=0), None)


class Params(TypedDict):
    """Params of a checked executor."""

    n: int


def outcome_of(function: Callable[[], Any], params: Any = None, **options: Any) -> Outcome | None:
    """Run a plain function; options of the executor, and of the claim as ``claim={...}``."""
    claim = claim_of("tried", params, **options.pop("claim", {}))
    executor = Executor("tried", lambda ctx, params: function(), runs_in="thread", **options)
    return run_sync(RunContext(claim, MemoryPort(), run_here), claim, executor, DEFAULTS)


def failed(function: Callable[[], Any], **options: Any) -> Failed:
    outcome = outcome_of(function, **options)
    assert isinstance(outcome, Failed)
    assert outcome.error.keys() - {"out_of_memory"} == {"code", "type", "classes", "message", "traceback"}
    for text in (outcome.error[name] for name in ("code", "type", "message", "traceback")):
        assert type(text) is str
        assert "\0" not in text
        text.encode()
    return outcome


def raising(error: BaseException) -> Callable[[], Any]:
    def function() -> None:
        raise error

    return function


# Exceptions --------------------------------------------------------------------------------------


class Mute(Exception):
    """Cannot be told."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


class Impostor(Exception):
    """Its text is not a text."""

    def __str__(self) -> Any:
        return 7  # noqa: PLE0307


class Overridden(str):
    """A text whose methods do not work."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        raise RuntimeError

    def __len__(self) -> int:
        return -1  # noqa: PLE0303


def circular() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def chained(depth: int) -> None:
    error = ValueError("0")
    for n in range(depth):
        following = ValueError(str(n))
        following.__cause__ = error
        error = following
    raise error


def recursive() -> None:
    recursive()


def nested(depth: int) -> BaseException:
    error: Exception = ValueError("innermost")
    for _ in range(depth):
        error = ExceptionGroup("group", [error, error])
    return error


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (raising(ValueError("plain")), "ValueError", "plain"),
        (raising(Mute()), "Mute", "(this cannot be told: KeyboardInterrupt was raised)"),
        (raising(Impostor()), "Impostor", "(this cannot be told: TypeError was raised)"),
        (raising(ValueError(Overridden("x"))), "ValueError", "x"),
        (raising(ValueError("nul \0 and \ud800")), "ValueError", "nul \ufffd and \ufffd"),
        (raising(KeyError(b"\xff")), "KeyError", "b'\\xff'"),
        (circular, "ValueError", "first"),
        (lambda: chained(3_000), "ValueError", "2999"),
        (recursive, "RecursionError", "maximum recursion depth exceeded"),
        (raising(nested(30)), "ExceptionGroup", "group (2 sub-exceptions)"),
        (raising(SystemExit(3)), "SystemExit", "3"),
        (raising(KeyboardInterrupt()), "KeyboardInterrupt", ""),
        (raising(GeneratorExit()), "GeneratorExit", ""),
        (raising(asyncio.CancelledError("own")), "CancelledError", "own"),
        (raising(BaseException("bare")), "BaseException", "bare"),
        (raising(MemoryError()), "MemoryError", ""),
    ],
)
def test_every_exception_is_a_failure_that_can_be_stored(function: Callable[[], Any], kind: str, message: str) -> None:
    """However odd it is, type, message and traceback are texts that PostgreSQL takes; it is retried (B38)."""
    outcome = failed(function)

    assert (kind, "exception") == (outcome.error["type"], outcome.error["code"])
    assert outcome.error["message"].startswith(message)
    assert outcome.delay == 2.0


def test_a_huge_exception_is_cut() -> None:
    """Message and traceback keep their beginnings and ends, and say what was left out."""
    outcome = failed(raising(ValueError("a" * 10_000_000 + "z")))

    for text, limit in ((outcome.error["message"], MESSAGE_LIMIT), (outcome.error["traceback"], TRACEBACK_LIMIT)):
        assert limit < len(text) < limit + 100
        assert "characters left out" in text
    assert outcome.error["message"].endswith("z")


def test_a_traceback_begins_with_the_executor() -> None:
    """Frames of the worker tell the user nothing."""
    told = failed(raising(ValueError("plain"))).error["traceback"]

    assert "run_sync" not in told
    assert "test_execution.py" in told
    assert told.endswith("ValueError: plain\n")


def test_an_error_of_absurd_keeps_its_code() -> None:
    """Programs tell errors apart by their code."""
    assert "task_not_found" == failed(raising(TaskNotFoundError("no such task"))).error["code"]


# Retries -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("executor_retry", "claim", "delay"),
    [
        (None, {"attempt": 4}, 16.0),
        (None, {"attempt": 5}, None),
        (RetryPolicy(max_attempts=2, base=7, jitter=0), {"attempt": 1}, 7.0),
        (RetryPolicy(max_attempts=2, base=7, jitter=0), {"attempt": 2}, None),
        (RetryPolicy(max_attempts=2, base=7, jitter=0), {"attempt": 2, "max_attempts": 3}, 14.0),
        (RetryPolicy(max_attempts=9, base=7, jitter=0), {"attempt": 1, "max_attempts": 1}, None),
        (RetryPolicy(max_attempts=9, base=7, jitter=0), {"attempt": 1, "max_attempts": 0}, None),
        (RetryPolicy(max_attempts=2, base=7, jitter=0), {"attempt": 1, "retry": {"base": 3}}, 3.0),
        (RetryPolicy(max_attempts=2, base=7, jitter=0), {"attempt": 2, "retry": {"base": 3}}, None),
        (None, {"attempt": 6, "retry": {"max_attempts": 7, "factor": 1, "jitter": 0}}, 2.0),
        (None, {"attempt": 1, "retry": {"unknown": 7}}, 2.0),
        (None, {"attempt": 1, "retry": {"base": "soon"}}, 2.0),
    ],
)
def test_the_next_attempt_is_due_by_the_task_then_the_executor_then_the_default(
    executor_retry: RetryPolicy | None, claim: dict[str, Any], delay: float | None
) -> None:
    """Policy and number of attempts; a policy that cannot be read is passed over."""
    assert delay == failed(raising(ValueError()), retry=executor_retry, claim=claim).delay


def test_params_that_do_not_fit_are_not_tried_again() -> None:
    """The executor is not called, and the error names the field (B40)."""
    outcome = failed(lambda: pytest.fail("it ran"), params={"n": "many"}, params_type=Params)

    assert ("invalid_params", None) == (outcome.error["code"], outcome.delay)
    assert "n: " in outcome.error["message"]
    assert failed(raising(InvalidParamsError("no such band"))).delay is None


# Signals -----------------------------------------------------------------------------------------


def test_signals_end_a_run_otherwise() -> None:
    """RetryLater sets the delay and spends the attempt, Snooze spends none, Reject and Cancel are final (B49)."""
    assert 90.0 == failed(raising(RetryLater(90))).delay
    assert failed(raising(RetryLater(90)), claim={"attempt": 5}).delay is None
    assert Suspended("clouds", delay=30.0) == outcome_of(raising(Snooze(30, "clouds")))
    assert Cancelled("not needed") == outcome_of(raising(Cancel("not needed")))
    rejected = failed(raising(Reject("no such field")))
    assert ("rejected", "no such field", None) == (
        rejected.error["code"],
        rejected.error["message"],
        rejected.delay,
    )


@pytest.mark.parametrize("delay", [math.inf, 1e300])
def test_endless_delays_become_ones_that_can_be_stored(delay: float) -> None:
    """A delay that no time can be reckoned from does not spoil the report of a whole batch."""
    assert failed(raising(RetryLater(delay))).delay == 315_360_000.0
    assert Suspended("snooze", delay=315_360_000.0) == outcome_of(raising(Snooze(delay)))


@pytest.mark.parametrize("delay", [-1, math.nan])
@pytest.mark.parametrize("signal", [RetryLater, Snooze])
def test_delays_that_are_no_time_are_refused(signal: type[RetryLater | Snooze], delay: float) -> None:
    """Below zero or not a number: refused where it is written, so that no task can spin."""
    with pytest.raises(InvalidOptionError, match="delay"):
        signal(delay)


def test_a_stale_claim_that_is_not_this_runs_own_is_a_failure() -> None:
    """Only what the context has seen itself ends a run without a word."""
    assert "stale_claim" == failed(raising(StaleClaimError("another's"))).error["code"]


# Results -----------------------------------------------------------------------------------------


@dataclass
class Sum:
    """A result."""

    value: float


class Broken:
    """Looks like a pydantic model, and is none."""

    def model_dump(self, **_: Any) -> Any:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, None),
        (Sum(math.nan), {"value": "NaN"}),
        (
            [UUID(int=1), Path("a"), datetime(2026, 1, 1, tzinfo=UTC)],
            [str(UUID(int=1)), "a", "2026-01-01T00:00:00+00:00"],
        ),
        ({1: (2, 3)}, {"1": [2, 3]}),
        ("nul \0", "nul \ufffd"),
    ],
)
def test_results_are_stored_as_documented(value: Any, stored: Any) -> None:
    """Nothing the documentation names fails a run that has done its work."""
    outcome = outcome_of(lambda: value)

    assert isinstance(outcome, Completed)
    assert stored == (None if outcome.result is None else json.loads(outcome.result))


@pytest.mark.parametrize("value", [object(), Broken(), b"x" * 2_000_000, ...], ids=["object", "broken", "huge", "dots"])
def test_a_result_that_cannot_be_stored_fails_the_run(value: Any) -> None:
    """With a code of its own and no retry, which would end the same way."""
    outcome = failed(lambda: value)

    assert ("result_invalid", None) == (outcome.error["code"], outcome.delay)


def test_a_circular_result_fails_the_run() -> None:
    """As any other that cannot be stored."""
    circle: list[Any] = []
    circle.append(circle)

    assert "result_invalid" == failed(lambda: circle).error["code"]


# In the loop -------------------------------------------------------------------------------------


async def in_loop(function: Callable[..., Any], port: MemoryPort | None = None, **claim: Any) -> Outcome | None:
    executor = Executor("tried", function, runs_in="loop")
    return await run_in_loop(claim_of("tried", {}, **claim), executor, port or MemoryPort(), DEFAULTS)


async def test_a_run_in_the_loop_ends_at_its_limit() -> None:
    """Failed with a code of its own, retried by the policy; a TimeoutError of its own is an ordinary one."""

    async def forever(ctx: Any, params: Any) -> None:
        await asyncio.Event().wait()

    async def own(ctx: Any, params: Any) -> None:
        raise TimeoutError("mine")

    late, mine = await in_loop(forever, timeout=0.01), await in_loop(own, timeout=60.0)

    assert isinstance(late, Failed)
    assert ("run_timeout", 2.0) == (late.error["code"], late.delay)
    assert isinstance(mine, Failed)
    assert ("exception", "mine") == (mine.error["code"], mine.error["message"])


async def test_a_cancelled_run_is_told_from_one_that_raises_cancelled_error(tmp_path: Path) -> None:
    """The one ends by CancelledError, so that its attempt is not spent, and leaves no file; the other has failed."""
    started = asyncio.Event()
    path = tmp_path / "half"

    async def forever(ctx: Any, params: Any) -> None:
        Path(ctx.artifact(path)).write_text("half")
        started.set()
        await asyncio.Event().wait()

    async def own(ctx: Any, params: Any) -> None:
        raise asyncio.CancelledError

    job = asyncio.create_task(in_loop(forever))
    await started.wait()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    outcome = await in_loop(own)

    assert isinstance(outcome, Failed)
    assert "CancelledError" == outcome.error["type"]
    assert [] == list(tmp_path.iterdir())


async def test_signals_pass_through_a_task_group() -> None:
    """What a TaskGroup wraps is a signal all the same."""

    async def grouped(ctx: Any, params: Any) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.sleep(60))

    assert Suspended("sleep", delay=60.0) == await in_loop(grouped)


async def test_tasks_of_a_group_may_all_suspend() -> None:
    """Two tasks of a group that suspend at once suspend the run, which is no failure; an error beside them is one."""

    async def grouped(ctx: Any, params: Any) -> None:
        async with asyncio.TaskGroup() as group:
            for delay in (60, 30):
                group.create_task(ctx.sleep(delay))

    async def broken(ctx: Any, params: Any) -> None:
        raise BaseExceptionGroup("two", [Suspend(Suspended("sleep", delay=1.0)), ValueError("broke")])

    assert Suspended("sleep", delay=60.0) == await in_loop(grouped)
    assert isinstance(await in_loop(broken), Failed)


async def test_steps_side_by_side_are_all_kept() -> None:
    """Steps gathered in an async executor run at once, and each is stored."""
    port = MemoryPort()

    async def gathered(ctx: Any, params: Any) -> Any:
        async def compute(n: int) -> int:
            await asyncio.sleep(0)
            return n

        return await asyncio.gather(*(ctx.step("part", lambda n=n: compute(n)) for n in range(3)))

    outcome = await in_loop(gathered, port)

    assert isinstance(outcome, Completed)
    assert "[0,1,2]" == outcome.result
    assert [{"part": 0, "part#2": 1, "part#3": 2}] == list(port.checkpoints.values())


async def test_a_file_announced_and_not_written_fails_the_run(tmp_path: Path) -> None:
    """The other files of the run are removed."""

    async def forgetful(ctx: Any, params: Any) -> None:
        Path(ctx.artifact(tmp_path / "one")).write_text("1")
        ctx.artifact(tmp_path / "two")

    outcome = await in_loop(forgetful)

    assert isinstance(outcome, Failed)
    assert "two was announced and not written" in outcome.error["message"]
    assert [] == list(tmp_path.iterdir())


OOM_RULE = ErrorRule(out_of_memory=True, delay=5, memory_factor=2, memory_max_gib=64, queue="large")


@pytest.mark.parametrize(
    ("error", "claim", "delay", "amend"),
    [
        (MemoryError(), {}, 5, {"queue": "large", "memory_factor": 2, "memory_max_gib": 64}),
        (MemoryError(), {"attempt": 5}, None, None),
        (ZeroDivisionError(), {}, None, None),
        (ValueError(), {}, 2.0, None),
        (ValueError(), {"retry": {"rules": [{"exception": "ValueError", "delay": 9}]}}, 9, None),
        (ZeroDivisionError(), {"retry": {"rules": []}}, 2.0, None),
    ],
)
def test_rules_decide_about_errors(
    error: BaseException, claim: dict[str, Any], delay: float | None, amend: dict[str, Any] | None
) -> None:
    """Rules of the executor, or of the task in their place: retry, change the task, or reject."""
    rules = (OOM_RULE, ErrorRule(exception="ArithmeticError", action="reject"))
    outcome = failed(
        raising(error), retry=RetryPolicy(max_attempts=5, base=2.0, jitter=0, rules=rules), claim={"attempt": 1} | claim
    )

    assert (delay, amend) == (outcome.delay, outcome.amend)
