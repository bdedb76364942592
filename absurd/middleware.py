"""Middleware: functions of yours around every spawn, every run, and every call of an executor's function.

Three kinds, for they run in three places.  *Spawn* middleware takes a `TaskSpec` and returns the one to spawn, in
the client, and where a run spawns.  *Run* middleware is awaited in the worker around a whole run, of whatever kind
the executor is.  *Call* middleware is a context manager around the executor's function, in the thread or process
where that runs.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import reduce
from typing import TYPE_CHECKING, Any

from absurd.errors import ConfigurationError
from absurd.executor import Executor
from absurd.model import Claim, TaskSpec
from absurd.outcome import Outcome

if TYPE_CHECKING:
    from absurd.context import RunContext

SpawnMiddleware = Callable[[TaskSpec], TaskSpec]
"""Returns the task to spawn: the one it was given, or another made with ``dataclasses.replace``."""

CallNext = Callable[[Claim], Awaitable["Outcome | None"]]
"""What is further in: the next middleware, and in the end the run.  None: the claim was lost."""

RunMiddleware = Callable[[Claim, CallNext], Awaitable["Outcome | None"]]
"""``async def middleware(claim, call_next)``: returns the outcome to report; None leaves that of `call_next`."""

CallMiddleware = Callable[["RunContext"], AbstractContextManager[Any]]
"""A context manager that is entered before an executor's function is called and left after it."""


def load(names: Iterable[str]) -> list[Any]:
    """The functions called ``module:function``.  Raises ConfigurationError for one that cannot be found."""
    return [_load(name) for name in names]


def through(spec: TaskSpec, middleware: Sequence[SpawnMiddleware]) -> TaskSpec:
    """`spec` as spawn middleware leaves it.  What one of them raises is the spawn's error."""
    for each in middleware:
        changed = each(spec)
        if not isinstance(changed, TaskSpec):
            raise ConfigurationError(
                f"spawn middleware {told(each)} returned a {type(changed).__name__}; it must return a TaskSpec"
            )
        spec = changed
    return spec


def around(executor: Executor, middleware: Sequence[CallMiddleware]) -> Executor:
    """`executor` with call middleware around its function; the first is outermost."""
    function = executor.function
    if executor.is_async:

        async def surrounded(ctx: RunContext, params: Any) -> Any:
            with ExitStack() as stack:
                for each in middleware:
                    stack.enter_context(each(ctx))
                return await function(ctx, params)

        return dataclasses.replace(executor, function=surrounded)

    def surrounded_here(ctx: RunContext, params: Any) -> Any:
        with ExitStack() as stack:
            for each in middleware:
                stack.enter_context(each(ctx))
            return function(ctx, params)

    return dataclasses.replace(executor, function=surrounded_here)


def check_importable(middleware: Any) -> Any:
    """`middleware` itself, if a child process can find it.  Raises ConfigurationError for a local function."""
    name = getattr(middleware, "__qualname__", "<none>")
    if "<" in name or not getattr(middleware, "__module__", None):
        raise ConfigurationError(
            f"call middleware {told(middleware)} cannot be found by a child process; "
            "define it as a function at the top level of a module"
        )
    return middleware


def told(middleware: Any) -> str:
    """What to call middleware in a message."""
    return str(getattr(middleware, "__qualname__", None) or type(middleware).__qualname__)


def _load(name: str) -> Any:
    module, _, function = name.partition(":")
    try:
        found: Any = reduce(getattr, function.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"middleware {name!r} cannot be found: {error}", middleware=name) from error
    if not callable(found):
        raise ConfigurationError(f"middleware {name!r} is not a function", middleware=name)
    return found
