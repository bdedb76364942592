"""What the hot path costs in buffers, in a short queue, a long one, and one with a long history behind it.

Counted, not timed: a plan that reads a table whole, or sorts what waits, shows in the number of buffers at once.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from busy import BATCH, Busy
from proof import amount

Connection = psycopg.Connection[Any]

MANY = amount(200_000, 1_000_000)
LIMITS = {
    "spawn_tasks": 20 * BATCH,
    "claim_runs": 9 * BATCH,
    "complete_runs": 6 * BATCH,
    "promote_timers": 15 * BATCH // 10,
    "empty claim": 60,
    "recover_runs": 20,
    "fold_tallies": 60,
    "get_queue_stats": 40,
    "get_status": 400,
}
"""Buffers of a call for a batch; a tenth of a batch sleeps."""

PENDING = """
with made as (
    insert into task (id, created_at, queue_id, executor_id, params)
    select new_task_id(), clock_time(), q.id, x.id, '{}' from queue q, executor x, generate_series(1, %(n)s)
    where q.name = %(queue)s and x.name = 'demo.add' returning id, queue_id),
placed as (insert into ready (task_id, queue_id, level, attempt) select id, queue_id, 0, 1 from made order by id)
insert into tally (queue_id, pending) select queue_id, count(*) from made group by 1
"""
FINISHED = """
with made as (
    insert into task (id, created_at, queue_id, executor_id, params)
    select new_task_id(), clock_time(), q.id, x.id, '{}' from queue q, executor x, generate_series(1, %(n)s)
    where q.name = %(queue)s and x.name = 'demo.add' returning id, queue_id),
ended as (
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends)
    select id, clock_time(), clock_time(), 1, 'completed', 1, true from made)
insert into tally (queue_id, completed) select queue_id, count(*) from made group by 1
"""


@pytest.fixture
def busy(connection: Connection) -> Busy:
    made = Busy(connection)
    made.work(measured=False)
    return made


def fill(busy: Busy, sql: str, count: int, queue: str = "default") -> None:
    """Put many tasks there inside the server, as a bulk load does: nothing is analyzed."""
    busy.queue.call("create_queue(%s)", queue)
    busy.connection.execute(sql, {"n": count, "queue": queue})
    busy.queue.call("fold_tallies(1000000)")


def scans(busy: Busy) -> dict[str, int]:
    """How often each table that grows was read whole."""
    busy.connection.execute("select pg_stat_force_next_flush()")
    rows = busy.connection.execute(
        "select relname, seq_scan from pg_stat_user_tables where relname ~ '^(task|run|edge|dead_letter|artifact|node)'"
    )
    return dict(rows.fetchall())


def warm(busy: Busy, function: str, sql: str, calls: tuple[tuple[Any, ...], ...]) -> float:
    """Buffers of the last of some calls: the first in a session reads the catalogue too."""
    for args in calls:
        busy.explain(function, sql, args)
    return busy.buffers[function][-1]


def gate(busy: Busy) -> dict[str, float]:
    """Measure every call of the hot path; those that cost more than they may."""
    before = scans(busy)
    spent = busy.measure()
    spent["get_status"] = warm(busy, "get_status", "", ((), ()))
    print({name: round(buffers) for name, buffers in spent.items()})
    read = {table: count for table, count in scans(busy).items() if count > before.get(table, 0)}
    return {name: buffers for name, buffers in spent.items() if buffers > LIMITS[name]} | read


@pytest.mark.parametrize(("pending", "finished"), [(10_000, 0), (MANY, 0), (10_000, MANY)])
def test_the_hot_path_costs_the_same_at_any_size(busy: Busy, pending: int, finished: int) -> None:
    """Each call stays below its limit and reads no table whole, with no statistics to go by (B108)."""
    if finished:
        fill(busy, FINISHED, finished)
    fill(busy, PENDING, pending)

    assert gate(busy) == {}


def test_an_empty_queue_beside_a_long_one_costs_nothing(busy: Busy) -> None:
    """A claim that finds nothing reads a few pages, whatever waits in other queues."""
    fill(busy, PENDING, 50_000, queue="other")

    assert gate(busy) == {}


@pytest.mark.parametrize("density", [0.001, 1.0, 1000.0], ids=["as good as empty", "thin", "dense"])
def test_no_statistics_make_a_call_dear(busy: Busy, database_url: str, density: float) -> None:
    """Plans that are made while statistics are far off, as after a night of dead rows, are no dearer."""
    fill(busy, PENDING, 50_000)
    busy.connection.execute(
        "insert into timer select new_task_id(), 'infinity', queue_id, 0, 1, false, null, null, 'x' from ready"
    )
    busy.connection.execute("analyze")
    busy.connection.execute(
        "update pg_class set reltuples = %s * greatest(relpages, 1), relpages = greatest(relpages, 1)"
        " where relnamespace = current_schema()::regnamespace and relkind in ('r', 'i')",
        (density,),
    )
    with psycopg.connect(database_url, autocommit=True, options="-c search_path=absurd") as fresh:
        planning = Busy(fresh)
        planning.work(measured=False)

        assert gate(planning) == {}


@pytest.mark.parametrize("index", ["ready_claim", "ready_task", "timer_due"])
def test_a_gate_notices_a_missing_index(busy: Busy, index: str) -> None:
    """Without an index that a call needs it costs more than it may: the gates would fail."""
    busy.connection.execute(f"drop index {index}")
    fill(busy, PENDING, 50_000)
    busy.connection.execute(
        "insert into timer select task_id, 'infinity', queue_id, 0, 1, false, null, null, 'x' from ready"
    )

    found = gate_of_cancel(busy) if index == "ready_task" else gate(busy)

    assert found != {}


@pytest.mark.parametrize(
    ("function", "gate_name", "read_in_order", "sorted_first"),
    [
        ("claim_runs", "empty claim", "order by seq limit v_plain", "order by seq + 0 limit v_plain"),
        ("promote_timers", "promote_timers", "order by wake_at limit", "order by wake_at + interval '0' limit"),
    ],
)
def test_a_gate_notices_a_sort(
    busy: Busy, function: str, gate_name: str, read_in_order: str, sorted_first: str
) -> None:
    """A statement that sorts what waits, where it read an index from its mark, costs more than it may."""
    found = busy.connection.execute(
        "select pg_get_functiondef(oid) from pg_proc where proname = %s", (function,)
    ).fetchone()
    assert found is not None
    assert read_in_order in found[0]
    busy.connection.execute(found[0].replace(read_in_order, sorted_first))
    fill(busy, PENDING, 50_000)
    busy.connection.execute(
        "with moved as (delete from ready where ctid = any (array(select ctid from ready limit 20000)) returning *)"
        " insert into timer select task_id, clock_time(), queue_id, 0, 1, false, null, null, 'x' from moved"
    )

    assert gate_name in gate(busy)


def gate_of_cancel(busy: Busy) -> dict[str, float]:
    """What it costs to find and cancel one pending task, if that is too much."""
    spent = warm(busy, "cancel_task", "%s", tuple((busy.queue.spawn(),) for _ in range(3)))
    return {"cancel_task": spent} if spent > 200 else {}


def test_cancelling_one_task_of_a_long_queue_reads_a_few_pages(busy: Busy) -> None:
    """It is found by its id."""
    fill(busy, PENDING, 50_000)

    assert gate_of_cancel(busy) == {}
