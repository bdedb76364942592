"""A real worker on a real database: every task runs, its outcome is recorded, and nothing is left behind."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from live import completed_unpublished, soon, working

from absurd import (
    AbsurdClient,
    FilesMissing,
    RetryPolicy,
    RunContext,
    TaskCancelled,
    TaskFailed,
    TaskSpec,
    TaskState,
    executor,
)
from absurd.config import Settings
from absurd.workers import AbsurdWorker


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The executors of the tests are found by import, by child processes too."""
    return replace(settings, imports=("demo_executors",))


async def test_a_task_is_executed_and_waited_for(settings: Settings, client: AbsurdClient) -> None:
    """Spawn, wait, result: and the history names the worker and the times."""
    async with working(settings) as worker:
        task_id = await client.spawn("demo.add", {"a": 1, "b": 2})
        done = await client.wait(task_id, timeout=120)

    assert done.result == {"sum": 3}
    assert done.state is TaskState.COMPLETED
    (run,) = done.runs
    assert (run.attempt, run.worker) == (1, worker.name)
    assert done.created_at <= run.started_at <= run.finished_at  # type: ignore[operator]


async def test_every_slot_kind_executes(settings: Settings, client: AbsurdClient) -> None:
    """Loop, thread and process executors run side by side; a process is not the worker's own."""
    import os

    async with working(settings):
        ids = await client.spawn_many(
            [
                TaskSpec("demo.add", {"a": 1, "b": 1}),
                TaskSpec("demo.think", {"n": 4}),
                TaskSpec("demo.crunch", {"n": 3}),
            ]
        )
        added, thought, crunched = [await client.wait(each, timeout=120) for each in ids]

    assert (added.result, thought.result) == ({"sum": 2}, 4.0)
    assert crunched.result["value"] == 9
    assert crunched.result["pid"] != os.getpid()
    assert crunched.progress is not None and crunched.progress["message"] == "half"


async def test_children_know_the_workers_database(settings: Settings, client: AbsurdClient) -> None:
    """An executor in a child process reads the settings and finds the database its worker was given."""
    async with working(settings):
        done = await client.wait(await client.spawn("demo.where", {}), timeout=120)

    assert done.result == {"url": settings.database_url, "schema": "absurd"}


async def test_failures_are_retried_until_they_are_not(settings: Settings, client: AbsurdClient) -> None:
    """A task that succeeds at its second attempt completes; one that never does is failed with its last error (B35)."""
    async with working(settings):
        good = await client.spawn("demo.fail", {"until": 2})
        bad = await client.spawn("demo.fail", {})
        assert (await client.wait(good, timeout=120)).result == 2
        with pytest.raises(TaskFailed, match="attempt 3 broke"):
            await client.wait(bad, timeout=120)

    task = await client.get_task(bad)
    assert [run.state for run in task.runs] == ["failed"] * 3
    assert task.error is not None and task.error["type"] == "ValueError"


async def test_a_rule_changes_the_task_before_its_next_attempt(settings: Settings, client: AbsurdClient) -> None:
    """The worker reports by the rule, and the task goes on with more memory on the other queue."""
    rule = {"exception": "ValueError", "text": "broke", "delay": 0, "queue": "large", "memory_factor": 4}
    task_id = await client.spawn("demo.fail", {"until": 2}, needs={"memory_gib": 0.01}, retry={"rules": [rule]})
    worker = AbsurdWorker(settings=settings, queues=["default", "large"])
    await worker.run("drain")

    task = await client.get_task(task_id)
    assert (task.state, task.queue, task.result) == (TaskState.COMPLETED, "large", 2)
    assert task.runs[0].error is not None and "builtins.ValueError" in task.runs[0].error["classes"]


async def test_params_that_do_not_fit_fail_at_once(settings: Settings, client: AbsurdClient) -> None:
    """Spawned in SQL past the check, bad params end the task without a retry, with the field's name (B40)."""
    async with working(settings):
        async with await psycopg.AsyncConnection.connect(settings.database_url or "", autocommit=True) as connection:
            cursor = await connection.execute(
                "select task_id from absurd.spawn_task('default', 'demo.add', '{\"a\": 1}')"
            )
            row = await cursor.fetchone()
        assert row is not None
        with pytest.raises(TaskFailed, match="b"):
            await client.wait(row[0], timeout=120)

    assert len((await client.get_task(row[0])).runs) == 1


