"""What runs spawn and wait for, and workflows spawned whole, by plain calls."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sql_queue import Queue

from absurd.queue import new_task_id


def entry(spawner: UUID, child: UUID, **options: Any) -> dict[str, Any]:
    return {
        "task": str(spawner),
        "checkpoint": "spawn demo.add",
        "id": str(child),
        "queue": "default",
        "name": "demo.add",
        "params": "{}",
        "options": json.dumps(options) if options else None,
    }


def complete(queue: Queue, lease: int, task: UUID, *spawns: dict[str, Any]) -> Any:
    sql = "complete_runs(array[%s::bigint], array[%s::uuid], array[0], array[null::text], null, %s::jsonb)"
    return queue.call(sql, lease, task, json.dumps(spawns))


def suspend(
    queue: Queue, lease: int, task: UUID, on: list[UUID], *spawns: dict[str, Any], seconds: float | None = None
) -> Any:
    return queue.call(
        "suspend_runs(array[%s::bigint], array[%s::uuid], array[0], array[null::float8], array['tasks'],"
        " array[null::text], %s::jsonb, %s::jsonb)",
        lease,
        task,
        json.dumps(spawns) if spawns else None,
        json.dumps([{"task": str(task), "on": [str(each) for each in on], "seconds": seconds}]),
    )


def spawn_workflow(queue: Queue, workflow: UUID, ids: list[UUID], options: list[dict[str, Any]]) -> list[Any]:
    return queue.connection.execute(
        "select task_id, created from spawn_workflow(%s, 'tile', %s, %s, %s, %s::text[]::jsonb[], %s::text[]::jsonb[])",
        (
            workflow,
            ids,
            ["default"] * len(ids),
            ["demo.add"] * len(ids),
            ["{}"] * len(ids),
            list(map(json.dumps, options)),
        ),
    ).fetchall()


def test_a_completion_spawns_once(queue: Queue) -> None:
    """Sent again after a lost answer it spawns nothing; under a lost claim neither."""
    parent, child, other = queue.spawn(), new_task_id(), new_task_id()
    lease, _, _ = queue.claim()

    assert complete(queue, lease + 99, parent, entry(parent, other)) == [parent]
    assert queue.state(other) is None
    assert complete(queue, lease, parent, entry(parent, child)) is None
    assert complete(queue, lease, parent, entry(parent, other)) is None

    assert [queue.state(parent), queue.state(child), queue.state(other)] == ["completed", "pending", None]
    assert queue.counts() == {"completed": 1, "pending": 1}


def test_a_refused_spawn_undoes_its_completion(queue: Queue) -> None:
    """The run is still held and can be reported otherwise; no row of it is left (B83)."""
    parent, child = queue.spawn(), new_task_id()
    lease, _, _ = queue.claim()

    with pytest.raises(psycopg.Error, match="which is no task") as refused:
        complete(queue, lease, parent, entry(parent, child, depends_on=[str(new_task_id())]))

    assert refused.value.sqlstate == "AB008"
    assert [queue.state(parent), queue.state(child)] == ["running", None]
    queue.fail(lease, parent, None)
    assert queue.counts() == {"failed": 1}


def test_a_child_may_depend_on_its_spawner(queue: Queue) -> None:
    """It is counted by the sweep, which sees the end that was written with it."""
    parent, child = queue.spawn(), new_task_id()
    lease, _, _ = queue.claim()
    complete(queue, lease, parent, entry(parent, child, depends_on=[str(parent)]))
    queue.call("sweep_late()")
    assert queue.state(child) == "pending"


def test_a_waiting_run_goes_on_after_the_last_end(queue: Queue) -> None:
    """Blocked with its attempt, its children spawned and their ids kept; failures count as ends."""
    parent, other, child = queue.spawn(), queue.spawn(), new_task_id()
    lease, tasks, _ = queue.claim()
    assert tasks == [parent, other]

    assert suspend(queue, lease, parent, [other, child], entry(parent, child)) is None

    assert queue.state(parent) == "blocked"
    assert queue.call("(select value #>> '{}' from get_checkpoints(%s))", parent) == str(child)
    queue.fail(lease, other, None)
    queue.call("sweep_late()")
    assert queue.counts() == {"blocked": 1, "pending": 1, "failed": 1}
    lease, tasks, _ = queue.claim()
    assert tasks == [child]
    queue.complete(lease, child)
    assert queue.state(parent) == "pending"
    assert queue.claim()[1:] == ([parent], [1])


def test_a_wait_ends_in_time(queue: Queue) -> None:
    """A run that waited long enough goes on although the task has not ended; before that it does not."""
    parent, other = queue.spawn(), queue.spawn(delay=3600)
    lease, _, _ = queue.claim()
    suspend(queue, lease, parent, [other], seconds=60)
    assert 0 < queue.call("maintain()")["next_wake_seconds"] <= 60
    assert queue.state(parent) == "blocked"
    queue.connection.execute("update blocked set run_at = clock_time() - interval '1 s'")
    queue.call("maintain()")
    assert queue.state(parent) == "pending"
    assert queue.counts() == {"pending": 1, "sleeping": 1}


def test_two_that_wait_for_one_another_end(queue: Queue) -> None:
    """The sweep cancels one with the reason, whereupon the other goes on."""
    one, two = queue.spawn(), queue.spawn()
    lease, _, _ = queue.claim()
    suspend(queue, lease, one, [two])
    suspend(queue, lease, two, [one])
    queue.call("sweep_late()")
    states = {queue.state(one), queue.state(two)}
    assert "blocked" not in states
    assert "cancelled" in states
    assert queue.call("(select count(*) from run where error ->> 'code' = 'cycle')") >= 1


def test_a_workflow_is_spawned_once_and_whole(queue: Queue) -> None:
    """Spawned again under its id it is the same; a bad node leaves neither workflow nor task (B83)."""
    workflow, ids = new_task_id(), [new_task_id(), new_task_id()]
    named: list[dict[str, Any]] = [{"workflow": str(workflow), "node": name} for name in ("a", "b")]
    named[1]["depends_on"] = [str(ids[0])]

    first = spawn_workflow(queue, workflow, ids, named)
    assert first == spawn_workflow(queue, workflow, ids, named) == [(each, True) for each in ids]

    document = queue.call("get_workflow(%s)", workflow)
    assert [(node["node"], node["state"]) for node in document["nodes"]] == [("a", "pending"), ("b", "blocked")]
    assert (document["size"], document["remaining"], document["state"]) == (2, 2, "running")
    assert queue.document(ids[0])["children"] == [str(ids[1])]  # both ways
    assert queue.document(ids[1])["depends_on"] == [str(ids[0])]
    assert queue.call("get_workflow(%s)", new_task_id()) is None
    bad, task = new_task_id(), new_task_id()
    with pytest.raises(psycopg.Error, match="priority"):
        spawn_workflow(queue, bad, [task], [{"workflow": str(bad), "node": "a", "priority": "high"}])
    assert queue.call("get_workflow_state(%s)", bad) is None
    assert queue.state(task) is None


def test_ten_thousand_nodes_end(queue: Queue) -> None:
    """A fan-out of 9,998 and a fan-in, spawned in one call, drain, and the workflow has completed (B74)."""
    workflow, ids = new_task_id(), [new_task_id() for _ in range(10_000)]
    middle = [str(each) for each in ids[1:-1]]
    options: list[dict[str, Any]] = [{"workflow": str(workflow), "node": str(n)} for n in range(10_000)]
    for each in options[1:-1]:
        each["depends_on"] = [str(ids[0])]
    options[-1]["depends_on"] = middle
    spawn_workflow(queue, workflow, ids, options)

    while (claim := queue.claim(1000))[1]:
        queue.complete(claim[0], *claim[1])

    assert queue.call("get_workflow_state(%s)", workflow) == "completed"
    assert queue.counts() == {"completed": 10_000}


def test_parents_in_other_queues(queue: Queue) -> None:
    """A child waits for a task of another queue as for one of its own (B82)."""
    parent = queue.call("(select task_id from spawn_task('elsewhere', 'demo.add', '{}'))")
    child = queue.spawn(depends_on=[str(parent)])
    queue.call("sweep_late()")
    assert queue.state(child) == "blocked"
    lease = (queue.worker << 32) + 77
    queue.call("claim_runs(%s, (select id from queue where name = 'elsewhere'), 1, '{}', '{}')", lease)
    queue.complete(lease, parent)
    assert queue.state(child) == "pending"


def test_a_child_keeps_its_own_start_time(queue: Queue) -> None:
    """Released by its parent before that, it sleeps until then (B84)."""
    parent = queue.spawn()
    child = queue.spawn(depends_on=[str(parent)], delay=3600)
    queue.call("sweep_late()")
    lease, _, _ = queue.claim()
    queue.complete(lease, parent)
    assert queue.state(child) == "sleeping"


def test_a_parent_with_attempts_left_holds_its_child(queue: Queue) -> None:
    """A failed attempt is no end: the child stays blocked, and runs once a later attempt has completed (B77)."""
    parent = queue.spawn()
    child = queue.spawn(depends_on=[str(parent)])
    queue.call("sweep_late()")
    lease, _, _ = queue.claim()
    queue.fail(lease, parent, 0.0)
    assert queue.state(child) == "blocked"
    queue.call("promote_timers()")
    lease, _, _ = queue.claim()
    queue.complete(lease, parent)
    assert queue.state(child) == "pending"


def test_results_are_those_of_the_last_run(queue: Queue) -> None:
    """A parent that ran anew gives its new result; nulls within results are kept (B88)."""
    parent = queue.spawn()
    lease, _, _ = queue.claim()
    queue.complete(lease, parent, result={"n": 1})
    child = queue.spawn(depends_on=[str(parent)])
    queue.call("sweep_late()")
    queue.call("cancel_task(%s)", child)
    queue.call("rerun_task(%s)", parent)
    lease, _, _ = queue.claim()
    queue.complete(lease, parent, result={"n": 2, "nothing": None})
    queue.call("sweep_late()")

    lease = (queue.worker << 32) + 99
    details = queue.call("(select details from claim_runs(%s, 1, 1, '{}', '{}'))", lease)

    assert json.loads(details[0])["parents"] == {str(parent): {"n": 2, "nothing": None}}
    row = queue.connection.execute("select name, state, result from get_results(%s)", ([parent],)).fetchone()
    assert row == ("demo.add", "completed", {"n": 2, "nothing": None})


def test_the_last_run_counts_though_the_clock_was_set_back(queue: Queue) -> None:
    """Result, error and state are of one run: the last, not the one with the latest time."""
    workflow, parent, failed = new_task_id(), new_task_id(), new_task_id()
    spawn_workflow(queue, workflow, [parent, failed], [{}, {"priority": 1}])
    lease, _, _ = queue.claim()
    queue.fail(lease, failed, None)
    queue.complete(lease, parent, result={"n": 1})
    queue.move_clock("-1 hour")
    queue.call("rerun_task(%s)", parent)
    queue.call("rerun_task(%s)", failed)
    child = queue.spawn(depends_on=[str(parent)])
    lease, _, _ = queue.claim()
    queue.complete(lease, parent, result={"n": 2})
    queue.call("cancel_runs(%s::bigint[], %s, '{0}', '{enough}')", [lease], [failed])
    queue.call("sweep_late()")

    assert queue.document(parent)["result"] == {"n": 2}
    assert queue.call("result from get_results(%s)", [parent]) == {"n": 2}
    assert queue.call("error ->> 'message' from get_results(%s)", [failed]) == "enough"
    shown = queue.call("get_workflow(%s)", workflow)["nodes"]
    assert {node["id"]: (node["error"] or {}).get("message") for node in shown} == {
        str(parent): None,
        str(failed): "enough",
    }
    details = queue.call("(select details from claim_runs(%s, 1, 1, '{}', '{}'))", (queue.worker << 32) + 99)
    assert json.loads(details[0])["parents"] == {str(parent): {"n": 2}}
    assert queue.state(child) == "running"


def test_waiting_for_a_parent_of_its_own_leaves_the_dependency(queue: Queue) -> None:
    """A run may wait for a parent that its condition did not wait for; it is that one's child as before."""
    slow = queue.spawn(priority=-1)
    quick = queue.spawn()
    child = queue.spawn(depends_on=[str(slow), str(quick)], when="any_success")
    queue.call("sweep_late()")
    lease, _, _ = queue.claim(1)
    queue.complete(lease, quick)
    lease, tasks, _ = queue.claim(1)
    assert tasks == [child]
    suspend(queue, lease, child, [slow])
    queue.call("sweep_late()")
    assert queue.state(child) == "blocked"

    lease, tasks, _ = queue.claim(1)
    assert tasks == [slow]
    queue.complete(lease, slow)
    lease, tasks, _ = queue.claim(1)
    assert tasks == [child]
    queue.complete(lease, child)

    assert queue.document(slow)["children"] == [str(child)]
    assert queue.call("rerun_task(%s)", slow) == 2
    assert queue.state(child) == "blocked"


