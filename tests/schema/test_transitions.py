"""Each state-changing SQL function by plain calls: what it moves, what it refuses, what it counts."""

from __future__ import annotations

import json
from datetime import timedelta, timezone
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sql_queue import Queue


def test_a_task_runs_and_completes(queue: Queue) -> None:
    """Spawned it is pending, claimed running, reported completed; the counts follow each step."""
    task = queue.spawn({"a": 1})
    assert queue.counts() == {"pending": 1}

    lease, tasks, attempts = queue.claim()
    assert (tasks, attempts) == ([task], [1])
    assert queue.counts() == {"running": 1}

    assert queue.complete(lease, task, result={"sum": 3}) is None

    assert queue.counts() == {"completed": 1}
    document = queue.document(task)
    assert document["state"] == "completed"
    assert document["result"] == {"sum": 3}
    assert [run["state"] for run in document["runs"]] == ["completed"]
    assert document["attempts"] == 1


def test_claims_take_each_task_once_in_order(queue: Queue) -> None:
    """Higher priority first, first come first served within one; nothing is handed out twice (B12)."""
    low = [queue.spawn() for _ in range(3)]
    high = [queue.spawn(priority=5) for _ in range(2)]

    _, first, _ = queue.claim(4)
    _, second, _ = queue.claim(4)
    _, third, _ = queue.claim(4)

    assert first + second == high + low
    assert third == []


def test_a_stale_report_changes_nothing(queue: Queue) -> None:
    """After its lease was given to another worker a report is refused, and the new run goes on (B5)."""
    task = queue.spawn()
    old, _, _ = queue.claim()
    queue.connection.execute("update worker set last_seen = last_seen - interval '1 hour'")
    assert queue.call("recover_runs()") == 1
    queue.worker = queue.new_worker()
    new, tasks, attempts = queue.claim()
    assert (tasks, attempts) == ([task], [2])

    assert queue.complete(old, task, result="late") == [task]
    assert queue.fail(old, task, None) == [task]

    assert queue.state(task) == "running"
    assert queue.complete(new, task, result="right") is None
    assert queue.document(task)["result"] == "right"
    assert [run["state"] for run in queue.document(task)["runs"]] == ["lost", "completed"]
    assert queue.counts() == {"completed": 1}


def test_a_given_up_worker_can_claim_nothing(queue: Queue) -> None:
    """A worker that was declared lost gets no runs and hears of it at its next beat (B8)."""
    queue.spawn()
    queue.connection.execute("update worker set last_seen = last_seen - interval '1 hour'")
    queue.call("recover_runs()")

    assert queue.claim()[1] == []
    with pytest.raises(psycopg.Error) as caught:
        queue.call("beat(%s, '{}')", queue.worker)
    assert caught.value.sqlstate == "AB002"


