"""Both clients do the same: this module runs against each."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import psycopg
import pytest

from absurd import AbsurdClient, RetryPolicy, SyncAbsurdClient, TaskSpec, executor
from absurd.config import Settings
from absurd.errors import (
    DatabaseUnavailableError,
    InvalidNameError,
    InvalidOptionError,
    InvalidParamsError,
    PayloadTooLargeError,
    QueueNotFoundError,
    TaskCancelled,
    TaskFailed,
    TaskNotFoundError,
    TaskStateError,
    UnknownParentError,
    WaitTimeoutError,
)
from absurd.model import TaskState
from absurd.queue import new_task_id


class Awaited:
    """A sync client whose methods are awaited: they run in a thread, as a plain program runs them."""

    def __init__(self, client: SyncAbsurdClient) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self.client, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call


@pytest.fixture(params=["async", "sync"])
async def client(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[Any]:
    """Each of the two clients, connected to the test's database."""
    if request.param == "async":
        async with AbsurdClient(settings=settings) as opened:
            yield opened
    else:
        with SyncAbsurdClient(settings=settings) as plain:
            yield Awaited(plain)


class Worker:
    """The worker's side in plain SQL: claims runs and ends them."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        row = connection.execute("select register_worker('w', 'here', 1, '{default}', 1, '{}', '{}', 60)").fetchone()
        assert row is not None
        self.number = int(row[0])
        self.leases = 0

    def claim(self, queue: str = "default", wanted: int = 10) -> list[UUID]:
        """Claim runs under a new lease."""
        self.leases += 1
        row = self.connection.execute(
            "select task_ids from claim_runs(%s, (select id from queue where name = %s), %s,"
            " array(select level from level order by level desc), array(select 0::bigint from level))",
            [(self.number << 32) + self.leases, queue, wanted],
        ).fetchone()
        return list(row[0] or ()) if row else []

    def complete(self, task_id: UUID, result: str = "null", artifacts: str | None = None) -> None:
        """End a claimed run well."""
        self._end("select complete_runs(%s, %s, %s, %s, %s)", task_id, result, artifacts)

    def fail(self, task_id: UUID, error: str = '{"message": "it broke", "code": "x", "type": "X"}') -> None:
        """End a claimed run badly, without another attempt."""
        self._end("select fail_runs(%s, %s, %s, %s, array[null]::float8[])", task_id, error)

    def _end(self, sql: str, task_id: UUID, text: str, *more: str | None) -> None:
        row = self.connection.execute("select id from lease where %s = any (task_ids)", [task_id]).fetchone()
        assert row is not None
        self.connection.execute(sql, [[row[0]], [task_id], [1], [text], *more])


@pytest.fixture
def worker(connection: psycopg.Connection[Any]) -> Worker:
    """A worker to play the other side."""
    return Worker(connection)


@dataclass
class AddParams:
    """What the executor below adds."""

    a: int
    b: int = 1


@executor("client.add", queue="sums", timeout=12.0, retry=RetryPolicy(max_attempts=7, base=2.0), runs_in="thread")
def add(_ctx: Any, params: AddParams) -> int:
    """Add two numbers."""
    return params.a + params.b


# Spawning ----------------------------------------------------------------------------------------


async def test_spawned_task_can_be_read_back(client: Any) -> None:
    """Everything that was asked for stands in the task."""
    later = datetime.now(UTC) + timedelta(hours=1)
    task_id = await client.spawn(
        "client.plain",
        {"a": 1, "where": Path("/data/x.fits"), "gain": float("nan")},
        queue="nights",
        priority=7,
        run_at=later,
        key="k-1",
        headers={"trace": "ü"},
        tags=["night-12"],
        max_attempts=3,
        timeout=timedelta(seconds=10),
        needs={"cpu": 1},
        retry=RetryPolicy(base=3.0),
    )

    task = await client.get_task(task_id)

    assert task_id == task.id
    assert {"a": 1, "where": "/data/x.fits", "gain": "NaN"} == task.params
    assert ("nights", "client.plain", 7, "k-1") == (task.queue, task.name, task.priority, task.key)
    assert ({"trace": "ü"}, ["night-12"], 3, 10.0) == (task.headers, task.tags, task.max_attempts, task.timeout)
    assert TaskState.SLEEPING == task.state
    assert later == task.run_at
    assert (0, [], None) == (task.attempts, task.runs, task.result)


async def test_known_executor_checks_params_and_lends_its_defaults(client: Any) -> None:
    """The params are checked before anything is sent; queue, timeout and attempts are the executor's."""
    task = await client.get_task(await client.spawn(add, AddParams(a=1)))

    assert ("client.add", "sums", 12.0, 7) == (task.name, task.queue, task.timeout, task.max_attempts)
    assert {"a": 1} == {key: value for key, value in task.params.items() if key == "a"}

    other = await client.get_task(await client.spawn("client.add", {"a": 2}, queue="mine", max_attempts=1, timeout=3))

    assert ("mine", 3.0, 1) == (other.queue, other.timeout, other.max_attempts)
    with pytest.raises(InvalidParamsError, match=r"client.add: a"):
        await client.spawn("client.add", {"a": "many"})