def test_a_suspect_that_waits_for_tasks_stays_one(queue: Queue) -> None:
    """A task that was lost with its worker runs in a process of its own until it has ended, whatever it waits for."""
    task, other = queue.spawn(), queue.spawn(priority=-1)
    queue.claim(1)
    queue.connection.execute("update worker set last_seen = last_seen - interval '1 hour'")
    queue.call("recover_runs()")
    queue.worker = queue.new_worker()
    lease, tasks, _ = queue.claim(1)
    assert tasks == [task]
    suspend(queue, lease, task, [other])
    queue.call("sweep_late()")
    lease, tasks, _ = queue.claim(1)
    queue.complete(lease, other)

    assert queue.call("suspect from ready where task_id = %s", task) is True


def test_what_a_long_run_spawned_early_is_spawned(queue: Queue) -> None:
    """The id of a child is made when it is asked for, the child when the run ends, be it days later (B52)."""
    task, child = queue.spawn(), new_task_id()
    lease, _, _ = queue.claim()
    queue.move_clock("3 days")

    assert complete(queue, lease, task, entry(task, child), entry(task, new_task_id(), priority=1)) is None

    assert queue.state(child) == "pending"
    assert queue.counts() == {"completed": 1, "pending": 2}


def test_a_suspect_that_waits_stays_one(queue: Queue) -> None:
    """A task that has killed its process waits for tasks, and runs in a process of its own afterwards too."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    queue.call(
        "fail_runs(array[%s::bigint], array[%s::uuid], array[0], array[%s], array[0::float8])",
        lease, task, json.dumps({"code": "child_died"}),
    )  # fmt: skip
    lease, _, _ = queue.claim()
    suspend(queue, lease, task, [])
    assert queue.call("suspect from blocked where task_id = %s", task)

    queue.call("sweep_late()")
    assert queue.call("suspect from ready where task_id = %s", task)


@pytest.mark.parametrize("again", ["rerun", "retry_workflow"])
def test_a_parent_that_was_awaited_is_still_a_parent(queue: Queue, again: str) -> None:
    """A run may wait for its task's own parent: run anew the task follows it, retried it finds it completed."""
    workflow, parent, child = new_task_id(), *sorted(new_task_id() for _ in range(2))
    spawn_workflow(queue, workflow, [parent, child], [{}, {"depends_on": [str(parent)]}])
    lease, _, _ = queue.claim()
    queue.complete(lease, parent)
    lease, _, _ = queue.claim()
    suspend(queue, lease, child, [parent])
    queue.call("sweep_late()")
    lease, tasks, _ = queue.claim()
    assert tasks == [child]

    if again == "rerun":
        queue.complete(lease, child)
        assert queue.call("rerun_task(%s)", parent) == 2
        assert queue.state(child) == "blocked"
    else:
        queue.call("cancel_task(%s)", child)
        assert queue.call("retry_workflow(%s)", workflow) == 1
        queue.call("sweep_late()")
        assert queue.state(child) == "pending"


