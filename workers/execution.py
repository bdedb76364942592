"""One run to its Outcome: what an executor returns or raises, decided in one place."""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import dataclass
from typing import Any

from absurd.context import Port, RunContext
from absurd.encoding import encode_result
from absurd.errors import AbsurdError, InvalidParamsError, ResultError, RunTimeoutError, StaleClaimError
from absurd.executor import Executor
from absurd.model import Claim
from absurd.outcome import (
    Cancel,
    Cancelled,
    Completed,
    Failed,
    Outcome,
    Reject,
    RetryLater,
    Snooze,
    Suspend,
    Suspended,
)
from absurd.retry import RetryPolicy
from absurd.workers.artifacts import collect, discard

TRACEBACK_LIMIT = 20_000
"""Most characters of a traceback that are kept."""
MESSAGE_LIMIT = 5_000

NOTHING = Completed()


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where neither the task nor its executor says otherwise."""

    retry: RetryPolicy
    timeout: float | None


async def run_in_loop(claim: Claim, executor: Executor, port: Port, defaults: Defaults) -> Outcome | None:
    """Run an async executor.  The hot path: no timer, no logger and no checks that nobody asked for."""
    context = RunContext(claim, port)
    try:
        params = claim.params if executor.params_type is None else executor.load_params(claim.params)
        timeout = time_limit(claim, executor, defaults)
        if timeout is None:
            result = await executor.function(context, params)
        else:
            result = await _within(timeout, executor.function(context, params), claim)
        if context.artifacts:
            files = await asyncio.to_thread(collect, context.artifacts)
            return Completed(encoded(result), files)
        return NOTHING if result is None else Completed(encoded(result))
    except asyncio.CancelledError:
        context.cancel()
        discard(context.artifacts)
        raise
    except BaseException as error:  # noqa: BLE001 - whatever an executor raises is an outcome
        discard(context.artifacts)
        return outcome_of(error, claim, executor, defaults)


def time_limit(claim: Claim, executor: Executor, defaults: Defaults) -> float | None:
    """Seconds this run may take; None for no limit."""
    return claim.timeout or executor.timeout or defaults.timeout


async def _within(timeout: float, running: Any, claim: Claim) -> Any:
    try:
        async with asyncio.timeout(timeout) as limit:
            return await running
    except TimeoutError:
        if limit.expired():
            raise out_of_time(claim, timeout) from None
        raise  # the executor's own


def out_of_time(claim: Claim, timeout: float) -> RunTimeoutError:
    """What a run that took too long fails with."""
    return RunTimeoutError(f"attempt {claim.attempt} took longer than its limit of {timeout:g} s", timeout=timeout)


def encoded(result: Any) -> str | None:
    """A result as the JSON text to store, None for none.  Raises ResultError."""
    try:
        return encode_result(result)
    except AbsurdError as error:
        raise ResultError(f"the result cannot be stored: {error.message}") from error


# What was raised ---------------------------------------------------------------------------------


def outcome_of(error: BaseException, claim: Claim, executor: Executor, defaults: Defaults) -> Outcome | None:
    """The outcome of a run that raised; None when its claim was lost and nothing is left to report."""
    match error:
        case Suspend():
            return error.outcome
        case StaleClaimError():
            return None
        case Snooze():
            return Suspended(str(error), delay=error.delay)
        case Cancel():
            return Cancelled(_text(error) or "by its executor")
        case Reject():
            return Failed(describe(error, code="rejected"), None)
        case RetryLater():
            delay = error.delay if attempts_left(claim, executor, defaults) else None
            return Failed(describe(error, code="retry_later"), delay)
        case InvalidParamsError():  # the same params will not fit next time either
            return Failed(describe(error), None)
        case KeyboardInterrupt() | SystemExit() | Exception():
            return failure(describe(error), claim, executor, defaults)
    raise error


def failure(error: dict[str, Any], claim: Claim, executor: Executor, defaults: Defaults) -> Failed:
    """A failed attempt, with the delay before the next one if there is one."""
    if not attempts_left(claim, executor, defaults):
        return Failed(error, None)
    return Failed(error, policy_of(claim, executor, defaults).delay(claim.attempt))


def policy_of(claim: Claim, executor: Executor, defaults: Defaults) -> RetryPolicy:
    """The retry policy of a task: its own, else its executor's, else the default."""
    if claim.retry is not None:
        return RetryPolicy.from_json(dict(claim.retry))
    return executor.retry or defaults.retry


def attempts_left(claim: Claim, executor: Executor, defaults: Defaults) -> bool:
    """Whether another attempt may follow this one."""
    allowed = claim.max_attempts
    if allowed is None:
        allowed = policy_of(claim, executor, defaults).max_attempts
    return claim.attempt < allowed


def describe(error: BaseException, code: str | None = None) -> dict[str, Any]:
    """An exception as the JSON that is stored, however odd it is."""
    if code is None:
        code = error.code if isinstance(error, AbsurdError) else "exception"
    return {
        "code": code,
        "type": type(error).__qualname__,
        "message": _text(error),
        "traceback": _traceback(error),
    }


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 - an exception whose __str__ raises must not hide the failure
        text = f"(the text of this {type(error).__qualname__} cannot be read: {type(broken).__qualname__})"
    return _storable(text, MESSAGE_LIMIT)


def _traceback(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-50, chain=True)
    except Exception as broken:  # noqa: BLE001 - nor one that cannot be formatted
        return f"(the traceback cannot be read: {type(broken).__qualname__})"
    return _storable("".join(lines), TRACEBACK_LIMIT)


def _storable(text: str, limit: int) -> str:
    """Text that PostgreSQL takes: no NUL, no lone surrogates, not without end."""
    text = text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n… {len(text) - limit} characters left out …\n{text[-limit // 2 :]}"