def test_a_failure_retries_then_dies(queue: Queue) -> None:
    """A failed run with a delay sleeps and comes back as the next attempt; without one it is a dead letter (B35)."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    assert queue.fail(lease, task, 3600) is None
    assert queue.counts() == {"sleeping": 1}
    assert queue.claim()[1] == []

    queue.connection.execute("update timer set wake_at = now()")
    assert queue.call("promote_timers()") == 1
    lease, _, attempts = queue.claim()
    assert attempts == [2]
    assert queue.fail(lease, task, None) is None

    assert queue.counts() == {"failed": 1}
    assert queue.call("count(*) from dead_letter where task_id = %s", task) == 1
    assert queue.document(task)["error"]["code"] == "boom"


def test_part_of_a_batch_may_be_reported(queue: Queue) -> None:
    """A lease loses what was reported and keeps the rest; results belong to the task they name."""
    tasks = [queue.spawn() for _ in range(5)]
    lease, claimed, _ = queue.claim()
    assert claimed == tasks

    assert queue.complete(lease, tasks[3], tasks[1], result="some") is None

    assert queue.counts() == {"completed": 2, "running": 3}
    assert queue.call("task_ids from lease where id = %s", lease) == [tasks[0], tasks[2], tasks[4]]
    assert queue.complete(lease, tasks[4], tasks[0], tasks[2]) is None
    assert queue.counts() == {"completed": 5}
    assert queue.call("count(*) from lease") == 0


def test_a_task_cancelled_out_of_a_batch_shifts_no_result(queue: Queue) -> None:
    """Outcomes name their task: with one cancelled meanwhile, each other gets its own result (B48)."""
    tasks = [queue.spawn() for _ in range(3)]
    lease, _, _ = queue.claim()
    assert queue.call("cancel_task(%s)", tasks[0]) == "cancelled"

    stale = queue.call(
        "complete_runs(%s::bigint[], %s, '{0,0,0}', %s::text[])", [lease] * 3, tasks, ['"a"', '"b"', '"c"']
    )

    assert stale == [tasks[0]]
    assert [queue.document(task)["result"] for task in tasks] == [None, "b", "c"]
    assert queue.counts() == {"completed": 2, "cancelled": 1}


def test_a_repeated_step_is_the_same_step(queue: Queue) -> None:
    """When the answer to a step is lost and it is sent again, nothing counts twice and the same runs come."""
    first, second = queue.spawn(), queue.spawn()
    lease, tasks, _ = queue.claim(1)
    assert tasks == [first]
    step = (
        "select stale, task_ids from step(%s::bigint[], %s, '{0}', '{null}', %s,"
        " (select id from queue where name = 'default'), 1, '{}', '{}')"
    )
    args = ([lease], [first], lease + 1000)

    once = queue.connection.execute(step, args).fetchone()
    again = queue.connection.execute(step, args).fetchone()

    assert once == again == (None, [second])
    assert queue.counts() == {"completed": 1, "running": 1}


def test_cancel_in_every_state(queue: Queue) -> None:
    """Pending, sleeping, blocked, running: cancelled at once; ended ones stay; unknown ids raise (B50, B51)."""
    running = queue.spawn()
    lease, _, _ = queue.claim()
    pending, sleeping = queue.spawn(), queue.spawn(delay=60)
    child = queue.spawn(depends_on=[str(pending)])
    grandchild = queue.spawn(depends_on=[str(child)])

    for task in (pending, sleeping, running):
        assert queue.call("cancel_task(%s, 'enough')", task) == "cancelled"

    assert queue.document(pending)["reason"] == "enough"
    assert queue.state(child) == queue.state(grandchild) == "cancelled"
    assert queue.document(grandchild)["reason"] == "upstream"
    assert queue.complete(lease, running) == [running]
    assert queue.counts() == {"cancelled": 5}
    assert queue.call("cancel_task(%s)", pending) == "cancelled"
    with pytest.raises(psycopg.Error) as caught:
        queue.call("cancel_task('00000000-0000-7000-8000-000000000000')")
    assert caught.value.sqlstate == "AB003"


def test_retry_gives_one_more_attempt_in_place(queue: Queue) -> None:
    """An ended task keeps its id and history and becomes pending; one that has not ended is refused (B45, B46, B47)."""
    task = queue.spawn()
    with pytest.raises(psycopg.Error) as caught:
        queue.call("retry_task(%s)", task)
    assert caught.value.sqlstate == "AB004"
    lease, _, _ = queue.claim()
    queue.fail(lease, task, None)

    assert queue.call("retry_task(%s)", task) == "pending"

    assert queue.counts() == {"pending": 1}
    assert queue.document(task)["finished_at"] is None
    lease, _, attempts = queue.claim()
    assert attempts == [2]
    queue.complete(lease, task)
    assert queue.counts() == {"completed": 1}
    assert queue.call("count(*) from dead_letter") == 0


def test_a_child_runs_after_all_its_parents(queue: Queue) -> None:
    """Blocked until the last parent has completed; then it sees their results (B73)."""
    parents = [queue.spawn({"n": n}) for n in range(3)]
    child = queue.spawn(depends_on=[str(parent) for parent in parents])
    assert queue.counts() == {"blocked": 1, "pending": 3}
    assert queue.call("sweep_late()") == 1

    lease, _, _ = queue.claim()
    queue.complete(lease, *parents[:2], result=7)
    assert queue.state(child) == "blocked"
    queue.complete(lease, parents[2], result=8)

    assert queue.state(child) == "pending"
    row = queue.connection.execute(
        "select details[1] from claim_runs(%s, (select id from queue where name = 'default'), 1, '{}', '{}')",
        ((queue.worker << 32) + 999,),
    ).fetchone()
    assert row is not None
    assert json.loads(row[0])["parents"] == {str(parents[0]): 7, str(parents[1]): 7, str(parents[2]): 8}


def test_retrying_a_completed_parent_counts_its_children_anew(queue: Queue) -> None:
    """A parent that completes, is retried and completes again counts once; the child waits for the other."""
    parent, other = queue.spawn(), queue.spawn(delay=3600)
    child = queue.spawn(depends_on=[str(parent), str(other)])
    queue.call("sweep_late()")
    for _ in range(2):
        lease, _, _ = queue.claim()
        queue.complete(lease, parent)
        queue.call("sweep_late()")
        if queue.document(parent)["attempts"] == 1:
            queue.call("retry_task(%s)", parent)

    assert queue.state(child) == "blocked"
    assert queue.call("remaining from blocked where task_id = %s", child) == 1


def test_a_child_of_ended_parents_is_swept(queue: Queue) -> None:
    """Spawned on parents that have ended already, a child becomes pending, or cancelled with a failed one."""
    good, bad = queue.spawn(), queue.spawn()
    lease, _, _ = queue.claim()
    queue.complete(lease, good)
    queue.fail(lease, bad, None)

    happy = queue.spawn(depends_on=[str(good)])
    sad = queue.spawn(depends_on=[str(good), str(bad)])
    queue.call("sweep_late()")

    assert queue.state(happy) == "pending"
    assert queue.state(sad) == "cancelled"
    assert queue.document(sad)["reason"] == "upstream"


def test_a_failed_parent_cancels_and_its_retry_restores(queue: Queue) -> None:
    """Descendants of a parent that died are cancelled as upstream; retrying it blocks them again."""
    parent = queue.spawn()
    child = queue.spawn(depends_on=[str(parent)])
    grandchild = queue.spawn(depends_on=[str(child)])
    queue.call("sweep_late()")
    lease, _, _ = queue.claim()
    queue.fail(lease, parent, None)
    assert queue.counts() == {"failed": 1, "cancelled": 2}

    queue.call("retry_task(%s)", parent)
    assert queue.counts() == {"pending": 1, "blocked": 2}
    queue.call("sweep_late()")
    lease, _, _ = queue.claim()
    queue.complete(lease, parent)

    assert queue.state(child) == "pending"
    assert queue.state(grandchild) == "blocked"


def test_unknown_parents_and_cycles_leave_no_row(queue: Queue) -> None:
    """A dependency on nothing, on oneself, or backwards within one call is refused as a whole (B83)."""
    bad = [
        "spawn_task('default', 'x', '{}', '{\"depends_on\": [\"019ab000-0000-7000-8000-000000000000\"]}')",
        (
            "spawn_tasks(array[new_task_id()], '{default}', '{x}', array['{}']::jsonb[],"
            ' array[\'{"depends_on": ["019ab000-0000-7000-8000-000000000000"]}\'::jsonb])'
        ),
    ]
    for sql in bad:
        with pytest.raises(psycopg.Error) as caught:
            queue.call(sql)
        assert caught.value.sqlstate == "AB008"
    ids = [queue.call("new_task_id()") for _ in range(2)]
    with pytest.raises(psycopg.Error) as caught:
        queue.connection.execute(
            "select spawn_tasks(%s, '{default,default}', '{x,x}', array['{}', '{}']::jsonb[], %s::jsonb[])",
            (ids, [json.dumps({"depends_on": [str(ids[1])]}), json.dumps({"depends_on": [str(ids[0])]})]),
        )
    assert caught.value.sqlstate == "AB008"
    assert queue.call("count(*) from task") == 0


def test_a_key_names_one_task(queue: Queue) -> None:
    """The same key in the same queue is the first task; in another queue it is another."""
    first = queue.spawn({"n": 1}, key="night-12")
    assert queue.spawn({"n": 2}, key="night-12") == first

    other = queue.call("task_id from spawn_task('other', 'demo.add', '{}', '{\"key\": \"night-12\"}')")

    assert other != first
    assert queue.document(first)["params"] == {"n": 1}
    assert queue.call("count(*) from task") == 2


def test_a_child_follows_its_parent_to_the_task_that_has_the_key(queue: Queue) -> None:
    """A parent whose key is taken is the first task of that key, for its child in the same call too."""
    first = queue.spawn(key="night")
    parent, child = sorted((queue.call("new_task_id()"), queue.call("new_task_id()")))
    options = [json.dumps({"key": "night"}), json.dumps({"depends_on": [str(parent)]})]

    rows = queue.connection.execute(
        "select task_id, created from spawn_tasks(%s, '{default,default}', '{demo.add,demo.add}',"
        " array['{}','{}']::jsonb[], %s::jsonb[])",
        ([parent, child], options),
    ).fetchall()

    assert [(first, False), (child, True)] == rows
    assert [str(first)] == queue.document(child)["depends_on"]
    lease, _, _ = queue.claim()
    queue.complete(lease, first)
    queue.call("sweep_late()")
    assert "pending" == queue.state(child)


def test_a_repeated_spawn_is_the_same_spawn(queue: Queue) -> None:
    """The caller's id makes a spawn repeatable: the second call answers as the first and spawns nothing (B116)."""
    task = queue.call("new_task_id()")
    for _ in range(2):
        row = queue.connection.execute(
            "select * from spawn_tasks(%s, '{default}', '{demo.add}', array['{}']::jsonb[])", ([task],)
        ).fetchone()
        assert row == (1, task, True)
    assert queue.counts() == {"pending": 1}


