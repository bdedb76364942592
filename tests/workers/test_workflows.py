"""Workflows, result references, and what runs spawn and wait for: with a real worker on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from live import working

from absurd import (
    AbsurdClient,
    SyncAbsurdClient,
    TaskCancelled,
    TaskFailed,
    TaskState,
    WaitTimeoutError,
    Workflow,
    WorkflowCancelled,
    WorkflowFailed,
    new_task_id,
)
from absurd.config import Settings
from absurd.errors import InvalidParamsError, TaskStateError, UnknownParentError, WorkflowNotFoundError
from absurd.workers import AbsurdWorker


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, imports=("flow_executors",))


@pytest.fixture
async def worker(settings: Settings) -> AsyncIterator[AbsurdWorker]:
    async with working(settings) as running:
        yield running


# Workflows ---------------------------------------------------------------------------------------


async def test_a_workflow_runs_in_order_and_results_travel(client: AbsurdClient, worker: AbsurdWorker) -> None:
    """Fan-out, fan-in, and a process at the end: every node once, after its parents, with their results (B76, B88)."""
    wf = Workflow("tile")
    first = wf.task("flow.number", {"n": 5})
    more = wf.map("flow.number", [{"n": first.result["n"]}, {"n": 2}], after=first)
    added = wf.task("flow.sum", {"numbers": more.results["n"]})
    wf.task("flow.echo", {"sum": added.result, "null": first.result["nothing"], "plain": [1]}, name="end")

    run = await client.spawn_workflow(wf)
    done = await client.wait_workflow(run.id, timeout=30)

    assert (done["state"], done["counts"], done["remaining"]) == ("completed", {"completed": 5}, 0)
    end = await client.get_task(run.tasks["end"])
    assert end.result == {"sum": 7, "null": None, "plain": [1]}
    assert (end.workflow_id, end.workflow, end.node) == (run.id, "tile", "end")
    assert [each["node"] for each in done["nodes"]] == list(wf.nodes)
    ends = [(await client.get_task(each)).finished_at for each in run.tasks.values()]
    assert ends == sorted(ends)  # type: ignore[type-var]


async def test_a_failed_workflow_names_its_nodes(
    client: AbsurdClient, worker: AbsurdWorker, tmp_path: Path, settings: Settings
) -> None:
    """WorkflowFailed has node and message; mended and retried, what was cancelled upstream runs too (B77, B78)."""
    wf = Workflow("tile")
    bad = wf.task("flow.break", {"mended": str(tmp_path / "mended")}, name="dish")
    wf.task("flow.sum", {"numbers": [bad.result, 1]}, name="after")

    run = await client.spawn_workflow(wf)
    with pytest.raises(WorkflowFailed, match=r"tile.*failed: dish: the dish is full of snow") as failed:
        await client.wait_workflow(run.id, timeout=30)

    assert list(failed.value.details["nodes"]) == ["dish"]
    assert (await client.get_task(run.tasks["after"])).reason == "upstream"
    (tmp_path / "mended").touch()
    assert await client.retry_workflow(run.id) == 2
    assert (await client.wait_workflow(run.id, timeout=30))["state"] == "completed"
    assert (await client.get_task(run.tasks["after"])).result == 2
    with pytest.raises(TaskStateError):
        await client.retry_workflow(run.id)
    assert [each["state"] for each in await client.list_workflows(state="completed")] == ["completed"]


async def test_a_part_runs_anew_with_new_results(client: AbsurdClient, worker: AbsurdWorker, tmp_path: Path) -> None:
    """A rerun node and its descendants run again, on its new result; the rest is reused."""
    wf = Workflow("tile")
    a = wf.task("flow.number", {"n": 1}, name="a")
    b = wf.task("flow.echo", {"n": a.result["n"]}, name="b")
    wf.task("flow.sum", {"numbers": [b.result["n"], a.result["n"]]}, name="c")
    run = await client.spawn_workflow(wf)
    await client.wait_workflow(run.id, timeout=30)

    assert await client.rerun(run.tasks["b"]) == 2
    await client.wait_workflow(run.id, timeout=30)

    runs = {name: len((await client.get_task(task)).runs) for name, task in run.tasks.items()}
    assert runs == {"a": 1, "b": 2, "c": 2}


async def test_a_cancelled_workflow_tells_why(client: AbsurdClient) -> None:
    """Nothing of it runs any more, and who waits for it is told the reason (B79)."""
    wf = Workflow("tile")
    wf.task("flow.number", {"n": 1}, after=wf.task("flow.number", {"n": 1}))
    run = await client.spawn_workflow(wf)
    with pytest.raises(WaitTimeoutError, match=r"workflow .* is running after 0 s"):
        await client.wait_workflow(run.id, timeout=0)

    assert await client.cancel_workflow(run.id, "clouds") == "cancelled"

    with pytest.raises(WorkflowCancelled, match="clouds"):
        await client.wait_workflow(run.id, timeout=30)
    assert set((await client.get_states(run.tasks.values())).values()) == {TaskState.CANCELLED}
    with pytest.raises(WorkflowNotFoundError):
        await client.wait_workflow(new_task_id(), timeout=1)


async def test_an_empty_workflow_has_completed(client: AbsurdClient) -> None:
    """There is nothing to wait for (B87)."""
    run = await client.spawn_workflow(Workflow("nothing"))
    assert run.tasks == {}
    assert (await client.wait_workflow(run.id, timeout=5))["state"] == "completed"


def test_the_sync_client_is_a_twin(settings: Settings) -> None:
    """Spawn, look, cancel: the same calls without await; a spawn joins the caller's transaction."""
    wf = Workflow("tile")
    wf.task("flow.number", {"n": 1}, name="a")
    with SyncAbsurdClient(settings=settings) as client:
        with psycopg.connect(str(settings.database_url)) as own:
            gone = client.spawn_workflow(wf, connection=own)
            own.rollback()
        run = client.spawn_workflow(wf)
        assert client.get_workflow(run.id)["size"] == 1
        assert [each["id"] for each in client.list_workflows(name="tile")] == [str(run.id)]
        assert client.cancel_workflow(run.id) == "cancelled"
        with pytest.raises(WorkflowCancelled):
            client.wait_workflow(run.id, timeout=5)
        with pytest.raises(WorkflowNotFoundError):
            client.get_workflow(gone.id)


