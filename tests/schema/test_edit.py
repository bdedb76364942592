"""Edits of tasks before the claim, and finding tasks."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sql_queue import Queue


def edit(queue: Queue, task: UUID, **changes: Any) -> Any:
    return queue.call("edit_task(%s, %s)", task, json.dumps(changes))


def test_a_pending_task_is_edited(queue: Queue) -> None:
    """A higher priority is claimed first; old and new params and priority stand in the history."""
    queue.spawn()
    task = queue.spawn({"a": 1, "b": 2})

    edit(queue, task, priority=7, set={"a": 5})

    document = queue.document(task)
    assert json.loads(document["history"][0]["detail"]) == {
        "priority": {"old": 0, "new": 7},
        "params": {"old": {"a": 1}, "new": {"a": 5}},
    }
    assert document["params"] == {"a": 5, "b": 2}
    assert queue.claim(1)[1] == [task]


def test_time_moves_between_pending_and_sleeping(queue: Queue) -> None:
    """A pending task can be put off, a sleeping one be called at once; the counts follow."""
    task = queue.spawn()
    edit(queue, task, delay=60)
    assert queue.counts() == {"sleeping": 1}
    edit(queue, task, delay=0)
    assert queue.counts() == {"pending": 1}
    assert queue.claim()[1] == [task]


def test_a_blocked_task_keeps_its_edit(queue: Queue) -> None:
    """Priority and time of a blocked task count once its parents have ended."""
    parent = queue.spawn()
    child = queue.spawn(depends_on=[str(parent)])
    queue.call("sweep_late()")
    edit(queue, child, priority=3, delay=60)

    lease, _, _ = queue.claim()
    queue.complete(lease, parent)

    assert queue.counts() == {"completed": 1, "sleeping": 1}
    assert queue.connection.execute("select level from timer").fetchone() == (6,)


@pytest.mark.parametrize("state", ["running", "completed"])
def test_what_was_claimed_cannot_be_edited(queue: Queue, state: str) -> None:
    """A running or ended task is refused with its state, and nothing changes."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    if state == "completed":
        queue.complete(lease, task)

    with pytest.raises(psycopg.Error, match=f"is {state}") as caught:
        edit(queue, task, priority=3)

    assert caught.value.sqlstate == "AB004"
    assert queue.document(task)["history"] == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"colour": 1}, "AB001"), ({"delay": -1}, "AB001"), ({"priority": 99999}, "AB001"), ({"set": {"a.b": 1}}, "AB001"),
     ({"set": {"big": "x" * 1_100_000}}, "AB009")],
    ids=["unknown", "negative", "range", "path", "large"],
)  # fmt: skip
def test_a_bad_edit_is_refused(queue: Queue, changes: dict[str, Any], code: str) -> None:
    """Unknown names, bad values, paths that lead nowhere and oversized params change nothing."""
    task = queue.spawn({"a": "text"})

    with pytest.raises(psycopg.Error) as caught:
        edit(queue, task, **changes)

    assert caught.value.sqlstate == code
    assert queue.document(task)["params"] == {"a": "text"}


def test_respawn_makes_a_fresh_task(queue: Queue) -> None:
    """The fresh task has the body of the old one, which stays as it ended (B45)."""
    task = queue.spawn({"a": 1}, priority=4, key="k")
    with pytest.raises(psycopg.Error, match="is pending"):
        queue.call("respawn_task(%s)", task)
    lease, _, _ = queue.claim()
    queue.complete(lease, task)

    fresh = queue.call("respawn_task(%s)", task)

    assert queue.counts() == {"pending": 1, "completed": 1}
    document = queue.document(fresh)
    assert (document["params"], document["priority"], document["key"]) == ({"a": 1}, 4, None)


def listed(queue: Queue, **filters: Any) -> list[UUID]:
    names = ", ".join(f"p_{name} => %s" for name in filters)
    return [UUID(row[0]["id"]) for row in queue.connection.execute(f"select list_tasks({names})", [*filters.values()])]


def test_tasks_are_found_by_param_and_time(queue: Queue) -> None:
    """Several params must all be equal; created since and until bound the time (B110)."""
    one = queue.spawn({"band": "g", "deep": {"n": 1}})
    two = queue.spawn({"band": "g", "deep": {"n": 2}})

    assert listed(queue, params='{"band": "g"}') == [two, one]
    assert listed(queue, params='{"band": "g", "deep.n": 1}') == [one]
    assert listed(queue, params='{"deep.n": "1"}') == []
    created = queue.document(two)["created_at"]
    assert listed(queue, since=created) == [two]
    assert listed(queue, until=created) == [one]


def test_attempts_are_counted_alike_in_lists_and_documents(queue: Queue) -> None:
    """The attempt that runs counts from its start."""
    task = queue.spawn()

    def told() -> list[int]:
        (row,) = queue.connection.execute("select list_tasks()").fetchall()
        return [row[0]["attempts"], queue.document(task)["attempts"]]

    assert told() == [0, 0]
    lease, _, _ = queue.claim()
    assert told() == [1, 1]
    queue.fail(lease, task, 0)
    assert told() == [1, 1]
    queue.claim()
    assert told() == [2, 2]


@pytest.mark.parametrize("state", ["pending", "failed", "completed", "cancelled"])
def test_pages_are_stable_while_tasks_come_and_go(queue: Queue, state: str) -> None:
    """What stays in the state is listed exactly once over all pages, whatever comes and goes meanwhile (B110)."""

    def make() -> UUID:
        task = queue.spawn()
        if state == "cancelled":
            queue.call("cancel_task(%s)", task)
        elif state != "pending":
            lease, _, _ = queue.claim(1)
            queue.end(lease, task, state)
        return task

    stay = [make() for _ in range(9)]
    goes = make()
    pages = [listed(queue, state=state, limit=3)]
    make()
    queue.connection.execute("select cancel_task(%s)" if state == "pending" else "select retry_task(%s)", [goes])
    while pages[-1]:
        pages.append(listed(queue, state=state, limit=3, after=pages[-1][-1]))
    seen = [task for page in pages for task in page]

    assert [task for task in seen if task in stay] == sorted(stay, reverse=True)
    assert len(seen) == len(set(seen))