def test_a_task_spawned_alone_is_like_one_spawned_among_others(queue: Queue) -> None:
    """Body, place and counts do not tell by which function a task without options came; nor does a second call."""
    alone, among = sorted((queue.call("new_task_id()"), queue.call("new_task_id()")))
    for _ in range(2):
        queue.call("spawn_plain(%s, 'new', 'demo.add', '{\"a\": 1}')", alone)
    assert queue.call("array_agg(level) from level l join queue q on q.id = l.queue_id where q.name = 'new'") == [0]
    queue.connection.execute("select spawn_tasks(%s, '{new}', '{demo.add}', array['{\"a\": 1}']::jsonb[])", ([among],))

    for table, own in (("task", "{id,created_at}"), ("ready", "{task_id,seq}")):
        rows = queue.call(f"array_agg(distinct to_jsonb(t) - %s::text[]) from {table} t", own)
        assert len(rows) == 1, rows
    assert queue.call("array_agg(task_id order by seq) from ready") == [alone, among]
    assert queue.call("sum(pending) from get_queue_stats('new')") == 2


def test_many_tasks_of_several_queues_some_of_which_came_before(queue: Queue) -> None:
    """Each queue counts its own, what came before has its place, and an id that stands twice refuses the whole call."""
    a, b, c = sorted(queue.call("new_task_id()") for _ in range(3))
    spawn = "select spawn_tasks(%s, %s, array_fill('x'::text, %s), array_fill('{}'::jsonb, %s), %s::jsonb[])"

    def spawn_all(ids: list[UUID], queues: list[str], options: list[str] | None = None) -> None:
        queue.connection.execute(spawn, (ids, queues, [len(ids)], [len(ids)], options))

    spawn_all([a], ["q1"])
    spawn_all([a, b, c], ["q1", "q2", "q1"])
    spawn_all([a, c], ["q1", "q1"])
    for ids in ([a, a], [a, b, b], [queue.call("new_task_id()")] * 2):
        for options in (None, ["{}"] * len(ids)):
            with pytest.raises(psycopg.Error, match="a task id stands twice") as caught:
                spawn_all(ids, ["q1"] * len(ids), options)
            assert caught.value.sqlstate == "AB001"

    assert queue.call("array_agg(task_id order by seq) from ready") == [a, b, c]
    assert [queue.call("sum(pending) from get_queue_stats(%s)", name) for name in ("q1", "q2")] == [2, 1]


