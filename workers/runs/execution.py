"""One run to its Outcome: what an executor returns or raises, decided in one place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Any

import structlog

from absurd.bounds import LONGEST_SECONDS
from absurd.context import RunContext
from absurd.encoding import encode_result
from absurd.errors import AbsurdError, InvalidInputError, NoScratchError, ResultError, RunTimeoutError, StaleClaimError
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
from absurd.port import Port
from absurd.references import resolve
from absurd.retry import RetryPolicy
from absurd.scratch import remove
from absurd.workers.failures import describe
from absurd.workers.runs.artifacts import collect, discard
from absurd.workers.runs.room import put_off

NOTHING = Completed()

log = structlog.get_logger("absurd.worker")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where neither the task nor its executor says otherwise."""

    retry: RetryPolicy
    timeout: float | None


# Executing ---------------------------------------------------------------------------------------


async def run_in_loop(
    claim: Claim, executor: Executor, port: Port, defaults: Defaults, context: RunContext | None = None
) -> Outcome | None:
    """Run an async executor.  The hot path: no timer, no logger and no checks that nobody asked for."""
    if context is None:
        context = RunContext(claim, port)
    try:
        given = resolve(claim.params, claim.parents) if claim.refers else claim.params
        params = given if executor.params_type is None else executor.load_params(given)
        timeout = claim.timeout or executor.timeout or defaults.timeout
        if timeout is None:
            result = await executor.function(context, params)
        else:
            result = await _within(timeout, executor.function(context, params), claim)
        if context.lost:
            raise _lost(claim)
        if context.artifacts or context.spawns or context.products:
            files = await asyncio.to_thread(collect, context.artifacts) if context.artifacts else ()
            return Completed(_encoded(result), files, tuple(context.spawns), tuple(context.products))
        return NOTHING if result is None else Completed(_encoded(result))
    except BaseException as error:
        context.cancel()
        discard(context.artifacts)
        if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
            raise
        return outcome_of(error, context, claim, executor, defaults)
    finally:
        if context.scratch_made is not None:
            await asyncio.to_thread(remove, context.scratch_made)


def run_sync(context: RunContext, claim: Claim, executor: Executor, defaults: Defaults) -> Outcome | None:
    """Run a plain function to its Outcome, in whichever thread or process this is."""
    try:
        given = resolve(claim.params, claim.parents) if claim.refers else claim.params
        result = executor.function(context, executor.load_params(given))
        if context.cancelled:
            raise _lost(claim)
        files = collect(context.artifacts)
        return Completed(_encoded(result), files, tuple(context.spawns), tuple(context.products))
    except BaseException as error:
        outcome = outcome_of(error, context, claim, executor, defaults)
    finally:
        if context.scratch_made is not None:
            remove(context.scratch_made)
    discard(context.artifacts)
    return outcome


async def _within(timeout: float, running: Awaitable[Any], claim: Claim) -> Any:
    try:
        async with asyncio.timeout(timeout) as limit:
            return await running
    except TimeoutError:
        if limit.expired():
            raise out_of_time(claim, timeout) from None
        raise  # the executor's own


def _is_being_cancelled() -> bool:
    """Whether this run is being stopped from outside: an executor may raise CancelledError by itself too."""
    job = asyncio.current_task()
    return job is not None and job.cancelling() > 0


def _encoded(result: Any) -> str | None:
    try:
        return encode_result(result)
    except AbsurdError as error:
        raise ResultError(f"the result cannot be stored: {error.message}") from error
    except Exception as error:  # the object's own methods have run
        raise ResultError(f"the result cannot be stored: reading it raised {type(error).__qualname__}") from error


def _lost(claim: Claim) -> StaleClaimError:
    return StaleClaimError(f"the claim on task {claim.task_id} is lost", task_id=str(claim.task_id))


# What was raised ---------------------------------------------------------------------------------


def outcome_of(
    error: BaseException, context: RunContext, claim: Claim, executor: Executor, defaults: Defaults
) -> Outcome | None:
    """The outcome of a run that raised; None when its claim was lost and nothing is left to report."""
    if context.lost:
        return None
    match _only(error):
        case Suspend(outcome=outcome):
            return replace(outcome, spawns=tuple(context.spawns))
        case Snooze(delay=delay) as signal:
            # Not at once: it spends no attempt, and would spin.
            reason = describe(signal, claim=claim)["message"] or "snooze"
            return Suspended(reason, delay=max(0.1, _seconds(delay)), spawns=tuple(context.spawns))
        case Cancel() as signal:
            return Cancelled(describe(signal, claim=claim)["message"] or "by its executor")
        case NoScratchError(message=message) if context.scratch_made is None:
            log.warning("scratch_full", task_id=str(claim.task_id), error=message)
            return put_off(tuple(context.spawns))
        case Reject() as signal:
            return Failed(describe(signal, "rejected", claim), None)
        case RetryLater(delay=delay) as signal:
            described = describe(signal, "retry_later", claim)
            return Failed(described, _seconds(delay) if attempts_left(claim, executor, defaults) else None)
        case InvalidInputError() | ResultError() as useless:  # to repeat: it would end the same way
            return Failed(describe(useless, claim=claim), None)
    return failure(describe(error, claim=claim), claim, executor, defaults)


def failure(described: dict[str, Any], claim: Claim, executor: Executor, defaults: Defaults) -> Failed:
    """A failed attempt, with the delay before the next one if there is one, and what changes for that."""
    if not attempts_left(claim, executor, defaults):
        return Failed(described, None)
    policy = policy_of(claim, executor, defaults)
    rule = policy.rule_for(described)
    if rule is not None and rule.action == "reject":
        return Failed(described, None)
    return Failed(described, policy.delay_for(rule, claim.attempt), None if rule is None else rule.amend())


def out_of_time(claim: Claim, timeout: float) -> RunTimeoutError:
    """What a run that took too long fails with."""
    return RunTimeoutError(f"attempt {claim.attempt} took longer than its limit of {timeout:g} s", timeout=timeout)


def time_limit(claim: Claim, executor: Executor, defaults: Defaults) -> float | None:
    """Seconds this run may take; None for no limit."""
    return claim.timeout or executor.timeout or defaults.timeout


def attempts_left(claim: Claim, executor: Executor, defaults: Defaults) -> bool:
    """Whether another attempt may follow this one."""
    allowed = claim.max_attempts
    if allowed is None:
        allowed = policy_of(claim, executor, defaults).max_attempts
    return claim.attempt < allowed


def policy_of(claim: Claim, executor: Executor, defaults: Defaults) -> RetryPolicy:
    """The retry policy of a task: what it says itself, for the rest its executor's, else the default."""
    policy = executor.retry or defaults.retry
    if claim.retry is None:
        return policy
    try:
        return RetryPolicy.from_json(policy.to_json() | dict(claim.retry))
    except (AbsurdError, TypeError, ValueError) as error:  # spawned by SQL past the check
        log.warning("retry_policy_invalid", task_id=str(claim.task_id), error=str(error))
        return policy


def _only(error: BaseException) -> BaseException:
    """What a TaskGroup of the executor has wrapped, if it is one error, or if all of them suspend the run."""
    while isinstance(error, BaseExceptionGroup):
        if len(error.exceptions) > 1 and not all(isinstance(each, Suspend) for each in error.exceptions):
            break
        error = error.exceptions[0]  # of several suspensions the others come in the next run
    return error


def _seconds(delay: float) -> float:
    """A delay that the database can add to a time."""
    return min(delay, LONGEST_SECONDS)
