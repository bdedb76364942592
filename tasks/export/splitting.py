"""Which queries can be read in parts, and by which parts of their table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from absurd.tasks.export.reader import without_semicolon

if TYPE_CHECKING:
    Connection = psycopg.Connection[Any]

RANGE_PAGES = 2048
"""Pages of a table, of 8 KiB each, that are read by one statement.

Small enough for what is read ahead, in the order of the table, to fit into memory; and far dearer to read than to ask
for.
"""
TID_RANGE_SCANS = 140_000
"""First version of the server that reads a range of pages without the rest of the table."""


@dataclass(frozen=True, slots=True)
class Part:
    """A query whose rows come before those of the next part."""

    query: str


def parts_of(connection: Connection, query: str) -> list[Part]:
    """The parts whose rows, one after the other, are those of `query`; itself alone if it cannot be split.

    A query is split if the server plans nothing for it but a scan of one table, and nothing but a scan of a range
    of pages when a condition on pages is added to its end.  So its planner judges, and not a parser of ours: what has
    an order, a limit, a join, an aggregate, a view with any of them, partitions or row security that hides the
    condition has another plan.
    """
    whole = [Part(query)]
    if connection.info.server_version < TID_RANGE_SCANS:
        return whole
    body = without_semicolon(query)
    scan = _only_scan(connection, body)
    if scan is None or scan["Node Type"] != "Seq Scan":
        return whole
    pages = _pages(connection, scan)
    if pages <= RANGE_PAGES:
        return whole
    for word in ("where", "and"):  # the condition is the query's first one, or one more
        ranged = _only_scan(connection, _ranged(body, word, 0, RANGE_PAGES))
        if ranged is not None and ranged["Node Type"] == "Tid Range Scan":
            starts = range(0, pages, RANGE_PAGES)
            ends = [*starts[1:], None]  # what lies behind was written later: it is not in the snapshot, but may move
            return [Part(_ranged(body, word, start, end)) for start, end in zip(starts, ends, strict=True)]
    return whole


def _ranged(body: str, word: str, start: int, end: int | None) -> str:
    """The query for pages from `start` on and before `end`."""
    below = "" if end is None else f" and ctid < '({end},0)'::tid"
    return f"{body}\n{word} ctid >= '({start},0)'::tid{below}"


def _only_scan(connection: Connection, query: str) -> dict[str, Any] | None:
    """The plan of a query that is one step and nothing below it; None for others, and what is no query."""
    try:
        with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
            cursor.execute("set local max_parallel_workers_per_gather = 0")
            cursor.execute(sql.SQL("explain (verbose, format json) {}").format(sql.SQL(query)))
            (found,) = cursor.fetchone() or (None,)
    except psycopg.Error as error:
        if error.sqlstate is None or connection.broken:
            raise
        return None
    plans = json.loads(found) if isinstance(found, str) else found
    plan: dict[str, Any] = plans[0]["Plan"]
    return None if "Plans" in plan or "Relation Name" not in plan else plan


def _pages(connection: Connection, scan: dict[str, Any]) -> int:
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(
            "select pg_relation_size(format('%%I.%%I', %s::text, %s::text)::regclass)"
            " / current_setting('block_size')::int8",
            (scan["Schema"], scan["Relation Name"]),
        )
        (pages,) = cursor.fetchone() or (0,)
    return int(pages)
