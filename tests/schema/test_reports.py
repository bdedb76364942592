"""Reports and spawns that are not as they should be: named twice, of unequal length, with holes."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sql_queue import Queue

from absurd.queue import new_task_id
from absurd.retry import LONGEST_DELAY, ErrorRule, RetryPolicy


@pytest.mark.parametrize("report", ["complete", "fail", "retry", "suspend", "return", "cancel"])
@pytest.mark.parametrize("held", [1, 2], ids=["whole", "part"])
def test_a_run_reported_twice_in_one_call_ends_once(queue: Queue, report: str, held: int) -> None:
    """A task that stands twice in a report is closed and counted once, and its other reports are kept."""
    task, *_ = [queue.spawn() for _ in range(held)]
    lease, _, _ = queue.claim(held)
    sql = {
        "complete": "complete_runs(%s::bigint[], %s, '{0,0}', '{1,2}')",
        "fail": "fail_runs(%s::bigint[], %s, '{0,0}', '{null,null}', '{null,null}')",
        "retry": "fail_runs(%s::bigint[], %s, '{0,0}', '{null,null}', '{9,9}')",
        "suspend": "suspend_runs(%s::bigint[], %s, '{0,0}', '{9,9}', '{sleep,sleep}', '{null,null}')",
        "return": "return_runs(%s::bigint[], %s, '{0,0}')",
        "cancel": "cancel_runs(%s::bigint[], %s, '{0,0}', '{no,no}')",
    }[report]

    assert queue.call(sql, [lease, lease], [task, task]) is None

    assert queue.call("count(*) from run where task_id = %s", task) == 1
    assert sum(queue.counts().values()) == held


@pytest.mark.parametrize(
    "sql",
    [
        "complete_runs(%s::bigint[], %s, '{0,0}', '{1}')",
        "complete_runs(%s::bigint[], %s, '{0}', '{1,2}')",
        "complete_runs(%s::bigint[], %s, null, null)",
        "fail_runs(%s::bigint[], %s, '{0,0}', '{null,null}', '{9}')",
        "fail_runs(%s::bigint[], %s, '{0,0}', '{null}', '{9,9}')",
        "suspend_runs(%s::bigint[], %s, '{0,0}', '{9}', '{a,b}', '{null,null}')",
        "suspend_runs(%s::bigint[], %s, '{0,0}', '{9,9}', '{a,b}', null)",
        "return_runs(%s::bigint[], %s, '{0}')",
        "cancel_runs(%s::bigint[], %s, '{0,0}', '{no}')",
    ],
)
def test_arrays_of_a_report_are_of_one_length(queue: Queue, sql: str) -> None:
    """A shorter array would lose a result, or make a retry a failure for good: it is refused, and nothing changes."""
    tasks = [queue.spawn(), queue.spawn()]
    lease, _, _ = queue.claim(2)

    with pytest.raises(psycopg.Error, match="differ in length") as caught:
        queue.call(sql, [lease, lease], tasks)
    assert caught.value.sqlstate == "AB001"
    with pytest.raises(psycopg.Error, match="differ in length"):
        queue.call(sql, [lease], tasks)

    assert queue.counts() == {"running": 2}


def test_holes_and_nothing_are_reports_too(queue: Queue) -> None:
    """A null among tasks or leases is stale like any other task that is not held; an empty report changes nothing."""
    task, other = queue.spawn(), queue.spawn()
    lease, _, _ = queue.claim(2)

    assert queue.call("complete_runs('{}', '{}', '{}', '{}')") is None
    assert queue.call(
        "complete_runs(%s::bigint[], %s, '{0,0,0}', '{1,2,3}')", [lease, lease, None], [task, None, other]
    ) == [
        None,
        other,
    ]

    assert queue.counts() == {"running": 1, "completed": 1}


def test_a_file_named_twice_is_one_artifact(queue: Queue) -> None:
    """The last word of a run on a path counts; the completion does not fail for it."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    files = [{"task": str(task), "path": "a", "attempt_path": name, "kind": "file"} for name in (".a1", ".a2")]

    sql = "complete_runs(%s::bigint[], %s, '{0}', '{null}', %s::jsonb)"
    assert queue.call(sql, [lease], [task], json.dumps(files)) is None

    assert queue.call("attempt_path from get_publications(%s)", task) == ".a2"


def test_options_of_a_workflow_are_as_many_as_its_tasks(queue: Queue) -> None:
    """Fewer options than tasks would leave some without: they are refused, and nothing of the workflow exists."""
    ids = [new_task_id(), new_task_id()]
    with pytest.raises(psycopg.Error, match="differ in length") as caught:
        queue.call(
            "count(*) from spawn_workflow(%s, 'w', %s, '{default,default}', '{x,x}', '{null,null}',"
            " array['{}'::jsonb])",
            new_task_id(),
            ids,
        )
    assert caught.value.sqlstate == "AB001"
    assert queue.call("count(*) from workflow") == 0


def nodes(queue: Queue, workflow: UUID) -> list[str]:
    rows = queue.connection.execute("select name from node where workflow_id = %s order by name", [workflow]).fetchall()
    return [row[0] for row in rows]


def test_nodes_of_one_name_whose_ids_end_alike(queue: Queue) -> None:
    """Ids of other programs may differ at their beginnings only; each node gets a name of its own all the same."""
    workflow = new_task_id()
    ids = [UUID(str(new_task_id())[:15] + f"{n:03x}-8000-0000000000ff") for n in range(4)]
    queue.call(
        "count(*) from spawn_workflow(%s, 'w', %s, array_fill('default'::text, '{4}'), array_fill('x'::text, '{4}'),"
        " array_fill(null::jsonb, '{4}'))",
        workflow,
        ids,
    )
    assert len(nodes(queue, workflow)) == 4