async def test_an_unknown_executor_is_parked_until_a_worker_knows_it(settings: Settings, client: AbsurdClient) -> None:
    """A name no worker knows is put aside and told by status; a worker that knows it takes it at once (B26)."""
    from absurd.executor import executor

    task_id = await client.spawn("demo.unheard", {})
    async with working(settings):
        async with asyncio.timeout(30):
            while (await client.get_states([task_id]))[task_id] is not TaskState.SLEEPING:
                await asyncio.sleep(0.01)
    status = await client.get_status()
    assert "executor_unknown" in {problem["code"] for problem in status["problems"]}

    @executor("demo.unheard")
    async def heard(ctx: Any, params: dict[str, Any]) -> str:
        return "heard"

    async with working(settings):
        assert (await client.wait(task_id, timeout=120)).result == "heard"


async def test_steps_sleeps_and_events_survive(settings: Settings, client: AbsurdClient, tmp_path: Path) -> None:
    """A task that sleeps and waits runs its step once and gets the event's payload; no attempt is spent."""
    async with working(settings):
        task_id = await client.spawn("demo.steps", {"path": str(tmp_path / "ran"), "event": "dawn"})
        async with asyncio.timeout(30):
            while "event" not in await client.task_why(task_id):
                await asyncio.sleep(0.01)
        await client.emit_event("dawn", {"sun": "up"})
        done = await client.wait(task_id, timeout=120)

    assert done.result == [7, {"sun": "up"}]
    assert (tmp_path / "ran").read_text() == "once\n"
    assert done.attempts == 1


async def test_artifacts_are_published_before_wait_returns(
    settings: Settings, client: AbsurdClient, tmp_path: Path
) -> None:
    """The file stands under its final name, with its checksum in the task; no attempt file remains."""
    path = tmp_path / "out" / "hello.txt"
    async with working(settings):
        task_id = await client.spawn("demo.write", {"path": str(path), "text": "hello"})
        done = await client.wait(task_id, timeout=120)

    assert path.read_text() == "hello"
    assert [each.name for each in path.parent.iterdir()] == ["hello.txt"]
    (artifact,) = done.artifacts
    assert (artifact.path, artifact.bytes) == (str(path), 5)


async def test_an_artifact_has_the_mode_of_what_it_replaces(
    settings: Settings, client: AbsurdClient, tmp_path: Path
) -> None:
    """What only its owner could read does not become readable for all by being made anew."""
    path = tmp_path / "hello.txt"
    path.write_text("proprietary")
    path.chmod(0o640)
    async with working(settings):
        await client.wait(await client.spawn("demo.write", {"path": str(path), "text": "hello"}), timeout=120)

    assert (path.read_text(), path.stat().st_mode & 0o777) == ("hello", 0o640)


async def test_any_worker_finishes_a_publication_that_a_crash_interrupted(
    settings: Settings, client: AbsurdClient, tmp_path: Path
) -> None:
    """A worker that died between completion and renaming leaves the file to the others; `wait` returns after it."""
    final, mine = tmp_path / "image.txt", tmp_path / ".image.part"
    mine.write_text("whole")
    task_id = await client.spawn("demo.write", {})
    completed_unpublished(settings, task_id, final, mine)
    assert not final.exists()

    async with working(settings):
        done = await client.wait(task_id, timeout=120)

    assert final.read_text() == "whole"
    assert not mine.exists()
    assert done.artifacts[0].path == str(final)


