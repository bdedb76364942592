"""Dead letters: what they keep, how they are found, and how they come back."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sql_queue import Queue


def kill(queue: Queue, params: Any = None, **options: Any) -> UUID:
    """A task that has failed for good."""
    task = queue.spawn(params, **options)
    lease, _, _ = queue.claim()
    queue.fail(lease, task, None)
    return task


def rows(queue: Queue, sql: str, *args: Any) -> list[Any]:
    return [row[0] for row in queue.connection.execute(f"select * from {sql}", args).fetchall()]


def requeue(queue: Queue, filters: Any = None, **more: Any) -> list[Any]:
    names = ", ".join(f"p_{name} => %s" for name in more)
    values = [json.dumps(each) if isinstance(each, dict) else each for each in more.values()]
    head = f"requeue_dead_letters(%s{', ' if names else ''}{names})"
    return rows(queue, head, None if filters is None else json.dumps(filters), *values)


def test_a_dead_letter_tells_all(queue: Queue) -> None:
    """It keeps payload, source queue, id, creation time, attempts, host and all runs (B42)."""
    task = kill(queue, {"a": 1}, tags=["night"], key="k")

    letter = queue.call("get_dead_letter(%s)", task)

    assert (letter["id"], letter["queue"], letter["name"], letter["attempts"]) == (str(task), "default", "demo.add", 1)
    assert (letter["params"], letter["tags"], letter["key"], letter["host"]) == ({"a": 1}, ["night"], "k", "here")
    assert letter["created_at"] == queue.document(task)["created_at"]
    assert [run["state"] for run in letter["runs"]] == ["failed"]
    assert letter["kept"] is True


def test_filters_choose(queue: Queue) -> None:
    """Queue, name, fingerprint, code, time, ids and text choose; an unknown filter is refused."""
    one, two = kill(queue, {"band": "g"}), kill(queue, {"band": "r"})
    print_ = queue.call("get_dead_letter(%s)", one)["fingerprint"]
    chosen = [
        ({"queue": "default", "name": "demo.add", "fingerprint": print_, "code": "boom"}, {one, two}),
        ({"text": '"BAND": "R"'}, {two}),
        ({"ids": [str(one)]}, {one}),
        ({"since": "2999-01-01T00:00:00Z"}, set()),
        ({"until": "2999-01-01T00:00:00Z", "text": "broke"}, {one, two}),
        ({"name": "demo.other"}, set()),
    ]
    for filters, expected in chosen:
        found = rows(queue, "list_dead_letters(%s)", json.dumps(filters))
        assert {UUID(each["id"]) for each in found} == expected, filters
    with pytest.raises(psycopg.Error, match="unknown filter colour"):
        rows(queue, "list_dead_letters(%s)", '{"colour": "red"}')


def test_groups_are_those_of_fingerprints(queue: Queue) -> None:
    """Failures that look alike are one group with its count and newest sample."""
    _, newest = kill(queue), kill(queue)

    (group,) = rows(queue, "group_dead_letters()")

    assert (group["count"], group["sample"], group["code"]) == (2, str(newest), "boom")


def test_a_requeued_task_has_a_new_round_of_attempts(queue: Queue) -> None:
    """Attempts count on, and as many again are allowed; each requeue adds one round, as long as the first."""
    task = kill(queue, max_attempts=3)

    for before in (1, 2):
        (told,) = requeue(queue)
        assert told["requeued"] is True
        assert queue.document(task)["max_attempts"] == before + 3
        assert queue.counts() == {"pending": 1}
        lease, tasks, attempts = queue.claim()
        assert (tasks, attempts) == ([task], [before + 1])
        queue.fail(lease, task, None)
        assert queue.counts() == {"failed": 1}


def test_requeue_edits_params(queue: Queue) -> None:
    """A merge patch and values at paths change the params; the audit holds old and new."""
    task = kill(queue, {"keep": 1, "gone": 2, "deep": {"a": [1, 2]}})

    requeue(queue, params={"gone": None, "new": "x"}, set={"deep.a.0": 9, "made.up": True})

    document = queue.document(task)
    assert document["params"] == {"keep": 1, "new": "x", "deep": {"a": [9, 2]}, "made": {"up": True}}
    change = json.loads(document["history"][-1]["detail"])["params"]
    assert change["old"] == {"gone": 2, "deep": {"a": [1, 2]}}
    assert change["new"] == {"new": "x", "deep": {"a": [9, 2]}, "made": {"up": True}}


def test_requeue_is_spread_over_time(queue: Queue) -> None:
    """With a rate the first is due at once, the others one after another."""
    for _ in range(3):
        kill(queue)

    requeue(queue, rate=0.5)

    assert queue.counts() == {"pending": 1, "sleeping": 2}
    gaps = queue.connection.execute(
        "select extract(epoch from max(wake_at) - min(wake_at))::integer from timer"
    ).fetchone()
    assert gaps == (2,)


def test_requeue_keeps_to_filter_and_limit_and_dry_run(queue: Queue) -> None:
    """Each goes back to its own queue; a dry run changes nothing; the limit holds, and calls go on (B44)."""
    tasks = [kill(queue) for _ in range(3)]
    queue.call("create_queue('other')")

    assert len(requeue(queue, dry_run=True)) == 3
    assert queue.counts() == {"failed": 3}
    assert requeue(queue, {"queue": "other"}) == []
    first = requeue(queue, limit=2)
    assert [each["id"] for each in first] == [str(each) for each in tasks[:2]]
    assert [each["queue"] for each in requeue(queue, after=first[-1]["id"])] == ["default"]
    assert queue.counts() == {"pending": 3}


def test_one_that_conflicts_does_not_keep_the_others(queue: Queue) -> None:
    """A dead letter whose key another task holds by now stays, with the reason; the rest goes back (B44)."""
    bound = kill(queue, key="k", key_scope="unfinished")
    free = kill(queue)
    queue.spawn(key="k", key_scope="unfinished")

    told = {each["id"]: each for each in requeue(queue)}

    assert told[str(free)]["requeued"] and not told[str(bound)]["requeued"]
    assert "its key is held" in told[str(bound)]["reason"]
    assert queue.counts() == {"pending": 2, "failed": 1}


def test_descendants_wait_again(queue: Queue) -> None:
    """What ended as upstream because of the dead letter is blocked again and runs after it."""
    parent = queue.spawn()
    child = queue.spawn(depends_on=[str(parent)])
    queue.call("sweep_late()")
    lease, _, _ = queue.claim()
    queue.fail(lease, parent, None)
    assert queue.state(child) == "cancelled"

    requeue(queue)
    queue.call("sweep_late()")

    assert queue.counts() == {"pending": 1, "blocked": 1}
    lease, _, _ = queue.claim()
    queue.complete(lease, parent)
    assert queue.state(child) == "pending"


def test_a_dead_letter_outlives_its_task(queue: Queue) -> None:
    """A task that was removed is made again from the copy: same id, attempts counted on, history kept."""
    task = kill(queue, {"a": 1}, tags=["t"])
    assert queue.call("prune_queue('default', 0)") == 1
    assert queue.state(task) is None
    assert queue.call("get_dead_letter(%s)", task)["kept"] is False
    assert queue.counts() == {}

    requeue(queue)

    assert queue.counts() == {"pending": 1}
    document = queue.document(task)
    assert (document["params"], document["tags"]) == ({"a": 1}, ["t"])
    assert queue.claim()[2] == [2]


def test_purged_dead_letters_are_gone(queue: Queue) -> None:
    """A dry run counts, a purge forgets, the task stays failed."""
    task = kill(queue)
    assert queue.call("purge_dead_letters(null, true)") == 1
    assert queue.call("purge_dead_letters()") == 1

    assert queue.call("get_dead_letter(%s)", task) is None
    assert queue.state(task) == "failed"


def test_no_dead_letter_where_they_are_switched_off(queue: Queue) -> None:
    """With p_dead_letters false (ABSURD_DLQ_ENABLED=false) the task fails all the same, without a dead letter."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    queue.call(
        "fail_runs(%s::bigint[], %s, '{0}', array['{}'], array[null]::double precision[], false)", [lease], [task]
    )

    assert queue.state(task) == "failed"
    assert queue.call("count_dead_letters()") == 0


def test_a_dead_letter_is_written_once(queue: Queue) -> None:
    """Also when the last run was lost with its worker (B43)."""
    task = queue.spawn(max_attempts=1)
    queue.claim()
    queue.connection.execute("update worker set last_seen = last_seen - interval '1 hour'")
    queue.call("recover_runs()")
    queue.call("recover_runs()")

    assert queue.state(task) == "failed"
    assert queue.call("count_dead_letters()") == 1


def test_status_counts_no_more_dead_letters_than_tell_enough(queue: Queue) -> None:
    """Above ten thousand of a queue the status says so and estimates the whole instead of reading it."""
    queue.call("create_queue('default')")
    assert queue.call("get_status()")["dead_letters"] == 0
    queue.connection.execute(
        "insert into dead_letter (task_id, died_at, queue_id, executor_id, attempts, fingerprint, body, runs)"
        " select new_task_id(), clock_timestamp(), (select id from queue), 1, 5, 'a', '{}', '[]'"
        " from generate_series(1, 12000)"
    )
    queue.connection.execute("analyze dead_letter")

    status = queue.call("get_status()")

    assert status["dead_letters"] == 12_000
    assert [each["message"] for each in status["problems"]] == [
        "more than 10000 tasks of queue default failed for good"
    ]