async def test_queue_is_the_settings_one_at_last(client: Any, settings: Settings) -> None:
    """Without a queue of its own or of its executor a task goes to the queue of the settings."""
    assert settings.queue_name == (await client.get_task(await client.spawn("client.plain"))).queue


async def test_same_key_gives_the_first_task(client: Any) -> None:
    """A second spawn under a key of the same queue creates nothing and tells so."""
    first = await client.spawn_or_get("client.plain", {"a": 1}, key="once")
    second = await client.spawn_or_get("client.plain", {"a": 2}, key="once")
    elsewhere = await client.spawn_or_get("client.plain", {"a": 3}, key="once", queue="other")

    assert (True, False, True) == (first.created, second.created, elsewhere.created)
    assert first.id == second.id != elsewhere.id


WRONG: list[tuple[Any, Any, dict[str, Any], type[Exception]]] = [
    ("no spaces", None, {}, InvalidNameError),
    ("", None, {}, InvalidNameError),
    (3, None, {}, InvalidNameError),
    ("client.plain", None, {"queue": "bad queue"}, InvalidNameError),
    ("client.plain", {"text": "nul\0"}, {}, InvalidParamsError),
    ("client.plain", {"x": object()}, {}, InvalidParamsError),
    ("client.plain", {"x": "y" * (1 << 20)}, {}, PayloadTooLargeError),
    ("client.plain", None, {"headers": {"x": "y" * (1 << 20)}}, PayloadTooLargeError),
    ("client.plain", None, {"headers": [1]}, InvalidOptionError),
    ("client.plain", None, {"tags": "night"}, InvalidOptionError),
    ("client.plain", None, {"priority": 10**6}, InvalidOptionError),
    ("client.plain", None, {"priority": "high"}, InvalidOptionError),
    ("client.plain", None, {"delay": -1}, InvalidOptionError),
    ("client.plain", None, {"delay": float("nan")}, InvalidOptionError),
    ("client.plain", None, {"delay": 1, "run_at": datetime.now(UTC)}, InvalidOptionError),
    ("client.plain", None, {"run_at": datetime(2030, 1, 1)}, InvalidOptionError),  # noqa: DTZ001
    ("client.plain", None, {"timeout": 0}, InvalidOptionError),
    ("client.plain", None, {"retry": {"bas": 1}}, InvalidOptionError),
    ("client.plain", None, {"retry": 3}, InvalidOptionError),
    ("client.plain", None, {"key": ""}, InvalidOptionError),
    ("client.plain", None, {"depends_on": ["x"]}, InvalidOptionError),
    ("client.plain", None, {"depends_on": [uuid4()]}, UnknownParentError),
]


