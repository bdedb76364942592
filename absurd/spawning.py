"""From what a caller asks for to what the database takes: names, params and options checked, JSON made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, TypedDict
from uuid import UUID

from absurd.call import Call
from absurd.encoding import check_size, decode, encode
from absurd.errors import InvalidOptionError
from absurd.executor import Executor, check_name, registry
from absurd.middleware import SpawnMiddleware, through
from absurd.model import TaskSpec
from absurd.queue import Spawn, Spawned, new_task_id, new_task_ids, spawn_tasks
from absurd.references import MARK, check, contains_reference
from absurd.resources import check_needs
from absurd.retry import RetryPolicy

CHUNK_TASKS = 1000
"""How many tasks go into one call at most; a bulk spawn is several calls in one transaction."""
_SMALL_CHUNK = 32
MOST_TASKS = 100_000
"""How many tasks one bulk spawn takes at most: they are held in memory and spawned in one transaction."""
CHUNK_CHARACTERS = 8_000_000
"""How much JSON goes into one call, about."""


class SpawnOptions(TypedDict, total=False):
    """The options of a spawn.  None is the same as leaving it out."""

    queue: str | None
    """Default: the executor's queue, else the setting `queue_name`."""
    priority: int | None
    """Higher goes first; -10000 to 10000, default 0."""
    delay: float | timedelta | None
    """Seconds from now before which the task does not start.  Not together with `run_at`."""
    run_at: datetime | None
    """The time, with its zone, before which the task does not start."""
    key: str | None
    """Idempotency: a second task with the same queue and key is not spawned; the first one's id is given."""
    depends_on: Sequence[UUID | str] | None
    """Tasks that must complete before this one starts."""
    headers: Mapping[str, Any] | None
    """A JSON object that travels with the task and is not checked."""
    tags: Sequence[str] | None
    """Words to find the task by."""
    max_attempts: int | None
    """How often the task is tried in all.  Default: of `retry`."""
    timeout: float | timedelta | None
    """Longest time a run may take, in seconds.  Default: the executor's."""
    retry: RetryPolicy | Mapping[str, Any] | None
    """When the next attempt comes.  Default: the executor's."""
    needs: Mapping[str, float] | None
    """What the task holds while it runs, such as ``{"cpu": 1, "memory_gib": 4}``: of its worker's, or of what all
    share.  ``{"file:/data/a.ms": 60}`` instead prefers hosts that have the file, for so many seconds.  What is not
    named is as the executor says."""
    lane: str | None
    """Tasks of one lane share the queue's limit per lane, and lanes take turns where the queue is fair.
    Default: the executor's."""
    when: str | None
    """Which ends of the parents let the task run: "all_success" (default), "all_done", "any_success", "any_failed"
    or "quorum(K)": at least K completed."""
    key_period: float | timedelta | None
    """For how long the key counts, in seconds; after that a spawn under it makes a new task.  Default: for ever."""
    key_scope: str | None
    """"unfinished": the key is free again once its task has ended.  Default "ever": until the task is removed."""
    start_within: float | timedelta | None
    """The task is cancelled if it has not started so many seconds after its spawn."""
    finish_within: float | timedelta | None
    """The task is cancelled if it has not ended so many seconds after its spawn."""
    workflow: UUID | str | None
    """The running workflow that the task joins."""
    node: str | None
    """What the task is called in its workflow.  Default: its executor's name."""


def prepare(spec: TaskSpec, default_queue: str = "default", task_id: UUID | None = None) -> Spawn:
    """`spec` as the database takes it, under a new id unless one is given.

    Params that refer to results of parents are checked when these are known, at the run.

    An executor that this process knows checks the params and lends its queue, retry policy, lane,
    needs and timeout; of one that it does not know, the name is all there is.  Raises InvalidNameError,
    InvalidParamsError, InvalidOptionError, PayloadTooLargeError.
    """
    if isinstance(spec.name, Executor):
        executor: Executor | None = spec.name
        name = spec.name.name
    else:
        executor = registry.get(spec.name) if isinstance(spec.name, str) else None
        name = executor.name if executor else check_name("executor", spec.name)
    typed = executor is not None and executor.params_type is not None
    if executor is not None and not (typed and contains_reference(spec.params)):
        params = executor.dump_params(spec.params)
    else:
        params = spec.params
    queue = spec.queue or (executor.queue if executor else None) or default_queue
    text = "{}" if params is None else encode(params, f"params of {name}")
    if MARK in text:
        check(decode(text), {str(each) for each in spec.depends_on or ()}, f"params of {name}")
    return Spawn(
        id=task_id or new_task_id(),
        queue=check_name("queue", queue),
        name=name,
        params=text,
        options=_options(spec, executor),
    )


def spawn_call(
    spec: TaskSpec, default_queue: str = "default", middleware: Sequence[SpawnMiddleware] = ()
) -> Call[list[Spawned]]:
    """The call that spawns one task, after `spec` has gone through `middleware`."""
    return spawn_tasks([prepare(through(spec, middleware) if middleware else spec, default_queue)])


