"""The testing kit: inline drains, the fake clock, assertions on what was spawned."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from absurd import AbsurdClient, RetryLater, RetryPolicy, SyncAbsurdClient, TaskFailed, TaskState, executor
from absurd.config import Settings
from absurd.database import AsyncDatabase
from absurd.errors import AbsurdError, ConfigurationError
from absurd.maintenance import Round
from absurd.testing import FakeClock, assert_not_spawned, assert_spawned, drain, drain_sync, fire_due_sync, results
from absurd.workers.life import rounds

NIGHT = datetime(2027, 1, 31, 21, 30, tzinfo=UTC)


@executor("kit.where", runs_in="process")
def where(ctx: Any, params: dict[str, Any]) -> dict[str, Any]:
    return {"pid": os.getpid(), "thread": threading.current_thread() is threading.main_thread()}


@executor("kit.echo")
async def echo(ctx: Any, params: dict[str, Any]) -> Any:
    return params


@executor("kit.flaky", retry=RetryPolicy(max_attempts=2, base=200.0, jitter=0.0))
async def flaky(ctx: Any, params: dict[str, Any]) -> str:
    if ctx.attempt == 1:
        raise ValueError("clouds")
    return "clear"


@executor("kit.sleeps")
async def sleeps(ctx: Any, params: dict[str, Any]) -> str:
    await ctx.sleep(timedelta(hours=5))
    return "awake"


@executor("kit.for_ever")
async def for_ever(ctx: Any, params: dict[str, Any]) -> None:
    raise RetryLater(0)


@pytest.fixture
def client(settings: Settings) -> Iterator[SyncAbsurdClient]:
    with SyncAbsurdClient(settings=settings) as opened:
        yield opened


@pytest.fixture
def clock(settings: Settings) -> Iterator[FakeClock]:
    with FakeClock(settings) as opened:
        yield opened


def test_drain_runs_everything_in_this_process(client: SyncAbsurdClient, settings: Settings) -> None:
    """A task and its child run, parent first, executors of processes in this one; the runs are told in order."""
    parent = client.spawn("kit.where", {})
    child = client.spawn("kit.echo", {"n": 1}, depends_on=[parent])

    ran = drain_sync("default", settings)

    assert [(each.task_id, each.state) for each in ran] == [(parent, "completed"), (child, "completed")]
    assert ran[0].result["pid"] == os.getpid()
    assert client.get_task(child).state is TaskState.COMPLETED
    assert [{"n": 1}] == results("kit.echo", client)


async def test_drain_in_a_running_loop(settings: Settings) -> None:
    """The async drain runs in the test's own loop, where async executors can be awaited beside it."""
    async with AbsurdClient(settings=settings) as client:
        await client.spawn("kit.echo", {"n": 2})
        ran = await drain("default", client)

    assert [{"n": 2}] == [each.result for each in ran]


def test_an_empty_queue_is_drained_at_once(settings: Settings) -> None:
    """A queue that nothing was spawned to gives no runs."""
    assert [] == drain_sync("never", settings)


def test_retries_come_by_the_fake_clock(client: SyncAbsurdClient, settings: Settings, clock: FakeClock) -> None:
    """A retry is left alone until the clock has reached it, and then run by the next drain."""
    clock.freeze(NIGHT)
    task_id = client.spawn("kit.flaky", {})

    first = drain_sync("default", settings)
    early = drain_sync("default", settings)
    clock.advance(200)
    second = drain_sync("default", settings)

    assert [("failed", 200.0)] == [(each.state, each.retry_in) for each in first]
    assert first[0].error is not None and first[0].error["message"] == "clouds"
    assert [] == early
    assert [("completed", 2, "clear")] == [(each.state, each.attempt, each.result) for each in second]
    assert client.get_task(task_id).finished_at == NIGHT + timedelta(seconds=200)


