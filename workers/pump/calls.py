"""The calls that only the worker itself makes: the step of its hot path, and what surrounds it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, cast
from uuid import UUID

from absurd.call import Call, Row, nothing, one_value
from absurd.errors import InvalidParamsError
from absurd.model import Claim
from absurd.references import MARK

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Reports(NamedTuple):
    """Completed runs in parallel: what `step` and `complete_runs` take."""

    leases: list[int]
    tasks: list[UUID]
    ages_ms: list[int]
    results: list[str | None]


class Answer(NamedTuple):
    """What a step brought: reports that came too late, and newly claimed runs in parallel."""

    stale: Sequence[UUID]
    task_ids: Sequence[UUID]
    attempts: Sequence[int]
    levels: Sequence[int]
    seqs: Sequence[int]
    executor_ids: Sequence[int]
    params: Sequence[str]
    details: Sequence[str | None]
    wait_ms: int | None = None
    """In how many milliseconds it is worth looking again, where a rate lets nothing start before."""
    waits: bool = False
    """Whether more waits for slots or room: when a run ends it may start, and nothing may be claimed ahead of it."""


class Unread(NamedTuple):
    """An answer with claims that are not yet made."""

    answer: Answer
    lease: int
    queue: str


def step(
    reports: Reports, lease: int, queue_id: int, wanted: int, slots: int, levels: Sequence[int], marks: Sequence[int]
) -> Call[Answer]:
    """Close `reports` and claim up to `wanted` runs of a queue under `lease`, of which `slots` can start at once.

    May be repeated after a lost answer: reports that were taken count once, and a lease that was
    made gives its runs again.  Without reports the claim alone is made: it is felt by who waits for one task.
    """
    if not reports.tasks:
        return Call(
            "select null::uuid[] as stale, * from {schema}.claim_runs("
            "$1::bigint, $2::integer, $3::integer, $4::integer[], $5::bigint[], $6::integer)",
            (lease, queue_id, wanted, levels, marks, slots),
            _answer,
        )
    told, args = _told(reports)
    return Call(
        f"select * from {{schema}}.step({told},"
        " $5::bigint, $6::integer, $7::integer, $8::integer[], $9::bigint[], $10::integer)",
        (*args, lease, queue_id, wanted, levels, marks, slots),
        _answer,
    )


def record(reports: Reports) -> Call[Answer]:
    """Close `reports` and claim nothing."""
    told, args = _told(reports)
    return Call(
        f"select {{schema}}.complete_runs({told}) as stale",
        args,
        lambda rows: Answer(rows[0]["stale"] or (), (), (), (), (), (), (), ()),
    )


def _told(reports: Reports) -> tuple[str, tuple[Any, ...]]:
    """Reports as the first four arguments, and the values of ``$1`` to ``$4`` these are made of.

    The driver looks at each item of an array in turn, a quarter of a microsecond long: most batches are of one lease
    and without results, and say so once.
    """
    leases, tasks, ages, results = reports
    of_one_lease, silent = len(set(leases)) == 1, results.count(None) == len(results)
    size = "array[cardinality($2::uuid[])]"
    lease_ids = f"array_fill($1::bigint, {size})" if of_one_lease else "$1::bigint[]"
    return (
        f"{lease_ids}, $2::uuid[], $3::integer[], coalesce($4::text[], array_fill(null::text, {size}))",
        (leases[0] if of_one_lease else leases, tasks, ages, None if silent else results),
    )


def _answer(rows: Sequence[Row]) -> Answer:
    row = rows[0]
    return Answer(
        row["stale"] or (),
        row["task_ids"] or (),
        row["attempts"] or (),
        row["levels"] or (),
        row["seqs"] or (),
        row["executor_ids"] or (),
        row["params"] or (),
        row["details"] or (),
        row["wait_ms"],
        bool(row["waits"]),
    )


def get_names() -> Call[tuple[dict[str, int], dict[int, str]]]:
    """Ids of queues by name, and names of executors by id, as claims carry them."""
    return Call("select kind, id, name from {schema}.get_names()", (), _names)


def _names(rows: Sequence[Row]) -> tuple[dict[str, int], dict[int, str]]:
    queues = {row["name"]: row["id"] for row in rows if row["kind"] == "queue"}
    return queues, {row["id"]: row["name"] for row in rows if row["kind"] == "executor"}


def set_listening(worker: int, queue_ids: Sequence[int], listening: bool) -> Call[None]:
    """Ask for notifications of what becomes claimable in these queues, or for no more of them."""
    sql = "select {schema}.set_listening($1::integer, $2::integer[], $3::boolean)"
    return Call(sql, (worker, list(queue_ids), listening), nothing)


class Neighbour(NamedTuple):
    """Another worker that said it is on this machine."""

    id: int
    pid: int
    machine: str


def get_neighbours(worker: int) -> Call[list[Neighbour]]:
    """The other workers of this worker's machine that have not left."""
    return Call(
        "select id, pid, machine from {schema}.get_neighbours($1::integer)",
        (worker,),
        lambda rows: [Neighbour(row["id"], row["pid"], row["machine"]) for row in rows],
    )