def test_a_run_that_would_wait_for_itself_is_refused(queue: Queue) -> None:
    """Its child's key is its own, so that the child is the task itself: an error that ends the run, not the worker."""
    task, child = queue.spawn(key="k"), new_task_id()
    lease, _, _ = queue.claim()
    with pytest.raises(psycopg.DatabaseError, match="would wait for itself") as caught:
        suspend(queue, lease, task, [child], entry(task, child, key="k"))

    assert caught.value.sqlstate == "AB001"
    assert queue.state(task) == "running"


def test_a_failure_that_was_only_awaited_is_not_taken_on(queue: Queue) -> None:
    """The condition of a task is about its parents: what a run of it has awaited fails the workflow all the same."""
    workflow, parent, child, other = new_task_id(), *sorted(new_task_id() for _ in range(3))
    spawn_workflow(
        queue, workflow, [parent, child, other], [{}, {"depends_on": [str(parent)], "when": "all_done"}, {}]
    )  # fmt: skip
    lease, _, _ = queue.claim()
    queue.complete(lease, parent)
    child_lease, tasks, _ = queue.claim()
    assert tasks == [child]
    suspend(queue, child_lease, child, [other])
    queue.call("sweep_late()")
    queue.fail(lease, other, None)
    lease, _, _ = queue.claim()
    queue.complete(lease, child)

    assert queue.call("get_workflow_state(%s)", workflow) == "failed"
