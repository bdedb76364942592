"""The pump of a real worker where runs meet one another, the end of the worker, and a database that refuses."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import psycopg
import pytest
from live import soon, working
from memory_port import claim_of
from sql_queue import Queue
from structlog.testing import capture_logs

from absurd import AbsurdClient, TaskFailed, TaskSpec, TaskState, executor
from absurd.call import Call, nothing
from absurd.config import Settings
from absurd.database import AsyncDatabase
from absurd.database_errors import translate
from absurd.errors import AbsurdError, SchemaMissingError
from absurd.outcome import Completed, Failed
from absurd.workers import AbsurdWorker
from absurd.workers.link import Link, is_refused
from absurd.workers.pump.calls import Reports, record, step
from absurd.workers.pump.pump import Pump
from absurd.workers.pump.reports import Report, calls_for, completions

Connection = psycopg.Connection[Any]

told: list[str] = []
events: dict[str, asyncio.Event] = {}
pumps: list[Pump] = []


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    """What the executors below tell and wait for is each test's own."""
    told.clear()
    events.clear()
    pumps.clear()


def event(name: str) -> asyncio.Event:
    return events.setdefault(name, asyncio.Event())


@executor("pump.linger")
async def linger(ctx: Any, params: Any) -> str:
    """Tell that the attempt is there; stopped, take one's time all the same."""
    told.append(f"began {ctx.attempt}")
    try:
        await event(f"return {ctx.attempt}").wait()
    except asyncio.CancelledError:
        told.append(f"stopped {ctx.attempt}")
        await event(f"let go {ctx.attempt}").wait()
        raise
    finally:
        told.append(f"ended {ctx.attempt}")
    return f"attempt {ctx.attempt}"


@executor("pump.quick")
async def quick(ctx: Any, params: Any) -> Any:
    """Give back what is given."""
    return params


@executor("pump.meddle")
async def meddle(ctx: Any, params: Any) -> None:
    """Let something happen to the pump between the end of this run and the first step of the next."""
    (pump,) = pumps

    def lose_all() -> None:
        pump.lose({lease: set() for lease in pump.leases()})

    asyncio.get_running_loop().call_soon(pump.abort if params == "abort" else lose_all)


@pytest.mark.parametrize("first", ["old", "new"])
async def test_a_task_claimed_anew_while_its_stopped_run_still_ends(
    settings: Settings, client: AbsurdClient, first: str
) -> None:
    """Cancelled and retried, a task runs again beside its old run that takes its time; each ends for itself (B4)."""
    async with working(settings, concurrency=2) as worker:
        task_id = await client.spawn("pump.linger", {})
        await soon(lambda: "began 1" in told)
        await client.cancel(task_id)
        await soon(lambda: "stopped 1" in told)
        await client.retry(task_id)
        await soon(lambda: "began 2" in told)

        if first == "old":
            event("let go 1").set()
            await soon(lambda: "ended 1" in told)
            await asyncio.sleep(0)
            assert worker._pump is not None
            assert worker._pump.leases(), "the heartbeat would not list the lease of the second run"
        event("return 2").set()
        done = await client.wait(task_id, timeout=10)
        event("let go 1").set()

    assert done.result == "attempt 2"


@pytest.mark.parametrize("what", ["abort", "lose"])
async def test_a_run_stopped_before_its_first_step_leaves_its_slot(
    settings: Settings, client: AbsurdClient, connection: Connection, what: str
) -> None:
    """A worker stopped, or told that a claim is lost, between making a run and its first step, goes on or ends."""
    ids = await client.spawn_many([TaskSpec("pump.meddle", what), TaskSpec("pump.linger")])
    event("let go 1").set()
    async with asyncio.timeout(20):
        async with working(settings, concurrency=1, prefetch=1) as worker:
            await soon(lambda: worker._pump is not None)
            assert worker._pump is not None
            pumps.append(worker._pump)
            if what == "abort":
                await worker._stopped.wait()
            else:
                third = await client.spawn("pump.quick", 3)
                assert (await client.wait(third, timeout=10)).result == 3
            assert not worker._pump.running

    states = await client.get_states(ids)
    assert states[ids[0]] is TaskState.COMPLETED
    if what == "abort":  # handed back, its attempt is not spent
        assert states[ids[1]] is TaskState.PENDING
        assert not connection.execute("select from run where task_id = %s and attempt > 1", (ids[1],)).fetchall()


REFUSE = """
    create function absurd.refuse() returns trigger language plpgsql as $$
    begin
        raise exception 'unsupported Unicode escape sequence' using errcode = '22P05';
    end $$;
    create trigger refuse before insert on absurd.run for each row
    when (new.result::text = '"refused"' or new.error ->> 'message' = 'refused') execute function absurd.refuse();
"""


async def test_an_outcome_that_the_database_refuses_harms_no_other(
    settings: Settings, client: AbsurdClient, connection: Connection
) -> None:
    """The run whose outcome cannot be stored fails and says why; the worker and the others of its batch go on."""
    connection.execute(REFUSE)
    specs = [TaskSpec("pump.quick", "refused" if n == 7 else n) for n in range(20)]
    ids = await client.spawn_many(specs)
    await AbsurdWorker(settings=settings).run("drain")

    states = await client.get_states(ids)
    assert [n for n, each in enumerate(ids) if states[each] is not TaskState.COMPLETED] == [7]
    with pytest.raises(TaskFailed, match="cannot store"):
        await client.wait(ids[7], timeout=10)


