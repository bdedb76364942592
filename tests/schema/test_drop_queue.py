"""Queues that are done with: what keeps them, what goes with them, and tasks that move out first."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest
import recount
from sql_queue import Queue

Connection = psycopg.Connection[Any]
Until = Callable[[Callable[[], object]], None]


@pytest.fixture
def queue(connection: Connection) -> Queue:
    """The queue `default`, whose worker has left, so that it may go."""
    made = Queue(connection)
    made.call('set_queue_limits(\'default\', \'{"running": 3, "rate": 1000, "rate_seconds": 1}\')')
    made.call("set_queue_retention('default', 3600)")
    return made


def names(queue: Queue) -> set[str]:
    return {row[0] for row in queue.connection.execute("select name from queue")}


def refusal(queue: Queue, name: str = "default") -> str:
    """Why the queue cannot go; a dry run says the same."""
    with pytest.raises(psycopg.Error) as dry:
        queue.call("drop_queue(%s, true)", name)
    with pytest.raises(psycopg.Error) as refused:
        queue.call("drop_queue(%s)", name)
    assert refused.value.sqlstate == dry.value.sqlstate == "AB004"
    assert refused.value.diag.message_primary == dry.value.diag.message_primary
    return str(refused.value.diag.message_primary)


def ended(queue: Queue, state: str, **options: Any) -> UUID:
    task = queue.spawn(**options)
    lease, claimed, _ = queue.claim()
    assert claimed == [task]
    queue.end(lease, task, state)
    return task


def test_a_queue_goes_with_all_that_is_its_own(queue: Queue) -> None:
    """Once its tasks are pruned and its worker has left, nothing of the queue is left in any table."""
    ended(queue, "completed", key="k", priority=3)
    queue.call("prune_queue('default', 0)")
    queue.call("prune_ended()")
    queue.call("unregister_worker(%s)", queue.worker)
    number = queue.call("id from queue where name = 'default'")

    assert queue.call("drop_queue('default', true)") is True
    assert names(queue) == {"default"}
    assert queue.call("drop_queue('default')") is True
    assert queue.call("drop_queue('default')") is False

    assert names(queue) == set()
    for (table,) in queue.connection.execute(
        "select table_name::text from information_schema.columns where table_schema = current_schema()"
        " and column_name = 'queue_id' and table_name <> 'tally'"
    ).fetchall():
        assert queue.call(f"count(*) from {table} where queue_id = %s", number) == 0, table
    queue.call("fold_tallies()")
    assert recount.faults(queue.connection) == []


@pytest.mark.parametrize("state", ["pending", "sleeping", "blocked", "running", "completed", "failed", "cancelled"])
def test_a_queue_stays_while_a_task_is_kept(queue: Queue, state: str) -> None:
    """Wherever its task stands, or however it ended: the refusal counts it and names the way out."""
    match state:
        case "pending":
            queue.spawn()
        case "sleeping":
            queue.spawn(delay=60)
        case "blocked":
            parent = queue.call("task_id from spawn_task('other', 'demo.add', '{}')")
            queue.spawn(depends_on=[str(parent)])
        case "running":
            queue.spawn()
            queue.claim()
        case _:
            ended(queue, state)

    told = refusal(queue)

    assert "1 task and" in told
    assert "absurd queue prune default" in told


def test_a_queue_stays_while_its_dead_letters_are_kept(queue: Queue) -> None:
    """A dead letter outlives its task, and may be put back: its queue waits for that."""
    ended(queue, "failed")
    queue.call("prune_queue('default', 0)")
    queue.call("unregister_worker(%s)", queue.worker)
    assert "0 tasks and 1 dead letters" in refusal(queue)

    queue.call("purge_dead_letters('{}')")
    assert queue.call("drop_queue('default')") is True


def test_a_queue_stays_while_a_worker_serves_it(queue: Queue) -> None:
    """Who serves it is named; once that has left, the queue may go."""
    assert f"served by the workers test ({queue.worker})" in refusal(queue)

    queue.call("unregister_worker(%s)", queue.worker)
    assert queue.call("drop_queue('default')") is True


def test_a_spawn_that_came_first_keeps_the_queue(queue: Queue, database_url: str) -> None:
    """A removal gives up behind a transaction that has spawned into the queue, and is refused after its commit."""
    queue.call("unregister_worker(%s)", queue.worker)
    with psycopg.connect(database_url, options="-c search_path=absurd,public") as other:
        other.execute("select spawn_task('default', 'demo.add', '{}')")
        with pytest.raises(psycopg.Error, match=r"default cannot go now: .* try again after it") as refused:
            queue.call("drop_queue('default')")
        assert refused.value.sqlstate == "AB004"
        assert names(queue) == {"default"}

    assert "1 task and" in refusal(queue)


def test_a_spawn_that_comes_later_makes_another_queue(queue: Queue, database_url: str, until: Until) -> None:
    """One that waits for a removal spawns into a new queue of the name, and its task can be claimed."""
    queue.call("unregister_worker(%s)", queue.worker)
    with (
        psycopg.connect(database_url, options="-c search_path=absurd,public") as dropping,
        psycopg.connect(database_url, autocommit=True, options="-c search_path=absurd,public") as spawning,
    ):
        before = queue.call("id from queue where name = 'default'")
        dropping.execute("select drop_queue('default')")
        with ThreadPoolExecutor(1) as pool:
            spawn = pool.submit(spawning.execute, "select task_id from spawn_task('default', 'demo.add', '{}')")
            until(lambda: queue.call("1 from pg_stat_activity where wait_event_type = 'Lock'"))
            dropping.commit()
            task = spawn.result(30).fetchone()

    assert queue.call("id from queue where name = 'default'") != before
    queue.worker = queue.new_worker()
    assert task == (queue.claim()[1][0],)
    assert queue.counts() == {"running": 1}


def test_a_worker_that_starts_meanwhile_waits(queue: Queue, database_url: str, until: Until) -> None:
    """It waits for the removal however long that takes, and makes its queue anew; no bound of its own ends the wait."""
    queue.call("unregister_worker(%s)", queue.worker)
    with (
        psycopg.connect(database_url, options="-c search_path=absurd,public") as dropping,
        psycopg.connect(database_url, autocommit=True, options="-c search_path=absurd,public") as starting,
    ):
        dropping.execute("select drop_queue('default')")
        with ThreadPoolExecutor(1) as pool:
            start = pool.submit(starting.execute, "select register_worker('t', 'h', 1, '{default}', 1, '{}', '{}', 30)")
            until(lambda: queue.call("1 from pg_locks where clock_timestamp() - waitstart > '100 ms'") or start.done())
            dropping.commit()
            start.result(30)

    assert names(queue) == {"default"}


def test_what_has_ended_moves_out_and_the_queue_goes(queue: Queue) -> None:
    """Ended tasks move with their counts and dead letters, what moves on stays; the move is in their history."""
    before = ended(queue, "completed")
    tasks = {state: ended(queue, state, key=state) for state in ("completed", "failed", "cancelled")}
    waiting = queue.spawn()

    assert queue.call("move_ended('default', 'kept', %s)", tasks["completed"]) == 3

    for state, task in tasks.items():
        document = queue.document(task)
        assert (document["queue"], document["state"]) == ("kept", state)
        assert json.loads(document["history"][-1]["detail"]) == {"queue": {"old": "default", "new": "kept"}}
    assert {queue.document(each)["queue"] for each in (before, waiting)} == {"default"}
    assert recount.faults(queue.connection) == []
    counts = queue.connection.execute("select completed, failed, cancelled from get_queue_stats('kept')").fetchone()
    assert counts == (1, 1, 1)
    assert queue.call("q.name from dead_letter d join queue q on q.id = d.queue_id") == "kept"
    assert queue.call("count(*) from task_key") == 0

    queue.call("cancel_task(%s)", waiting)
    assert queue.call("move_ended('default', 'kept', %s)", before) == 2
    queue.call("unregister_worker(%s)", queue.worker)
    assert queue.call("drop_queue('default')") is True


def test_a_moved_task_that_is_retried_is_told_to_have_no_worker(queue: Queue) -> None:
    """It goes on in its new queue; `task why` and the status say that nobody serves that, and who would."""
    task = ended(queue, "failed")
    queue.call("move_ended('default', 'here', %s)", task)
    queue.call("retry_task(%s)", task)

    assert "absurd-worker --queue here" in [each["action"] for each in queue.call("get_status()")["problems"]]
    assert "No worker serves its queue here" in queue.call("task_why(%s)", task)