async def test_wrong_spawn_is_refused(client: Any) -> None:
    """What is wrong is said by the error's class, and nothing is spawned (B27)."""
    for name, params, options, error in WRONG:
        with pytest.raises(error):
            await client.spawn(name, params, **options)

    assert [] == await client.list_tasks()


async def test_thousands_are_spawned_in_order(client: Any) -> None:
    """A bulk spawn of several chunks gives the ids in order, and each task has its own params."""
    specs = [TaskSpec("client.plain", {"n": n}, key=f"k{n}" if n % 1000 == 0 else None) for n in range(11_000)]

    ids = await client.spawn_many(specs)

    assert len(specs) == len(set(ids))
    assert ids == sorted(ids)
    assert 11_000 == (await client.get_queue_stats("default")).pending
    for n in (0, 1, 4_999, 5_000, 10_999):
        assert {"n": n} == (await client.get_task(ids[n])).params


async def test_an_empty_list_spawns_nothing(client: Any) -> None:
    """It is no error, and makes no call (B22)."""
    assert [] == await client.spawn_many([])
    assert [] == await client.list_tasks()


async def test_bulk_spawn_is_all_or_nothing(client: Any) -> None:
    """One bad task late in the list, and none exists (B21)."""
    specs = [TaskSpec("client.plain", {"n": n}) for n in range(6_000)]

    with pytest.raises(UnknownParentError):
        await client.spawn_many([*specs, TaskSpec("client.plain", depends_on=[uuid4()])])

    assert [] == await client.list_tasks()
    assert [] == await client.spawn_many([])


async def test_a_middleware_that_finds_no_database_spawns_no_part(settings: Settings) -> None:
    """Its error in the midst of a bulk spawn looks like a lost connection: it is told, and nothing is spawned."""

    def lost(spec: TaskSpec) -> TaskSpec:
        if spec.params == {"n": 2_500}:
            raise DatabaseUnavailableError("of its own") from ConnectionResetError("connection reset")
        return spec

    specs = [TaskSpec("client.plain", {"n": n}) for n in range(3_000)]
    async with AbsurdClient(settings=settings, middleware=[lost]) as client:
        with pytest.raises(DatabaseUnavailableError, match="of its own"):
            await client.spawn_many(specs)
        assert [] == await client.list_tasks()


async def test_child_waits_for_its_parents(client: Any, worker: Worker) -> None:
    """A task with parents is blocked until they complete."""
    parent = await client.spawn("client.plain")
    child = await client.spawn("client.plain", depends_on=[parent])

    assert TaskState.BLOCKED == (await client.get_task(child)).state
    assert [parent] == (await client.get_task(child)).depends_on
    assert str(parent) in await client.task_why(child)


# The caller's own transaction --------------------------------------------------------------------


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("many", [1, 5_001])
async def test_asyncpg_transaction(settings: Settings, commit: bool, many: int) -> None:
    """Spawned on an asyncpg connection, tasks exist if and when its transaction commits (B20, B54)."""
    specs = [TaskSpec("client.plain", {"n": n}) for n in range(many)]
    connection = await asyncpg.connect(settings.database_url)
    async with AbsurdClient(settings=settings) as client:
        transaction = connection.transaction()
        await transaction.start()
        ids = await client.spawn_many(specs, connection=connection)
        assert {None} == set((await client.get_states(ids)).values())
        await (transaction.commit() if commit else transaction.rollback())
        states = set((await client.get_states(ids)).values())
    await connection.close()

    assert {TaskState.PENDING if commit else None} == states


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("many", [1, 5_001])
@pytest.mark.parametrize("autocommit", [True, False])
async def test_psycopg_async_transaction(settings: Settings, commit: bool, many: int, autocommit: bool) -> None:
    """The same on psycopg's AsyncConnection, whether its transaction was begun by hand or by itself."""
    specs = [TaskSpec("client.plain", {"n": n}) for n in range(many)]
    connection = await psycopg.AsyncConnection.connect(settings.database_url or "", autocommit=autocommit)
    async with AbsurdClient(settings=settings) as client, connection:
        if autocommit:
            await connection.execute("begin")
        ids = await client.spawn_many(specs, connection=connection)
        assert {None} == set((await client.get_states(ids)).values())
        await (connection.commit() if commit else connection.rollback())
        states = set((await client.get_states(ids)).values())

    assert {TaskState.PENDING if commit else None} == states


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("many", [1, 5_001])
@pytest.mark.parametrize("autocommit", [True, False])
def test_psycopg_transaction(settings: Settings, commit: bool, many: int, autocommit: bool) -> None:
    """The same in a plain program."""
    specs = [TaskSpec("client.plain", {"n": n}) for n in range(many)]
    connection = psycopg.connect(settings.database_url or "", autocommit=autocommit)
    with SyncAbsurdClient(settings=settings) as client, connection:
        if autocommit:
            connection.execute("begin")
        ids = client.spawn_many(specs, connection=connection)
        assert {None} == set(client.get_states(ids).values())
        connection.commit() if commit else connection.rollback()
        states = set(client.get_states(ids).values())

    assert {TaskState.PENDING if commit else None} == states


