"""Ended tasks leave when they are older than their queue keeps them."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from sql_queue import Queue

TABLES = ("task", "run", "edge", "node", "workflow", "task_key", "checkpoint", "progress", "audit", "deadline", "log")


def prune(queue: Queue, limit: int = 1000) -> int:
    """All rounds that the time which has passed asks for."""
    pruned = 0
    for _ in range(60):
        pruned += queue.call("prune_ended(%s)", limit)
    return pruned


def ended(queue: Queue, state: str = "completed", **options: Any) -> UUID:
    task = queue.spawn(**options)
    lease, _, _ = queue.claim(1)
    queue.end(lease, task, state)
    return task


def test_old_ends_leave_and_nothing_else(queue: Queue) -> None:
    """Only what ended longer ago than the retention goes, with all its rows; never what waits or runs (B105)."""
    ended(queue, key="k")
    ended(queue, "cancelled", key="c")
    waits = queue.spawn()
    runs, _, _ = queue.claim(1)
    sleeps = queue.spawn(delay=86400 * 365)
    queue.call("set_queue_retention('default', 86400)")
    new = queue.spawn(key="new")
    assert prune(queue) == 0

    queue.move_clock("5 days")

    assert prune(queue) == 2
    assert queue.counts() == {"pending": 1, "running": 1, "sleeping": 1}
    assert {queue.state(each) for each in (waits, sleeps, new)} == {"running", "sleeping", "pending"}
    left = {table: queue.call(f"count(*) from {table}") for table in TABLES}
    assert left == dict.fromkeys(TABLES, 0) | {"task": 3, "task_key": 1}
    assert runs


def test_a_batch_is_bounded(queue: Queue) -> None:
    """A round looks at no more ends than it is told to; later rounds go on from its mark (B105)."""
    for _ in range(7):
        ended(queue)
    queue.call("set_queue_retention('default', 86400)")
    queue.move_clock("5 days")
    rounds = [queue.call("prune_ended(2)") for _ in range(60)]

    assert max(rounds) <= 2
    assert sum(rounds) == 7


def test_a_key_is_free_once_its_task_is_removed(queue: Queue) -> None:
    """The key of a removed task spawns a new one (B24)."""
    first = ended(queue, key="k")
    assert queue.spawn(key="k") == first

    queue.call("prune_queue('default', 0)")

    assert queue.spawn(key="k") != first


def test_a_retried_task_is_kept(queue: Queue) -> None:
    """Its old end counts no more, neither while it waits nor after it has ended anew (B46)."""
    task = ended(queue)
    queue.call("set_queue_retention('default', 86400)")
    queue.move_clock("5 days")
    queue.call("retry_task(%s)", task)
    assert prune(queue) == 0
    lease, _, _ = queue.claim(1)
    queue.complete(lease, task)
    assert prune(queue) == 0
    assert queue.counts() == {"completed": 1}

    queue.move_clock("10 days")
    assert prune(queue) == 1


def test_parents_stay_for_their_children(queue: Queue) -> None:
    """An ended parent is kept while a child has not ended, and goes with it."""
    parent = ended(queue)
    child = queue.spawn(depends_on=[str(parent)], delay=86400 * 7)
    queue.call("sweep_late()")
    queue.call("set_queue_retention('default', 86400)")
    queue.move_clock("5 days")
    assert prune(queue) == 0

    queue.call("cancel_task(%s)", child)
    queue.move_clock("10 days")
    assert prune(queue) == 2


def test_parents_stay_as_long_as_a_child_can_be_retried(queue: Queue) -> None:
    """A child that ended lately may be retried, and then reads the results of its old parents."""
    parent = ended(queue)
    child = queue.spawn(depends_on=[str(parent)])
    queue.call("sweep_late()")
    lease, _, _ = queue.claim()
    queue.call("set_queue_retention('default', 3 * 86400)")
    queue.move_clock("5 days")
    queue.end(lease, child, "failed")

    assert prune(queue) == 0

    queue.call("retry_task(%s)", child)
    assert {"completed", "pending"} == {queue.state(parent), queue.state(child)}
    lease, _, _ = queue.claim()
    queue.complete(lease, child)
    queue.move_clock("10 days")
    assert prune(queue) == 2


def test_a_dead_letter_stays(queue: Queue) -> None:
    """The task goes, its dead letter and what people did to it stay until they are purged."""
    task = queue.spawn()
    lease, _, _ = queue.claim(1)
    queue.fail(lease, task, None)
    queue.connection.execute("select requeue_dead_letters()")
    lease, _, _ = queue.claim(1)
    queue.fail(lease, task, None)

    assert queue.call("prune_queue('default', 0, 1000, true)") == 1
    assert queue.call("prune_queue('default', 0)") == 1

    assert queue.call("count_dead_letters()") == 1
    assert queue.call("count(*) from audit") == 1
    queue.call("purge_dead_letters()")
    assert queue.call("count(*) from audit") == 0


def test_what_was_kept_is_looked_at_again(queue: Queue) -> None:
    """A file on its way, a child in a queue without a retention, an end that was committed late: all go in the end."""
    with_file = queue.spawn()
    lease, _, _ = queue.claim(1)
    file = [{"task": str(with_file), "path": "a", "attempt_path": "b", "kind": "text"}]
    queue.call(
        "complete_runs(array[%s::bigint], array[%s::uuid], '{0}', '{1}', %s)", lease, with_file, json.dumps(file)
    )
    parent = ended(queue)
    child = queue.call(
        "task_id from spawn_task('other', 'demo.add', '{}', %s)", json.dumps({"depends_on": [str(parent)]})
    )
    queue.call("sweep_late()")
    late = queue.spawn()
    queue.call("set_queue_retention('default', 86400)")
    queue.move_clock("5 days")
    assert prune(queue) == 0

    queue.call("mark_published(%s, 'a', 'b')", with_file)
    queue.call("cancel_task(%s)", child)
    lease, _, _ = queue.claim(1)
    queue.complete(lease, late)
    queue.connection.execute("update run set finished_at = finished_at - interval '4 days' where task_id = %s", (late,))
    queue.move_clock("10 days")

    assert prune(queue) == 3
    assert [queue.state(each) for each in (with_file, parent, late, child)] == [None, None, None, "cancelled"]


def test_the_second_look_goes_round(queue: Queue) -> None:
    """It passes by what is kept, reads no more than it may, and begins anew when it has come to the end (B105)."""
    for _ in range(5):
        queue.spawn(delay=86400 * 365)
    again = queue.spawn()
    lease, _, _ = queue.claim(1)
    tasks = [ended(queue) for _ in range(3)]
    queue.call("set_queue_retention('default', 86400)")
    queue.move_clock("5 days")
    queue.connection.execute("insert into pruning (queue_id, up_to) select id, clock_time() from queue")  # all passed
    rounds = [queue.call("prune_ended(2)") for _ in range(12)]

    assert sum(rounds) == 0, "the mark stands ahead of what is to be kept"
    queue.move_clock("10 days")
    rounds = [queue.call("prune_ended(2)") for _ in range(12)]
    assert max(rounds) <= 2
    assert sum(rounds) == 3
    assert {queue.state(each) for each in tasks} == {None}
    queue.complete(lease, again)
    queue.connection.execute("update run set finished_at = finished_at - interval '4 days'")
    assert sum(queue.call("prune_ended(2)") for _ in range(12)) == 1
