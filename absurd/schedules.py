"""The SQL functions of schedules: each as a `Call`, for clients and schedulers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple, cast

from absurd.call import Call, Row, nothing, one_value
from absurd.encoding import decode, encode
from absurd.errors import InvalidOptionError

Document = dict[str, Any]
Change = Literal["created", "changed", "unchanged"]
NEVER = "infinity"
"""What is due never again, in the words of the database."""
_TIMES = ("starts_at", "ends_at", "created_at", "settled_at", "next_due")


class Look(NamedTuple):
    """What a scheduler sees: the database's time, who leads, what is due, and in how many seconds something else is."""

    now: datetime
    leader: str
    due: list[Document]
    next_seconds: float | None


class Due(NamedTuple):
    """A time at which a schedule was due: spawned, or skipped and then standing for `missed`, the last of them.

    From 1000 on these are at least as many.
    """

    at: datetime
    skipped: Literal["misfire"] | None = None
    missed: int = 1


# Those who make schedules ------------------------------------------------------------------------


def set_schedule(name: str, schedule: Document, next_due: datetime | None, *, dry_run: bool = False) -> Call[Change]:
    """Make or change a schedule; `next_due` is when the trigger of a new one is due first, None never."""
    return Call(
        "select {schema}.set_schedule($1::text, $2::text::jsonb, $3::text::timestamptz, $4::boolean) as change",
        (name, encode(schedule, "schedule", error=InvalidOptionError), _text(next_due), dry_run),
        one_value("change"),
    )


def set_schedule_paused(name: str, paused: bool) -> Call[None]:
    """Pause a schedule, or let it go on from now."""
    return Call("select {schema}.set_schedule_paused($1::text, $2::boolean)::text", (name, paused), nothing)


def remove_schedule(name: str) -> Call[bool]:
    """Remove a schedule and its history; gives whether there was one."""
    return Call("select {schema}.remove_schedule($1::text) as removed", (name,), one_value("removed"))


def trigger_schedule(name: str, overlap: str | None = None) -> Call[Document]:
    """Spawn the task of a schedule now; gives the tick."""
    sql = "select {schema}.trigger_schedule($1::text, $2::text)::text as document"
    return Call(sql, (name, overlap), _document, repeatable=False)


def list_schedules() -> Call[list[Document]]:
    """All schedules, by name."""
    return Call("select d.document::text as document from {schema}.list_schedules() as d (document)", (), _documents)


def get_schedule(name: str) -> Call[Document]:
    """One schedule.  Raises ScheduleNotFoundError."""
    return Call("select {schema}.get_schedule($1::text)::text as document", (name,), _document)


def list_ticks(name: str, *, before: datetime | None = None, limit: int = 50) -> Call[list[Document]]:
    """What came of each time a schedule was due, the latest first."""
    return Call(
        "select d.document::text as document"
        " from {schema}.list_ticks($1::text, $2::text::timestamptz, $3::integer) as d (document)",
        (name, before and before.isoformat(), limit),
        _documents,
    )


# Schedulers --------------------------------------------------------------------------------------


def get_due_schedules(holder: str, lease: float, probe: str | None = None) -> Call[Look]:
    """What is due now, or wants to be reckoned; takes or renews the lead for `lease` seconds if it is free.

    `probe` is a channel to be notified.
    """
    sql = (
        "select {schema}.get_due_schedules($1::text, $2::double precision)::text as document,"
        " case when $3::text is not null then pg_notify($3::text, '')::text end as probed"
    )
    return Call(sql, (holder, lease, probe), _look)


def fire_schedule(
    id: int, version: int, due: Sequence[Due], settled: datetime, next_due: datetime | None
) -> Call[int | None]:
    """Spawn and skip what was due up to `settled`; None if somebody else has, or the schedule has changed."""
    return Call(
        "select {schema}.fire_schedule($1::integer, $2::integer, $3::text[]::timestamptz[], $4::text[], $5::integer[],"
        " $6::text::timestamptz, $7::text::timestamptz) as spawned",
        (
            *(id, version, [each.at.isoformat() for each in due], [each.skipped for each in due]),
            *([each.missed for each in due], settled.isoformat(), _text(next_due)),
        ),
        one_value("spawned"),
    )


def set_next_due(id: int, version: int, next_due: datetime | None, error: str | None = None) -> Call[None]:
    """Note when a schedule is due next, or why that cannot be said."""
    return Call(
        "select {schema}.set_next_due($1::integer, $2::integer, $3::text::timestamptz, $4::text)::text",
        (id, version, None if error else _text(next_due), error),
        nothing,
    )


def resign_leader(holder: str) -> Call[None]:
    """Leave the lead to another."""
    return Call("select {schema}.resign_leader($1::text)::text", (holder,), nothing)


def prune_ticks() -> Call[int]:
    """Forget all but the latest ticks of each schedule."""
    return Call("select {schema}.prune_ticks() as pruned", (), one_value("pruned"))


def get_clock() -> Call[datetime]:
    """What time it is in the database."""
    return Call("select {schema}.clock_time() as now", (), one_value("now"))


def _text(next_due: datetime | None) -> str:
    return NEVER if next_due is None else next_due.isoformat()


def _look(rows: Sequence[Row]) -> Look:
    found = decode(rows[0]["document"])
    due = found["schedules"]
    for each in due:
        for name in _TIMES:
            each[name] = each[name] and datetime.fromisoformat(each[name])
    return Look(datetime.fromisoformat(found["now"]), found["leader"], due, found["next_seconds"])


def _document(rows: Sequence[Row]) -> Document:
    return cast("Document", decode(rows[0]["document"]))


def _documents(rows: Sequence[Row]) -> list[Document]:
    return [decode(row["document"]) for row in rows]
