"""What the hot path costs in buffers, in a short queue, a long one, and one with a long history behind it.

Counted, not timed: a plan that reads a table whole, or sorts what waits, shows in the number of buffers at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from busy import BATCH, Busy
from proof import amount

Connection = psycopg.Connection[Any]

MANY = amount(200_000, 1_000_000)
LIMITS = {
    "spawn_tasks": 20 * BATCH,
    "claim_runs": 10 * BATCH,
    "complete_runs": 6 * BATCH,
    "promote_timers": 15 * BATCH // 10,
    "empty claim": 60,
    "recover_runs": 20,
    "fold_tallies": 60,
    "get_queue_stats": 40,
}
"""Buffers of a call for a batch; a tenth of a batch sleeps."""
SINGLE_LIMITS = {
    "maintain": 160,
    "spawn_plain": 60,
    "step": 120,
    "complete_runs of a parent": 1200,
    "sweep_late": 100,
    "advance_marks": 100,
    "beat": 60,
    "recover_runs": 20,
    "list_workers": 30,
    "get_status": 400,
    "get_metrics": 400,
    "get_state": 60,
    "get_states": 600,
    "get_task": 150,
    "list_tasks": 3000,
    "cancel_task": 200,
    "prune_ended": 30000,
}
"""Buffers of a call about one task, of a round or of upkeep; a completion with CHILDREN, a removal of 100 tasks."""
TEN_LEVELS = (
    LIMITS
    | SINGLE_LIMITS
    | {
        "spawn_tasks": 22 * BATCH,
        "empty claim": 320,
        "maintain": 500,
        "step": 340,
        "advance_marks": 450,
        "get_status": 1500,
    }
)
"""The same in two queues of ten levels, each of which has to be looked at."""
WAL = 350
"""Bytes of write-ahead log of a drained task: its claim and its completion."""

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
HELD = """
insert into lease (id, claimed_at, queue_id, task_ids, attempts)
select %s + n, clock_time(), %s, array[gen_random_uuid()], '{1}' from generate_series(1, %s) n
"""
DEAD = 60_000
DEAD_LEASES = 20_000
ROUNDS = 50
"""How much has passed through the dead queue, and in how many rounds of a second each."""
PASSED = """
with made as (
    insert into ready (task_id, queue_id, level, attempt) select gen_random_uuid(), %s, 0, 1 from generate_series(1, %s)
    returning task_id),
counted as (insert into tally (queue_id) values (%s))
select array_agg(task_id) from made
"""


QUIET = """
select format('alter table %I set (autovacuum_enabled = off)', relname) from pg_class
where relnamespace = current_schema()::regnamespace and relkind = 'r'
"""


@pytest.fixture
def busy(connection: Connection) -> Busy:
    """Vacuumed by the tests alone: a vacuum counts as scans what it summarizes, and deletes cost more after it."""
    for (statement,) in connection.execute(QUIET).fetchall():
        connection.execute(statement)
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
        "select relname, seq_scan from pg_stat_user_tables where relname"
        " ~ '^(task|run|edge|dead_letter|artifact|node|ready|lease|timer$|level|base_mark)'"
    )
    return dict(rows.fetchall())


def warm(busy: Busy, function: str, sql: str, calls: tuple[tuple[Any, ...], ...]) -> float:
    """Buffers of the last of some calls: the first in a session reads the catalogue too."""
    for args in calls:
        busy.explain(function, sql, args)
    return busy.buffers[function][-1]


def gate_of_batches(busy: Busy, limits: dict[str, int] = LIMITS) -> dict[str, float]:
    """Measure what is called for every batch; what costs more than it may, or reads a table whole."""
    before = scans(busy)
    found = too_dear(busy.measure(), limits)
    drained = min(map(sum, zip(busy.wal["claim_runs"], busy.wal["complete_runs"], strict=True))) / BATCH
    return found | too_dear({"WAL": drained}, {"WAL": WAL}) | more(before, scans(busy))


def gate(busy: Busy, limits: dict[str, int] = LIMITS | SINGLE_LIMITS) -> dict[str, float]:
    """As gate_of_batches, and the calls about one task, of rounds and of upkeep."""
    found = gate_of_batches(busy, limits)
    before = scans(busy)
    return found | too_dear(busy.measure_singly(), limits) | more(before, scans(busy))


def more(before: dict[str, int], after: dict[str, int]) -> dict[str, float]:
    """The tables that were read whole meanwhile."""
    return {table: count for table, count in after.items() if count > before.get(table, 0)}


def too_dear(spent: dict[str, float], limits: dict[str, int]) -> dict[str, float]:
    """What costs more than it may."""
    print({name: round(amount) for name, amount in spent.items()})
    return {name: amount for name, amount in spent.items() if amount > limits[name]}


@pytest.mark.parametrize("vacuumed", [False, True])
@pytest.mark.parametrize(("pending", "finished"), [(10_000, 0), (MANY, 0), (10_000, MANY)])
def test_the_hot_path_costs_the_same_at_any_size(busy: Busy, pending: int, finished: int, vacuumed: bool) -> None:
    """Each call stays below its limit and reads no table whole, with no statistics or those of a vacuum (B108)."""
    if finished:
        fill(busy, FINISHED, finished)
    fill(busy, PENDING, pending)
    if vacuumed:
        busy.connection.execute("vacuum analyze")

    assert gate(busy) == {}


@pytest.fixture
def dead(busy: Busy, database_url: str) -> Iterator[Busy]:
    """Two queues of ten levels beside a snapshot that has been held while much was claimed and done."""
    for queue in ("default", "other"):
        for priority in range(10):
            busy.connection.execute(
                "select spawn_task(%s, 'demo.add', '{}', %s)", (queue, f'{{"priority": {priority}}}')
            )
    busy.complete(*busy.claimed(20))
    with psycopg.connect(database_url) as holder:
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select count(*) from pg_class")
        for _ in range(ROUNDS):
            first = busy.lease + 1
            passed = busy.connection.execute(PASSED, (busy.queue_id, DEAD // ROUNDS, busy.queue_id)).fetchone()
            busy.connection.execute("delete from ready where task_id = any (%s)", passed)
            busy.connection.execute(HELD, (busy.lease, busy.queue_id, DEAD_LEASES // ROUNDS))
            busy.lease += DEAD_LEASES // ROUNDS + 1
            busy.connection.execute("delete from lease where id between %s and %s", (first, busy.lease))
            busy.queue.call("fold_tallies()")
            busy.queue.call("advance_marks()")
            busy.queue.call("beat(%s, %s::bigint[])", busy.queue.worker, [busy.lease + 1])
        yield busy


def test_what_has_died_beside_an_old_snapshot_is_not_walked(dead: Busy) -> None:
    """Marks, and rows that are hardly ever updated: each call costs what it costs in a clean queue."""
    assert gate(dead, TEN_LEVELS) == {}


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

    found = gate_of_cancel(busy) if index == "ready_task" else gate_of_batches(busy)

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

    assert gate_name in gate_of_batches(busy)


def gate_of_cancel(busy: Busy) -> dict[str, float]:
    """What it costs to find and cancel one pending task, if that is too much."""
    spent = warm(busy, "cancel_task", "%s", tuple((busy.queue.spawn(),) for _ in range(3)))
    return {"cancel_task": spent} if spent > 200 else {}


def test_cancelling_one_task_of_a_long_queue_reads_a_few_pages(busy: Busy) -> None:
    """It is found by its id."""
    fill(busy, PENDING, 50_000)

    assert gate_of_cancel(busy) == {}