async def test_names_are_learnt_beside_a_step_that_is_under_way(settings: Settings, client: AbsurdClient) -> None:
    """A name first heard of with a claim costs no connection: calls of a worker's own connection take turns."""
    with capture_logs() as logs:
        async with working(settings, concurrency=4):
            for n in range(5):
                await client.spawn(f"pump.fresh{n}", {}, key=str(n))
            await client.wait(await client.spawn("pump.quick", 1), timeout=10)
    assert not [each for each in logs if each["event"] == "database_away"]


async def test_claims_do_not_wait_behind_long_runs(settings: Settings, client: AbsurdClient) -> None:
    """What a worker claimed ahead while runs were short goes back once a long one is in the way, and others run it."""
    async with working(settings, concurrency=1):
        for each in await client.spawn_many([TaskSpec("pump.quick", n) for n in range(200)]):
            await client.wait(each, timeout=120)
        ids = await client.spawn_many([TaskSpec("pump.linger"), *(TaskSpec("pump.quick", n) for n in range(5))])
        await soon(lambda: "began 1" in told)
        async with working(settings, concurrency=1):
            for each in ids[1:]:
                done = await client.wait(each, timeout=10)
                assert done.attempts == 1
        assert "ended 1" not in told
        event("return 1").set()
        await client.wait(ids[0], timeout=10)


async def test_a_worker_that_fails_stops_its_runs(
    settings: Settings, client: AbsurdClient, connection: Connection
) -> None:
    """A worker that cannot go on leaves no run at work in the program around it."""
    event("let go 1").set()
    await client.spawn("pump.linger")
    worker = AbsurdWorker(settings=settings)
    runner = asyncio.create_task(worker.run())
    await soon(lambda: "began 1" in told)
    connection.execute("alter function absurd.claim_runs rename to claim_runs_gone")
    await client.spawn("pump.quick", 1)  # which it hears of
    with pytest.raises(SchemaMissingError):
        async with asyncio.timeout(20):
            await runner
    assert told == ["began 1", "stopped 1", "ended 1"]


def test_a_run_of_a_month_can_be_reported() -> None:
    """The age of a run fits the database's integer of milliseconds, however long it took."""
    report = Report(claim_of("pump.quick"), 0.0, Completed())
    month = 30 * 86_400.0
    assert 0 < completions([report], month).ages_ms[0] < 2**31
    ((call, _),) = calls_for([report._replace(outcome=Failed({}))], month, dead_letters=True)
    assert 0 < call.args[2][0] < 2**31


async def test_reports_of_one_lease_and_of_several_are_recorded_alike(
    settings: Settings, connection: psycopg.Connection[Any]
) -> None:
    """Each outcome ends its own run and no other, whether lease and missing results are told once or for each run."""
    link = Link(AsyncDatabase(settings.database_url or ""), lambda: True)
    queue = Queue(connection)
    tasks = [queue.spawn() for _ in range(9)]
    first, second, third = (queue.claim(2)[0] for _ in range(3))
    made: list[tuple[list[int], list[UUID], list[str | None], bool]] = [
        ([first, first], tasks[:2], [None, None], True),
        ([second, second], tasks[2:4], ["2", None], False),
        ([third, second, third], [tasks[4], tasks[0], tasks[5]], [None, None, "5"], True),
    ]
    told = []
    try:
        for number, (leases, ids, results, stepping) in enumerate(made):
            reports = Reports(leases, ids, [0] * len(ids), results)
            lease = (queue.worker << 32) + 10 + number
            told.append(await link.run(step(reports, lease, 1, 1, 1, [], []) if stepping else record(reports)))
    finally:
        await link.close()

    assert [[], [], [tasks[0]]] == [list(answer.stale) for answer in told]
    assert [[tasks[6]], [], [tasks[7]]] == [list(answer.task_ids) for answer in told]
    ended = connection.execute("select task_id, result from run where state = 'completed'").fetchall()
    # By task: ids of one millisecond are in no order.
    assert dict(zip(tasks[:6], [None, None, 2, None, None, 5], strict=True)) == dict(ended)


async def test_a_value_that_cannot_be_sent_is_the_callers_fault(settings: Settings) -> None:
    """A value that a driver itself refuses is no sign of the database being away, which would be waited out."""
    link = Link(AsyncDatabase(settings.database_url or ""), lambda: True)
    try:
        async with asyncio.timeout(10):
            with pytest.raises(AbsurdError) as refused:
                await link.run(Call("select $1::integer", (2**40,), nothing))
    finally:
        await link.close()
    assert is_refused(refused.value)
    with psycopg.connect(settings.database_url or "") as connection, pytest.raises(psycopg.DataError) as unsent:
        connection.execute("select %s::text", ("a\x00b",))
    assert is_refused(translate(unsent.value, address="here"))
