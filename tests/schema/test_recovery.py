"""Runs lost with their worker, tasks that kill their process, amended retries and deadlines, by plain calls."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sql_queue import Queue


def lose(queue: Queue, **changes: Any) -> int:
    """The queue's worker is given up, and another takes its place."""
    for column, value in changes.items():
        queue.connection.execute(f"update worker set {column} = %s where id = %s", (value, queue.worker))
    recovered = queue.call("give_up_worker(%s)", queue.worker)
    queue.worker = queue.new_worker()
    return int(recovered)


def places(queue: Queue) -> dict[UUID, tuple[int, bool]]:
    rows = queue.connection.execute("select task_id, attempt, suspect from ready").fetchall()
    return {task: (attempt, suspect) for task, attempt, suspect in rows}


def die(queue: Queue, lease: int, task: UUID, delay: float | None = 0, **cause: Any) -> Any:
    """The process of a run dies."""
    error = {"code": "child_died", "type": "ChildDiedError", "message": "it died"} | cause
    return queue.call(
        "fail_runs(%s::bigint[], %s, array[0], array[%s], array[%s::double precision])",
        [lease],
        [task],
        json.dumps(error),
        delay,
    )


def amend(queue: Queue, task: UUID, lease: int, /, **changes: Any) -> None:
    error = json.dumps({"code": "boom", "type": "Boom", "message": "it broke"})
    stale = queue.call(
        "fail_runs(%s::bigint[], %s, array[0], array[%s], array[0::double precision], true, %s)",
        [lease],
        [task],
        error,
        json.dumps([changes]),
    )
    assert stale is None


# Lost runs ---------------------------------------------------------------------------------------


def test_in_doubt_a_lost_run_spends_no_attempt(queue: Queue) -> None:
    """Of a lost batch only what the worker said it had started spends an attempt; all come back as suspects (B4)."""
    tasks = [queue.spawn() for _ in range(5)]
    later = queue.spawn()
    _, claimed, _ = queue.claim(5)
    assert claimed == tasks

    assert lose(queue, started=[tasks[1]]) == 5

    assert places(queue) == {task: (2 if task == tasks[1] else 1, True) for task in tasks} | {later: (1, False)}
    assert queue.counts() == {"pending": 6}
    assert queue.document(tasks[0])["attempts"] == 0
    assert queue.document(tasks[1])["attempts"] == 1
    assert queue.claim(6)[1] == [*tasks, later], "ahead of their priority"


def test_alone_in_its_lease_a_lost_run_spends_its_attempt(queue: Queue) -> None:
    """It had certainly started: nothing else was claimed with it (B11, B58)."""
    task = queue.spawn()
    queue.claim()
    lose(queue)

    assert places(queue) == {task: (2, True)}


def test_the_last_of_a_batch_is_in_doubt(queue: Queue) -> None:
    """Alone because the others were reported, it may not have started: it spends no attempt, the first time (B4)."""
    tasks = [queue.spawn() for _ in range(3)]
    lease, _, _ = queue.claim(3)
    queue.complete(lease, tasks[0])
    queue.complete(lease, tasks[2])
    lose(queue)
    assert places(queue) == {tasks[1]: (1, True)}

    queue.spawn()
    lease, claimed, _ = queue.claim(2)
    queue.complete(lease, claimed[1])
    lose(queue)
    assert places(queue) == {tasks[1]: (2, True)}

    queue.spawn()
    lease, claimed, _ = queue.claim(2)
    queue.complete(lease, claimed[1])
    lose(queue, started=[tasks[1]])
    assert places(queue) == {tasks[1]: (3, True)}


def test_a_suspect_spends_an_attempt_each_time_it_is_lost(queue: Queue) -> None:
    """So that none can be lost for ever; neighbours that end meanwhile are cleared (B60)."""
    poison, innocent = queue.spawn(max_attempts=2), queue.spawn()
    for expected in (1, 2):
        lease, _, _ = queue.claim()
        lose(queue)
        assert places(queue)[poison] == (expected, True)
        lease, _, _ = queue.claim()
        if expected == 1:
            queue.complete(lease, innocent)
            queue.call("return_runs(%s::bigint[], %s, array[null::integer])", [lease], [poison])
            assert places(queue)[poison] == (1, True), "handed back, it is a suspect still"
    lose(queue)

    assert queue.state(poison) == "failed"
    assert queue.document(poison)["error"]["code"] == "worker_lost"
    assert queue.call("count(*) from dead_letter where task_id = %s", poison) == 1
    assert queue.counts() == {"failed": 1, "completed": 1}