@pytest.mark.parametrize("task", [None, "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-7fff-bfff-ffffffffffff"])
def test_a_task_is_not_spawned_under_an_id_of_another_time(queue: Queue, task: str | None) -> None:
    """By its id a task lies in a week's partition, and a claim finds what it was: only ids of these days are taken."""
    for sql in ("spawn_plain(%s, 'q', 'x', '{}')", "spawn_tasks(array[%s::uuid], '{q}', '{x}', '{null}'::jsonb[])"):
        with pytest.raises(psycopg.Error) as caught:
            queue.call(sql, task)
        assert caught.value.sqlstate == "AB001"
    assert queue.call("count(*) from task") == 0


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"prio": 1}, "prio"),
        ({"delay": -1}, "delay"),
        ({"priority": "high"}, "priority"),
        ({"run_at": "tomorrow-ish"}, "run_at"),
        ({"run_at": "2026-01-01T00:00:00Z", "delay": 5}, "delay"),
        ({"depends_on": "me"}, "depends_on"),
        ({"depends_on": ["me"]}, "depends_on"),
        ({"tags": {"a": 1}}, "tags"),
        ({"timeout": 0}, "timeout"),
        ({"priority": 1.5}, "priority"),
        ({"max_attempts": 2.6}, "max_attempts"),
        ({"tags": [None]}, "tags"),
        ({"depends_on": [None]}, "depends_on"),
        ({"run_at": "2026-01-01 00:00"}, "run_at"),
        ({"key": ""}, "key"),
        ({"id": "12"}, "id"),
    ],
)
def test_bad_options_are_refused_by_name(queue: Queue, options: dict[str, Any], names: str) -> None:
    """An option that is unknown or out of range raises AB001 with its name, and leaves nothing."""
    with pytest.raises(psycopg.Error) as caught:
        queue.spawn(**options)

    assert caught.value.sqlstate == "AB001"
    assert names in str(caught.value)
    assert queue.call("count(*) from task") == 0


