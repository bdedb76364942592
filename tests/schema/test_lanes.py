"""What a claim on lanes reads, and what it relies on while it waits: bounds and races of limited queues."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sessions import Session
from sql_queue import Queue

Connection = psycopg.Connection[Any]
Until = Callable[[Callable[[], object]], None]

CLAIM = "claim_runs(%s, (select id from queue where name = 'default'), %s, '{}', '{}')"


@pytest.fixture
def queue(connection: Connection) -> Queue:
    made = Queue(connection)
    made.call("create_queue('default')")
    return made


@pytest.fixture
def other(database_url: str) -> Iterator[Session]:
    session = Session(database_url)
    yield session
    session.connection.close()


def limit(queue: Queue, **limits: Any) -> None:
    queue.call("set_queue_limits('default', %s)", json.dumps(limits))


def spawn_many(queue: Queue, count: int, **options: Any) -> None:
    queue.call(
        "count(*) from spawn_tasks(array(select new_task_id() from generate_series(1, %s)),"
        " array_fill('default'::text, array[%s]), array_fill('demo.add'::text, array[%s]),"
        " array_fill(null::jsonb, array[%s]), array_fill(%s::jsonb, array[%s]))",
        *[count] * 4,
        json.dumps(options),
        count,
    )


def pages(queue: Queue, wanted: int) -> int:
    """How many pages a claim looks at."""
    queue.claims += 1
    plan = queue.connection.execute(
        f"explain (analyze, buffers, format json) select * from {CLAIM}", [(queue.worker << 32) + queue.claims, wanted]
    ).fetchone()
    assert plan is not None
    return int(plan[0][0]["Plan"]["Shared Hit Blocks"]) + int(plan[0][0]["Plan"]["Shared Read Blocks"])


def claimed(queue: Queue) -> list[UUID]:
    ids: list[UUID] = queue.call("task_ids from lease where id = %s", (queue.worker << 32) + queue.claims)
    return ids


@pytest.mark.parametrize(("before", "word"), [({"running": 9}, "limit"), ({"rate": 9, "rate_seconds": 1}, "pause")])
def test_a_claim_that_waited_obeys_the_latest_word(
    queue: Queue, other: Session, until: Until, before: dict[str, Any], word: str
) -> None:
    """A limit that falls, or a pause, while a claim waits for another one, holds for the claim that waited."""
    limit(queue, **before)
    spawn_many(queue, 5)
    second = queue.new_worker()

    queue.connection.execute("begin")
    assert len(queue.claim(1)[1]) == 1
    other.call_later(f"task_ids from {CLAIM}", (second << 32) + 1, 4)
    with psycopg.connect(queue.connection.info.dsn, autocommit=True, options="-c search_path=absurd,public") as third:
        until(lambda: third.execute("select 1 from pg_stat_activity where wait_event_type = 'Lock'").fetchone())
        third.execute(
            "select set_queue_limits('default', '{\"running\": 1}')"
            if word == "limit"
            else "select set_queue_paused('default', true)"
        )
    queue.connection.execute("commit")

    assert other.result() is None


def test_a_lane_that_fits_no_worker_is_not_read_without_end(queue: Queue) -> None:
    """A claim that holds the lock of the queue looks at a bounded part of what needs more than is offered."""
    limit(queue, fair=True)
    spawn_many(queue, 40_000, lane="giant", needs={"gpu": 1})
    spawn_many(queue, 20, lane="small")
    pages(queue, 5)

    assert pages(queue, 5) < 800  # the lane has about 1,400
    assert len(claimed(queue)) == 5


def test_lanes_pass_over_what_is_dead(queue: Queue, other: Session) -> None:
    """Beside a held snapshot a claim on lanes looks at no more of the table for what was claimed before."""
    limit(queue, fair=True)
    spawn_many(queue, 20, lane="a")
    pages(queue, 5)
    before = pages(queue, 5)
    other.connection.execute("begin isolation level repeatable read")
    other.call("count(*) from ready")
    spawn_many(queue, 40_000, lane="a")
    queue.connection.execute("delete from ready")
    for _ in range(5):
        queue.call("advance_marks()")
    spawn_many(queue, 20, lane="a")

    after = pages(queue, 5)

    assert len(claimed(queue)) == 5
    assert after < before + 250  # the index alone: the table of what is dead has about 700 pages more


def test_a_task_without_a_lane_is_not_hidden_for_ever(queue: Queue) -> None:
    """Ten thousand tasks of a lane that is at its limit do not keep one without a lane from being found."""
    limit(queue, per_lane=1)
    spawn_many(queue, 10_500, lane="a")
    loose = queue.spawn()
    tasks = queue.claim(5)[1]
    assert tasks[0] != loose, "a task of the lane, and by chance the loose one behind it"

    for _ in range(500):
        if loose in tasks:
            break
        tasks = queue.claim(5)[1]
    else:
        pytest.fail("hidden")


def test_what_fits_nobody_is_found_out_once(queue: Queue) -> None:
    """Thousands that need more than is offered stand before the others; a claim works out once what they need."""
    spawn_many(queue, 400, needs={"gpu": 1})
    spawn_many(queue, 400, needs={"gpu": 2, "cpu": 1})
    spawn_many(queue, 3_000, needs={"gpu": 1})
    queue.worker = queue.call("register_worker('test', 'here', 1, '{default}', 1, '{}', '{\"cpu\": 1}', 30)")
    fitting = [queue.spawn(needs={"cpu": 1}), queue.spawn()]
    count = "coalesce(sum(calls), 0)::integer from pg_stat_xact_user_functions where funcname = '_fits'"

    with queue.connection.transaction():
        queue.connection.execute("set local track_functions = 'all'")
        for expected in (fitting, []):
            before = queue.call(count)
            assert queue.claim()[1] == expected
            assert queue.call(count) - before < 10