def test_a_handed_back_run_is_no_suspect(queue: Queue) -> None:
    """A worker that leaves in good order casts no suspicion, and no attempt is spent (B57)."""
    task = queue.spawn()
    queue.claim()
    queue.call("unregister_worker(%s)", queue.worker)

    assert places(queue) == {task: (1, False)}


@pytest.mark.parametrize("kept", [True, False])
def test_lost_runs_obey_their_workers_settings(queue: Queue, kept: bool) -> None:
    """Attempts where nobody names them, and whether dead letters are kept (B43)."""
    task = queue.spawn()
    queue.claim()
    lose(queue, defaults=json.dumps({"max_attempts": 1, "dead_letters": kept}))

    assert queue.state(task) == "failed"
    assert queue.call("count(*) from dead_letter") == int(kept)
    assert queue.counts() == {"failed": 1}


def test_attempts_of_the_tasks_policy_count_for_lost_runs(queue: Queue) -> None:
    """As they do for failed ones, before the executor's."""
    queue.call("register_executors(%s)", json.dumps([{"name": "demo.add", "max_attempts": 1}]))
    task, strict = queue.spawn(retry={"max_attempts": 2}), queue.spawn()
    queue.claim(1)
    queue.claim(1)
    lose(queue)

    assert (queue.state(task), queue.state(strict)) == ("pending", "failed")


def test_a_retried_task_is_no_suspect_any_more(queue: Queue) -> None:
    """Whoever retries a task by hand has looked at it."""
    task = queue.spawn(max_attempts=1)
    queue.claim()
    lose(queue)
    assert queue.state(task) == "failed"
    queue.call("retry_task(%s)", task)
    assert places(queue) == {task: (2, False)}

    lease, _, _ = queue.claim()
    queue.fail(lease, task, 0)

    assert places(queue) == {task: (3, False)}


# Claims and retries ------------------------------------------------------------------------------


def test_a_claim_takes_no_more_than_it_wants(queue: Queue) -> None:
    """Fewer where fewer are ready, none from an empty queue, and none that is at work already (B2, B3)."""
    assert queue.claim(3)[1] == []
    tasks = [queue.spawn() for _ in range(5)]

    assert [queue.claim(3)[1], queue.claim(3)[1], queue.claim(3)[1]] == [tasks[:3], tasks[3:], []]


def test_a_beat_keeps_all_that_a_worker_holds(queue: Queue) -> None:
    """However long ago it was claimed; without beats it is lost with everything (B6, B7, B10)."""
    tasks = [queue.spawn() for _ in range(3)]
    lease, _, _ = queue.claim()
    queue.connection.execute("update lease set claimed_at = claimed_at - interval '1 day'")
    queue.connection.execute("update worker set last_seen = last_seen - interval '29 seconds'")
    held = queue.connection.execute("select unnest(tasks) from beat(%s, %s)", (queue.worker, [lease])).fetchall()
    assert [task for (task,) in held] == tasks
    assert queue.call("recover_runs()") == 0


def test_a_sign_in_the_stead_of_a_worker_keeps_all_and_names_it(queue: Queue) -> None:
    """Even claims whose answer it could not read; it counts as blocked from its last own beat to its next."""
    queue.spawn()
    queue.claim()
    queue.connection.execute("update lease set claimed_at = claimed_at - interval '1 day'")
    queue.connection.execute("update worker set last_seen = last_seen - interval '29 seconds'")
    last = queue.call("last_seen from worker where id = %s", queue.worker)
    for _ in range(2):
        queue.call("beat(%s, null)", queue.worker)
        blocked = "held_up_since from worker where id = %s and last_seen > held_up_since + interval '29 seconds'"
        assert queue.call(blocked, queue.worker) == last

    assert queue.call("recover_runs()") == 0
    assert queue.call("count(*) from lease") == 1
    queue.call("beat(%s, '{}')", queue.worker)
    assert queue.call("held_up_since from worker where id = %s", queue.worker) is None
    assert queue.call("count(*) from lease") == 0


def test_a_retry_changes_nothing_of_the_task(queue: Queue) -> None:
    """Id, params, priority and headers stay, and the neighbours of a failed run too (B36, B37)."""
    task, neighbour = queue.spawn({"a": 1}, priority=7, headers={"trace": "x"}), queue.spawn()
    before = queue.document(task)
    lease, _, _ = queue.claim()
    queue.fail(lease, task, 0)

    after = queue.document(task)
    kept = ("id", "params", "priority", "headers", "queue", "name", "created_at")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert queue.state(neighbour) == "running"
    assert queue.complete(lease, neighbour) is None
    assert queue.claim()[1:] == ([task], [2])