def test_a_drain_makes_its_rounds_alone(
    client: SyncAbsurdClient, settings: Settings, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's regular round beside them could hold a sleeper that is due: passed by, it would be left."""

    async def regular(database: AsyncDatabase) -> Round:
        pytest.fail("a regular round was made")

    monkeypatch.setattr(rounds, "make_round", regular)
    clock.freeze(NIGHT)
    client.spawn("kit.flaky", {})
    [first] = drain_sync("default", settings)
    clock.advance(200)
    [second] = drain_sync("default", settings)

    assert (first.state, second.state) == ("failed", "completed")


def test_sleepers_go_on_when_they_are_due(client: SyncAbsurdClient, settings: Settings, clock: FakeClock) -> None:
    """A suspended task goes on by the clock of the database, in no time of the test's."""
    client.spawn("kit.sleeps", {})

    assert ["suspended"] == [each.state for each in drain_sync("default", settings)]
    clock.advance(timedelta(hours=5, seconds=1))
    assert ["awake"] == [each.result for each in drain_sync("default", settings)]


def test_check_raises_what_failed(client: SyncAbsurdClient, settings: Settings) -> None:
    """With `check` a task that failed for good is an error of the test, with the executor's traceback."""
    client.spawn("kit.flaky", {}, max_attempts=1)

    with pytest.raises(TaskFailed, match=r'raise ValueError\("clouds"\)'):
        drain_sync("default", settings, check=True)


def test_a_drain_without_end_is_stopped(client: SyncAbsurdClient, settings: Settings) -> None:
    """A task that comes back for ever ends the drain with an error instead of hanging the test."""
    client.spawn("kit.for_ever", {}, max_attempts=1000)

    with pytest.raises(AbsurdError, match="after 5 runs"):
        drain_sync("default", settings, limit=5)


def test_what_cannot_be_claimed_is_left(client: SyncAbsurdClient, settings: Settings) -> None:
    """A paused queue does not hold a drain up."""
    client.spawn("kit.echo", {})
    client.pause_queue("default")

    assert [] == drain_sync("default", settings)


def test_the_clock_moves_for_all_and_is_restored(settings: Settings, connection: psycopg.Connection[Any]) -> None:
    """Freezing, setting and advancing reach sessions opened before; the function is afterwards what it was."""
    read = "select clock_time(), pg_get_functiondef('clock_time()'::regprocedure), new_task_id()"
    before = connection.execute(read).fetchall()[0]

    with FakeClock(settings) as clock:
        assert NIGHT == clock.freeze(NIGHT)
        assert NIGHT == connection.execute(read).fetchall()[0][0]
        clock.advance(timedelta(minutes=1))
        assert NIGHT + timedelta(minutes=1) == clock.now()
        clock.resume()
        moments = [connection.execute(read).fetchall()[0][0] for _ in range(2)]
        assert NIGHT < moments[0] < moments[1] < NIGHT + timedelta(hours=1)
        clock.set(NIGHT - timedelta(days=400))
        row = connection.execute("select _id_time(new_task_id()), clock_time()").fetchall()[0]
        assert abs(row[0] - row[1]) < timedelta(minutes=1)

    after = connection.execute(read).fetchall()[0]
    assert before[1] == after[1]
    assert before[0] < after[0] < datetime.now(UTC) + timedelta(minutes=1)


def test_spawns_under_a_clock_far_away(client: SyncAbsurdClient, settings: Settings, clock: FakeClock) -> None:
    """Ids made here follow the clock, years back and forth, and are those of the present again afterwards."""
    for moment in (NIGHT + timedelta(days=4000), NIGHT - timedelta(days=4000)):
        clock.freeze(moment)
        task_id = client.spawn("kit.echo", {})
        assert ["completed"] == [each.state for each in drain_sync("default", settings)]
        assert client.get_task(task_id).created_at == moment
        assert [1] == [run.attempt for run in client.get_task(task_id).runs]
    clock.restore()
    client.spawn("kit.echo", {})


def test_a_jump_does_not_kill_workers(
    client: SyncAbsurdClient, clock: FakeClock, connection: psycopg.Connection[Any]
) -> None:
    """A worker at work is not given up because a test moved the clock, forth or back."""
    connection.execute("select register_worker('w', 'h', 1, '{default}', 1, '{}', '{}', 30)")

    clock.advance(timedelta(days=1))
    connection.execute("select maintain()")
    clock.restore()
    connection.execute("select maintain()")

    assert [("running",)] == connection.execute("select state from worker").fetchall()


def test_assert_spawned_finds_by_part(client: SyncAbsurdClient) -> None:
    """What is named must be there, the rest may be anything; the tasks found are given."""
    first = client.spawn("kit.echo", {"a": {"b": 1, "c": 2}, "d": 3}, tags=["night"], headers={"trace": "x"})
    client.spawn("kit.echo", {"a": 5}, queue="other")

    assert [first] == [task.id for task in assert_spawned("kit.echo", client, params={"a": {"b": 1}})]
    assert 2 == len(assert_spawned(echo, client, count=2))
    assert_spawned("kit.echo", client, queue="other", count=1)
    assert_spawned("kit.echo", client, tags=["night"], headers={"trace": "x"}, count=1)
    assert_not_spawned("kit.echo", client, queue="third")
    assert_not_spawned("kit.flaky", client)


def test_assert_spawned_shows_near_misses(client: SyncAbsurdClient) -> None:
    """The message names the nearest tasks and what is different, without secrets; or what else was spawned."""
    client.spawn("kit.echo", {"band": "g", "token": "geheim"})

    with pytest.raises(AssertionError) as wrong:
        assert_spawned("kit.echo", client, params={"band": "r", "token": "anders", "n": 1})
    with pytest.raises(AssertionError, match=r"did you mean kit\.echo\?"):
        assert_spawned("kit.ecko", client)
    with pytest.raises(AssertionError, match=r"1 task was spawned for kit\.echo, not 0"):
        assert_not_spawned("kit.echo", client)

    message = str(wrong.value)
    assert 'params.band is "g"; params.token is "***"; params.n is not there' in message
    assert "geheim" not in message and "anders" not in message


def test_the_users_own_database_is_refused() -> None:
    """Without a database named, nothing is drained or asserted on: the embedded one is the user's."""
    for call in (lambda: assert_spawned("x"), FakeClock, lambda: asyncio.run(drain("default"))):
        with pytest.raises(ConfigurationError, match="meant for tests"):
            call()


def test_schedules_fire_inline(client: SyncAbsurdClient, settings: Settings, clock: FakeClock) -> None:
    """A schedule made, the clock moved: what is due is fired once, what is not stays, and a drain executes it."""
    clock.freeze(NIGHT)
    client.set_schedule("nightly", "0 3 * * *", "kit.echo", {"a": 1})
    assert fire_due_sync(client) == 0

    clock.set(datetime(2027, 2, 1, 3, tzinfo=UTC))
    assert fire_due_sync(client) == 1
    assert fire_due_sync(client) == 0
    assert_spawned("kit.echo", client, params={"a": 1}, tags=["schedule:nightly"], count=1)
    [ran] = drain_sync("default", settings)
    assert ran.result == {"a": 1}
