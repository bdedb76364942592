"""Keys in the lock order: after blocked tasks, before workflows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sessions import Session

from absurd.queue import new_task_id

Until = Callable[[Callable[[], object]], None]
KEYED = {"key": "k", "key_scope": "unfinished"}


def spawn(session: Session, **options: Any) -> UUID:
    task: UUID = session.call("task_id from spawn_task('default', 'x', '{}', %s)", json.dumps(options))
    return task


def two_nodes(session: Session, **options: Any) -> tuple[UUID, list[UUID]]:
    """A workflow of two nodes, the second with options."""
    workflow, nodes = new_task_id(), [new_task_id(), new_task_id()]
    session.call(
        "count(*) from spawn_workflow(%s, 'w', %s, '{default,default}', '{x,x}', '{null,null}', %s::text[]::jsonb[])",
        workflow,
        nodes,
        ["{}", json.dumps(options)],
    )
    return workflow, nodes


def completion(session: Session, task: UUID) -> tuple[str, int, list[UUID], str]:
    """A completion of a task, the only one that is pending, which spawns another under the key."""
    worker = session.call("register_worker('t', 'h', 1, '{default}', 1, '{}', '{}', 30)")
    sql = "task_ids from claim_runs(%s, (select id from queue where name = 'default'), 9, '{}', '{}')"
    assert session.call(sql, (worker << 32) + 1) == [task]
    spawned = {
        "task": str(task),
        "id": str(new_task_id()),
        "queue": "default",
        "name": "x",
        "options": json.dumps(KEYED),
    }
    sql = "complete_runs(array[%s::bigint], %s, '{0}', '{null}', null, %s::jsonb)"
    return sql, (worker << 32) + 1, [task], json.dumps([spawned])


def test_a_node_that_spawns_under_a_key_beside_a_node_spawned_under_it(
    sessions: Callable[[], Session], until: Until
) -> None:
    """Both need the key and the workflow: they take them in one order, and the key means one task."""
    holder, spawning, completing, observer = sessions(), sessions(), sessions(), sessions()
    ended = spawn(observer, **KEYED)
    observer.call("cancel_task(%s)", ended)
    workflow, nodes = two_nodes(observer)
    observer.call("cancel_task(%s)", nodes[1])
    end = completion(observer, nodes[0])

    holder.begin()
    holder.call("1 from task_key for update")
    options = json.dumps({**KEYED, "workflow": str(workflow)})
    spawning.call_later("task_id from spawn_task('default', 'x', '{}', %s)", options)
    until(lambda: spawning.waits(observer))
    completing.call_later(*end)
    until(lambda: completing.waits(observer))
    holder.commit()

    assert completing.result() is None
    assert observer.call("task_id from task_key") == spawning.result()
    assert observer.call("array[nodes, remaining] from workflow") == [3, 1]


@pytest.mark.parametrize("shared", ["workflow", "child"])
def test_a_run_that_spawns_under_a_key_beside_a_retry_that_takes_it_back(
    sessions: Callable[[], Session], until: Until, shared: str
) -> None:
    """They share a workflow too, or a child that waits for both: neither is a deadlock's victim."""
    holder, retrying, completing, observer = sessions(), sessions(), sessions(), sessions()
    if shared == "workflow":
        _, (node, retried) = two_nodes(observer, **KEYED)
    else:
        node, retried = spawn(observer), spawn(observer, **KEYED)
        spawn(observer, depends_on=[str(node), str(retried)], when="all_done")
        observer.call("sweep_late()")
    observer.call("cancel_task(%s)", retried)
    observer.call("cancel_task(%s)", spawn(observer, **KEYED))
    end = completion(observer, node)

    holder.begin()
    holder.call("1 from task_key for update")
    retrying.call_later("retry_task(%s)", retried)
    until(lambda: retrying.waits(observer))
    completing.call_later(*end)
    until(lambda: completing.waits(observer))
    holder.commit()

    assert [retrying.result(), completing.result()] == ["pending", None]
    assert observer.call("task_id from task_key") == retried
