"""How workflows end: counted down by whoever ends their nodes, decided once, and opened again by a retry."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest
from sql_queue import Queue


class Workflow:
    """A workflow made by plain calls, one node at a time."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.id = queue.call("new_task_id()")
        queue.connection.execute(
            "insert into workflow (id, name, created_at, nodes, remaining) values (%s, 'tile', clock_time(), 0, 0)",
            [self.id],
        )

    def node(self, *parents: UUID, **options: Any) -> UUID:
        depends = {"depends_on": [str(parent) for parent in parents]} if parents else {}
        task = self.queue.spawn(workflow=str(self.id), **depends, **options)
        self.queue.call("sweep_late()")
        return task

    def facts(self) -> tuple[Any, ...]:
        row = self.queue.connection.execute(
            "select state, remaining, ended_at is not null, reason from workflow where id = %s", [self.id]
        ).fetchone()
        assert row is not None
        return tuple(row)


@pytest.fixture
def workflow(queue: Queue) -> Workflow:
    return Workflow(queue)


def finish(queue: Queue, **ends: str) -> None:
    """Claim and end whatever can be claimed, completed unless `ends` names the task's id."""
    while (claim := queue.claim())[1]:
        for task in claim[1]:
            queue.end(claim[0], task, ends.get(str(task), "completed"))


def test_the_last_node_completes_the_workflow(queue: Queue, workflow: Workflow) -> None:
    """It runs until every node has ended; the end is notified to who waits for it."""
    first = workflow.node()
    workflow.node(first)
    queue.connection.execute("insert into waiter values (%s, 'infinity')", [workflow.id])
    queue.connection.execute("listen absurd_ended")
    assert ("running", 2, False, None) == workflow.facts()

    finish(queue)

    assert ("completed", 0, True, None) == workflow.facts()
    heard = [note.payload for note in queue.connection.notifies(timeout=5, stop_after=1)]
    assert [str(workflow.id)] == heard


@pytest.mark.parametrize(
    ("when", "state"),
    [(None, "failed"), ("all_success", "failed"), ("all_done", "completed"), ("any_failed", "completed")],
)
def test_a_failure_counts_unless_a_dependent_takes_it_on(
    queue: Queue, workflow: Workflow, when: str | None, state: str
) -> None:
    """A failed node fails the workflow, except where a dependent ran that accepts failures."""
    failing = workflow.node()
    if when:
        workflow.node(failing, when=when)

    finish(queue, **{str(failing): "failed"})

    assert state == workflow.facts()[0]


def test_a_cancelled_node_alone_cancels_nothing_else(queue: Queue, workflow: Workflow) -> None:
    """Only the workflow cancelled as a whole is cancelled; a cancelled node is an end like another."""
    cancelled = workflow.node()
    workflow.node(cancelled, when="all_done")
    queue.call("cancel_task(%s)", cancelled)

    finish(queue)

    assert "completed" == workflow.facts()[0]


def test_a_workflow_is_cancelled_in_one_transaction(queue: Queue, workflow: Workflow) -> None:
    """Nodes in every state end, completed ones stay, and what depends on nodes from outside follows its condition."""
    sleeping, done = workflow.node(delay=60), workflow.node()
    finish(queue)
    running = workflow.node(done)
    lease, _, _ = queue.claim()
    nodes = [sleeping, workflow.node(), workflow.node(running), workflow.node(running, when="all_done")]
    outside = queue.spawn(depends_on=[str(nodes[-1])], when="all_done")
    queue.call("sweep_late()")

    assert "cancelled" == queue.call("cancel_workflow(%s, 'clouds')", workflow.id)

    assert ("cancelled", 0, True, "clouds") == workflow.facts()
    assert {"cancelled"} == {queue.state(node) for node in (running, *nodes)}
    assert "pending" == queue.state(outside)
    assert [running] == queue.complete(lease, running)
    assert queue.counts() == {"completed": 1, "cancelled": 5, "pending": 1}
    assert "cancelled" == queue.call("cancel_workflow(%s)", workflow.id)