async def test_a_node_whose_key_is_taken_is_the_task_that_took_it(client: AbsurdClient, worker: AbsurdWorker) -> None:
    """Its children wait for that task, and references give that one's result."""
    first = await client.spawn("flow.number", {"n": 41}, key="k")
    wf = Workflow("tile")
    wf.task(
        "flow.sum", {"numbers": [wf.task("flow.number", {"n": 1}, key="k", name="keyed").result["n"], 1]}, name="sum"
    )

    run = await client.spawn_workflow(wf)
    await client.wait_workflow(run.id, timeout=30)

    assert run.tasks["keyed"] == first
    assert (await client.get_task(run.tasks["sum"])).result == 42


# Result references -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flow.sum", "flow.echo"])
async def test_a_missing_result_fails_the_run_for_good(client: AbsurdClient, worker: AbsurdWorker, name: str) -> None:
    """Node and path are named; no attempt more is spent, in the loop and in a process."""
    wf = Workflow("tile")
    a = wf.task("flow.number", {"n": 1}, name="a")
    wf.task(name, {"numbers": a.result["no such"]}, name="b")

    run = await client.spawn_workflow(wf)
    with pytest.raises(WorkflowFailed, match=r"b: params refer to result\['no such'\] of the node 'a'"):
        await client.wait_workflow(run.id, timeout=30)

    failed = await client.get_task(run.tasks["b"])
    assert (failed.error or {})["code"] == "result_missing"
    assert failed.attempts == 1


async def test_a_resolved_param_is_checked_at_the_run(client: AbsurdClient, worker: AbsurdWorker) -> None:
    """A typed executor's params are checked once their references are values."""
    wf = Workflow("tile")
    wf.task("flow.number", {"n": wf.task("flow.echo", {"n": "x"}, name="a").result["n"]}, name="b")
    run = await client.spawn_workflow(wf)
    with pytest.raises(WorkflowFailed, match=r"b: params of flow\.number: n"):
        await client.wait_workflow(run.id, timeout=30)


