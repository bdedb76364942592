"""What becomes of a time due while the task before has not ended (B99), and of a schedule that is triggered by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from schedules import demo_schedule
from sql_queue import Queue

from absurd.testing import FakeClock

Connection = psycopg.Connection[tuple[Any, ...]]
Fire = Callable[[], dict[str, Any]]


@pytest.fixture
def queue(connection: Connection, clock: FakeClock) -> Queue:
    return Queue(connection)


@pytest.fixture
def fire(connection: Connection, clock: FakeClock) -> Fire:
    """Fire the schedule ``s`` at the next minute; gives the tick."""

    def one() -> dict[str, Any]:
        due = clock.advance(timedelta(minutes=1))
        connection.execute(
            "select fire_schedule(id, version, array[%s], '{null}', '{1}', %s, 'infinity') from schedule", [due, due]
        )
        (tick,) = connection.execute("select list_ticks('s', null, 1)").fetchone() or ({},)
        assert datetime.fromisoformat(tick["due_at"]) == due
        return dict(tick)

    return one


def test_allow_lets_tasks_run_beside_one_another(connection: Connection, queue: Queue, fire: Fire) -> None:
    """Each time due spawns, whatever goes on."""
    demo_schedule(connection, "s", "* * * * *")

    assert all(fire()["task_id"] for _ in range(3))
    assert queue.counts() == {"pending": 3}


def test_skip_waits_for_the_end(connection: Connection, queue: Queue, fire: Fire) -> None:
    """While its task is pending, running or retried none is spawned, and the tick says which it is."""
    demo_schedule(connection, "s", "* * * * *", overlap="skip")
    first = fire()["task_id"]
    assert fire()["skipped"] == "overlap"
    lease, _, _ = queue.claim()
    tick = fire()
    assert (tick["skipped"], tick["detail"]) == ("overlap", f"task {first} has not ended")
    queue.fail(lease, UUID(first), 1.0)
    assert fire()["skipped"] == "overlap"

    queue.call("cancel_task(%s)", first)
    assert fire()["task_id"]


def test_queue_puts_one_behind_the_other(connection: Connection, queue: Queue, fire: Fire) -> None:
    """The next waits for the end of the task before, however that ends; a third is skipped."""
    demo_schedule(connection, "s", "* * * * *", overlap="queue")
    first, second = fire()["task_id"], fire()["task_id"]
    assert fire()["skipped"] == "overlap"
    assert (queue.state(first), queue.state(second)) == ("pending", "blocked")

    queue.call("cancel_task(%s)", first)
    queue.call("sweep_late()")
    assert queue.state(second) == "pending"
    third = fire()["task_id"]
    assert queue.state(third) == "blocked"


def test_cancel_ends_the_task_before(connection: Connection, queue: Queue, fire: Fire) -> None:
    """What runs is cancelled with the reason, in the transaction that spawns the next."""
    demo_schedule(connection, "s", "* * * * *", overlap="cancel")
    first = fire()["task_id"]
    queue.claim()
    second = fire()["task_id"]

    assert (queue.state(first), queue.state(second)) == ("cancelled", "pending")
    assert "schedule s is due again" in str(queue.call("get_task(%s)", first))


def test_triggered_by_hand(connection: Connection, queue: Queue, fire: Fire) -> None:
    """Its task comes now, also of a paused one; its policy holds unless another is named; what is due stays due."""
    demo_schedule(connection, "s", "* * * * *", overlap="skip", paused=True)
    first = queue.call("trigger_schedule('s')")
    assert (first["by_hand"], bool(first["task_id"])) == (True, True)
    assert queue.call("trigger_schedule('s')")["skipped"] == "overlap"
    assert queue.call("trigger_schedule('s', 'allow')")["task_id"]
    with pytest.raises(psycopg.Error, match="must be allow, skip, queue or cancel"):
        queue.call("trigger_schedule('s', 'never')")
    with pytest.raises(psycopg.Error, match="no schedule called 'other'"):
        queue.call("trigger_schedule('other')")

    queue.call("set_schedule_paused('s', false)")
    demo_schedule(connection, "s", "* * * * *", overlap="allow")
    assert fire()["task_id"]
    assert queue.call("count(*) from tick where by_hand") == 3


def test_a_key_that_a_task_has_is_told(connection: Connection, queue: Queue, fire: Fire) -> None:
    """Nothing comes of a time due whose task would be one there is, and its tick does not pretend that it did."""
    demo_schedule(connection, "s", "* * * * *", options={"key": "night"})
    first = fire()["task_id"]
    tick = fire()

    assert (tick["task_id"], tick["skipped"], tick["detail"]) == (None, "overlap", f"task {first} has the same key")
    assert queue.counts() == {"pending": 1}