def test_a_retried_workflow_runs_what_did_not_complete(queue: Queue, workflow: Workflow) -> None:
    """Failed nodes may be claimed at once, cancelled ones wait for their parents, completed ones are reused."""
    good, bad = workflow.node(), workflow.node()
    last = workflow.node(good, bad)
    finish(queue, **{str(bad): "failed"})
    assert ("failed", 0, True, None) == workflow.facts()

    assert 2 == queue.call("retry_workflow(%s)", workflow.id)

    assert ("running", 2, False, None) == workflow.facts()
    assert ["completed", "pending", "blocked"] == [queue.state(each) for each in (good, bad, last)]
    queue.call("sweep_late()")
    finish(queue)
    assert ("completed", 0, True, None) == workflow.facts()
    with pytest.raises(psycopg.Error, match="no node that failed"):
        queue.call("retry_workflow(%s)", workflow.id)


def test_a_cancelled_workflow_can_be_retried(queue: Queue, workflow: Workflow) -> None:
    """Its nodes wait for one another as before."""
    first = workflow.node()
    second = workflow.node(first)
    queue.call("cancel_workflow(%s)", workflow.id)

    assert 2 == queue.call("retry_workflow(%s)", workflow.id)
    queue.call("sweep_late()")

    assert ["pending", "blocked"] == [queue.state(each) for each in (first, second)]
    finish(queue)
    assert ("completed", 0, True, None) == workflow.facts()


def test_one_node_retried_or_run_anew_opens_the_workflow(queue: Queue, workflow: Workflow) -> None:
    """The workflow counts the nodes that came back."""
    first = workflow.node()
    workflow.node(first)
    finish(queue)

    queue.call("rerun_task(%s)", first)

    assert ("running", 2, False, None) == workflow.facts()
    queue.call("sweep_late()")
    finish(queue)
    queue.call("retry_task(%s)", first)
    assert ("running", 1, False, None) == workflow.facts()
    finish(queue)
    assert ("completed", 0, True, None) == workflow.facts()


def test_an_ended_workflow_takes_no_node(queue: Queue, workflow: Workflow) -> None:
    """Nor does one that is not there; the spawn leaves no row."""
    workflow.node()
    finish(queue)

    with pytest.raises(psycopg.Error) as ended:
        workflow.node()
    with pytest.raises(psycopg.Error) as unknown:
        queue.spawn(workflow="0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e")

    assert ("AB004", "AB011") == (ended.value.sqlstate, unknown.value.sqlstate)
    assert queue.counts() == {"completed": 1}


def test_nodes_have_names_of_their_own(queue: Queue, workflow: Workflow) -> None:
    """A name that is taken gets the end of the task's id behind it."""
    tasks = [workflow.node(node="image"), workflow.node(node="image"), workflow.node()]

    names = dict(queue.connection.execute("select task_id, name from node").fetchall())

    assert [names[task] for task in tasks] == ["image", f"image#{str(tasks[1])[-8:]}", "demo.add"]


def test_ended_workflows_cost_a_completion_nothing(queue: Queue, database_url: str) -> None:
    """Beside a held snapshot a completion walks through no workflow that has ended meanwhile."""

    def pages() -> int:
        task = queue.spawn()
        lease, _, _ = queue.claim(1)
        row = queue.connection.execute(
            "explain (analyze, buffers, format json) select complete_runs(%s::bigint[], %s, '{0}', '{null}')",
            [[lease], [task]],
        ).fetchone()
        assert row is not None
        return int(row[0][0]["Plan"]["Shared Hit Blocks"]) + int(row[0][0]["Plan"]["Shared Read Blocks"])

    pages()
    before = pages()
    with psycopg.connect(database_url) as holder:
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select from pg_class")
        queue.connection.execute(
            "insert into workflow (id, name, created_at, nodes, remaining)"
            " select new_task_id(), 'tile', clock_time(), 1, 1 from generate_series(1, 5000)"
        )
        queue.connection.execute("update workflow set remaining = 0, state = 'completed', ended_at = clock_time()")
        pages()

        assert pages() < before + 50
