"""The SQL functions for dead letters: each as a `Call`, for both clients.

`filters` are keywords: queue, name, fingerprint, code (such as ``poison``), since and until (times of death), ids,
text (in the error's message or the params).  None means any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from absurd.call import Call, Row, one_value
from absurd.encoding import decode, encode
from absurd.errors import InvalidOptionError, TaskNotFoundError
from absurd.queue import moment_text, task_uuid

Document = dict[str, Any]


def list_dead_letters(
    *, after: UUID | str | None = None, limit: int = 50, look: int | None = None, **filters: Any
) -> Call[list[Document]]:
    """Dead letters, newest task first; `after` is the last id of the page before.

    With `look` only the so many newest below it are looked through; where that did not fill the page the last document
    is ``{"next": id}``, what to give as `after` to go on.
    """
    return Call(
        "select d.document::text as document from"
        " {schema}.list_dead_letters($1::text::jsonb, $2::uuid, $3::integer, $4::integer) as d (document)",
        (_filter(filters), None if after is None else task_uuid(after), limit, look),
        _documents,
    )


def group_dead_letters(
    *, limit: int = 50, after: UUID | str | None = None, look: int | None = None, **filters: Any
) -> Call[list[Document]]:
    """Dead letters by fingerprint, most frequent first: count, first, last, and a sample.

    With `look` only of the so many newest below `after`; where there are older ones the last document is
    ``{"next": id}``, as in `list_dead_letters`.
    """
    return Call(
        "select d.document::text as document"
        " from {schema}.group_dead_letters($1::text::jsonb, $2::integer, $3::uuid, $4::integer) as d (document)",
        (_filter(filters), limit, None if after is None else task_uuid(after), look),
        _documents,
    )


def get_dead_letter(task_id: UUID | str) -> Call[Document]:
    """All about a dead letter: error with traceback, host, versions, params, runs.  Raises TaskNotFoundError."""
    task_id = task_uuid(task_id)

    def known(rows: Sequence[Row]) -> Document:
        if rows[0]["document"] is None:
            raise TaskNotFoundError(f"there is no dead letter of a task {task_id}", id=str(task_id))
        return dict(decode(rows[0]["document"]))

    return Call("select {schema}.get_dead_letter($1::uuid)::text as document", (task_id,), known)


def count_dead_letters(*, look: int | None = None, **filters: Any) -> Call[int]:
    """How many dead letters there are; with `look` of the so many newest."""
    sql = "select {schema}.count_dead_letters($1::text::jsonb, $2::integer) as n"
    return Call(sql, (_filter(filters), look), one_value("n"))


def requeue_dead_letters(
    *,
    params: Any = None,
    set: Mapping[str, Any] | None = None,
    rate: float | None = None,
    limit: int = 1000,
    dry_run: bool = False,
    after: UUID | str | None = None,
    delay: float = 0,
    **filters: Any,
) -> Call[list[Document]]:
    """Put dead letters back into their queues, oldest task first, at most 1000 a call.

    `params` is a merge patch, `set` values at paths such as ``a.b``; `rate` so many a second, the first after `delay`
    seconds; `after` the last id of the call before.  Gives each with `requeued`, and the `reason` if it was not.
    """
    return Call(
        "select d.document::text as document from {schema}.requeue_dead_letters($1::text::jsonb, $2::text::jsonb,"
        " $3::text::jsonb, $4::double precision, $5::integer, $6::boolean, $7::uuid, $8::double precision)"
        " as d (document)",
        (
            _filter(filters),
            None if params is None else encode(params, "params"),
            encode(dict(set), "set") if set else None,
            rate,
            limit,
            dry_run,
            None if after is None else task_uuid(after),
            delay,
        ),
        _documents,
        repeatable=False,
    )


def purge_dead_letters(*, dry_run: bool = False, limit: int = 10_000, **filters: Any) -> Call[int]:
    """Forget dead letters, at most 10,000 a call; gives how many went (or would go in all)."""
    sql = "select {schema}.purge_dead_letters($1::text::jsonb, $2::boolean, $3::integer) as n"
    return Call(sql, (_filter(filters), dry_run, limit), one_value("n"))


def _filter(filters: Mapping[str, Any]) -> str | None:
    """The filters as JSON text; the database refuses names that it does not know."""
    given = {name: value for name, value in filters.items() if value is not None}
    for name in ("since", "until"):
        if isinstance(given.get(name), datetime):
            given[name] = moment_text(given[name], name)
    if "ids" in given:
        given["ids"] = [str(task_uuid(each)) for each in given["ids"]]
    return encode(given, "filters", limit=None, error=InvalidOptionError) if given else None


def _documents(rows: Sequence[Row]) -> list[Document]:
    return [decode(row["document"]) for row in rows]
