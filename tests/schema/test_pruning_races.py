"""Pruning beside those who still need what is pruned, each transaction held open in turn."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sessions import Session
from sql_queue import Queue

Until = Callable[[Callable[[], object]], None]

SPAWN = "task_id from spawn_task('default', 'demo.add', '{}', %s)"
PRUNE = "prune_queue('default', 0)"


@pytest.fixture
def sessions(sessions: Callable[[], Session]) -> Callable[[], Session]:
    """Sessions that do not wait for a lock for ever."""

    def open_session() -> Session:
        session = sessions()
        session.connection.execute("set lock_timeout = '10s'")
        return session

    return open_session


def depends(parent: UUID, **options: Any) -> str:
    return json.dumps({"depends_on": [str(parent)], **options})


def completed(queue: Queue, **options: Any) -> UUID:
    task = queue.spawn(**options)
    lease, claimed, _ = queue.claim(1)
    assert claimed == [task]
    queue.complete(lease, task, result=7)
    return task


def test_a_parent_is_kept_for_a_child_that_is_being_spawned(queue: Queue, sessions: Callable[[], Session]) -> None:
    """Pruning passes by a task on which an open transaction has spawned a child; the child runs with its result."""
    parent = completed(queue)
    one, two = sessions(), sessions()
    one.begin()
    child = one.call(SPAWN, depends(parent))

    assert two.call(PRUNE) == 0
    one.commit()
    queue.call("sweep_late()")

    assert [queue.state(parent), queue.state(child)] == ["completed", "pending"]
    queue.counts()
    queue.complete(queue.claim()[0], child)
    assert queue.call(PRUNE) == 2


def test_a_child_of_a_parent_that_is_being_pruned_is_refused(
    queue: Queue, sessions: Callable[[], Session], until: Until
) -> None:
    """The spawn waits for the prune to end, and is then told that there is no such task."""
    parent = completed(queue)
    one, two, observer = sessions(), sessions(), sessions()
    one.begin()
    assert one.call(PRUNE) == 1
    two.call_later(SPAWN, depends(parent))
    until(lambda: two.waits(observer))
    one.commit()

    with pytest.raises(psycopg.Error, match="which is no task") as refusal:
        two.result()
    assert refusal.value.sqlstate == "AB008"
    assert queue.counts() == {}


def test_an_open_spawn_keeps_nobody_from_its_parent(queue: Queue, sessions: Callable[[], Session]) -> None:
    """Retries, edits and cancels of a parent do not wait for a transaction that has spawned a child and is idle."""
    parent = completed(queue)
    one, two = sessions(), sessions()
    one.begin()
    child = one.call(SPAWN, depends(parent))

    two.call("retry_task(%s)", parent)
    two.call("edit_task(%s, '{\"priority\": 3}')", parent)
    two.call("cancel_task(%s)", parent)
    one.commit()
    queue.call("sweep_late()")

    assert [queue.state(parent), queue.state(child)] == ["cancelled", "cancelled"]
    queue.counts()


def test_a_parent_is_kept_for_a_child_that_is_being_retried(queue: Queue, sessions: Callable[[], Session]) -> None:
    """Parent and child are old; the child is retried in an open transaction, and finds its parent's result."""
    parent = completed(queue)
    child = queue.spawn(depends_on=[str(parent)])
    queue.call("sweep_late()")
    queue.complete(queue.claim()[0], child)
    one, two = sessions(), sessions()
    one.begin()
    one.call("retry_task(%s)", child)

    assert two.call(PRUNE) == 0
    one.commit()

    assert [queue.state(parent), queue.state(child)] == ["completed", "pending"]
    assert queue.call(PRUNE) == 0


def test_a_spawn_that_holds_the_key_of_a_pruned_task_waits_in_no_circle(
    queue: Queue, sessions: Callable[[], Session]
) -> None:
    """A prune passes by a task whose key a spawn holds, so that neither waits for the other."""
    first, keyed = completed(queue), completed(queue, key="k", key_scope="unfinished")
    one, two = sessions(), sessions()
    one.begin()
    assert one.call(SPAWN, json.dumps({"key": "k", "key_scope": "unfinished"})) != keyed

    assert two.call(PRUNE) == 1
    one.commit()

    assert queue.state(first) is None
    assert queue.call(PRUNE) == 1
    queue.counts()
