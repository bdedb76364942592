"""The SQL functions of those who hand in work: each as a `Call`, for both clients."""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import repeat
from typing import Any, NamedTuple
from uuid import UUID

from absurd.call import Call, Row, nothing, one_value
from absurd.encoding import decode, encode
from absurd.errors import InvalidOptionError
from absurd.model import QueueStats, TaskState

_steps = random.Random()  # our own: nobody else seeds it
_step = _steps.getrandbits
# A forked child goes on from the same last id: it must not take the same steps.
os.register_at_fork(after_in_child=_steps.seed)


class _Ids:
    """UUIDv7s (RFC 9562), each greater than the one before."""

    def __init__(self, ahead: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._moment = self._high = self._low = 0
        self._ahead = int(ahead * 1000)

    def __call__(self, count: int) -> list[UUID]:
        moment = time.time_ns() // 1_000_000 + self._ahead
        with self._lock:
            if moment > self._moment:
                self._begin(moment)
            # Within a millisecond, and when the clock is set back, each goes on from the last by a random step.
            high, low, made = self._high, self._low, []
            for _ in range(count):
                low += 1 + _step(32)
                if low >> 62:
                    self._begin(self._moment + 1)
                    high, low = self._high, self._low
                made.append(UUID(int=high | low))
            self._low = low
        return made

    def _begin(self, moment: int) -> None:
        self._moment = moment
        chance = secrets.randbits(73)
        self._high = moment << 80 | 0x7 << 76 | chance >> 61 << 64 | 0b10 << 62
        self._low = chance & (1 << 61) - 1


_ids = _Ids()


def move_task_ids(ahead: float) -> None:
    """Let new ids be those of so many seconds ahead: the database takes ids of about its own time.  For tests."""
    global _ids  # noqa: PLW0603
    _ids = _Ids(ahead)


def new_task_id() -> UUID:
    """A UUIDv7 that is greater than any made before in this process."""
    return _ids(1)[0]


def new_task_ids(count: int) -> list[UUID]:
    """So many of them, in order."""
    return _ids(count)


def task_uuid(value: UUID | str) -> UUID:
    """A task id given as UUID or text.  Raises InvalidOptionError for what is none."""
    if isinstance(value, UUID):
        return value if type(value) is UUID else UUID(int=value.int)  # asyncpg has a class of its own
    try:
        return UUID(value)
    except (ValueError, TypeError, AttributeError):
        raise InvalidOptionError(
            f"{value!r} is not a task id; one looks like 0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e", option="id"
        ) from None


class Spawn(NamedTuple):
    """A task made ready to be spawned: everything as the database takes it, JSON as text.

    A tuple, because a bulk spawn makes a hundred thousand of them.
    """

    id: UUID
    queue: str
    name: str
    params: str
    options: str | None = None


class Spawned(NamedTuple):
    """What became of a spawn: the id of the task, and whether this spawn created it.

    It did not when its key was taken: `id` is then the first task's.
    """

    id: UUID
    created: bool


class Look(NamedTuple):
    """A glance at a task: its state (None: no such task), and whether files of it are still on their way."""

    state: TaskState | None
    publishing: bool


def moment_text(value: datetime | None, what: str) -> str | None:
    """A time with its zone as text.  Raises InvalidOptionError for one without."""
    if value is None:
        return None
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidOptionError(f"{what} is {value!r}; it must be a datetime with its zone", option=what)
    return value.isoformat()


# Tasks -------------------------------------------------------------------------------------------


def spawn_tasks(spawns: Sequence[Spawn]) -> Call[list[Spawned]]:
    """Spawn tasks, all or nothing.  The ids are in the call, so making it twice spawns once."""
    if len(spawns) == 1 and spawns[0].options is None:
        one = spawns[0]
        sql = "select {schema}.spawn_plain($1::uuid, $2::text, $3::text, $4::text::jsonb)"
        return Call(sql, (one.id, one.queue, one.name, one.params), lambda _: [Spawned(one.id, True)])
    ids, queues, names, params, options = _arrays(spawns)
    if len(set(queues)) == len(set(names)) == 1 and options.count(None) == len(options):
        # Alike but for their params, as most are: these go as one document, which is half the work.  No key is
        # among them, so each is created under its own id.
        return Call(
            "select count(*) from {schema}.spawn_tasks($1::uuid[], array_fill($2::text, array[$3::integer]),"
            " array_fill($4::text, array[$3::integer]), array(select jsonb_array_elements($5::text::jsonb)))",
            (ids, queues[0], len(ids), names[0], f"[{','.join(params)}]"),
            lambda _: list(map(Spawned._make, zip(ids, repeat(True)))),
        )
    return Call(
        "select task_id, created from {schema}.spawn_tasks("
        "$1::uuid[], $2::text[], $3::text[], $4::text[]::jsonb[], $5::text[]::jsonb[]) order by ordinal",
        (ids, queues, names, params, options),
        _spawned,
    )


def spawn_workflow(workflow_id: UUID, name: str, spawns: Sequence[Spawn]) -> Call[list[Spawned]]:
    """Spawn tasks as a workflow, all or nothing; their options name it.  Making the call twice spawns once."""
    return Call(
        "select task_id, created from {schema}.spawn_workflow($1::uuid, $2::text,"
        " $3::uuid[], $4::text[], $5::text[], $6::text[]::jsonb[], $7::text[]::jsonb[]) order by ordinal",
        (workflow_id, name, *_arrays(spawns)),
        _spawned,
    )


def _arrays(spawns: Sequence[Spawn]) -> tuple[list[Any], ...]:
    return tuple(map(list, zip(*spawns, strict=True))) or ([],) * 5


def _spawned(rows: Sequence[Row]) -> list[Spawned]:
    return [Spawned(task_uuid(row["task_id"]), row["created"]) for row in rows]


def cancel_task(task_id: UUID | str, reason: str | None = None, *, subtree: bool = False) -> Call[TaskState]:
    """Cancel a task and what cannot run without it; gives the state afterwards, which an ended task keeps.

    With `subtree` everything that depends on it is cancelled, whatever its condition and even if it has started.
    """
    sql = "select {schema}.cancel_task($1::uuid, $2::text, $3::boolean) as state"
    return Call(sql, (task_uuid(task_id), reason, subtree), _state_of_first)


def retry_task(task_id: UUID | str) -> Call[TaskState]:
    """Give an ended task one more attempt; gives its new state."""
    sql = "select {schema}.retry_task($1::uuid) as state"
    return Call(sql, (task_uuid(task_id),), _state_of_first, repeatable=False)


def respawn_task(task_id: UUID | str) -> Call[UUID]:
    """Spawn a fresh task with the body of an ended one, which stays as it is; gives the new id."""
    sql = "select {schema}.respawn_task($1::uuid) as id"
    return Call(sql, (task_uuid(task_id),), lambda rows: task_uuid(rows[0]["id"]), repeatable=False)


def edit_task(
    task_id: UUID | str,
    *,
    priority: int | None = None,
    delay: float | None = None,
    run_at: datetime | None = None,
    params: Any = None,
    merge: Any = None,
    set: Mapping[str, Any] | None = None,
) -> Call[dict[str, Any]]:
    """Change a task before it is claimed; gives what was changed, as old and new."""
    given = {
        "priority": priority,
        "delay": delay,
        "run_at": moment_text(run_at, "run_at"),
        "params": params,
        "merge": merge,
        "set": dict(set) if set else None,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    sql = "select {schema}.edit_task($1::uuid, $2::text::jsonb)::text as changed"
    text = encode(changes, "changes", limit=None)
    return Call(sql, (task_uuid(task_id), text), lambda rows: dict(decode(rows[0]["changed"])))


def rerun_task(task_id: UUID | str, *, descendants: bool = True) -> Call[int]:
    """Run an ended task and its descendants anew, reusing the rest; gives how many tasks run again."""
    sql = "select {schema}.rerun_task($1::uuid, $2::boolean) as again"
    return Call(sql, (task_uuid(task_id), descendants), one_value("again"), repeatable=False)


def get_states(task_ids: Iterable[UUID | str]) -> Call[dict[UUID, TaskState | None]]:
    """The state of each task, None for ids that are no task's."""
    return Call(
        "select task_id, state from {schema}.get_states($1::uuid[])",
        ([task_uuid(each) for each in task_ids],),
        lambda rows: {task_uuid(row["task_id"]): _state(row["state"]) for row in rows},
    )


def look(task_id: UUID | str, *, announce: bool) -> Call[Look]:
    """Where a task that is waited for stands.  With `announce` its end will be notified, for an hour."""
    return Call(
        "select {schema}.get_state($1::uuid) as state,"
        " exists (select from {schema}.get_publications($1::uuid)) as publishing,"
        " case when $2::boolean then {schema}.await_tasks(array[$1::uuid]) end",
        (task_uuid(task_id), announce),
        lambda rows: Look(_state(rows[0]["state"]), rows[0]["publishing"]),
    )


def _state(text: str | None) -> TaskState | None:
    return None if text is None else TaskState(text)


def _state_of_first(rows: Sequence[Row]) -> TaskState:
    return TaskState(rows[0]["state"])


# Workflows ---------------------------------------------------------------------------------------


def cancel_workflow(workflow_id: UUID | str, reason: str | None = None) -> Call[str]:
    """Cancel all of a workflow that has not ended; gives its state afterwards."""
    sql = "select {schema}.cancel_workflow($1::uuid, $2::text) as state"
    return Call(sql, (task_uuid(workflow_id), reason), one_value("state"))


def retry_workflow(workflow_id: UUID | str) -> Call[int]:
    """Run what failed or was cancelled of a workflow again; gives how many nodes."""
    sql = "select {schema}.retry_workflow($1::uuid) as again"
    return Call(sql, (task_uuid(workflow_id),), one_value("again"), repeatable=False)


def look_at_workflow(workflow_id: UUID, *, announce: bool) -> Call[str | None]:
    """The state of a workflow that is waited for, None for an unknown id.  With `announce` its end will be notified."""
    return Call(
        "select {schema}.get_workflow_state($1::uuid) as state,"
        " case when $2::boolean then {schema}.await_tasks(array[$1::uuid]) end",
        (workflow_id, announce),
        one_value("state"),
    )


# Events and queues -------------------------------------------------------------------------------


def emit_event(name: str, payload: str | None) -> Call[bool]:
    """Emit an event with a JSON text; false when it was emitted before, which changes nothing."""
    sql = "select {schema}.emit_event($1::text, $2::text::jsonb) as emitted"
    return Call(sql, (name, payload), one_value("emitted"), repeatable=False)


def get_queue_stats(queue: str) -> Call[QueueStats]:
    """How many tasks of a queue are in each state."""
    return Call("select * from {schema}.get_queue_stats($1::text)", (queue,), _queue_stats)


def _queue_stats(rows: Sequence[Row]) -> QueueStats:
    return QueueStats(**{state.value: rows[0][state.value] for state in TaskState})


def create_queue(name: str) -> Call[bool]:
    """Make a queue; false if it exists."""
    sql = "select {schema}.create_queue($1::text) as created"
    return Call(sql, (name,), one_value("created"), repeatable=False)


def drop_queue(name: str, *, dry_run: bool = False) -> Call[bool]:
    """Remove a queue of which no task is kept; false if there is none."""
    sql = "select {schema}.drop_queue($1::text, $2::boolean) as dropped"
    return Call(sql, (name, dry_run), one_value("dropped"), repeatable=False)


def move_ended(queue: str, into: str, first: UUID) -> Call[int]:
    """Move the ended tasks of a queue, from `first` on, to another queue; gives how many."""
    return Call(
        "select {schema}.move_ended($1::text, $2::text, $3::uuid) as moved", (queue, into, first), one_value("moved")
    )


def set_queue_paused(name: str, paused: bool) -> Call[None]:
    """Pause a queue, or let it go on."""
    return Call("select {schema}.set_queue_paused($1::text, $2::boolean)", (name, paused), nothing)


def purge_queue(name: str, *, dry_run: bool = False) -> Call[int]:
    """Cancel all pending and sleeping tasks of a queue; gives how many that are (or would be)."""
    sql = "select {schema}.purge_queue($1::text, $2::boolean) as cancelled"
    return Call(sql, (name, dry_run), one_value("cancelled"), repeatable=False)


def set_queue_retention(name: str, seconds: float | None) -> Call[None]:
    """Keep ended tasks of a queue for so many seconds; None keeps them for ever."""
    return Call("select {schema}.set_queue_retention($1::text, $2::double precision)", (name, seconds), nothing)


def prune_queue(name: str, older_than: float, *, limit: int = 1000, dry_run: bool = False) -> Call[int]:
    """Remove tasks that ended more than so many seconds ago, `limit` at most; gives how many went (or would go)."""
    sql = "select {schema}.prune_queue($1::text, $2::double precision, $3::integer, $4::boolean) as pruned"
    return Call(sql, (name, older_than, limit, dry_run), one_value("pruned"))


def notify(channel: str, payload: str) -> Call[Any]:
    """Send a notification; a listener's way to find out whether it hears."""
    return Call("select pg_notify($1::text, $2::text)", (channel, payload), nothing)