async def test_bulk_on_a_bare_connection_is_all_or_nothing(settings: Settings) -> None:
    """On a caller's connection without a transaction a bulk spawn makes one of its own."""
    bad = [*(TaskSpec("client.plain") for _ in range(5_000)), TaskSpec("client.plain", depends_on=[uuid4()])]
    on_asyncpg = await asyncpg.connect(settings.database_url)
    on_psycopg = await psycopg.AsyncConnection.connect(settings.database_url or "", autocommit=True)
    plain = psycopg.connect(settings.database_url or "", autocommit=True)
    async with AbsurdClient(settings=settings) as client, on_psycopg:
        for connection in (on_asyncpg, on_psycopg):
            with pytest.raises(UnknownParentError):
                await client.spawn_many(bad, connection=connection)
        with SyncAbsurdClient(settings=settings) as sync, plain, pytest.raises(UnknownParentError):
            sync.spawn_many(bad, connection=plain)
        listed = await client.list_tasks()
    await on_asyncpg.close()

    assert [] == listed


async def test_pooled_asyncpg_connection_will_do(settings: Settings) -> None:
    """A connection acquired from the caller's own pool serves as well, and keeps its codecs."""
    async with asyncpg.create_pool(settings.database_url, min_size=1) as pool, pool.acquire() as connection:
        await connection.set_type_codec(
            "jsonb", encoder=lambda value: f"broken {value}", decoder=len, schema="pg_catalog"
        )
        async with AbsurdClient(settings=settings) as client:
            task_id = await client.spawn("client.plain", {"a": 1}, key="k", connection=connection)

            assert {"a": 1} == (await client.get_task(task_id)).params


async def test_other_connections_are_refused(client: Any, settings: Settings) -> None:
    """What is no connection of a known kind is named in the error."""
    with pytest.raises(InvalidOptionError, match=r"builtins\.str"):
        await client.spawn("client.plain", connection="postgresql://")


async def test_blocking_connection_is_refused_in_the_loop(settings: Settings) -> None:
    """The async client does not block its loop on a plain psycopg connection."""
    async with AbsurdClient(settings=settings) as client:
        with psycopg.connect(settings.database_url or "") as connection, pytest.raises(InvalidOptionError):
            await client.spawn("client.plain", connection=connection)


# Waiting -----------------------------------------------------------------------------------------


async def test_wait_gives_the_completed_task(client: Any, worker: Worker) -> None:
    """A wait that began before the end returns the task with its result."""
    task_id = await client.spawn("client.plain")
    waiter = asyncio.create_task(client.wait(task_id, timeout=120))
    await _waited_for(worker, task_id)
    assert [task_id] == worker.claim()
    worker.complete(task_id, '{"sum": 3}')

    task = await waiter

    assert (TaskState.COMPLETED, {"sum": 3}, 1) == (task.state, task.result, task.attempts)
    assert task_id == (await client.wait(str(task_id), timeout=0)).id