@pytest.mark.parametrize(
    ("retry", "told"),
    [
        ({"tries": 3}, "unknown tries"),
        ({"max_attempts": "3"}, 'retry.max_attempts is "3"'),
        ({"max_attempts": 1.5}, "retry.max_attempts is 1.5"),
        ({"base": None}, "retry.base is null"),
        ({"factor": 0.5}, "retry.factor is 0.5"),
        ({"jitter": 2}, "retry.jitter is 2"),
        ({"rules": {}}, "retry.rules is {}"),
        ({"rules": [1]}, "rule is a JSON object"),
        ({"rules": [{"exeption": "OSError"}]}, "unknown exeption"),
        ({"rules": [{"exit_code": 256}]}, "retry.rules.exit_code is 256"),
        ({"rules": [{"out_of_memory": "yes"}]}, "retry.rules.out_of_memory is"),
        ({"rules": [{"action": "ignore"}]}, "retry.rules.action is"),
        ({"rules": [{"queue": "a b"}]}, "retry.rules.queue is"),
        ({"rules": [{"memory_max_gib": 4}]}, "memory_max_gib limits memory_factor"),
    ],
)
def test_a_retry_policy_nobody_could_follow_is_refused(queue: Queue, retry: dict[str, Any], told: str) -> None:
    """Whoever spawns, in whatever language: a worker would follow its own policy instead and only log that."""
    with pytest.raises(psycopg.Error, match=told) as caught:
        queue.spawn(retry=retry)
    assert caught.value.sqlstate == "AB001"
    assert queue.call("count(*) from task") == 0


def test_every_policy_of_python_is_taken(queue: Queue) -> None:
    """What the Python client stores passes the check of SQL, bounds included."""
    rules = [
        ErrorRule(
            exception="OSError", exit_code=0, signal="SIGSEGV", out_of_memory=True, text="full", delay=0.0, base=1.5
        ),
        ErrorRule(
            action="reject", factor=1.0, maximum=LONGEST_DELAY, memory_factor=1_000, memory_max_gib=0, queue="a.b"
        ),
        ErrorRule(),
    ]
    for policy in (RetryPolicy(), RetryPolicy(32_767, 0.0, 1_000.0, LONGEST_DELAY, 1.0, rules=tuple(rules))):
        task = queue.spawn(retry=policy.to_json())
        assert RetryPolicy.from_json(queue.call("retry from task where id = %s", task)) == policy
    queue.spawn(retry={"rules": None})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ('{"priority": 1e400}', "option priority is 1000"),
        ('{"timeout": 1e400}', "option timeout is 1000"),
        ('{"needs": {"cpu": 1e400}}', "option needs.cpu is 1000"),
        ('{"run_at": "2026-01-01"}', "must be a time with its zone"),
        ('{"run_at": "2026-01-01T10:00"}', "must be a time with its zone"),
    ],
)
def test_numbers_out_of_range_and_dates_are_refused_by_name(queue: Queue, options: str, told: str) -> None:
    """A number no double can hold is named like any other wrong one; the day of a date is not taken for a zone."""
    with pytest.raises(psycopg.Error, match=told) as caught:
        queue.call("task_id from spawn_task('default', 'x', '{}', %s)", options)
    assert caught.value.sqlstate == "AB001"


def test_a_wait_for_oneself_is_refused_and_one_said_twice_is_one(queue: Queue) -> None:
    """A run that waits for its own task would never go on; one that is reported twice waits once."""
    other, task = queue.spawn(), queue.spawn()
    lease, _, _ = queue.claim(2)
    sql = "suspend_runs(%s::bigint[], %s, '{0}', '{null}', '{tasks}', '{null}', null, %s::jsonb)"

    with pytest.raises(psycopg.Error, match="would wait for itself") as caught:
        queue.call(sql, [lease], [task], json.dumps([{"task": str(task), "on": [str(task)]}]))
    assert caught.value.sqlstate == "AB001"
    assert queue.call(sql, [lease], [task], json.dumps([{"task": str(task), "on": [str(other)]}] * 2)) is None

    assert queue.counts() == {"blocked": 1, "running": 1}


def test_a_wait_of_nobody_leaves_the_others_where_they_are(queue: Queue) -> None:
    """An entry that names no task concerns none: the run sleeps as it was told, and is not lost."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    sql = "suspend_runs(%s::bigint[], %s, '{0}', '{9}', '{sleep}', '{null}', null, %s)"

    queue.call(sql, [lease], [task], json.dumps([{"on": [str(new_task_id())], "seconds": 5}]))

    assert queue.state(task) == "sleeping"
    assert queue.counts() == {"sleeping": 1}


def test_numbers_of_claims_rise_and_stay_with_their_worker(queue: Queue) -> None:
    """A count that has run over, or below what the worker said to be over, is refused: its lease would not be found."""
    queue.new_worker()
    queue.call("beat(%s, array[%s::bigint])", queue.worker, (queue.worker << 32) + 3)

    for count in (2**32, 2):
        with pytest.raises(psycopg.Error, match="the numbers of claims rise") as caught:
            queue.call("claim_runs(%s, 1, 1, '{}', '{}')", (queue.worker << 32) + count)
        assert caught.value.sqlstate == "AB001"