def spawn_calls(
    specs: Iterable[TaskSpec], default_queue: str = "default", middleware: Sequence[SpawnMiddleware] = ()
) -> Iterator[Call[list[Spawned]]]:
    """Calls that spawn `specs` in order, each of a size that is good to send; each spec goes through `middleware`.

    Made one after the other, so that the next can be made while the database works on one.
    """
    if isinstance(specs, Sized) and len(specs) > MOST_TASKS:
        raise _too_many()
    chunk: list[Spawn] = []
    characters = 0
    size = min(len(specs), CHUNK_TASKS) if isinstance(specs, Sized) else _SMALL_CHUNK
    ids: Iterator[UUID] = iter(())
    for number, spec in enumerate(specs):
        if number >= MOST_TASKS:
            raise _too_many()
        task_id = next(ids, None)
        if task_id is None:
            ids = iter(new_task_ids(size))
            task_id = next(ids)
        spawn = prepare(through(spec, middleware) if middleware else spec, default_queue, task_id)
        characters += len(spawn.params) + len(spawn.options or "")
        chunk.append(spawn)
        if len(chunk) >= CHUNK_TASKS or characters >= CHUNK_CHARACTERS:
            yield spawn_tasks(chunk)
            chunk, characters = [], 0
    if chunk:
        yield spawn_tasks(chunk)


def _too_many() -> InvalidOptionError:
    return InvalidOptionError(
        f"more than {MOST_TASKS:,} tasks in one call; nothing was spawned: spawn them in parts", option="specs"
    )


def _options(spec: TaskSpec, executor: Executor | None) -> str | None:
    """The options as JSON text, None when there are none.  Their ranges are the database's to check."""
    if executor is None and _asked(spec) == _NOTHING:
        return None
    if spec.depends_on and len(spec.depends_on) > MOST_TASKS:
        raise InvalidOptionError(
            f"option depends_on has {len(spec.depends_on):,} entries; at most {MOST_TASKS:,} are taken",
            option="depends_on",
        )
    retry = _policy(spec.retry) or (executor.retry if executor else None)
    given = {
        "priority": spec.priority,
        "delay": _seconds(spec.delay),
        "run_at": _moment(spec.run_at),
        "key": spec.key,
        "depends_on": [str(each) for each in spec.depends_on] if spec.depends_on else None,
        "headers": _headers(spec.headers) if spec.headers else None,
        "tags": _words(spec.tags) if spec.tags else None,
        "max_attempts": spec.max_attempts if spec.max_attempts is not None or retry is None else retry.max_attempts,
        "timeout": _seconds(spec.timeout if spec.timeout is not None else executor.timeout if executor else None),
        "retry": retry.to_json() if retry else None,
        "needs": _needs(spec.needs, executor),
        "lane": spec.lane if spec.lane is not None else executor.lane if executor else None,
        "when": spec.when,
        "key_period": _seconds(spec.key_period),
        "key_scope": spec.key_scope,
        "start_within": _seconds(spec.start_within),
        "finish_within": _seconds(spec.finish_within),
        "workflow": str(spec.workflow) if spec.workflow is not None else None,
        "node": spec.node,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    return encode(asked, "options", limit=None, error=InvalidOptionError) if asked else None


def _needs(asked: Mapping[str, float] | None, executor: Executor | None) -> dict[str, float] | None:
    """What the spawn asks for; of what it does not name what the executor usually needs, were it to reach a cluster."""
    if executor is None:
        return check_needs(asked) if asked else None
    cluster = {"dask": 1.0} if executor.runs_in == "dask" else {}
    return cluster | dict(executor.needs or {}) | (check_needs(asked) if asked else {}) or None


_asked = attrgetter(*(field.name for field in dataclasses.fields(TaskSpec)[3:]))
"""All options of a TaskSpec but its queue, at one go: most tasks of a bulk spawn have none."""
_NOTHING = _asked(TaskSpec(""))


def _seconds(value: float | timedelta | None) -> float | None:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _moment(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidOptionError(f"option run_at is {value!r}; it must be a datetime with its zone", option="run_at")
    return value.isoformat()


def _policy(value: RetryPolicy | Mapping[str, Any] | None) -> RetryPolicy | None:
    if value is None or isinstance(value, RetryPolicy):
        return value
    if isinstance(value, Mapping):
        return RetryPolicy.from_json(dict(value))
    raise InvalidOptionError(f"option retry is {value!r}; it must be a RetryPolicy", option="retry")


def _headers(value: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidOptionError(f"option headers is a {type(value).__name__}; it must be a dict", option="headers")
    check_size(encode(value, "headers", limit=None), "headers")
    return value


def _words(value: Sequence[str]) -> list[str]:
    if isinstance(value, str):
        raise InvalidOptionError(f"option tags is {value!r}; it must be a list of texts", option="tags")
    return list(value)