async def test_wait_raises_what_became_of_the_task(client: Any, worker: Worker) -> None:
    """A failed and a cancelled task are errors that carry the reason."""
    failed, cancelled = await client.spawn("client.plain"), await client.spawn("client.plain")
    await client.cancel(cancelled, "clouds")
    assert [failed] == worker.claim()
    worker.fail(failed)

    with pytest.raises(TaskFailed, match="it broke") as caught:
        await client.wait(failed)
    assert str(failed) == caught.value.details["task_id"]
    with pytest.raises(TaskCancelled, match="clouds"):
        await client.wait(cancelled)
    with pytest.raises(TaskNotFoundError):
        await client.wait(new_task_id())


async def test_wait_ends_after_its_timeout(client: Any) -> None:
    """A task that does not end in time is a TimeoutError, and goes on."""
    task_id = await client.spawn("client.plain")

    with pytest.raises(WaitTimeoutError, match="pending"):
        await client.wait(task_id, timeout=0.2)
    with pytest.raises(TimeoutError):
        await client.wait(task_id, timeout=0)
    assert TaskState.PENDING == (await client.get_task(task_id)).state


async def test_no_end_is_missed(client: Any, worker: Worker) -> None:
    """Ends that fall between the first look and the listening are seen, each of many."""
    ids = await client.spawn_many([TaskSpec("client.plain") for _ in range(30)])
    assert set(ids) == set(worker.claim(wanted=50))
    ends = asyncio.gather(*(client.wait(each, timeout=60) for each in ids))
    with ThreadPoolExecutor(1) as thread:  # the default threads are all waiting
        for each in ids:
            await asyncio.get_running_loop().run_in_executor(thread, worker.complete, each)

    assert ids == [task.id for task in await ends]


async def test_wait_lasts_until_files_are_in_place(client: Any, worker: Worker) -> None:
    """A completed task whose files still stand under the attempt's name is not over."""
    task_id = await client.spawn("client.plain")
    worker.claim()
    artifact = {"task": str(task_id), "path": "/x", "attempt_path": "/x.1", "kind": "file", "sha256": "0", "bytes": 1}
    worker.complete(task_id, artifacts=json.dumps([artifact]))

    with pytest.raises(WaitTimeoutError, match="completed"):
        await client.wait(task_id, timeout=0.2)
    waiter = asyncio.create_task(client.wait(task_id, timeout=120))
    worker.connection.execute("select mark_published(%s, '/x', '/x.1')", [task_id])

    assert ["/x"] == [each.path for each in (await waiter).artifacts]


async def test_wait_survives_its_connections(client: Any, worker: Worker) -> None:
    """Connections that the server ends are made anew while a task is waited for."""
    task_id = await client.spawn("client.plain")
    waiter = asyncio.create_task(client.wait(task_id, timeout=60))
    await _waited_for(worker, task_id)
    worker.connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'absurd'"
        " and datname = current_database()"
    )
    worker.claim()
    worker.complete(task_id)

    assert TaskState.COMPLETED == (await waiter).state
    assert task_id != await client.spawn("client.plain")


async def _waited_for(worker: Worker, task_id: UUID) -> None:
    deadline = time.monotonic() + 120
    while not worker.connection.execute("select from waiter where task_id = %s", [task_id]).fetchall():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


# The rest ----------------------------------------------------------------------------------------


async def test_cancel_and_retry(client: Any) -> None:
    """A cancelled task may be tried again; one that has not ended may not."""
    task_id = await client.spawn("client.plain")

    with pytest.raises(TaskStateError):
        await client.retry(task_id)
    assert TaskState.CANCELLED == await client.cancel(task_id)
    assert TaskState.CANCELLED == await client.cancel(str(task_id))
    assert TaskState.PENDING == await client.retry(task_id)
    for act in (client.cancel, client.retry, client.get_task, client.task_why):
        with pytest.raises(TaskNotFoundError):
            await act(new_task_id())
        with pytest.raises(InvalidOptionError, match="task id"):
            await act("42")


