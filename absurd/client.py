"""The client for asyncio.  `SyncAbsurdClient` is its twin; what they decide, they decide in the same functions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any, Self, TypeVar, Unpack, overload
from uuid import UUID

from absurd import dead_letters, inspection, queue, resources
from absurd.call import Call
from absurd.config import Settings, load_settings, merge_settings
from absurd.database import AsyncDatabase, session_on
from absurd.encoding import encode
from absurd.errors import DatabaseUnavailableError
from absurd.executor import Executor, ParamsT
from absurd.gains import GainMethods
from absurd.images import ImageMethods
from absurd.inspection import Document
from absurd.limits import QueueLimits, set_queue_limits
from absurd.logs import LogMethods
from absurd.middleware import SpawnMiddleware, load
from absurd.model import QueueStats, Task, TaskSpec, TaskState
from absurd.notify import Heard, Listener
from absurd.orders import WorkerMethods
from absurd.products import ProductMethods
from absurd.queue import Spawned
from absurd.recordings import RecordingMethods
from absurd.resolve import resolve_database
from absurd.scheduler.schedules import ScheduleMethods
from absurd.session_files import SessionFileMethods
from absurd.spawning import SpawnOptions, spawn_call, spawn_calls
from absurd.waiting import SHOWN_NODES, Patience, Waiting, WorkflowWaiting
from absurd.workflow import Workflow, WorkflowRun

T = TypeVar("T")


class AbsurdClient(
    ScheduleMethods,
    LogMethods,
    WorkerMethods,
    ImageMethods,
    GainMethods,
    ProductMethods,
    SessionFileMethods,
    RecordingMethods,
):
    """Hands in tasks, waits for them, and looks at queues.

    Use it as a context manager, or call `connect` and `close`; the first call connects by itself.
    Belongs to the event loop in which it connects.  `prepared_statements=False` is for poolers in
    transaction mode that do not keep prepared statements.  Every task that is spawned goes through
    `middleware`, the first one first; None: that of the settings.
    """

    def __init__(
        self,
        database_url: str | None = None,
        *,
        settings: Settings | None = None,
        middleware: Sequence[SpawnMiddleware] | None = None,
        prepared_statements: bool | None = None,
        max_connections: int = 8,
    ) -> None:
        self.settings = merge_settings(database_url, settings)
        self.middleware = load(self.settings.spawn_middleware) if middleware is None else list(middleware)
        self._prepared_statements = (
            self.settings.prepared_statements if prepared_statements is None else prepared_statements
        )
        self._max_connections = max_connections
        self._database: AsyncDatabase | None = None
        self._listener: Listener | None = None
        self._connecting = asyncio.Lock()

    @classmethod
    def from_env(cls, **flags: Any) -> Self:
        """A client with the settings of the environment and the configuration file; flags go before them."""
        return cls(settings=load_settings(**flags))

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connect(self) -> Self:
        """Connect to the database; starts the embedded one where no other is set.

        Raises DatabaseUnavailableError, AuthenticationError, UnsupportedServerError, SchemaError.
        """
        await self._opened()
        return self

    async def close(self) -> None:
        """Close all connections."""
        listener, self._listener = self._listener, None
        database, self._database = self._database, None
        if listener is not None:
            await listener.stop()
        if database is not None:
            await database.close()

    # Tasks ---------------------------------------------------------------------------------------

    @overload
    async def spawn(
        self, name: Executor[ParamsT], params: ParamsT, *, connection: Any = None, **options: Unpack[SpawnOptions]
    ) -> UUID: ...

    @overload
    async def spawn(
        self, name: str, params: Any = None, *, connection: Any = None, **options: Unpack[SpawnOptions]
    ) -> UUID: ...

    async def spawn(
        self,
        name: str | Executor[Any],
        params: Any = None,
        *,
        connection: Any = None,
        **options: Unpack[SpawnOptions],
    ) -> UUID:
        """Spawn a task and give its id; with a `key` that is taken, the id of the task that has it.

        `connection` (asyncpg, or psycopg's AsyncConnection) spawns in the caller's transaction: the
        task exists when that commits.  The options are those of `SpawnOptions`.
        """
        return (await self.spawn_or_get(name, params, connection=connection, **options)).id

    @overload
    async def spawn_or_get(
        self, name: Executor[ParamsT], params: ParamsT, *, connection: Any = None, **options: Unpack[SpawnOptions]
    ) -> Spawned: ...

    @overload
    async def spawn_or_get(
        self, name: str, params: Any = None, *, connection: Any = None, **options: Unpack[SpawnOptions]
    ) -> Spawned: ...

    async def spawn_or_get(
        self,
        name: str | Executor[Any],
        params: Any = None,
        *,
        connection: Any = None,
        **options: Unpack[SpawnOptions],
    ) -> Spawned:
        """As `spawn`, and tells whether this call created the task."""
        spec = TaskSpec(name, params, **options)  # type: ignore[arg-type]
        call = spawn_call(spec, self.settings.queue_name, self.middleware)
        return (await self._run_on(connection, call))[0]

    async def spawn_many(self, specs: Iterable[TaskSpec], *, connection: Any = None) -> list[UUID]:
        """Spawn tasks, all or none; gives their ids in order.  Parents stand before their children."""
        return [each.id for each in await self._spawn(specs, connection)]

    async def get_task(self, task_id: UUID | str) -> Task:
        """Everything about a task.  Raises TaskNotFoundError."""
        return await self.run(inspection.get_task(task_id))

    async def get_states(self, task_ids: Iterable[UUID | str]) -> dict[UUID, TaskState | None]:
        """The state of each task, None for ids that are no task's."""
        return await self.run(queue.get_states(task_ids))

    async def wait(self, task_id: UUID | str, timeout: float | None = None) -> Task:
        """Wait until a task has completed and its files are in place, and give it.

        Raises TaskFailed or TaskCancelled when it ended so, FilesMissing when nobody puts its files in place,
        WaitTimeoutError (a TimeoutError) when it has not ended after `timeout` seconds (None: wait for ever),
        TaskNotFoundError.
        """
        waiting = Waiting(task_id, timeout)

        async def look() -> Task | None:
            over = waiting.is_over(await self.run(waiting.look()))
            return waiting.verdict(await self.get_task(waiting.id)) if over else None

        return await self._wait(waiting, look)

    async def cancel(self, task_id: UUID | str, reason: str | None = None, *, subtree: bool = False) -> TaskState:
        """Cancel a task and what cannot run without it; gives the state afterwards, which an ended task keeps.

        With `subtree` everything that depends on it is cancelled, even what has started or would run all the same.
        """
        return await self.run(queue.cancel_task(task_id, reason, subtree=subtree))

    async def retry(self, task_id: UUID | str) -> TaskState:
        """Give an ended task one more attempt.  Raises TaskNotFoundError, TaskStateError if it has not ended."""
        return await self.run(queue.retry_task(task_id))

    async def respawn(self, task_id: UUID | str) -> UUID:
        """Spawn a fresh task like one that has ended, which stays as it is; gives the new id."""
        return await self.run(queue.respawn_task(task_id))

    async def edit(self, task_id: UUID | str, **changes: Any) -> Document:
        """Change a task before it is claimed, see `queue.edit_task`.  Raises TaskStateError once it was."""
        return await self.run(queue.edit_task(task_id, **changes))

    async def rerun(self, task_id: UUID | str, *, descendants: bool = True) -> int:
        """Run an ended task and all that depends on it anew; the rest is reused.  Gives how many tasks run again.

        Checkpoints of those tasks go.  Raises TaskNotFoundError, TaskStateError if one of them has not ended.
        """
        return await self.run(queue.rerun_task(task_id, descendants=descendants))

    async def task_why(self, task_id: UUID | str) -> str:
        """What a task waits for, or how it ended, in a sentence."""
        return await self.run(inspection.task_why(task_id))

    # Workflows -----------------------------------------------------------------------------------

    async def spawn_workflow(self, workflow: Workflow, *, connection: Any = None) -> WorkflowRun:
        """Spawn all nodes of a workflow in one transaction, the caller's own if `connection` is given."""
        call = workflow.spawn_call(self.settings.queue_name, self.middleware)
        return await self._run_on(connection, call)

    async def wait_workflow(self, workflow_id: UUID | str, timeout: float | None = None) -> Document:
        """Wait until all nodes of a workflow have ended and it has completed, and give it as `get_workflow` does.

        Raises WorkflowFailed, which names the failed nodes, WorkflowCancelled, WaitTimeoutError, WorkflowNotFoundError.
        """
        waiting = WorkflowWaiting(workflow_id, timeout)

        async def look() -> Document | None:
            over = waiting.is_over(await self.run(waiting.look()))
            return waiting.verdict(await self.get_workflow(waiting.id, nodes=SHOWN_NODES)) if over else None

        return await self._wait(waiting, look)

    async def get_workflow(self, workflow_id: UUID | str, *, nodes: int = 1000) -> Document:
        """A workflow with counts by state and up to `nodes` of its nodes, failed ones first.

        Raises WorkflowNotFoundError.
        """
        return await self.run(inspection.get_workflow(workflow_id, nodes=nodes))

    async def list_workflows(self, **filters: Any) -> list[Document]:
        """Workflows, newest first; the filters are those of `inspection.list_workflows`."""
        return await self.run(inspection.list_workflows(**filters))

    async def cancel_workflow(self, workflow_id: UUID | str, reason: str | None = None) -> str:
        """Cancel all of a workflow that has not ended; gives its state afterwards.  Raises WorkflowNotFoundError."""
        return await self.run(queue.cancel_workflow(workflow_id, reason))

    async def retry_workflow(self, workflow_id: UUID | str) -> int:
        """Run what failed or was cancelled of a workflow again; gives how many nodes.

        Raises WorkflowNotFoundError, TaskStateError if there is no such node.
        """
        return await self.run(queue.retry_workflow(workflow_id))

    # Events and queues ---------------------------------------------------------------------------

    async def emit_event(self, name: str, payload: Any = None) -> bool:
        """Emit an event, which wakes who waits for it; false if it was emitted before: nothing changes then."""
        return await self.run(queue.emit_event(name, encode(payload, "payload")))

    async def get_queue_stats(self, name: str) -> QueueStats:
        """How many tasks of a queue are in each state; costs the same however many there are."""
        return await self.run(queue.get_queue_stats(name))

    async def create_queue(self, name: str) -> bool:
        """Make a queue; false if it exists.  Spawning makes queues by itself."""
        return await self.run(queue.create_queue(name))

    async def pause_queue(self, name: str) -> None:
        """Let nothing new be claimed from a queue; what runs goes on."""
        await self.run(queue.set_queue_paused(name, paused=True))

    async def resume_queue(self, name: str) -> None:
        """End a pause."""
        await self.run(queue.set_queue_paused(name, paused=False))

    async def limit_queue(self, name: str, **limits: Unpack[QueueLimits]) -> dict[str, Any]:
        """Change limits of a queue: ``running``, ``per_lane``, ``rate``, ``fair``; gives those now in force.

        What is left out stays as it is, None lifts a limit.  What runs goes on.  Raises QueueNotFoundError.
        """
        return await self.run(set_queue_limits(name, limits))

    async def purge_queue(self, name: str, *, dry_run: bool = False) -> int:
        """Cancel all pending and sleeping tasks of a queue; gives how many that are (or would be)."""
        return await self.run(queue.purge_queue(name, dry_run=dry_run))

    async def drop_queue(self, name: str, *, dry_run: bool = False) -> bool:
        """Remove a queue of which no task is kept; false if there is none.  Spawning into its name makes another.

        Raises TaskStateError while tasks or dead letters of it are kept, a worker serves it, or a transaction that
        has looked at queues, such as a dump, goes on.
        """
        return await self.run(queue.drop_queue(name, dry_run=dry_run))

    async def set_queue_retention(self, name: str, seconds: float | None) -> None:
        """Keep ended tasks of a queue for so many seconds; None keeps them for ever."""
        await self.run(queue.set_queue_retention(name, seconds))

    async def prune_queue(self, name: str, older_than: float, *, limit: int = 1000, dry_run: bool = False) -> int:
        """Remove tasks that ended more than so many seconds ago; gives how many went (or would go)."""
        return await self.run(queue.prune_queue(name, older_than, limit=limit, dry_run=dry_run))

    # Resources -----------------------------------------------------------------------------------

    async def set_resource(self, name: str, total: float) -> None:
        """Say how much of something, such as licences, the workers of all hosts share."""
        await self.run(resources.set_resource(name, total))

    async def remove_resource(self, name: str) -> bool:
        """Share a resource no more: each worker has of it what it offers; false if there is none of that name."""
        return await self.run(resources.remove_resource(name))

    async def list_resources(self) -> list[Document]:
        """What is shared: name, total, held, the tasks that hold it, how many wait for it."""
        return await self.run(resources.list_resources())

    # Dead letters --------------------------------------------------------------------------------

    async def list_dead_letters(self, **filters: Any) -> list[Document]:
        """Dead letters, newest task first; the filters are those of `dead_letters.list_dead_letters`."""
        return await self.run(dead_letters.list_dead_letters(**filters))

    async def get_dead_letter(self, task_id: UUID | str) -> Document:
        """All about a dead letter.  Raises TaskNotFoundError."""
        return await self.run(dead_letters.get_dead_letter(task_id))

    async def requeue_dead_letters(self, **wishes: Any) -> list[Document]:
        """Put dead letters back, see `dead_letters.requeue_dead_letters`; tells of each whether it went."""
        return await self.run(dead_letters.requeue_dead_letters(**wishes))

    async def purge_dead_letters(self, *, dry_run: bool = False, **filters: Any) -> int:
        """Forget dead letters, at most 10,000 a call; gives how many went (or would go)."""
        return await self.run(dead_letters.purge_dead_letters(dry_run=dry_run, **filters))

    # Reading -------------------------------------------------------------------------------------

    async def list_tasks(self, **filters: Any) -> list[Document]:
        """Tasks, newest first; the filters are those of `inspection.list_tasks`."""
        return await self.run(inspection.list_tasks(**filters))

    async def list_queues(self) -> list[Document]:
        """Queues with their counts."""
        return await self.run(inspection.list_queues())

    async def list_workers(self, *, all: bool = False) -> list[Document]:
        """Workers that are alive and those lost within the hour; with `all` every one that ever was."""
        return await self.run(inspection.list_workers(all=all))

    async def list_executors(self) -> list[Document]:
        """Executors that workers have registered."""
        return await self.run(inspection.list_executors())

    async def get_status(self) -> Document:
        """Queues, workers, schedules, and problems with what to do about each."""
        return await self.run(inspection.get_status())

    # Calls ---------------------------------------------------------------------------------------

    async def run(self, call: Call[T]) -> T:
        """Make any call of `absurd.queue` or `absurd.inspection`."""
        return await (await self._opened()).run(call)

    async def _run_on(self, connection: Any, call: Call[T]) -> T:
        """Make `call` on the caller's connection, in whose open transaction it stays; on one of ours if None."""
        if connection is None:
            return await (await self._opened()).run(call)
        return (await session_on(connection, schema=self.settings.schema).run_all([call]))[0]

    async def _spawn(self, specs: Iterable[TaskSpec], connection: Any) -> list[Spawned]:
        calls = spawn_calls(specs, self.settings.queue_name, self.middleware)
        if connection is None:
            results = await (await self._opened()).run_all(calls)
        else:
            made = list(calls)  # all of them first: a mistake must leave the caller's transaction as it was
            results = await session_on(connection, schema=self.settings.schema).run_all(made)
        return [each for result in results for each in result]

    async def _opened(self) -> AsyncDatabase:
        if self._database is None:
            async with self._connecting:
                if self._database is None:
                    url = await asyncio.to_thread(resolve_database, self.settings)
                    database = AsyncDatabase(
                        url,
                        schema=self.settings.schema,
                        prepared_statements=self._prepared_statements,
                        max_connections=self._max_connections,
                    )
                    await database.open()
                    self._database = database
        return self._database

    async def _wait(self, waiting: Patience, look: Callable[[], Awaitable[T | None]]) -> T:
        """Look until there is something to see."""
        async with self._news_of(waiting.id, "ended") as news:
            while True:
                news.clear()
                try:
                    if (found := await look()) is not None:
                        return found
                except DatabaseUnavailableError as error:
                    waiting.endure(error)
                await news.wait(waiting.pause(notified=news.arrive()))

    @asynccontextmanager
    async def _news_of(self, task_id: UUID, *topics: str) -> AsyncIterator[Heard]:
        """What waits for notifications about a task: that it has ended, or that its log has grown."""
        database = await self._opened()
        if self._listener is None:
            self._listener = Listener(database, ["ended", "log"])
            self._listener.start()
        heard = Heard(self._listener)
        with ExitStack() as subscribed:
            for topic in topics:
                subscribed.enter_context(self._listener.subscribe(topic, heard.hear, only=str(task_id)))
            yield heard
