"""What calls read: no more for what lies beside that which they are about."""

from __future__ import annotations

from uuid import UUID

import psycopg
import pytest
from sql_queue import Queue


def test_states_of_many_read_the_leases_once(queue: Queue) -> None:
    """Many running tasks are found in one look at the leases; each state is what it is when asked for alone."""
    ended = [queue.spawn() for _ in range(2)]
    lease, _, _ = queue.claim()
    queue.complete(lease, ended[0])
    queue.fail(lease, ended[1], None)
    running = [queue.spawn() for _ in range(20)]
    for _ in running:
        queue.claim(1)
    tasks: list[UUID | None] = [
        *ended,
        *running,
        queue.spawn(),
        queue.spawn(delay=60),
        queue.spawn(depends_on=[str(running[0])]),
        None,
    ]
    tasks += [tasks[0], queue.call("new_task_id()")]

    count = "seq_scan + idx_scan from pg_stat_xact_user_tables where relname = 'lease'"
    with queue.connection.transaction():
        before = queue.call(count)
        rows = queue.connection.execute("select task_id, state from get_states(%s)", [tasks]).fetchall()
        scans = queue.call(count) - before

    assert scans == 2  # those of the worker that is alive, and of others
    assert rows == [(task, queue.call("get_state(%s)", task)) for task in tasks]
    assert {row[1] for row in rows} == {"completed", "failed", "running", "pending", "sleeping", "blocked", None}


def test_an_event_reads_no_more_than_who_waits_for_it(queue: Queue) -> None:
    """Beside thousands that sleep and wait for other events, on tables nobody has analyzed; a payload has its limit."""
    queue.connection.execute(
        "select count(*) from spawn_tasks(array(select new_task_id() from generate_series(1, 5000)),"
        " array_fill('default'::text, '{5000}'), array_fill('x'::text, '{5000}'), array_fill(null::jsonb, '{5000}'),"
        """ array_fill('{"delay": 1000}'::jsonb, '{5000}'))"""
    )
    queue.connection.execute("insert into wait select task_id, 'dusk' from timer")
    task = queue.spawn(delay=60)
    queue.connection.execute("insert into wait values (%s, 'dawn')", [task])
    count = (
        "sum(seq_tup_read + idx_tup_fetch)::integer from pg_stat_xact_user_tables where relname in ('timer', 'wait')"
    )

    with queue.connection.transaction():
        before = queue.call(count)
        assert queue.call("emit_event('dawn', '{}')") is True
        read = queue.call(count) - before

    assert queue.state(task) == "pending"
    assert read < 20
    with pytest.raises(psycopg.Error) as caught:
        queue.call("emit_event('noon', to_jsonb(repeat(md5(random()::text), 40000)))")
    assert caught.value.sqlstate == "AB009"


def test_a_claim_of_tasks_with_options_asks_for_no_parents(queue: Queue) -> None:
    """What carries a tag or a time limit costs a claim no look at the history of parents it has not got."""
    for _ in range(100):
        queue.spawn(tags=["night"], timeout=5)
    queue.claim(50)

    row = queue.connection.execute(
        "explain (analyze, buffers, format json) select * from claim_runs(%s, 1, 50, '{}', '{}')",
        [(queue.worker << 32) + 99],
    ).fetchone()

    assert row is not None
    assert row[0][0]["Plan"]["Actual Rows"] == 1
    assert row[0][0]["Plan"]["Shared Hit Blocks"] < 700


def test_a_single_spawn_looks_everything_up_once(queue: Queue) -> None:
    """Names, level and listeners are read once each; no check constraint is parsed anew by each insert."""
    spawn = "select spawn_plain(new_task_id(), 'default', 'x', '{}')"
    queue.connection.execute(spawn)
    tables = ["queue", "executor", "level", "listener", "base_mark"]
    count = "jsonb_object_agg(relname, seq_scan + idx_scan) from pg_stat_xact_user_tables where relname = any (%s)"

    with queue.connection.transaction():
        before = queue.call(count, tables)
        begun = queue.call("pg_current_wal_insert_lsn()")
        queue.connection.execute(spawn)
        written = queue.call("pg_current_wal_insert_lsn() - %s::pg_lsn", begun)
        reads = {table: n - before[table] for table, n in queue.call(count, tables).items()}

    assert reads == {"queue": 1, "executor": 1, "level": 1, "listener": 1, "base_mark": 0}
    assert written < 2000
    checks = "from pg_constraint where contype = 'c' and conrelid in ('task'::regclass, 'ready'::regclass)"
    assert queue.call(f"count(*) {checks}") == 0


@pytest.mark.parametrize(
    "options",
    [{"priority": 10001}, {"priority": -10001}, {"max_attempts": -1}, {"timeout": 0}, {"timeout": -1}],
    ids=str,
)
def test_ranges_are_the_functions_to_refuse(queue: Queue, options: dict[str, int]) -> None:
    """As the table has no constraint that would."""
    with pytest.raises(psycopg.Error) as caught:
        queue.spawn(**options)

    assert caught.value.sqlstate == "AB001"
