"""``absurd workflow``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from absurd import SyncAbsurdClient, Workflow, WorkflowRun, new_task_id
from absurd.config import load_settings

if TYPE_CHECKING:
    from cli.conftest import Run


@pytest.fixture
def spawned(run: Run) -> WorkflowRun:
    wf = Workflow("tile-0412")
    first = wf.task("cli.add", {"a": 1, "b": 2}, name="first")
    second = wf.task("cli.add", {"a": 1, "b": 2}, name="second")
    wf.task("cli.add", {"a": 1, "b": 2}, after=[first, second], when="all_done", name="last")
    with SyncAbsurdClient(settings=load_settings()) as client:
        return client.spawn_workflow(wf)


def test_workflows_are_listed_and_filtered(run: Run, spawned: WorkflowRun) -> None:
    """By state and name, newest first, paged."""

    def listed(*words: str) -> list[str]:
        return [each["id"] for each in run("workflow", "list", "--json", *words).document]

    assert [str(spawned.id)] == listed() == listed("--state", "running", "--name", "tile-0412")
    assert [] == listed("--state", "failed") == listed("--after", str(spawned.id))
    text = run("workflow", "list", "--limit", "1")
    assert "0 of 3" in text.out
    assert "--after" in text.err


def test_show_draws_the_graph(run: Run, spawned: WorkflowRun) -> None:
    """Each node below one it waits for, with its state, the others it waits for, and its condition (B85)."""
    text = run("workflow", "show", str(spawned.id)).out

    lines = text.splitlines()
    assert "tile-0412" in lines[0]
    assert "3 nodes: 1 blocked, 2 pending" in text
    assert lines[-3:] == ["first  pending", "second  pending", "  last  blocked  when all_done  also after first"]
    document = run("workflow", "show", str(spawned.id), "--json", "--limit", "1").document
    assert (document["counts"], len(document["nodes"])) == ({"blocked": 1, "pending": 2}, 1)
    assert "2 more nodes" in run("workflow", "show", str(spawned.id), "--limit", "1").out
    shown = run("task", "show", str(spawned.tasks["last"]))
    assert f"tile-0412 {spawned.id}, node last" in shown.out
    assert run("workflow", "show", str(new_task_id())).code == 3


def test_cancel_retry_and_rerun(run: Run, spawned: WorkflowRun) -> None:
    """A cancelled workflow is retried as a whole; what has not ended cannot run anew."""
    assert "is cancelled" in run("workflow", "cancel", str(spawned.id), "--reason", "clouds").out
    assert "cancelled (clouds)" in run("workflow", "show", str(spawned.id)).out
    assert run("workflow", "retry", str(spawned.id), "--json").document["again"] == 3
    assert run("workflow", "rerun", str(spawned.id), "first").code == 5
    assert run("workflow", "rerun", str(spawned.id), "no such node").code == 3
    run("workflow", "cancel", str(spawned.id))
    assert "2 nodes of" in run("workflow", "rerun", str(spawned.id), "first").out
    assert "1 node of" in run("workflow", "rerun", str(spawned.id), "second", "--alone").out
