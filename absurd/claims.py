"""The SQL functions of those who do the work: workers and what runs in them.

All of them run at READ COMMITTED.  Those that report runs take parallel lists and give the tasks
whose claim was lost; for these nothing was changed.  `step`, the hot path, is the worker's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from absurd.call import Call, Row, nothing, one_value
from absurd.encoding import decode, encode
from absurd.queue import task_uuid


class Publication(NamedTuple):
    """A file of a completed run that may still stand under its attempt's name."""

    path: str
    attempt_path: str
    attempt: int


class Standing(NamedTuple):
    """What a worker hears in answer to a sign of life."""

    held: dict[int, set[UUID]]
    """The tasks it still holds under each lease that it asked about."""
    draining: bool
    """An order: claim nothing more, and leave once all is done."""
    concurrency: int | None
    """An order: run so many at a time; None: as it was started."""


# The worker --------------------------------------------------------------------------------------


def register_worker(
    name: str,
    host: str,
    pid: int,
    queues: Sequence[str],
    concurrency: int,
    *,
    versions: dict[str, Any],
    offers: dict[str, Any],
    lease_seconds: float,
    machine: str | None = None,
    defaults: dict[str, Any] | None = None,
    former: int | None = None,
    reserve_after: float = 30.0,
) -> Call[int]:
    """Announce a worker; gives its number, the high half of its lease ids.

    A queue that another transaction is just making is still missing afterwards.
    `defaults` hold for runs that are lost with it: max_attempts, dead_letters.  `former` is its number before
    it was given up, whose orders go on.  After `reserve_after` seconds it keeps room for a task that fits it and
    found none.
    """
    return Call(
        "select {schema}.register_worker($1::text, $2::text, $3::integer, $4::text[], $5::integer,"
        " $6::text::jsonb, $7::text::jsonb, $8::double precision, $9::text, $10::text::jsonb, $11::integer,"
        " $12::double precision) as id",
        (
            *(name, host, pid, list(queues), concurrency, encode(versions), encode(offers), lease_seconds, machine),
            encode(defaults or {}),
            former,
            reserve_after,
        ),
        one_value("id"),
        repeatable=False,
    )


def register_executors(executors: Sequence[dict[str, Any]], queues: Sequence[str] = ()) -> Call[None]:
    """Tell what a worker can run: name, queue, runs_in, description, max_attempts, retry, timeout, params_schema.

    Names that are missing are made, also those of `queues`; but for one that another transaction is just making.
    """
    sql = "select {schema}.register_executors($1::text::jsonb, $2::text[])"
    return Call(sql, (encode(list(executors), "executors", limit=None), list(queues)), nothing)


def beat(
    worker: int,
    leases: Sequence[int] | None,
    state: str = "running",
    started: Sequence[UUID] = (),
    load: dict[str, Any] | None = None,
    probe: str | None = None,
) -> Call[Standing]:
    """A sign of life; tells what the worker still holds of `leases`, and its orders.

    `started` are the tasks that are at work, `load` what the worker tells of itself.  None for `leases`: something
    in the worker holds up everything, and all it holds is kept.  `probe` is a channel to be
    notified.  Raises StaleClaimError when the worker was given up.
    """

    def standing(rows: Sequence[Row]) -> Standing:
        held: dict[int, set[UUID]] = {lease: set() for lease in leases or ()}
        for lease, task_id in zip(rows[0]["leases"], rows[0]["tasks"], strict=True):
            held[lease].add(task_uuid(task_id))
        return Standing(held, rows[0]["draining"], rows[0]["concurrency"])

    return Call(
        "select leases, tasks, draining, concurrency,"
        " case when $6::text is not null then pg_notify($6::text, '')::text end as probed"
        " from {schema}.beat($1::integer, $2::bigint[], $3::text, $4::uuid[], $5::text::jsonb)",
        (worker, None if leases is None else list(leases), state, list(started), encode(load or {}), probe),
        standing,
    )


def unregister_worker(worker: int) -> Call[None]:
    """A worker leaves; what it still holds goes back, attempts intact."""
    return Call("select {schema}.unregister_worker($1::integer)", (worker,), nothing)


def give_up_worker(worker: int) -> Call[int]:
    """Take back what a worker held whose process is certainly gone; gives how many runs."""
    return Call("select {schema}.give_up_worker($1::integer) as recovered", (worker,), one_value("recovered"))


