"""Which queries can be read in parts, and by which parts of their tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from absurd.tasks.export.reader import names_and_types, without_semicolon

if TYPE_CHECKING:
    Connection = psycopg.Connection[Any]

RANGE_PAGES = 2048
"""Pages of a table, of 8 KiB each, that are read by one statement.

Small enough for what is read ahead, in the order of the table, to fit into memory; and far dearer to read than to ask
for.
"""
TID_RANGE_SCANS = 140_000
"""First version of the server that reads a range of pages without the rest of the table."""
MOST_TABLES = 1_000
"""Each table of a query is planned by itself: with more of them that takes longer than it saves."""

Plan = dict[str, Any]
_ESTIMATES = ("Startup Cost", "Total Cost", "Plan Rows", "Plan Width", "Disabled")
_SAME = ("Schema", "Relation Name", "Alias", "Output", "Filter")


@dataclass(frozen=True, slots=True)
class Part:
    """A query whose rows come before those of the next part."""

    query: str


def parts_of(connection: Connection, query: str) -> list[Part]:
    """The parts whose rows, one after the other, are those of `query`; itself alone if it cannot be split.

    A query is split if the server plans nothing for it but a scan of one table, or of several one after the other as
    those of a partitioned table, and for each part nothing but a scan of a range of pages that gives the same and
    leaves out the same.  So its planner judges, and not a parser of ours: what has an order, a limit, a join, an
    aggregate or row security that hides the condition has another plan.
    """
    whole = [Part(query)]
    if connection.info.server_version < TID_RANGE_SCANS:
        return whole
    body = without_semicolon(query)
    plan = plan_of(connection, body)
    scans = [] if plan is None else _scans(plan)
    pages = [_pages(connection, scan) for scan in scans]
    if sum(pages) <= RANGE_PAGES:
        return whole
    if len(scans) == 1:
        for word in ("where", "and"):  # the condition is the query's first one, or one more
            text = f"{body}\n{word} "
            ranged = plan_of(connection, text + _condition(0, RANGE_PAGES))
            if ranged is not None and _is_range(ranged, scans[0]):
                return _ranges(text, pages[0])
    return _rebuilt(connection, query, scans, pages) or whole


def plan_of(connection: Connection, query: str) -> Plan | None:
    """The plan of a query, without what is but estimated; None for what is no query or is refused."""
    try:
        with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
            cursor.execute(sql.SQL("explain (verbose, format json) {}").format(sql.SQL(query)))
            (found,) = cursor.fetchone() or (None,)
    except psycopg.Error as error:
        if error.sqlstate is None or connection.broken:
            raise
        return None
    plans = json.loads(found) if isinstance(found, str) else found
    return _without_estimates(plans[0]["Plan"])


def nodes_of(plan: Plan) -> list[Plan]:
    """All steps of a plan."""
    return [plan, *(node for below in plan.get("Plans", ()) for node in nodes_of(below))]


def _without_estimates(plan: Plan) -> Plan:
    kept = {name: value for name, value in plan.items() if name not in _ESTIMATES}
    return kept | ({"Plans": [_without_estimates(each) for each in plan["Plans"]]} if "Plans" in plan else {})


def _scans(plan: Plan) -> list[Plan]:
    """The scans that the plan is made of, in the order of their rows; none if there is any other step in it."""
    listed = [plan]
    if plan["Node Type"] == "Append" and not plan.get("Subplans Removed"):
        listed = plan.get("Plans", [])
    is_plain = all(each["Node Type"] == "Seq Scan" and "Plans" not in each for each in listed)
    return listed if is_plain and len(listed) <= MOST_TABLES else []


def _rebuilt(connection: Connection, query: str, scans: Sequence[Plan], pages: Sequence[int]) -> list[Part] | None:
    """The parts as queries of the tables themselves, in the words of the plan; None if they are not the same.

    They are if the server plans the same scans for them, and describes the same columns: then nothing of a view, of
    rights or of row security makes a difference.
    """
    parts: list[Part] = []
    firsts = []
    for scan, size in zip(scans, pages, strict=True):
        table = sql.Identifier(scan["Schema"], scan["Relation Name"]).as_string(connection)
        alias = sql.Identifier(scan["Alias"]).as_string(connection)
        text = f"select {', '.join(scan['Output'])} from only {table} as {alias}"
        text += f" where ({scan['Filter']})" if "Filter" in scan else ""
        if size > RANGE_PAGES:
            text += " and " if "Filter" in scan else " where "
            firsts.append(text + _condition(0, RANGE_PAGES))
            parts += _ranges(text, size)
        else:
            firsts.append(text)
            parts.append(Part(text))
    # Columns have their table's alias in the plan where there are several tables, or a view: so with the second.
    for whole in [*firsts, " union all ".join(firsts * 2)] if len(firsts) == 1 else [" union all ".join(firsts)]:
        planned = plan_of(connection, whole)
        if planned is None or _types(connection, whole) != _types(connection, query):
            return None
        found = planned.get("Plans", []) if planned["Node Type"] == "Append" else [planned]
        if len(found) >= len(scans) and all(_is_scan(*each) for each in zip(found, scans, pages, strict=False)):
            return parts
    return None


def _is_scan(found: Plan, scan: Plan, pages: int) -> bool:
    """Whether a step of a plan is the scan, of a range of pages if it has many."""
    if pages > RANGE_PAGES:
        return _is_range(found, scan)
    return "Plans" not in found and all(found.get(each) == scan.get(each) for each in ("Node Type", *_SAME))


def _is_range(ranged: Plan, scan: Plan) -> bool:
    """Whether a plan is the scan, of a range of pages."""
    same = all(ranged.get(each) == scan.get(each) for each in _SAME)
    return ranged["Node Type"] == "Tid Range Scan" and "Plans" not in ranged and same


def _types(connection: Connection, query: str) -> list[tuple[int, int]]:
    return [(oid, typmod) for _, oid, typmod in names_and_types(connection, query)]


def _ranges(text: str, pages: int) -> list[Part]:
    """The parts of a table, by the query up to the condition on pages."""
    starts = range(0, pages, RANGE_PAGES)
    ends = [*starts[1:], None]  # what lies behind was written later: it is not in the snapshot, but may move
    return [Part(text + _condition(start, end)) for start, end in zip(starts, ends, strict=True)]


def _condition(start: int, end: int | None) -> str:
    """That a row lies in pages from `start` on and before `end`."""
    below = "" if end is None else f" and ctid < '({end},0)'::tid"
    return f"ctid >= '({start},0)'::tid{below}"


def _pages(connection: Connection, scan: Plan) -> int:
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(
            "select pg_relation_size(format('%%I.%%I', %s::text, %s::text)::regclass)"
            " / current_setting('block_size')::int8",
            (scan["Schema"], scan["Relation Name"]),
        )
        (pages,) = cursor.fetchone() or (0,)
    return int(pages)
