"""Sleepers: where the look for those that are due begins."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
import recount
from sql_queue import Queue

Connection = psycopg.Connection[Any]


@pytest.fixture
def queue(connection: Connection) -> Queue:
    recount.freeze(connection)
    return Queue(connection)


def later(queue: Queue, seconds: float) -> None:
    queue.connection.execute("update _frozen set now = now + make_interval(secs => %s)", [seconds])
    queue.call("count(*) from beat(%s, '{}')", queue.worker)


def test_more_than_one_look_may_find_wakes_all(queue: Queue) -> None:
    """Ten sleepers that were due long ago wake three at a time, in order of time, whatever their number."""
    tasks = [queue.spawn(delay=1 + n) for n in range(10)]
    later(queue, 3600)

    woken = [queue.call("promote_timers(3)") for _ in range(5)]

    assert woken == [3, 3, 3, 1, 0]
    assert queue.claim(10)[1] == tasks


def test_a_sleeper_that_is_committed_late_wakes_within_a_minute(queue: Queue) -> None:
    """One that was due before the mark when its transaction ended is found by the next look from the start."""
    later(queue, 3600)
    assert queue.call("promote_timers()") == 0
    later(queue, 30)
    task = queue.spawn(delay=5)
    queue.connection.execute("update timer set wake_at = clock_time() - interval '10 minutes'")

    assert queue.call("promote_timers()") == 0
    later(queue, 31)
    assert queue.call("promote_timers()") == 1
    assert queue.state(task) == "pending"


def test_a_sleeper_that_is_committed_a_moment_late_wakes_with_the_next_look(queue: Queue) -> None:
    """A look that found all it may leaves the last minute to the next one, for what is just being committed."""
    for _ in range(3):
        queue.spawn(delay=10)
    late = queue.spawn(delay=9)
    row = queue.connection.execute("delete from timer where task_id = %s returning timer::text", [late]).fetchone()
    later(queue, 11)
    assert queue.call("promote_timers(3)") == 3
    assert row is not None
    queue.connection.execute("insert into timer select (%s::timer).*", row)

    assert queue.call("promote_timers(3)") == 1
    assert queue.state(late) == "pending"


def test_a_clock_that_is_set_back_hides_no_sleeper(queue: Queue) -> None:
    """After an hour back the look begins at the start."""
    assert queue.call("promote_timers()") == 0
    later(queue, -3600)
    task = queue.spawn(delay=5)
    later(queue, 6)

    assert queue.call("promote_timers()") == 1
    assert queue.state(task) == "pending"


def test_the_mark_is_seldom_written(queue: Queue) -> None:
    """A round a second for a minute writes it a few times only."""
    versions = set()
    for _ in range(60):
        later(queue, 1)
        queue.call("promote_timers()")
        versions.add(queue.call("xmin from timer_mark"))

    assert len(versions) <= 8