async def test_events_are_emitted_once(client: Any) -> None:
    """The first emission of a name counts."""
    assert (True, False) == (
        await client.emit_event("night-closed", {"seeing": float("nan")}),
        await client.emit_event("night-closed"),
    )


async def test_queues(client: Any) -> None:
    """Queues are made, counted, paused, purged; one that does not exist is an error."""
    assert (True, False) == (await client.create_queue("nights"), await client.create_queue("nights"))
    ids = await client.spawn_many([TaskSpec("client.plain", queue="nights") for _ in range(3)])
    await client.pause_queue("nights")
    paused = {each["name"]: each["paused"] for each in await client.list_queues()}
    await client.resume_queue("nights")

    assert paused["nights"] is True
    assert 3 == (await client.get_queue_stats("nights")).pending
    assert (3, 3) == (await client.purge_queue("nights", dry_run=True), await client.purge_queue("nights"))
    assert {TaskState.CANCELLED} == set((await client.get_states(ids)).values())
    assert (True, False) == (await client.create_queue("spare"), await client.create_queue("spare"))
    assert (True, True) == (await client.drop_queue("spare", dry_run=True), await client.drop_queue("spare"))
    assert not await client.drop_queue("spare")
    with pytest.raises(TaskStateError, match="3 tasks"):
        await client.drop_queue("nights")
    for act in (client.get_queue_stats, client.pause_queue, client.resume_queue, client.purge_queue):
        with pytest.raises(QueueNotFoundError, match="dawn"):
            await act("dawn")


async def test_lists_are_filtered_and_paged(client: Any, worker: Worker) -> None:
    """Tasks come newest first, page by page; the other lists tell what there is."""
    ids = await client.spawn_many([TaskSpec("client.plain", tags=["even"] if n % 2 == 0 else None) for n in range(6)])

    first = await client.list_tasks(limit=4)
    rest = await client.list_tasks(limit=4, after=first[-1]["id"])
    even = await client.list_tasks(tag="even", queue="default", name="client.plain", state=TaskState.PENDING)

    assert [str(each) for each in reversed(ids)] == [task["id"] for task in first + rest]
    assert {str(each) for each in ids[::2]} == {task["id"] for task in even}
    assert [] == await client.list_executors()
    assert [worker.number] == [each["id"] for each in await client.list_workers()]
    status = await client.get_status()
    assert {"queues", "workers", "schedules", "problems"} <= status.keys()
    with pytest.raises(InvalidOptionError, match="lost"):
        await client.list_tasks(state="lost")


async def test_without_prepared_statements(settings: Settings, worker: Worker) -> None:
    """For poolers that do not keep prepared statements, everything works without them."""
    async with AbsurdClient(settings=settings, prepared_statements=False) as client:
        ids = await client.spawn_many([TaskSpec("client.plain") for _ in range(5_001)])
        worker.claim(wanted=1)
        worker.complete(ids[0])
        assert TaskState.COMPLETED == (await client.wait(ids[0], timeout=120)).state
    with SyncAbsurdClient(settings=settings, prepared_statements=False) as plain:
        for _ in range(10):
            plain.get_queue_stats("default")
        assert TaskState.COMPLETED == plain.wait(ids[0], timeout=30).state


async def test_first_call_connects(settings: Settings) -> None:
    """A client that was not connected connects by itself; after `close` it may again."""
    plain, client = SyncAbsurdClient(settings=settings), AbsurdClient(settings=settings)

    assert [] == await asyncio.to_thread(plain.list_tasks) == await client.list_tasks()
    plain.close()
    await client.close()
    assert [] == await asyncio.to_thread(plain.list_tasks) == await client.list_tasks()
    plain.close()
    await client.close()


def test_clients_are_twins() -> None:
    """Both have the same methods with the same parameters."""

    def surface(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in inspect.getmembers(kind, callable)
            if not name.startswith("_")
        }

    assert surface(AbsurdClient) == surface(SyncAbsurdClient)
