"""Run middleware around a run, in the worker: what it may do, and what it may not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from absurd.context import RunContext
from absurd.encoding import decode, encode
from absurd.errors import AbsurdError, ConfigurationError
from absurd.executor import Executor
from absurd.middleware import CallNext, RunMiddleware, told
from absurd.model import Claim
from absurd.outcome import Cancelled, Completed, Failed, Outcome, Returned, Suspended
from absurd.port import Port
from absurd.workers.runs.artifacts import discard
from absurd.workers.runs.execution import Defaults, outcome_of
from absurd.workers.runs.timings import Execute, Timings

_OUTCOMES = (Cancelled, Completed, Failed, Returned, Suspended)


def surround(
    execute: Execute,
    middleware: Sequence[RunMiddleware],
    port: Port,
    defaults: Defaults,
    timings: Timings | None = None,
) -> Execute:
    """`execute` with `middleware` around it, the first outermost, and all of it timed if that is asked for.

    What a middleware raises ends the run as if its executor had raised it; files that the run made are removed.
    """
    surrounded = _within(execute, middleware, port, defaults) if middleware else execute
    return surrounded if timings is None else timings.around(surrounded)


def _within(execute: Execute, middleware: Sequence[RunMiddleware], port: Port, defaults: Defaults) -> Execute:

    async def surrounded(claim: Claim, executor: Executor) -> Outcome | None:
        made: list[Outcome | None] = []

        async def innermost(changed: Claim) -> Outcome | None:
            if changed[:3] != claim[:3] or changed.name != claim.name:
                raise ConfigurationError("run middleware may change params and headers of a claim, not whose it is")
            made.append(await execute(changed, executor))
            return made[-1]

        call: CallNext = innermost
        for each in reversed(middleware):
            call = partial(_passed, each, call)
        try:
            outcome: Outcome | None = await call(claim)
        except asyncio.CancelledError as error:
            _discard(made)
            job = asyncio.current_task()
            if job is not None and job.cancelling():
                raise
            return outcome_of(error, RunContext(claim, port), claim, executor, defaults)
        except Exception as error:
            _discard(made)
            return outcome_of(error, RunContext(claim, port), claim, executor, defaults)
        if made and made[-1] is None:  # lost: nobody to report to, whatever the middleware says
            return None
        if made and outcome is not made[-1] and not isinstance(outcome, Completed):
            _discard(made)
        return outcome

    return surrounded


async def _passed(middleware: RunMiddleware, call_next: CallNext, claim: Claim) -> Outcome | None:
    inner: list[Outcome | None] = []

    async def further(changed: Claim) -> Outcome | None:
        if inner:
            raise ConfigurationError(
                f"run middleware {told(middleware)} called call_next twice; a run is executed once"
            )
        inner.append(None)
        inner[0] = await call_next(changed)
        return inner[0]

    outcome = await middleware(claim, further)
    if outcome is None and inner:
        return inner[0]
    if not isinstance(outcome, _OUTCOMES):
        raise ConfigurationError(
            f"run middleware {told(middleware)} returned {type(outcome).__name__} without calling call_next; "
            "it must return an outcome of absurd.outcome"
        )
    if not inner or outcome is not inner[0]:
        _check(outcome, middleware)
    return outcome


def _check(outcome: Outcome, middleware: RunMiddleware) -> None:
    """Raise ConfigurationError for an outcome of a middleware's own that cannot be stored."""
    try:
        if isinstance(outcome, Completed):
            encode(decode(outcome.result))
        elif isinstance(outcome, Failed):
            encode(outcome.error)
    except (AbsurdError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"run middleware {told(middleware)} returned {type(outcome).__name__} that cannot be stored: {error}; "
            "the result of Completed is JSON text, the error of Failed a dict of JSON values"
        ) from error


def _discard(made: Sequence[Outcome | None]) -> None:
    for outcome in made:
        if isinstance(outcome, Completed):
            discard([(each.attempt_path, each.path, each.kind) for each in outcome.artifacts])
