"""The clock of the database is set back by days: what is known does not depend on it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sql_queue import Queue


def clock(queue: Queue, days: float) -> None:
    """Have the database's clock go wrong by so many days."""
    queue.move_clock(f"{days} days")
    queue.connection.execute("update worker set last_seen = clock_time()")


def spawn(queue: Queue, **options: Any) -> UUID:
    """As by a client whose clock shows the same as the database's."""
    floor = str(queue.call("_id_floor(clock_time())"))
    return queue.spawn(id=floor[:24] + str(queue.call("new_task_id()"))[24:], **options)


@pytest.mark.parametrize("days_later", [0, 29, 31, 60])
def test_what_ended_after_the_clock_was_set_back_has_ended(queue: Queue, days_later: int) -> None:
    """Its id lies far ahead of its end, and it reads as ended all the same, then and later."""
    clock(queue, 30)
    parent, failed, waits = spawn(queue), spawn(queue), spawn(queue)
    clock(queue, 0)
    for task, state in ((parent, "completed"), (failed, "failed")):
        lease, claimed, _ = queue.claim(1)
        assert claimed == [task]
        queue.complete(lease, task, result=7) if state == "completed" else queue.fail(lease, task, None)
    lease, _, _ = queue.claim(1)
    queue.call("suspend_runs(array[%s::bigint], array[%s::uuid], '{0}', '{60}', '{nap}', '{null}')", lease, waits)

    clock(queue, days_later)

    assert [queue.state(each) for each in (parent, failed, waits)] == ["completed", "failed", "sleeping"]
    assert queue.call("(select result from get_results(array[%s::uuid]))", parent) == 7
    assert queue.document(parent)["result"] == 7
    child, after = spawn(queue, depends_on=[str(parent)]), spawn(queue, depends_on=[str(failed)])
    queue.call("sweep_late()")
    assert [queue.state(each) for each in (child, after)] == ["pending", "cancelled"]
    assert queue.counts() == {"completed": 1, "failed": 1, "sleeping": 1, "pending": 1, "cancelled": 1}
    queue.call("cancel_task(%s)", child)

    queue.call("retry_task(%s)", failed)
    queue.call("sweep_late()")
    lease, claimed, attempts = queue.claim(1)
    assert (claimed, attempts) == ([failed], [2]), "the number of an attempt is not used again"
    queue.complete(lease, failed)
    assert [queue.state(each) for each in (failed, after)] == ["completed", "pending"]
    queue.counts()


def test_a_child_whose_parents_end_was_lost_holds_up_no_other(queue: Queue) -> None:
    """Of parents whose history was dropped by hand nothing more will come: their children end, the others go on."""
    gone = queue.spawn()
    lease, _, _ = queue.claim(1)
    queue.complete(lease, gone)
    good = queue.spawn()
    lease, _, _ = queue.claim(1)
    queue.complete(lease, good)
    orphans = [queue.spawn(depends_on=[str(gone)]) for _ in range(5)]
    child = queue.spawn(depends_on=[str(good)])
    queue.connection.execute("delete from run where task_id = %s", (gone,))

    for _ in range(4):
        queue.call("sweep_late(2)")

    assert {queue.state(each) for each in orphans} == {"cancelled"}
    assert queue.state(child) == "pending"


def test_the_last_of_two_ends_counts_though_the_clock_was_set_back_between_them(queue: Queue) -> None:
    """A child that was cancelled as upstream and then by request stays cancelled when its parent is retried."""
    parent = queue.spawn()
    child = queue.spawn(depends_on=[str(parent)])
    for hours in (0, -2):
        clock(queue, hours / 24)
        queue.call("sweep_late()")
        if hours:
            queue.call("cancel_task(%s)", child)
        lease, claimed, _ = queue.claim(1)
        assert claimed == [parent]
        queue.fail(lease, parent, None)
        assert queue.state(child) == "cancelled"
        queue.call("retry_task(%s)", parent)

        assert queue.state(child) == ("cancelled" if hours else "blocked")
    assert queue.document(child)["reason"] == "by request"
