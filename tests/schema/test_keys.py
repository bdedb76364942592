"""Idempotency keys: the first task under a key of a queue, for as long as the key counts."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sql_queue import Queue

from absurd.queue import new_task_id

Connection = psycopg.Connection[Any]


class Keyed(Queue):
    """The queue `default`, whose spawns tell whether they made a task."""

    def spawn_or_get(self, queue: str = "default", /, **options: Any) -> tuple[UUID, bool]:
        row = self.connection.execute(
            "select task_id, created from spawn_task(%s, 'demo.add', '{}', %s)", (queue, json.dumps(options))
        ).fetchone()
        assert row is not None
        return row[0], row[1]


@pytest.fixture
def queue(connection: Connection) -> Keyed:
    return Keyed(connection)


def test_a_key_means_the_first_task_of_its_queue(queue: Keyed) -> None:
    """The same key gives the first task, in each queue its own, and even after that has completed (B23)."""
    first, created = queue.spawn_or_get(key="k")
    assert created
    assert queue.spawn_or_get(key="k") == (first, False)
    elsewhere, created = queue.spawn_or_get("other", key="k")
    assert created
    assert elsewhere != first

    lease, _, _ = queue.claim()
    queue.complete(lease, first)
    assert queue.spawn_or_get(key="k") == (first, False)
    assert queue.state(elsewhere) == "pending"


def test_a_key_counts_for_its_period(queue: Keyed) -> None:
    """Once the period of the task that took it is over, the key makes a new task, whatever the first does (B24)."""
    first, _ = queue.spawn_or_get(key="k", key_period=3600)
    queue.move_clock("3599 seconds")
    assert queue.spawn_or_get(key="k", key_period=3600) == (first, False)
    queue.move_clock("3601 seconds")
    second, created = queue.spawn_or_get(key="k", key_period=3600)
    assert created
    assert second != first

    queue.move_clock("3602 seconds")  # the second one's period has only begun
    assert queue.spawn_or_get(key="k") == (second, False)


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
def test_a_key_of_unfinished_tasks_is_free_once_its_task_has_ended(queue: Keyed, state: str) -> None:
    """With scope `unfinished` the key holds while its task waits, sleeps or runs, and no longer (B24)."""
    first, _ = queue.spawn_or_get(key="k", key_scope="unfinished")
    assert queue.spawn_or_get(key="k", key_scope="unfinished") == (first, False)
    lease, _, _ = queue.claim()
    assert queue.spawn_or_get(key="k", key_scope="unfinished") == (first, False)
    queue.fail(lease, first, 60)
    assert queue.spawn_or_get(key="k", key_scope="unfinished") == (first, False)
    queue.connection.execute("update timer set wake_at = now()")
    queue.call("promote_timers()")
    lease, _, _ = queue.claim()
    queue.end(lease, first, state)

    second, created = queue.spawn_or_get(key="k", key_scope="unfinished")

    assert created
    assert second != first


def test_a_key_taken_for_ever_stays_taken(queue: Keyed) -> None:
    """It is the first spawn that says for how long its key counts; a later one cannot shorten it."""
    first, _ = queue.spawn_or_get(key="k")
    lease, _, _ = queue.claim()
    queue.complete(lease, first)
    queue.move_clock("80000 seconds")

    assert queue.spawn_or_get(key="k", key_period=1, key_scope="unfinished") == (first, False)


def test_one_call_with_the_same_key_twice_makes_one_task(queue: Keyed) -> None:
    """Within a bulk spawn the first of a key counts; its options are those of the task."""
    rows = queue.connection.execute(
        "select task_id, created from spawn_tasks(array[new_task_id(), new_task_id(), new_task_id()],"
        " array_fill('default'::text, array[3]), array_fill('demo.add'::text, array[3]),"
        " array_fill('{}'::jsonb, array[3]), %s::text[]::jsonb[]) order by ordinal",
        (['{"key": "k", "priority": 1}', '{"key": "k", "priority": 2}', '{"key": "l"}'],),
    ).fetchall()

    assert [created for _, created in rows] == [True, False, True]
    assert rows[0][0] == rows[1][0] != rows[2][0]
    assert queue.call("priority from task where id = %s", rows[0][0]) == 1


@pytest.mark.parametrize("options", [{}, {"key_period": 3600}, {"key_scope": "unfinished"}])
def test_many_sessions_with_one_key_make_one_task(queue: Keyed, database_url: str, options: dict[str, Any]) -> None:
    """Eight sessions spawn under the same keys at once, some of them free again: one task for each key (B25)."""
    if options:
        for n in range(20):  # used, and free again by the time it counts
            queue.spawn_or_get(key=f"k{n}", **options)
        lease, tasks, _ = queue.claim(20)
        queue.complete(lease, *tasks)
        queue.move_clock("3601 seconds")
    found: list[tuple[int, UUID, bool]] = []
    start = threading.Barrier(8)

    def spawn() -> None:
        with psycopg.connect(database_url, autocommit=True, options="-c search_path=absurd,public") as connection:
            mine = Keyed(connection)
            start.wait()
            found.extend((n, *mine.spawn_or_get(key=f"k{n}", **options)) for n in range(20))

    threads = [threading.Thread(target=spawn) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(found) == 160
    assert Counter(n for n, _, created in found if created) == dict.fromkeys(range(20), 1)
    assert len({task for _, task, _ in found}) == 20


def test_options_of_a_key_need_one(queue: Keyed) -> None:
    """A period or scope without a key, or an unknown scope, is refused by name."""
    for options in ({"key_period": 5}, {"key_scope": "ever"}, {"key": "k", "key_scope": "sometimes"}):
        with pytest.raises(psycopg.Error, match="key_"):
            queue.spawn_or_get(**options)


def test_a_retried_task_has_its_key_again(queue: Queue) -> None:
    """A key until the end, which another task had meanwhile: the one that is unfinished has it (B24)."""
    first = queue.spawn(key="k", key_scope="unfinished")
    lease, _, _ = queue.claim(1)
    queue.fail(lease, first, None)
    second = queue.spawn(key="k", key_scope="unfinished")
    assert second != first
    lease, _, _ = queue.claim(1)

    queue.call("retry_task(%s)", first)
    assert queue.spawn(key="k", key_scope="unfinished") == second, "it is not taken from one that has not ended"
    queue.complete(lease, second)
    queue.call("cancel_task(%s)", first)
    queue.call("retry_task(%s)", first)

    assert queue.spawn(key="k", key_scope="unfinished") == first


def test_one_call_may_name_a_task_as_parent_and_by_its_key(queue: Keyed) -> None:
    """Who has the key was there before the call, so that it stands before its children wherever the call names it."""
    first, _ = queue.spawn_or_get(key="k")
    child, other = sorted(new_task_id() for _ in range(2))
    made = queue.connection.execute(
        "select task_id from spawn_tasks(%s::uuid[], '{default,default}', '{x,x}', '{null,null}', %s::text[]::jsonb[])",
        ([child, other], [json.dumps({"depends_on": [str(first)]}), json.dumps({"key": "k"})]),
    ).fetchall()

    assert made == [(child,), (first,)]
    assert queue.state(child) == "blocked"


def test_a_key_of_a_run_that_is_about_to_wait_is_not_free(queue: Keyed) -> None:
    """A run may spawn under a key while in the same call its holder begins to wait: that one has not ended."""
    task, _ = queue.spawn_or_get(key="k", key_scope="unfinished")
    queue.call("cancel_task(%s)", task)
    queue.call("retry_task(%s)", task)  # so that it has ended once
    spawner = queue.spawn()
    child = new_task_id()
    lease, tasks, _ = queue.claim()
    assert set(tasks) == {task, spawner}
    spawn = {
        "task": str(spawner), "checkpoint": "c", "id": str(child), "queue": "default", "name": "demo.add",
        "params": "{}", "options": json.dumps({"key": "k"}),
    }  # fmt: skip
    awaits = [
        {"task": str(task), "on": [], "seconds": None},
        {"task": str(spawner), "on": [str(child)], "seconds": None},
    ]
    queue.call(
        "suspend_runs(array[%s::bigint, %s], %s::uuid[], array[0, 0], array[null::float8, null], array['t', 't'],"
        " array[null::text, null], %s, %s)",
        lease, lease, [task, spawner], json.dumps([spawn]), json.dumps(awaits),
    )  # fmt: skip

    assert queue.state(child) is None
    assert queue.connection.execute("select parent_id from edge").fetchall() == [(task,)]