def maintain() -> Call[dict[str, Any]]:
    """The regular upkeep; gives what was done, and in how many seconds the next sleeper is due."""
    return Call("select {schema}.maintain()::text as done", (), lambda rows: dict(decode(rows[0]["done"])))


def current_time() -> Call[datetime]:
    """The time all states go by."""
    return Call("select {schema}.clock_time() as now", (), one_value("now"))


# A run -------------------------------------------------------------------------------------------


def get_checkpoints(task_id: UUID) -> Call[dict[str, Any]]:
    """Saved steps of a task by name."""
    return Call(
        "select name, value::text as value from {schema}.get_checkpoints($1::uuid)",
        (task_id,),
        lambda rows: {row["name"]: decode(row["value"]) for row in rows},
    )


def set_checkpoint(lease: int, task_id: UUID, name: str, value: str) -> Call[None]:
    """Save a step, a JSON text.  Raises StaleClaimError."""
    sql = "select {schema}.set_checkpoint($1::bigint, $2::uuid, $3::text, $4::text::jsonb)"
    return Call(sql, (lease, task_id, name, value), nothing)


def set_progress(
    lease: int, task_id: UUID, done: float, total: float | None = None, message: str | None = None
) -> Call[None]:
    """Tell how far a run is.  Raises StaleClaimError."""
    return Call(
        "select {schema}.set_progress($1::bigint, $2::uuid, $3::double precision, $4::double precision, $5::text)",
        (lease, task_id, float(done), None if total is None else float(total), message),
        nothing,
    )


def append_log(
    leases: Sequence[int],
    tasks: Sequence[UUID],
    parts: Sequence[int],
    bytes: Sequence[int],
    breaks: Sequence[int],
    dropped_bytes: Sequence[int],
    dropped_lines: Sequence[int],
    pieces: Sequence[str],
    limit: int,
) -> Call[list[UUID]]:
    """Append parts to the logs of tasks, numbered from 1 in each run; gives the tasks whose claim is lost.

    `pieces` are JSON lists of [stream, how many ms ago, text]; `bytes` and `breaks` tell how much text and how many
    ends of lines they hold, `dropped_bytes` and `dropped_lines` what is missing before.  `limit` bytes are kept.
    """
    return Call(
        "select {schema}.append_log($1::bigint[], $2::uuid[], $3::integer[], $4::integer[], $5::integer[],"
        " $6::bigint[], $7::bigint[], $8::text[], $9::bigint) as stale",
        (
            *(list(leases), list(tasks), list(parts), list(bytes), list(breaks)),
            *(list(dropped_bytes), list(dropped_lines), list(pieces), limit),
        ),
        _stale,
    )


def get_results(task_ids: Sequence[UUID]) -> Call[list[tuple[Any, ...]]]:
    """(id, name, state, result, error, publishing) of each task, in no order; no state for ids that are no task's."""
    return Call(
        "select task_id, name, state, result::text as result, error::text as error, publishing"
        " from {schema}.get_results($1::uuid[])",
        (list(task_ids),),
        lambda rows: [
            (
                task_uuid(row["task_id"]),
                row["name"],
                row["state"],
                decode(row["result"]),
                decode(row["error"]),
                row["publishing"] is True,
            )
            for row in rows
        ],
    )


def check_claim(lease: int, task_id: UUID) -> Call[None]:
    """Raises StaleClaimError unless the task is still held under the lease."""
    return Call("select {schema}.check_claim($1::bigint, $2::uuid)", (lease, task_id), nothing)


def get_publications(task_id: UUID) -> Call[list[Publication]]:
    """Files of a completed task that are not yet known to stand under their final name."""
    return Call(
        "select path, attempt_path, attempt from {schema}.get_publications($1::uuid)",
        (task_id,),
        lambda rows: [Publication(row["path"], row["attempt_path"], row["attempt"]) for row in rows],
    )


def mark_published(task_id: UUID, path: str, attempt_path: str) -> Call[None]:
    """Note that a file stands under its final name."""
    sql = "select {schema}.mark_published($1::uuid, $2::text, $3::text)"
    return Call(sql, (task_id, path, attempt_path), nothing)


# Ends of runs ------------------------------------------------------------------------------------