def test_a_cancelled_task_that_fails_is_not_retried(queue: Queue) -> None:
    """Its report is stale, whatever it asks for (B52)."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    queue.call("cancel_task(%s)", task)

    assert queue.fail(lease, task, 0) == [task]
    assert queue.state(task) == "cancelled"


def test_a_cancel_counts_from_its_commit(queue: Queue) -> None:
    """Rolled back with the caller's transaction it never was (B54)."""
    task = queue.spawn()
    with pytest.raises(ZeroDivisionError), queue.connection.transaction():
        queue.call("cancel_task(%s)", task)
        assert queue.state(task) == "cancelled"
        raise ZeroDivisionError
    assert queue.state(task) == "pending"
    with queue.connection.transaction():
        queue.call("cancel_task(%s)", task)
    assert queue.state(task) == "cancelled"


# Poison ------------------------------------------------------------------------------------------


def test_the_third_death_by_its_own_doing_is_poison(queue: Queue) -> None:
    """Even with attempts left the task fails for good, and names its deaths; other failures do not count (B39)."""
    task = queue.spawn(max_attempts=100)
    ends: list[dict[str, Any]] = [{"signal": "SIGKILL"}, {"exit_code": 7}, {"signal": "SIGSEGV"}]
    for n, cause in enumerate(ends):
        lease, _, _ = queue.claim()
        queue.fail(lease, task, 0)
        lease, _, _ = queue.claim()
        die(queue, lease, task, **cause)
        assert queue.state(task) == ("pending" if n < 2 else "failed")

    error = queue.document(task)["error"]
    assert (error["code"], error["deaths"]) == ("poison", ["SIGKILL", "exit code 7", "SIGSEGV"])
    assert "SIGKILL, exit code 7, SIGSEGV" in error["message"]
    assert queue.call("error ->> 'code' from dead_letter where task_id = %s", task) == "poison"
    assert queue.counts() == {"failed": 1}