def get_identity() -> Call[str]:
    """Which queue this is, so that a receipt never goes to another."""
    return Call("select {schema}.get_identity() as identity", (), one_value("identity"))


def get_overdue_publications() -> Call[list[tuple[UUID, str, str]]]:
    """(task, path, attempt's path) of files whose renaming a crash has interrupted."""
    return Call(
        "select task_id, path, attempt_path from {schema}.get_overdue_publications()",
        (),
        lambda rows: [(row["task_id"], row["path"], row["attempt_path"]) for row in rows],
    )


def read_claims(
    answer: Answer, lease: int, queue: str, executors: Mapping[int, str]
) -> tuple[list[Claim], list[Claim]]:
    """The claims of an answer, in the order in which they should start, and those whose body cannot be read.

    PostgreSQL keeps numbers of any length and lists of any depth, Python's parser does not: who spawns by SQL can make
    a task that no worker written in it can read.  Such a claim has neither params nor details.
    """
    claims, unreadable = [], []
    for task_id, attempt, executor_id, params, text, details in zip(
        answer.task_ids,
        answer.attempts,
        answer.executor_ids,
        _bodies(answer.params),
        answer.params,
        answer.details,
        strict=True,
    ):
        name = executors[executor_id]
        if params is _UNREADABLE:
            unreadable.append(Claim(lease, task_id, attempt, name, queue, None))
        elif details is None:
            claims.append(Claim(lease, task_id, attempt, name, queue, params))
        elif (more := _body(details)) is _UNREADABLE:
            unreadable.append(Claim(lease, task_id, attempt, name, queue, None))
        else:
            claims.append(
                Claim(
                    lease,
                    task_id,
                    attempt,
                    name,
                    queue,
                    params,
                    more.get("headers", NOTHING),
                    more.get("tags", ()),
                    more.get("timeout"),
                    more.get("max_attempts"),
                    more.get("retry"),
                    more.get("parents", NOTHING),
                    more.get("suspect", False),
                    MARK in text,
                    more.get("needs", NOTHING),
                    more.get("publishing", ()),
                )
            )
    return claims, unreadable


def unreadable_body(claim: Claim) -> InvalidParamsError:
    """What a claim that cannot be read fails with, for good."""
    return InvalidParamsError(
        f"params or headers of {claim.name}, or a result of its parents, cannot be read: "
        "a number of thousands of digits, or nested too deeply; pass such numbers as text",
        name=claim.name,
    )


_UNREADABLE = object()


def _bodies(texts: Sequence[str]) -> Sequence[Any]:
    """The values of JSON texts: parsed as one list, which takes a fifth of the time of one after the other."""
    try:
        return cast("list[Any]", json.loads(f"[{','.join(texts)}]"))
    except (ValueError, RecursionError):
        return [_body(text) for text in texts]


def _body(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _UNREADABLE