async def test_a_wait_for_files_that_nobody_reaches_ends(
    settings: Settings, client: AbsurdClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file lies on the disk of a machine that is gone: a wait without a limit says so in the end."""
    monkeypatch.setattr("absurd.waiting.PUBLICATION_SECONDS", 0.3)
    task_id = await client.spawn("demo.write", {})
    completed_unpublished(settings, task_id, Path("/nonexistent/image.txt"), Path("/nonexistent/.image.part"))

    async with working(settings):
        with pytest.raises(FilesMissing, match="absurd task retry"):
            await asyncio.wait_for(client.wait(task_id), 30)

    assert (await client.get_task(task_id)).state == TaskState.COMPLETED


async def test_cancel_stops_what_runs(settings: Settings, client: AbsurdClient, tmp_path: Path) -> None:
    """A running task that is cancelled is cancelled at once, and its worker stops the work and goes on (B50)."""
    async with working(settings, concurrency=1):
        held = {"started": str(tmp_path / "started"), "release": str(tmp_path / "never")}
        task_id = await client.spawn("demo.hold", held)
        await soon((tmp_path / "started").exists)
        assert await client.cancel(task_id, "enough") is TaskState.CANCELLED
        with pytest.raises(TaskCancelled, match="enough"):
            await client.wait(task_id, timeout=120)
        # The only slot is free again.
        other = await client.spawn("demo.add", {"a": 2, "b": 2})
        assert (await client.wait(other, timeout=120)).result == {"sum": 4}


async def test_stopping_hands_back_what_does_not_end(settings: Settings, client: AbsurdClient, tmp_path: Path) -> None:
    """Past its grace a stopping worker gives its runs back, attempt unspent; another finishes them (B56)."""
    held = {"started": str(tmp_path / "started"), "release": str(tmp_path / "release")}
    task_id = await client.spawn("demo.hold", held)
    worker = AbsurdWorker(settings=settings)
    runner = asyncio.create_task(worker.run())
    await soon((tmp_path / "started").exists)
    await worker.stop(grace=0.05)
    await runner
    assert (await client.get_states([task_id]))[task_id] is TaskState.PENDING

    (tmp_path / "release").touch()
    async with working(settings):
        done = await client.wait(task_id, timeout=120)

    assert done.result == "attempt 1"
    assert [run.state for run in done.runs] == ["returned", "completed"]
    assert [each["state"] for each in await client.list_workers(all=True)] == ["stopped", "stopped"]


async def test_cancelling_the_worker_hands_back_too(settings: Settings, client: AbsurdClient, tmp_path: Path) -> None:
    """A worker whose coroutine is cancelled leaves nothing running in the database."""
    held = {"started": str(tmp_path / "started"), "release": str(tmp_path / "release")}
    task_id = await client.spawn("demo.hold", held)
    runner = asyncio.create_task(AbsurdWorker(settings=settings).run())
    await soon((tmp_path / "started").exists)
    runner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await runner

    assert (await client.get_states([task_id]))[task_id] is TaskState.PENDING


async def test_an_outcome_on_its_way_survives_cancelling_the_worker(
    settings: Settings, client: AbsurdClient, tmp_path: Path
) -> None:
    """A worker cancelled while the database takes its report still reads the answer: the task has completed, once."""
    held = {"started": str(tmp_path / "started"), "release": str(tmp_path / "release")}
    task_id = await client.spawn("demo.hold", held)
    runner = asyncio.create_task(AbsurdWorker(settings=settings).run())
    await soon((tmp_path / "started").exists)
    url = settings.database_url or ""
    with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as observer:
        holder.execute("select from absurd.lease for update")
        (tmp_path / "release").touch()
        waits = "select from pg_stat_activity where wait_event_type = 'Lock' and query like '%step(%'"
        await soon(lambda: observer.execute(waits).fetchall())

        runner.cancel()
        holder.rollback()
        with pytest.raises(asyncio.CancelledError):
            await runner

    task = await client.get_task(task_id)
    assert (TaskState.COMPLETED, ["completed"]) == (task.state, [run.state for run in task.runs])


async def test_two_workers_drain_ten_thousand_tasks_once(settings: Settings, client: AbsurdClient) -> None:
    """Each task runs exactly once, with fewer than 0.1 statements a task, and no body is updated."""
    from absurd.executor import executor

    ran: list[int] = []

    @executor("demo.count")
    async def count(ctx: Any, params: dict[str, Any]) -> None:
        ran.append(params["n"])

    ids = await client.spawn_many(TaskSpec("demo.count", {"n": n}) for n in range(10_000))
    url = settings.database_url or ""
    with psycopg.connect(url, autocommit=True) as connection:

        def count_statements() -> int:
            connection.execute("select pg_stat_force_next_flush()")
            row = connection.execute(
                "select xact_commit from pg_stat_database where datname = current_database()"
            ).fetchone()
            assert row is not None
            return int(row[0])

        before = count_statements()
        await asyncio.gather(*(AbsurdWorker(settings=settings, concurrency=200).run(until="drain") for _ in range(2)))
        statements = count_statements() - before
        row = connection.execute(
            "select coalesce(sum(n_tup_upd), 0)::int from pg_stat_user_tables where relname like 'task\\_2%'"
        ).fetchone()

    assert sorted(ran) == list(range(10_000))
    assert statements < 1_000
    assert row == (0,)
    assert (await client.get_queue_stats("default")).completed == 10_000
    states = await client.get_states(ids)
    assert set(states.values()) == {TaskState.COMPLETED}


async def test_a_worker_that_was_given_up_stops_and_its_late_word_is_refused(
    settings: Settings, client: AbsurdClient, tmp_path: Path
) -> None:
    """Taken for dead while it only slept, a worker loses its runs; they complete elsewhere, once."""
    held = {"started": str(tmp_path / "started"), "release": str(tmp_path / "release")}
    task_id = await client.spawn("demo.hold", held)
    first = AbsurdWorker(settings=settings)
    runner = asyncio.create_task(first.run())
    await soon((tmp_path / "started").exists)
    given_up = first.id
    # In one transaction: else the worker's own beat or round comes between.
    with psycopg.connect(settings.database_url or "") as connection:
        connection.execute("update absurd.worker set last_seen = last_seen - interval '1 hour'")
        assert connection.execute("select absurd.recover_runs()").fetchone() == (1,)
    (tmp_path / "release").touch()

    async with working(settings):
        done = await client.wait(task_id, timeout=120)
    await soon(lambda: first.id != given_up)  # it goes on under a new number
    await first.stop(grace=5)
    await runner

    assert done.result == "attempt 2"
    assert [run.state for run in done.runs] == ["lost", "completed"]


def test_bad_arguments_are_refused(settings: Settings) -> None:
    """Concurrency and prefetch out of range, or executors that are none, raise with the value."""
    from absurd.errors import ConfigurationError

    for options in ({"concurrency": 0}, {"prefetch": -1}, {"executors": [print]}):
        with pytest.raises(ConfigurationError):
            AbsurdWorker(settings=settings, **options)


async def test_an_outcome_that_the_database_refuses_spoils_no_other(
    settings: Settings, client: AbsurdClient, connection: psycopg.Connection[Any]
) -> None:
    """Of a batch the good ones are stored as they ended, the refused one fails for good with the reason."""
    connection.execute(
        "alter table run add constraint unlucky check"
        " (result is distinct from '13' and error ->> 'message' is distinct from '13')"
    )

    @executor("refused.ends", queue="default", retry=RetryPolicy(max_attempts=1))
    async def ends(ctx: RunContext, params: dict[str, Any]) -> int:
        if params["fails"]:
            raise ValueError(params["n"])
        return int(params["n"])

    tasks = [await client.spawn(ends, {"n": n, "fails": fails}) for n in (1, 13, 3) for fails in (False, True)]
    async with asyncio.timeout(30), working(settings, executors=[ends]):
        for each in tasks:
            with suppress(TaskFailed):
                await client.wait(each, timeout=120)
        ended = [await client.get_task(each) for each in tasks]
        more = await client.wait(await client.spawn(ends, {"n": 4, "fails": False}), timeout=120)

    assert [each.state for each in ended] == [
        TaskState.COMPLETED if n != 13 and not fails else TaskState.FAILED
        for n in (1, 13, 3)
        for fails in (False, True)
    ]
    told = [(each.result, (each.error or {}).get("message")) for each in ended]
    assert told[:2] == [(1, None), (None, "1")]
    assert told[4:] == [(3, None), (None, "3")]
    assert all("unlucky" in str(message) for _, message in told[2:4])
    assert more.result == 4


async def test_a_worker_goes_on_under_a_new_number_before_its_claims_are_used_up(
    settings: Settings, client: AbsurdClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No claim is counted into the numbers of the next worker, and no task waits or runs again for it."""
    monkeypatch.setattr("absurd.workers.pump.pump.CLAIMS", 2)
    async with working(settings) as worker:
        first = worker.id
        for n in range(5):
            task = await client.spawn("demo.add", {"a": n, "b": 1})
            done = await client.wait(task, timeout=60)
            assert (done.result, done.attempts) == ({"sum": n + 1}, 1)

    assert worker.id is not None
    assert worker.id > (first or 0)