async def test_a_reference_to_no_parent_is_refused_at_spawn(client: AbsurdClient) -> None:
    """A plain spawn may use references too, to what it depends on."""
    reference = {"$result": {"task": str(new_task_id()), "path": []}}
    with pytest.raises(InvalidParamsError, match="not in depends_on"):
        await client.spawn("flow.number", {"n": reference})


# Spawning in a run -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["loop", "thread", "process"])
@pytest.mark.parametrize("wait", [False, True])
async def test_a_run_spawns_with_its_completion_or_suspension(
    client: AbsurdClient, worker: AbsurdWorker, kind: str, wait: bool
) -> None:
    """The children exist once; a run that waits for them gets their results in order, and the same ids."""
    parent = await client.spawn(f"flow.parent.{kind}", {"n": 3, "wait": wait})

    done = await client.wait(parent, timeout=120)

    children = [await client.wait(each, timeout=120) for each in done.result["ids"]]
    assert [child.result["n"] for child in children] == [0, 1, 2]
    assert (await client.get_queue_stats("default")).completed == 4
    if wait:
        assert [each["n"] for each in done.result["results"]] == [0, 1, 2]
        assert [run.state.value for run in done.runs] == ["suspended", "completed"]
        assert done.attempts == 1


async def test_children_of_a_node_join_its_workflow(client: AbsurdClient, worker: AbsurdWorker) -> None:
    """The workflow ends when they have ended too, though the spawner was its last node."""
    wf = Workflow("tile")
    wf.task("flow.parent.loop", {"n": 2}, name="parent")

    run = await client.spawn_workflow(wf)
    done = await client.wait_workflow(run.id, timeout=30)

    assert done["counts"] == {"completed": 3}
    names = [each["node"] for each in done["nodes"]]
    assert names[:2] == ["parent", "flow.number"]
    assert names[2].startswith("flow.number#")


async def test_a_failed_run_spawns_nothing(client: AbsurdClient, worker: AbsurdWorker) -> None:
    """What the first attempt spawned never exists; the second one's child does."""
    done = await client.wait(await client.spawn("flow.spawn_and_fail"), timeout=120)
    child = await client.wait(done.result["id"], timeout=120)
    assert child.result["n"] == 2
    assert (await client.get_queue_stats("default")).completed == 2


async def test_a_refused_spawn_fails_its_run_and_no_other(settings: Settings, client: AbsurdClient) -> None:
    """In one batch: the bad one fails for good with the reason, its neighbours complete (B83)."""
    good = [await client.spawn("flow.parent.loop", {"n": 1}) for _ in range(3)]
    unknown = await client.spawn("flow.spawn_bad", {"depends_on": [str(new_task_id())]})
    wrong = await client.spawn("flow.spawn_bad", {"priority": 10**6})
    named = await client.spawn("flow.spawn_bad", {"tags": "text"})
    good += [await client.spawn("flow.parent.loop", {"n": 1}) for _ in range(3)]

    async with working(settings):
        for each in good:
            await client.wait(each, timeout=120)
        with pytest.raises(TaskFailed, match="which is no task"):
            await client.wait(unknown, timeout=120)
        with pytest.raises(TaskFailed, match="option priority is 1000000"):
            await client.wait(wrong, timeout=120)
        with pytest.raises(TaskFailed, match="must be a list of texts"):
            await client.wait(named, timeout=120)

    assert ((await client.get_task(unknown)).error or {})["code"] == "unknown_parent"
    with pytest.raises(UnknownParentError):
        await client.spawn("flow.number", {"n": 1}, depends_on=[new_task_id()])


async def test_a_spawn_under_a_taken_key_is_the_first_task(client: AbsurdClient, worker: AbsurdWorker) -> None:
    """The wait leads to the task that has the key, and later runs are told its id."""
    first = await client.spawn("flow.number", {"n": 7}, key="the key")
    done = await client.wait(await client.spawn("flow.keyed"), timeout=120)
    assert done.result == {"id": str(first)}