def test_a_death_makes_a_suspect(queue: Queue) -> None:
    """The next run stands in a process of its own too."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    die(queue, lease, task, signal="SIGKILL")

    assert places(queue) == {task: (2, True)}


# Amended retries ---------------------------------------------------------------------------------


def test_a_retry_with_more_memory(queue: Queue) -> None:
    """The body and the place ask for more, up to the limit; it is audited with old and new."""
    task = queue.spawn(needs={"memory_gib": 3, "cpu": 2})
    queue.connection.execute("update worker set offers = %s", (json.dumps({"memory_gib": 100, "cpu": 8}),))
    for expected in (6, 8, 8):
        lease, _, _ = queue.claim()
        amend(queue, task, lease, memory_factor=2, memory_max_gib=8)
        for place in ("ready where task_id", "task where id"):
            assert queue.call(f"needs from {place} = %s", task) == {"memory_gib": expected, "cpu": 2}

    details = [json.loads(each["detail"]) for each in queue.document(task)["history"]]
    assert [each["needs"][1]["memory_gib"] for each in details] == [6, 8]
    assert details[0]["needs"][0] == {"memory_gib": 3, "cpu": 2}


def test_a_retry_on_another_queue(queue: Queue) -> None:
    """The task stands on the other queue from then on, and the counts of both are right."""
    task = queue.spawn(priority=3)
    lease, _, _ = queue.claim()
    amend(queue, task, lease, queue="large")

    document = queue.document(task)
    assert (document["queue"], document["state"]) == ("large", "pending")
    assert queue.call("pending from get_queue_stats('large')") == 1
    assert queue.call("running from get_queue_stats('default')") == 0
    assert json.loads(document["history"][0]["detail"])["queue"] == ["default", "large"]
    assert (
        queue.call("count(*) from level l join queue q on q.id = l.queue_id where q.name = 'large' and level = 6") == 1
    )


def test_amended_runs_make_queues_and_levels_in_one_order(queue: Queue) -> None:
    """In the order of names and numbers, not of tasks: two workers that do the same at once do not deadlock."""
    tasks = [queue.spawn(priority=priority) for priority in (3, 2, 1)]
    lease, claimed, _ = queue.claim(3)
    assert claimed == tasks
    amends = [{"queue": name} for name in ("new.c", "new.b", "new.c")]
    error = json.dumps({"code": "boom", "type": "Boom", "message": "it broke"})
    queue.call(
        "fail_runs(%s::bigint[], %s, array[0, 0, 0], %s, array[0, 0, 0]::float8[], true, %s)",
        [lease] * 3,
        tasks,
        [error] * 3,
        json.dumps(amends),
    )

    made = "array_agg(name order by id) from queue where name like 'new.%%'"
    assert queue.call(made) == ["new.b", "new.c"]
    levels = "array_agg(level order by l.ctid) from level l join queue q on q.id = queue_id where name = 'new.c'"
    assert queue.call(levels) == [2, 6]


# Deadlines ---------------------------------------------------------------------------------------


def pass_time(queue: Queue, hours: int = 2) -> None:
    """Move all deadlines into the past."""
    queue.connection.execute("update deadline set due_at = due_at - make_interval(hours => %s)", (hours,))


def test_a_task_that_was_never_started_in_time_is_cancelled(queue: Queue) -> None:
    """Pending, sleeping or blocked, with its dependents; one that had started goes on (B53)."""
    started = queue.spawn(start_within=3600)
    lease, _, _ = queue.claim()
    queue.fail(lease, started, 3600)
    pending, sleeping = queue.spawn(start_within=3600), queue.spawn(start_within=3600, delay=9999)
    blocked = queue.spawn(start_within=3600, depends_on=[str(started)])
    child = queue.spawn(depends_on=[str(pending)])
    assert queue.call("maintain()")["overdue"] == 0
    pass_time(queue)

    assert queue.call("maintain()")["overdue"] == 3

    for task in (pending, sleeping, blocked):
        document = queue.document(task)
        assert (document["state"], document["runs"][-1]["error"]["code"]) == ("cancelled", "deadline")
        assert document["reason"].startswith("deadline")
    assert queue.document(child)["reason"] == "upstream"
    assert queue.state(started) == "sleeping"
    assert queue.call("count(*) from deadline") == 0
    assert queue.counts() == {"cancelled": 4, "sleeping": 1}


def test_a_task_that_has_not_ended_in_time_is_cancelled(queue: Queue) -> None:
    """Also while it runs or between attempts; what it did before stays in its history (B53)."""
    done, retrying, running = (queue.spawn(finish_within=3600) for _ in range(3))
    lease, _, _ = queue.claim()
    queue.complete(lease, done)
    queue.fail(lease, retrying, 3600)
    pass_time(queue)

    assert queue.call("maintain()")["overdue"] == 2

    assert [queue.state(task) for task in (done, retrying, running)] == ["completed", "cancelled", "cancelled"]
    assert [run["state"] for run in queue.document(retrying)["runs"]] == ["failed", "cancelled"]
    assert queue.complete(lease, running) == [running]
    assert queue.call("count(*) from deadline") == 0
    assert queue.counts() == {"completed": 1, "cancelled": 2}


def test_a_round_tells_when_the_next_deadline_is_due(queue: Queue) -> None:
    """So that nobody sleeps past it."""
    queue.spawn(delay=9999)
    queue.spawn(finish_within=60)

    assert 0 < queue.call("maintain()")["next_wake_seconds"] <= 60


def test_a_claim_that_is_handed_back_has_started_nothing(queue: Queue) -> None:
    """At its start deadline a task may lie claimed in a batch; handed back untouched it is overdue, begun not."""
    overdue, begun, alone = (
        queue.spawn(start_within=3600),
        queue.spawn(start_within=3600),
        queue.spawn(start_within=3600),
    )
    lease, _, _ = queue.claim(2)
    queue.claim(1)
    queue.call("count(*) from beat(%s, array[%s, %s], 'running', %s)", queue.worker, lease, lease + 1, [begun])
    pass_time(queue)

    assert queue.call("cancel_overdue()") == 0
    assert queue.call("array_agg(task_id) from deadline") == [overdue]
    queue.call("return_runs(%s::bigint[], %s, '{null}')", [lease], [overdue])
    pass_time(queue)
    assert queue.call("cancel_overdue()") == 1

    assert [queue.state(task) for task in (overdue, begun, alone)] == ["cancelled", "running", "running"]
    assert queue.call("count(*) from deadline") == 0


def test_a_task_that_others_hold_holds_up_no_deadline(queue: Queue, database_url: str) -> None:
    """While an open transaction has a task that is overdue, other tasks are cancelled in time, whatever the kind."""
    held, other = queue.spawn(start_within=7200), queue.spawn(finish_within=7300)
    with psycopg.connect(database_url, options="-c search_path=absurd,public") as holder:
        holder.execute("select from task where id = %s for update", [held])
        pass_time(queue, 9)

        assert queue.call("cancel_overdue()") == 1
        assert [queue.state(held), queue.state(other)] == ["pending", "cancelled"]
        assert queue.call("cancel_overdue()") == 0

    assert queue.call("cancel_overdue()") == 1
    assert queue.state(held) == "cancelled"