def test_zero_valued_options_are_kept(queue: Queue) -> None:
    """Zero is a value: priority 0, delay 0, max_attempts 0 are not taken for absent (B28)."""
    task = queue.spawn(priority=0, delay=0, max_attempts=0)

    assert queue.document(task)["max_attempts"] == 0
    assert queue.state(task) == "pending"


def test_a_start_time_is_an_instant_whatever_the_zone(queue: Queue) -> None:
    """At or before now a task may be claimed, later not; zones of caller and session shift nothing (B30, B31)."""
    now = queue.call("clock_time()")
    for zone in ("UTC", "Asia/Tokyo", "America/New_York"):
        queue.connection.execute("select set_config('timezone', %s, false)", [zone])
        elsewhere = timezone(timedelta(hours=9))
        due = queue.spawn(run_at=now.astimezone(elsewhere).isoformat())
        later = queue.spawn(run_at=(now + timedelta(hours=1)).astimezone(elsewhere).isoformat())
        soon = queue.spawn(delay=3600)

        assert ["pending", "sleeping", "sleeping"] == [queue.state(each) for each in (due, later, soon)]
        assert queue.claim()[1] == [due]

    queue.move_clock("1 hour 1 second")
    queue.call("promote_timers()")
    assert len(queue.claim()[1]) == 6


def test_a_claim_reads_no_table_whole(queue: Queue) -> None:
    """With a history of thousands of ended tasks a claim and its report go by indexes alone (B108)."""
    done = [str(queue.call("new_task_id()")) for _ in range(3000)]
    queue.connection.execute(
        "select spawn_tasks(%s::uuid[], array_fill('default'::text, array[3000]), array_fill('x'::text, array[3000]),"
        " array_fill('{}'::jsonb, array[3000]))",
        [done],
    )
    while (claim := queue.claim(500))[1]:
        queue.complete(claim[0], *claim[1])

    def scans() -> dict[str, int]:
        # This session's own: a vacuum's count, too, in the others.
        rows = queue.connection.execute(
            "select relname, seq_scan from pg_stat_xact_user_tables"
            " where relname ~ '^(task_|run_|ready|timer|blocked|edge)'"
        )
        return dict(rows.fetchall())

    with queue.connection.transaction():
        before = scans()
        for _ in range(5):
            task = queue.spawn()
            lease, claimed, _ = queue.claim()
            assert claimed == [task]
            queue.complete(lease, task)

        assert before == scans()


def test_sleep_and_events(queue: Queue) -> None:
    """A run that waits for an event sleeps; the first emission wakes it with the payload, once (B69)."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    wait = "suspend_runs(%s::bigint[], %s, '{0}', '{null}', '{event}', '{night-closed}')"
    assert queue.call(wait, [lease], [task]) is None
    assert queue.counts() == {"sleeping": 1}

    assert queue.call("emit_event('night-closed', '{\"n\": 12}')") is True
    assert queue.call("emit_event('night-closed', '{\"n\": 13}')") is False

    lease, tasks, attempts = queue.claim()
    assert (tasks, attempts) == ([task], [1])
    assert queue.call("value from checkpoint where task_id = %s", task) == {"payload": {"n": 12}}
    later = queue.spawn()
    queue.complete(lease, task)
    lease, _, _ = queue.claim()
    queue.call(wait, [lease], [later])
    assert queue.state(later) == "pending"  # emitted before the wait: found at once


def test_a_returned_run_goes_ahead_with_its_attempt(queue: Queue) -> None:
    """What is handed back keeps its attempt and is claimed before what waits at its priority (B57)."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    queue.spawn()
    assert queue.call("return_runs(%s::bigint[], %s, '{5}')", [lease], [task]) is None

    _, tasks, attempts = queue.claim(1)

    assert (tasks, attempts) == ([task], [1])
    assert [run["state"] for run in queue.document(task)["runs"]] == ["returned", "running"]