# Waiting in a run --------------------------------------------------------------------------------


async def test_a_run_that_waits_holds_no_slot(settings: Settings, client: AbsurdClient, tmp_path: Path) -> None:
    """With one slot, on one queue, the awaited task runs while the other waits for it (B72)."""
    async with working(settings, concurrency=1):
        child = await client.spawn("flow.number", {"n": 3}, delay=0.2)
        done = await client.wait(await client.spawn("flow.wait", {"ids": [str(child)]}), timeout=120)
    assert done.result == [{"n": 3, "nothing": None}]


async def test_what_has_ended_is_not_waited_for(client: AbsurdClient, worker: AbsurdWorker) -> None:
    """The completion that came before the wait is not lost, and costs no suspension (B86)."""
    child = await client.spawn("flow.number", {"n": 3})
    await client.wait(child, timeout=120)
    done = await client.wait(await client.spawn("flow.wait", {"ids": [str(child)]}), timeout=120)
    assert [run.state.value for run in done.runs] == ["completed"]


async def test_failures_are_raised_or_returned(client: AbsurdClient, worker: AbsurdWorker) -> None:
    """As asyncio.gather does: the first raises, unless exceptions are asked for; unknown ids raise."""
    bad = str(await client.spawn("flow.break", {}))
    gone = str(await client.spawn("flow.number", {"n": 1}, delay=3600))
    good = str(await client.spawn("flow.number", {"n": 1}))
    await client.cancel(gone, "clouds")
    returned = await client.spawn("flow.wait", {"ids": [good, bad, gone], "return_exceptions": True})
    raised = await client.spawn("flow.wait", {"ids": [good, bad]})
    unknown = await client.spawn("flow.wait", {"ids": [str(new_task_id())]})

    result = (await client.wait(returned, timeout=120)).result

    assert result[0] == {"n": 1, "nothing": None}
    assert "full of snow" in result[1]
    assert "clouds" in result[2]
    with pytest.raises(TaskFailed, match="full of snow"):
        await client.wait(raised, timeout=120)
    with pytest.raises(TaskFailed, match="there is no task"):
        await client.wait(unknown, timeout=120)


async def test_waiting_in_a_circle_ends(client: AbsurdClient, worker: AbsurdWorker) -> None:
    """For oneself: refused. For a child that waits for oneself, or for one another: cancelled with the reason."""
    itself = await client.spawn("flow.wait_self")
    descendant = await client.spawn("flow.wait_descendant")
    one = await client.spawn("flow.wait_partner", {"event": "one"})
    two = await client.spawn("flow.wait_partner", {"event": "two"})
    await asyncio.gather(client.emit_event("one", str(two)), client.emit_event("two", str(one)))

    with pytest.raises(TaskFailed, match="would wait for itself"):
        await client.wait(itself, timeout=120)
    with pytest.raises(TaskCancelled, match="waits for it"):
        await client.wait(descendant, timeout=120)
    ends = await asyncio.gather(client.wait(one, timeout=120), client.wait(two, timeout=120), return_exceptions=True)
    assert any("waits for it" in str(each) for each in ends)
    assert all(isinstance(each, TaskCancelled | TaskFailed) for each in ends)


async def test_a_wait_for_tasks_ends_in_time(client: AbsurdClient, worker: AbsurdWorker) -> None:
    """After the timeout it raises, once, and is not waited for anew (B71)."""
    later = await client.spawn("flow.number", {"n": 1}, delay=3600)
    waiting = await client.spawn("flow.wait", {"ids": [str(later)], "timeout": 0.1})
    with pytest.raises(TaskFailed, match=r"have not all ended after 0\.1 s"):
        await client.wait(waiting, timeout=120)
    assert [run.state.value for run in (await client.get_task(waiting)).runs] == ["suspended", "failed"]
    in_time = await client.spawn("flow.number", {"n": 1}, delay=0.1)
    done = await client.wait(await client.spawn("flow.wait", {"ids": [str(in_time)], "timeout": 60}), timeout=120)
    assert done.result == [{"n": 1, "nothing": None}]
