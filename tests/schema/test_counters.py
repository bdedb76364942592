"""The counters of `get_metrics()`: each is what happened, whatever was folded, pruned or tried again since."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import psycopg
import pytest
from proof import amount
from sql_queue import Queue
from world import CALLS, READS, World, fail

Connection = psycopg.Connection[Any]
Counts = dict[tuple[str, str], int]
"""By queue and kind."""

KINDS = ("spawned", "completed", "failed", "cancelled", "pruned", "retried", "lost")
WITNESS = """
create table _witnessed (queue_id integer, kind text);
create function _witness() returns trigger language plpgsql as $$
begin
    if current_setting('test.returns', true) = 'on' then  -- rows of a task that was pruned come back
        return null;
    elsif tg_table_name like 'task%' then
        insert into _witnessed
            select coalesce(new.queue_id, old.queue_id), case tg_op when 'INSERT' then 'spawned' else 'pruned' end;
    else
        insert into _witnessed select queue_id, k
            from task cross join lateral (
                values (case when new.ends then case new.state when 'lost' then 'failed' else new.state::text end end),
                       (case when new.state = 'failed' and not new.ends then 'retried' end),
                       (case when new.state = 'lost' then 'lost' end)) v (k)
            where id = new.task_id and k is not null;
    end if;
    return null;
end $$;
"""


@pytest.fixture
def witnessed(connection: Connection) -> Connection:
    """A queue in which every row of a body and of history that is written or removed leaves a note."""
    connection.execute(WITNESS)
    for table, events in (("task", "insert or delete"), ("run", "insert")):
        connection.execute(f"create trigger witness after {events} on {table} for each row execute function _witness()")
    return connection


def counted(connection: Connection) -> Counts:
    """The counters that are not 0."""
    row = connection.execute("select get_metrics() -> 'counters'").fetchone()
    assert row is not None
    return {(each["queue"], kind): each[kind] for each in row[0] for kind in KINDS if each[kind]}


def recounted(connection: Connection) -> Counts:
    """The same from the notes."""
    rows = connection.execute(
        "select q.name, kind, count(*) from _witnessed w join queue q on q.id = w.queue_id group by 1, 2"
    ).fetchall()
    return {(queue, kind): count for queue, kind, count in rows}


def call(world: World, name: str) -> None:
    """Call a function of the schema, which may refuse what is left for it."""
    sql, *args = CALLS[name](world)
    try:
        with world.connection.transaction():
            returns = "on" if name == "requeue_dead_letters" else "off"
            world.connection.execute("select set_config('test.returns', %s, true)", [returns])
            rows = world.connection.execute(f"select {sql}", args).fetchall()
            if name == "move_ended":  # counts for its old queue as if it had been pruned
                world.connection.execute(
                    "insert into _witnessed select id, 'pruned' from queue, generate_series(1, %s) where name = %s",
                    [rows[0][0], world.queue],
                )
    except psycopg.Error:
        return


def test_each_counter_equals_a_recount_and_never_falls(witnessed: Connection) -> None:
    """After whatever functions in whatever order, folded or not, counters are what was written, and none has fallen."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    functions = sorted(CALLS.keys() - READS)
    seen: Counts = {}
    for number in range(amount(2, 20)):
        world = World(witnessed, number)
        for name in ["fail_runs", *chance.sample(functions, len(functions))]:  # the others take away what can fail
            call(world, name)
            found = counted(witnessed)

            assert found == recounted(witnessed), (number, name)
            fallen = {key: (count, found.get(key, 0)) for key, count in seen.items() if found.get(key, 0) < count}
            assert not {key for key in fallen if queue_is_there(witnessed, key[0])}, (number, name, fallen)
            seen = found
            if chance.random() < 0.2:
                witnessed.execute("select fold_tallies(%s)", [chance.randrange(1, 20)])
    happened = {kind for _, kind in seen}
    assert happened == set(KINDS)


def queue_is_there(connection: Connection, name: str) -> bool:
    """Whether the queue was not dropped, with which its counters go."""
    return connection.execute("select from queue where name = %s", [name]).fetchone() is not None


def test_failures_retries_and_pruning(witnessed: Connection) -> None:
    """A task that fails thrice counts two retries and one end; pruned and brought back it ends once more."""
    queue = Queue(witnessed)
    task = queue.spawn()
    for delay in (0, 0, None):
        lease, _, _ = queue.claim(1)
        queue.fail(lease, task, delay)
        queue.call("fold_tallies()")
    expected = Counter(spawned=1, retried=2, failed=1)
    assert counted(witnessed) == {("default", kind): count for kind, count in expected.items()}

    assert queue.call("prune_queue('default', 0)") == 1
    queue.call("count(*) from requeue_dead_letters()")
    lease, _, _ = queue.claim(1)
    queue.complete(lease, task)
    task = queue.spawn()
    lease, _, _ = queue.claim(1)
    queue.call(*fail(lease, task))
    queue.call("retry_task(%s)", task)
    queue.call("cancel_task(%s)", task)
    assert queue.call("give_up_worker(%s)", queue.worker) == 0

    expected += Counter(pruned=1, completed=1, spawned=1, failed=1, cancelled=1)
    for _ in range(2):  # not folded, and folded
        assert counted(witnessed) == {("default", kind): count for kind, count in expected.items()}
        queue.call("fold_tallies()")
    assert queue.counts() == {"completed": 1, "cancelled": 1}


def test_who_keeps_dead_rows_is_seen_without_a_snapshot_too(connection: Connection, database_url: str) -> None:
    """A session that has written and sits idle in its transaction; not any more once that has ended."""
    with psycopg.connect(database_url, application_name="writer") as writer:
        writer.execute("select pg_current_xact_id()")
        held = connection.execute("select get_metrics() ->> 'oldest_snapshot_seconds', (select name from _holders())")
        writer.commit()
        left = connection.execute("select (get_metrics() ->> 'oldest_snapshot_seconds')::float8").fetchone()

    seconds, name = held.fetchone() or ("0", "")
    assert ("writer", True) == (name, float(seconds) > 0)
    assert (0,) == left
