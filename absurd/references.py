"""References to results inside params: checked at spawn, resolved when the run begins (pure).

``{"$result": {"task": ID, "path": [KEY, 0, …]}}`` stands for the result of a parent, or what lies under
the path in it; ``{"$results": {"tasks": [IDS], "path": […]}}`` for the list of those of several parents.
"node" beside "task" is what a message calls the parent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any
from uuid import UUID

from absurd.errors import InvalidParamsError, MissingResultError

MARK = '"$result'
"""What JSON text with a reference contains, however it is spaced."""
ONE, MANY = "$result", "$results"


def is_reference(value: Any) -> bool:
    """Whether a JSON value stands for a result."""
    return isinstance(value, Mapping) and (ONE in value or MANY in value)


def contains_reference(value: Any) -> bool:
    """Whether a reference stands anywhere in plain dicts and lists."""
    return next(references(value), None) is not None


def references(value: Any) -> Iterator[Mapping[str, Any]]:
    """All references in plain dicts and lists."""
    if isinstance(value, Mapping):
        if is_reference(value):
            yield value
        else:
            for each in value.values():
                yield from references(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from references(each)


def check(params: Any, parents: Collection[str], what: str = "params") -> None:
    """Raise InvalidParamsError unless every reference is well formed and names tasks of `parents`, ids as text."""
    for reference in references(params):
        tasks, _, _ = _read(reference, what)
        for task in tasks:
            if task not in parents:
                raise InvalidParamsError(
                    f"{what}: a reference names the result of {task}, which is not in depends_on", task=task
                )


def resolve(params: Any, results: Mapping[str, Any]) -> Any:
    """`params` with every reference replaced; `results` are the parents', by id as text.

    Raises MissingResultError when a parent has no result, or nothing lies under the path.
    """
    if is_reference(params):
        tasks, path, node = _read(params, "params")
        found = [_under(path, task, node, results) for task in tasks]
        return found if MANY in params else found[0]
    if isinstance(params, Mapping):
        return {key: resolve(each, results) for key, each in params.items()}
    if isinstance(params, list):
        return [resolve(each, results) for each in params]
    return params


def _read(reference: Mapping[str, Any], what: str) -> tuple[list[str], list[str | int], str | None]:
    """(tasks, path, node) of a reference.  Raises InvalidParamsError."""
    kind = MANY if MANY in reference else ONE
    inner = reference[kind]
    tasks = None
    if len(reference) == 1 and isinstance(inner, Mapping) and inner.keys() <= {"task", "tasks", "path", "node"}:
        tasks = inner.get("tasks") if kind == MANY else [inner.get("task")]
    path = inner.get("path", []) if isinstance(inner, Mapping) else None
    if not (
        isinstance(tasks, list)
        and all(map(_is_id, tasks))
        and isinstance(path, list)
        and all(isinstance(each, str | int) and not isinstance(each, bool) for each in path)
    ):
        raise InvalidParamsError(
            f"{what}: {reference!r:.200} is no reference to a result; one looks like "
            '{"$result": {"task": "<id>", "path": ["key", 0]}}'
        )
    node = inner.get("node")
    return tasks, path, node if isinstance(node, str) else None


def _is_id(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(UUID(value)) == value
    except ValueError:
        return False


def _under(path: list[str | int], task: str, node: str | None, results: Mapping[str, Any]) -> Any:
    """What lies under `path` in the result of `task`."""
    called = f"the node {node!r} (task {task})" if node else f"the task {task}"
    shown = "".join(f"[{each!r}]" for each in path)
    if task not in results:
        raise MissingResultError(
            f"params refer to result{shown} of {called}, which has not completed", task=task, path=path
        )
    value = results[task]
    for key in path:
        try:
            if not isinstance(value, dict | list):
                raise KeyError(key)
            value = value[key]  # type: ignore[index]  # a text into a list is a TypeError
        except (LookupError, TypeError):
            raise MissingResultError(
                f"params refer to result{shown} of {called}: there is no {key!r} in {value!r:.100}",
                task=task,
                path=path,
            ) from None
    return value