_CLAIMS = "$1::bigint[], $2::uuid[], $3::integer[]"


def _stale(rows: Sequence[Row]) -> list[UUID]:
    return [task_uuid(each) for each in rows[0]["stale"] or ()]


def _list(items: Sequence[dict[str, Any]] | None, what: str) -> str | None:
    return encode(list(items), what, limit=None) if items else None


def complete_runs(
    leases: Sequence[int],
    tasks: Sequence[UUID],
    ages_ms: Sequence[int],
    results: Sequence[str | None],
    artifacts: Sequence[dict[str, Any]] | None = None,
    spawns: Sequence[dict[str, Any]] | None = None,
    products: Sequence[dict[str, Any]] | None = None,
) -> Call[list[UUID]]:
    """Close completed runs; results are JSON texts, artifacts {task, path, attempt_path, kind, sha256, bytes}.

    `spawns` are {task, checkpoint, id, queue, name, params, options} of what the runs have spawned, `products` {task,
    kind, row}; one that is refused undoes the whole call.
    """
    return Call(
        f"select {{schema}}.complete_runs({_CLAIMS}, $4::text[], $5::text::jsonb, $6::text::jsonb, $7::text::jsonb)"
        " as stale",
        (
            list(leases),
            list(tasks),
            list(ages_ms),
            list(results),
            _list(artifacts, "artifacts"),
            _list(spawns, "spawns"),
            _list(products, "products"),
        ),
        _stale,
    )


def fail_runs(
    leases: Sequence[int],
    tasks: Sequence[UUID],
    ages_ms: Sequence[int],
    errors: Sequence[str],
    delays: Sequence[float | None],
    *,
    dead_letters: bool = True,
    amends: Sequence[dict[str, Any] | None] = (),
) -> Call[list[UUID]]:
    """Close failed runs; errors are JSON texts, a delay in seconds asks for one more attempt, None for none.

    `amends` change the bodies of tasks that are tried again: {queue, needs, memory_factor, memory_max_gib}.
    """
    changes = encode(list(amends)) if any(amends) else None
    return Call(
        f"select {{schema}}.fail_runs({_CLAIMS}, $4::text[], $5::double precision[], $6::boolean, $7::text::jsonb)"
        " as stale",
        (list(leases), list(tasks), list(ages_ms), list(errors), list(delays), dead_letters, changes),
        _stale,
    )


def suspend_runs(
    leases: Sequence[int],
    tasks: Sequence[UUID],
    ages_ms: Sequence[int],
    delays: Sequence[float | None],
    reasons: Sequence[str],
    events: Sequence[str | None],
    spawns: Sequence[dict[str, Any]] | None = None,
    awaits: Sequence[dict[str, Any]] | None = None,
) -> Call[list[UUID]]:
    """Put running tasks to sleep: for a delay in seconds, or until an event with the delay as its time-out.

    `spawns` as in `complete_runs`; `awaits` are {task, on: [ids], seconds} of those that
    wait for tasks to end, or for so many seconds.
    """
    return Call(
        f"select {{schema}}.suspend_runs({_CLAIMS}, $4::double precision[], $5::text[], $6::text[],"
        " $7::text::jsonb, $8::text::jsonb) as stale",
        (
            list(leases),
            list(tasks),
            list(ages_ms),
            list(delays),
            list(reasons),
            list(events),
            _list(spawns, "spawns"),
            _list(awaits, "awaits"),
        ),
        _stale,
    )


def return_runs(leases: Sequence[int], tasks: Sequence[UUID], ages_ms: Sequence[int | None]) -> Call[list[UUID]]:
    """Hand runs back unfinished, attempts intact; an age of None: it never started."""
    return Call(
        f"select {{schema}}.return_runs({_CLAIMS}) as stale", (list(leases), list(tasks), list(ages_ms)), _stale
    )


def cancel_runs(
    leases: Sequence[int], tasks: Sequence[UUID], ages_ms: Sequence[int], reasons: Sequence[str]
) -> Call[list[UUID]]:
    """Close runs whose executor cancelled its own task."""
    return Call(
        f"select {{schema}}.cancel_runs({_CLAIMS}, $4::text[]) as stale",
        (list(leases), list(tasks), list(ages_ms), list(reasons)),
        _stale,
    )
