"""Weeks that have passed and that pruning has emptied are dropped whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sessions import Session
from sql_queue import Queue

from absurd.database import AsyncDatabase
from absurd.maintenance import make_round

WEEKS = "array(select relname::text from pg_class where relname ~ '^(task|run|log)_[0-9]{4}w[0-9]{2}$' order by 1)"


def drop_all(queue: Queue) -> int:
    dropped = 0
    while queue.call("drop_partition()"):
        dropped += 1
    return dropped


def test_past_weeks_are_dropped_and_what_is_kept_stays(queue: Queue) -> None:
    """Bodies and runs that are kept longer are found, claimed and retried as before."""
    completed, failed, waits = queue.spawn(), queue.spawn(), queue.spawn(priority=-1)
    lease, _, _ = queue.claim(2)
    queue.complete(lease, completed)
    queue.fail(lease, failed, None)
    queue.spawn(delay=86400 * 90)
    before = queue.counts()
    weeks = queue.call(WEEKS)

    queue.move_clock("100 days")

    assert drop_all(queue) == len(weeks) > 0
    assert queue.call(WEEKS) == []
    assert queue.counts() == before
    assert [queue.state(each) for each in (completed, failed, waits)] == ["completed", "failed", "pending"]
    queue.call("retry_task(%s)", failed)
    queue.call("promote_timers()")
    _, tasks, _ = queue.claim(10)
    assert {failed, waits} < set(tasks)
    assert len(tasks) == 3


def test_present_and_coming_weeks_stay(queue: Queue) -> None:
    """A week is dropped when no more ids and ends can fall into it, however empty it is."""
    assert not queue.call("maintain()")["spent"]
    assert drop_all(queue) == 0

    queue.move_clock("16 days")
    queue.call("ensure_partitions()")
    drop_all(queue)

    assert not queue.call("_lacks_partitions()")


def test_a_week_of_which_much_is_left_stays(queue: Queue) -> None:
    """More than a thousand rows are not moved about, whatever the statistics say."""
    queue.call("spawn_task('default', 'demo.add', '{}') from generate_series(1, 1001)")
    lease, tasks, _ = queue.claim(1)
    queue.complete(lease, *tasks)
    held = queue.call("tableoid::regclass::text from task limit 1")

    queue.move_clock("100 days")
    drop_all(queue)

    assert queue.call(WEEKS) == [held.rpartition(".")[2]]
    assert queue.call("count(*) from run_default") == 1


def test_a_week_is_looked_at_once_after_statistics_are_lost(queue: Queue) -> None:
    """A crash of the server loses them: a round that then finds much in a week does not look into it for ever."""
    queue.call("spawn_task('default', 'demo.add', '{}') from generate_series(1, 1001)")
    queue.call("pg_stat_force_next_flush()")
    queue.call("pg_stat_reset()")
    queue.move_clock("100 days")
    assert queue.call("maintain()")["spent"]

    drop_all(queue)

    assert not queue.call("maintain()")["spent"]


def test_the_regular_round_drops_them(queue: Queue, database_url: str) -> None:
    """One a round, until none is left."""
    task = queue.spawn()
    lease, _, _ = queue.claim(1)
    queue.complete(lease, task)
    queue.call("set_queue_retention('default', 86400)")
    queue.move_clock("100 days")

    async def rounds() -> None:
        async with AsyncDatabase(database_url) as database:
            for _ in range(60):
                await make_round(database)

    asyncio.run(rounds())

    assert queue.call("count(*) from task") == 0
    assert not queue.call("maintain()")["spent"]
    assert queue.call("min(relname) >= 'task_' || _partition_name(_partition_start()) from pg_class"
                      " where relname ~ '^task_[0-9]{4}w'")  # fmt: skip


def test_it_waits_for_nobody_who_holds_the_tables_for_long(
    queue: Queue, database_url: str, until: Callable[[Callable[[], object]], None]
) -> None:
    """A dump that reads the tables has nobody stand in line behind it; the weeks go afterwards."""
    queue.move_clock("100 days")
    dump = Session(database_url)
    dump.begin()
    dump.call("count(*) from task")
    old = "xact_start < clock_timestamp() - interval '1 s' from pg_stat_activity where pid = %s"
    until(lambda: queue.call(old, dump.connection.info.backend_pid))
    weeks = queue.call(WEEKS)

    assert drop_all(queue) == 0

    dump.commit()
    dump.connection.close()
    assert drop_all(queue) == len(weeks)


def drop_beside(queue: Queue, url: str, weeks: int, sql: str, *args: Any) -> Any:
    """Drop so many weeks while another session makes a call, which has to wait for their end; what that gives."""
    dropping, waiting, observer = Session(url), Session(url), Session(url)
    dropping.begin()
    for _ in range(weeks):
        assert dropping.call("drop_partition()") == 1
    waiting.call_later(sql, *args)
    deadline = time.monotonic() + 30
    while not waiting.waits(observer):
        assert time.monotonic() < deadline
    dropping.commit()
    found = waiting.result()
    for each in (dropping, waiting, observer):
        each.connection.close()
    return found


def test_a_child_is_counted_while_the_week_of_its_parent_goes(queue: Queue, database_url: str) -> None:
    """A sweep that had to wait until a week was gone finds what has moved: it cancels nobody for want of a parent."""
    parent = queue.spawn()
    lease, _, _ = queue.claim(1)
    queue.complete(lease, parent)
    child = queue.spawn(depends_on=[str(parent)])
    queue.move_clock("100 days")

    assert drop_beside(queue, database_url, len(queue.call(WEEKS)), "sweep_late()") == 1

    assert queue.state(child) == "pending"


def test_a_claim_brings_results_while_their_week_goes(queue: Queue, database_url: str) -> None:
    """A claim that had to wait until a week of runs was gone brings the results of parents that have moved."""
    parent = queue.spawn()
    child = queue.spawn(depends_on=[str(parent)])
    lease, _, _ = queue.claim(1)
    queue.complete(lease, parent, result=42)
    queue.call("sweep_late()")
    queue.move_clock("100 days")
    runs = sum(each.startswith("run_") for each in queue.call(WEEKS))
    worker = queue.new_worker()
    claimed = "(task_ids, details)::text from claim_runs(%s, (select id from queue), 1, '{}', '{}')"

    found = drop_beside(queue, database_url, runs, claimed, (worker << 32) + 1)

    assert str(child) in found
    assert "42" in found.partition("parents")[2]


def test_weeks_are_dropped_at_read_committed_only(queue: Queue) -> None:
    """A stricter transaction would carry over rows as they were, not as others have left them since."""
    with pytest.raises(psycopg.Error) as caught, queue.connection.transaction():
        queue.connection.execute("set transaction isolation level repeatable read")
        queue.call("drop_partition()")

    assert caught.value.sqlstate == "AB006"