def test_a_paused_queue_hands_out_nothing(queue: Queue) -> None:
    """Paused, a queue keeps its backlog and gives it back when resumed; unknown queues raise AB005."""
    task = queue.spawn()
    queue.call("set_queue_paused('default', true)")
    assert queue.claim()[1] == []
    assert "paused" in queue.call("task_why(%s)", task)

    queue.call("set_queue_paused('default', false)")

    assert queue.claim()[1] == [task]
    with pytest.raises(psycopg.Error) as caught:
        queue.call("set_queue_paused('nowhere', true)")
    assert caught.value.sqlstate == "AB005"


def test_checkpoints_and_progress_are_fenced(queue: Queue) -> None:
    """Only who holds the claim may save a step or tell progress (B5, B9)."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    queue.call("set_checkpoint(%s, %s, 'solve', '[1]')", lease, task)
    queue.call("set_progress(%s, %s, 1, 2, 'half')", lease, task)
    assert queue.document(task)["progress"]["message"] == "half"

    queue.call("cancel_task(%s)", task)

    for sql in ("set_checkpoint(%s, %s, 'more', '1')", "set_progress(%s, %s, 2, 2, '')", "check_claim(%s, %s)"):
        with pytest.raises(psycopg.Error) as caught:
            queue.call(sql, lease, task)
        assert caught.value.sqlstate == "AB002"


def test_the_last_attempt_of_a_lost_worker_is_a_dead_letter(queue: Queue) -> None:
    """A task whose attempts are spent by a lost worker fails, once, with its dependents (B43)."""
    task = queue.spawn(max_attempts=1)
    child = queue.spawn(depends_on=[str(task)])
    queue.call("sweep_late()")
    queue.claim()
    queue.connection.execute("update worker set last_seen = last_seen - interval '1 hour'")

    assert queue.call("recover_runs()") == 1

    assert queue.state(task) == "failed"
    assert queue.document(task)["error"]["code"] == "worker_lost"
    assert queue.state(child) == "cancelled"
    assert queue.counts() == {"failed": 1, "cancelled": 1}
    assert queue.call("recover_runs()") == 0


def test_the_workers_side_refuses_other_isolation(queue: Queue) -> None:
    """At REPEATABLE READ a statement cannot see what committed meanwhile: the call is refused."""
    queue.spawn()
    with pytest.raises(psycopg.Error) as caught, queue.connection.transaction():
        queue.connection.execute("set transaction isolation level repeatable read")
        queue.claim()
    assert caught.value.sqlstate == "AB006"


def test_bodies_are_never_updated(queue: Queue) -> None:
    """Through spawn, claim, failure, retry and completion no row of `task` is written a second time."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    queue.fail(lease, task, 0)
    lease, _, _ = queue.claim()
    queue.complete(lease, task)
    queue.call("retry_task(%s)", task)
    queue.connection.execute("select pg_stat_force_next_flush()")

    updated = queue.call("sum(n_tup_upd)::int from pg_stat_user_tables where relname like 'task%%'")

    assert updated == 0


def test_status_tells_problems_and_what_to_do(queue: Queue) -> None:
    """A queue nobody serves and a dead letter each appear with an action."""
    queue.call("spawn_task('lonely', 'demo.add', '{}')")
    task = queue.spawn()
    lease, _, _ = queue.claim()
    queue.fail(lease, task, None)

    status = queue.call("get_status()")

    codes = {problem["code"]: problem for problem in status["problems"]}
    assert set(codes) == {"queue_unserved", "dead_letters"}
    assert codes["queue_unserved"]["action"] == "absurd-worker --queue lonely"
    assert {q["name"] for q in status["queues"]} == {"default", "lonely"}
