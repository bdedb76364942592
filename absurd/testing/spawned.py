"""What was spawned: assertions that tell what came near, and the results."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absurd.config import Settings
from absurd.database_sync import SyncDatabase
from absurd.encoding import decode, encode
from absurd.executor import Executor
from absurd.inspection import get_task, list_tasks
from absurd.model import Task, TaskState
from absurd.redaction import hide
from absurd.testing.place import HasSettings, settings_of

PAGE = 1000
NEAR = 10
"""How many near misses a message shows."""


def assert_spawned(
    name: str | Executor[Any],
    source: Settings | HasSettings | None = None,
    *,
    params: Any = None,
    queue: str | None = None,
    headers: Mapping[str, Any] | None = None,
    tags: Sequence[str] | None = None,
    count: int | None = None,
) -> list[Task]:
    """Assert that tasks were spawned for an executor; gives them, the first one first.

    `params` and `headers` need to be part of the task's: what they do not name may be anything, at any depth.
    `tags` must be among its tags.  `count` is how many there must be; without it, at least one.  `source` is a
    client or settings; without it the environment names the database.
    """
    __tracebackhide__ = True
    wanted = _wanted(name, params, queue, headers, tags)
    tasks = _tasks(source)
    found = [task for task in tasks if not list(_misses(wanted, task))]
    if (not found) if count is None else (len(found) != count):
        raise AssertionError(_message(wanted, count, found, tasks))
    return found


def assert_not_spawned(
    name: str | Executor[Any],
    source: Settings | HasSettings | None = None,
    *,
    params: Any = None,
    queue: str | None = None,
    headers: Mapping[str, Any] | None = None,
    tags: Sequence[str] | None = None,
) -> None:
    """Assert that no such task was spawned; the arguments are those of `assert_spawned`."""
    __tracebackhide__ = True
    assert_spawned(name, source, params=params, queue=queue, headers=headers, tags=tags, count=0)


def results(
    name: str | Executor[Any] | None = None, source: Settings | HasSettings | None = None, *, queue: str | None = None
) -> list[Any]:
    """The results of the tasks that have completed, in the order of their spawns."""
    called = name.name if isinstance(name, Executor) else name
    return [
        task.result
        for task in _tasks(source)
        if task.state is TaskState.COMPLETED and called in (None, task.name) and queue in (None, task.queue)
    ]


def _tasks(source: Settings | HasSettings | None) -> list[Task]:
    """Every task there is, in the order of the spawns."""
    settings = settings_of(source)
    found: list[Task] = []
    with SyncDatabase(settings.database_url or "", schema=settings.schema) as database:
        after = None
        while page := database.run(list_tasks(after=after, limit=PAGE)):
            found += database.run_all([get_task(each["id"]) for each in page])
            after = page[-1]["id"]
    return found[::-1]


def _wanted(
    name: str | Executor[Any],
    params: Any,
    queue: str | None,
    headers: Mapping[str, Any] | None,
    tags: Sequence[str] | None,
) -> dict[str, Any]:
    if params is not None and not isinstance(params, Mapping | list):
        params = decode(encode(params, "params"))
    called = name.name if isinstance(name, Executor) else name
    given = {"name": called, "queue": queue, "params": params, "headers": headers, "tags": tags}
    return {key: value for key, value in given.items() if value is not None}


def _misses(wanted: Mapping[str, Any], task: Task) -> Iterator[str]:
    """What of a task is not as wanted."""
    for key, value in wanted.items():
        found = getattr(task, key)
        if key == "tags":
            for tag in set(value) - set(found):
                yield f"has no tag {tag!r}"
        else:
            yield from _differences(key, value, found)


def _differences(path: str, wanted: Any, found: Any) -> Iterator[str]:
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for key, value in wanted.items():
            if key in found:
                yield from _differences(f"{path}.{key}", value, found[key])
            else:
                yield f"{path}.{key} is not there"
    elif wanted != found:
        shown = hide({path.rpartition(".")[2]: found})
        yield f"{path} is {json.dumps(next(iter(shown.values())), default=str)}"


def _message(wanted: Mapping[str, Any], count: int | None, found: Sequence[Task], tasks: Sequence[Task]) -> str:
    rest = ", ".join(f"{key} {hide({key: value})[key]!r}" for key, value in wanted.items() if key != "name")
    what = f"{wanted['name']}{' with ' + rest if rest else ''}"
    if count is not None:
        lines = [f"{len(found)} {'task was' if len(found) == 1 else 'tasks were'} spawned for {what}, not {count}"]
        lines += [f"  {_line(task)}" for task in found[:NEAR]]
    else:
        lines = [f"no task was spawned for {what}"]
    near = [task for task in tasks if task.name == wanted["name"] and task not in found]
    if near:
        lines.append("near misses:" if len(near) <= NEAR else f"near misses, {NEAR} of {len(near)}:")
        near.sort(key=lambda task: len(list(_misses(wanted, task))))
        lines += [f"  {_line(task)}: {'; '.join(_misses(wanted, task))}" for task in near[:NEAR]]
    elif not found:
        names = sorted({task.name for task in tasks})
        close = difflib.get_close_matches(wanted["name"], names, n=3)
        if close:
            lines.append(f"did you mean {' or '.join(close)}?")
        lines.append(f"spawned were tasks for: {', '.join(names[:NEAR]) or 'none'}")
    return "\n".join(lines)


def _line(task: Task) -> str:
    params = json.dumps(hide(task.params), ensure_ascii=False)
    return f"{task.id} {task.state} in {task.queue} {params if len(params) <= 200 else params[:200] + '…'}"
