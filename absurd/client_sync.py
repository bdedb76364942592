"""The client for plain programs, scripts and notebooks: the twin of `AbsurdClient`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar, Unpack, overload
from uuid import UUID

from absurd import dead_letters, inspection, queue, resources
from absurd.call import Call
from absurd.config import Settings, load_settings, merge_settings
from absurd.database_sync import SyncDatabase, session_on
from absurd.encoding import encode
from absurd.errors import DatabaseUnavailableError
from absurd.executor import Executor, ParamsT
from absurd.gains import SyncGainMethods
from absurd.images import SyncImageMethods
from absurd.inspection import Document
from absurd.limits import QueueLimits, set_queue_limits
from absurd.logs import SyncLogMethods
from absurd.middleware import SpawnMiddleware, load
from absurd.model import QueueStats, Task, TaskSpec, TaskState
from absurd.orders import SyncWorkerMethods
from absurd.products import SyncProductMethods
from absurd.queue import Spawned
from absurd.recordings import SyncRecordingMethods
from absurd.resolve import resolve_database
from absurd.scheduler.schedules_sync import SyncScheduleMethods
from absurd.session_files import SyncSessionFileMethods
from absurd.spawning import SpawnOptions, spawn_call, spawn_calls
from absurd.waiting import SHOWN_NODES, Patience, Waiting, WorkflowWaiting
from absurd.workflow import Workflow, WorkflowRun

T = TypeVar("T")


class SyncAbsurdClient(
    SyncScheduleMethods,
    SyncLogMethods,
    SyncWorkerMethods,
    SyncImageMethods,
    SyncGainMethods,
    SyncProductMethods,
    SyncSessionFileMethods,
    SyncRecordingMethods,
):
    """Hands in tasks, waits for them, and looks at queues.

    Use it as a context manager, or call `connect` and `close`; the first call connects by itself.
    Threads may share it: they take turns on one connection.  `prepared_statements=False` is for
    poolers in transaction mode that do not keep prepared statements.  Every task that is spawned goes through
    `middleware`, the first one first; None: that of the settings.
    """

    def __init__(
        self,
        database_url: str | None = None,
        *,
        settings: Settings | None = None,
        middleware: Sequence[SpawnMiddleware] | None = None,
        prepared_statements: bool | None = None,
    ) -> None:
        self.settings = merge_settings(database_url, settings)
        self.middleware = load(self.settings.spawn_middleware) if middleware is None else list(middleware)
        self._prepared_statements = (
            self.settings.prepared_statements if prepared_statements is None else prepared_statements
        )
        self._database: SyncDatabase | None = None
        self._connecting = threading.Lock()

    @classmethod
    def from_env(cls, **flags: Any) -> Self:
        """A client with the settings of the environment and the configuration file; flags go before them."""
        return cls(settings=load_settings(**flags))

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> Self:
        """Connect to the database; starts the embedded one where no other is set.

        Raises DatabaseUnavailableError, AuthenticationError, UnsupportedServerError, SchemaError.
        """
        self._opened()
        return self

    def close(self) -> None:
        """Close the connection."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    # Tasks ---------------------------------------------------------------------------------------

    @overload
    def spawn(
        self, name: Executor[ParamsT], params: ParamsT, *, connection: Any = None, **options: Unpack[SpawnOptions]
    ) -> UUID: ...

    @overload
    def spawn(
        self, name: str, params: Any = None, *, connection: Any = None, **options: Unpack[SpawnOptions]
    ) -> UUID: ...

    def spawn(
        self,
        name: str | Executor[Any],
        params: Any = None,
        *,
        connection: Any = None,
        **options: Unpack[SpawnOptions],
    ) -> UUID:
        """Spawn a task and give its id; with a `key` that is taken, the id of the task that has it.

        `connection` (psycopg's Connection) spawns in the caller's transaction: the task exists when that
        commits.  The options are those of `SpawnOptions`.
        """
        return (self.spawn_or_get(name, params, connection=connection, **options)).id

    @overload
    def spawn_or_get(
        self, name: Executor[ParamsT], params: ParamsT, *, connection: Any = None, **options: Unpack[SpawnOptions]
    ) -> Spawned: ...

    @overload
    def spawn_or_get(
        self, name: str, params: Any = None, *, connection: Any = None, **options: Unpack[SpawnOptions]
    ) -> Spawned: ...

    def spawn_or_get(
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
        return (self._run_on(connection, call))[0]

    def spawn_many(self, specs: Iterable[TaskSpec], *, connection: Any = None) -> list[UUID]:
        """Spawn tasks, all or none; gives their ids in order.  Parents stand before their children."""
        return [each.id for each in self._spawn(specs, connection)]

    def get_task(self, task_id: UUID | str) -> Task:
        """Everything about a task.  Raises TaskNotFoundError."""
        return self.run(inspection.get_task(task_id))

    def get_states(self, task_ids: Iterable[UUID | str]) -> dict[UUID, TaskState | None]:
        """The state of each task, None for ids that are no task's."""
        return self.run(queue.get_states(task_ids))

    def wait(self, task_id: UUID | str, timeout: float | None = None) -> Task:
        """Wait until a task has completed and its files are in place, and give it.

        Raises TaskFailed or TaskCancelled when it ended so, FilesMissing when nobody puts its files in place,
        WaitTimeoutError (a TimeoutError) when it has not ended after `timeout` seconds (None: wait for ever),
        TaskNotFoundError.
        """
        waiting = Waiting(task_id, timeout)

        def look() -> Task | None:
            over = waiting.is_over(self.run(waiting.look()))
            return waiting.verdict(self.get_task(waiting.id)) if over else None

        return self._wait(waiting, look)

    def cancel(self, task_id: UUID | str, reason: str | None = None, *, subtree: bool = False) -> TaskState:
        """Cancel a task and what cannot run without it; gives the state afterwards, which an ended task keeps.

        With `subtree` everything that depends on it is cancelled, even what has started or would run all the same.
        """
        return self.run(queue.cancel_task(task_id, reason, subtree=subtree))

    def retry(self, task_id: UUID | str) -> TaskState:
        """Give an ended task one more attempt.  Raises TaskNotFoundError, TaskStateError if it has not ended."""
        return self.run(queue.retry_task(task_id))

    def respawn(self, task_id: UUID | str) -> UUID:
        """Spawn a fresh task like one that has ended, which stays as it is; gives the new id."""
        return self.run(queue.respawn_task(task_id))

    def edit(self, task_id: UUID | str, **changes: Any) -> Document:
        """Change a task before it is claimed, see `queue.edit_task`.  Raises TaskStateError once it was."""
        return self.run(queue.edit_task(task_id, **changes))

    def rerun(self, task_id: UUID | str, *, descendants: bool = True) -> int:
        """Run an ended task and all that depends on it anew; the rest is reused.  Gives how many tasks run again.

        Checkpoints of those tasks go.  Raises TaskNotFoundError, TaskStateError if one of them has not ended.
        """
        return self.run(queue.rerun_task(task_id, descendants=descendants))

    def task_why(self, task_id: UUID | str) -> str:
        """What a task waits for, or how it ended, in a sentence."""
        return self.run(inspection.task_why(task_id))

    # Workflows -----------------------------------------------------------------------------------

    def spawn_workflow(self, workflow: Workflow, *, connection: Any = None) -> WorkflowRun:
        """Spawn all nodes of a workflow in one transaction, the caller's own if `connection` is given."""
        call = workflow.spawn_call(self.settings.queue_name, self.middleware)
        return self._run_on(connection, call)

    def wait_workflow(self, workflow_id: UUID | str, timeout: float | None = None) -> Document:
        """Wait until all nodes of a workflow have ended and it has completed, and give it as `get_workflow` does.

        Raises WorkflowFailed, which names the failed nodes, WorkflowCancelled, WaitTimeoutError, WorkflowNotFoundError.
        """
        waiting = WorkflowWaiting(workflow_id, timeout)

        def look() -> Document | None:
            over = waiting.is_over(self.run(waiting.look()))
            return waiting.verdict(self.get_workflow(waiting.id, nodes=SHOWN_NODES)) if over else None

        return self._wait(waiting, look)

    def get_workflow(self, workflow_id: UUID | str, *, nodes: int = 1000) -> Document:
        """A workflow with counts by state and up to `nodes` of its nodes, failed ones first.

        Raises WorkflowNotFoundError.
        """
        return self.run(inspection.get_workflow(workflow_id, nodes=nodes))

    def list_workflows(self, **filters: Any) -> list[Document]:
        """Workflows, newest first; the filters are those of `inspection.list_workflows`."""
        return self.run(inspection.list_workflows(**filters))

    def cancel_workflow(self, workflow_id: UUID | str, reason: str | None = None) -> str:
        """Cancel all of a workflow that has not ended; gives its state afterwards.  Raises WorkflowNotFoundError."""
        return self.run(queue.cancel_workflow(workflow_id, reason))

    def retry_workflow(self, workflow_id: UUID | str) -> int:
        """Run what failed or was cancelled of a workflow again; gives how many nodes.

        Raises WorkflowNotFoundError, TaskStateError if there is no such node.
        """
        return self.run(queue.retry_workflow(workflow_id))

    # Events and queues ---------------------------------------------------------------------------

    def emit_event(self, name: str, payload: Any = None) -> bool:
        """Emit an event, which wakes who waits for it; false if it was emitted before: nothing changes then."""
        return self.run(queue.emit_event(name, encode(payload, "payload")))

    def get_queue_stats(self, name: str) -> QueueStats:
        """How many tasks of a queue are in each state; costs the same however many there are."""
        return self.run(queue.get_queue_stats(name))

    def create_queue(self, name: str) -> bool:
        """Make a queue; false if it exists.  Spawning makes queues by itself."""
        return self.run(queue.create_queue(name))

    def pause_queue(self, name: str) -> None:
        """Let nothing new be claimed from a queue; what runs goes on."""
        self.run(queue.set_queue_paused(name, paused=True))

    def resume_queue(self, name: str) -> None:
        """End a pause."""
        self.run(queue.set_queue_paused(name, paused=False))

    def limit_queue(self, name: str, **limits: Unpack[QueueLimits]) -> dict[str, Any]:
        """Change limits of a queue: ``running``, ``per_lane``, ``rate``, ``fair``; gives those now in force.

        What is left out stays as it is, None lifts a limit.  What runs goes on.  Raises QueueNotFoundError.
        """
        return self.run(set_queue_limits(name, limits))

    def purge_queue(self, name: str, *, dry_run: bool = False) -> int:
        """Cancel all pending and sleeping tasks of a queue; gives how many that are (or would be)."""
        return self.run(queue.purge_queue(name, dry_run=dry_run))

    def drop_queue(self, name: str, *, dry_run: bool = False) -> bool:
        """Remove a queue of which no task is kept; false if there is none.  Spawning into its name makes another.

        Raises TaskStateError while tasks or dead letters of it are kept, a worker serves it, or a transaction that
        has looked at queues, such as a dump, goes on.
        """
        return self.run(queue.drop_queue(name, dry_run=dry_run))

    def set_queue_retention(self, name: str, seconds: float | None) -> None:
        """Keep ended tasks of a queue for so many seconds; None keeps them for ever."""
        self.run(queue.set_queue_retention(name, seconds))

    def prune_queue(self, name: str, older_than: float, *, limit: int = 1000, dry_run: bool = False) -> int:
        """Remove tasks that ended more than so many seconds ago; gives how many went (or would go)."""
        return self.run(queue.prune_queue(name, older_than, limit=limit, dry_run=dry_run))

    # Resources -----------------------------------------------------------------------------------

    def set_resource(self, name: str, total: float) -> None:
        """Say how much of something, such as licences, the workers of all hosts share."""
        self.run(resources.set_resource(name, total))

    def remove_resource(self, name: str) -> bool:
        """Share a resource no more: each worker has of it what it offers; false if there is none of that name."""
        return self.run(resources.remove_resource(name))

    def list_resources(self) -> list[Document]:
        """What is shared: name, total, held, the tasks that hold it, how many wait for it."""
        return self.run(resources.list_resources())

    # Dead letters --------------------------------------------------------------------------------

    def list_dead_letters(self, **filters: Any) -> list[Document]:
        """Dead letters, newest task first; the filters are those of `dead_letters.list_dead_letters`."""
        return self.run(dead_letters.list_dead_letters(**filters))

    def get_dead_letter(self, task_id: UUID | str) -> Document:
        """All about a dead letter.  Raises TaskNotFoundError."""
        return self.run(dead_letters.get_dead_letter(task_id))

    def requeue_dead_letters(self, **wishes: Any) -> list[Document]:
        """Put dead letters back, see `dead_letters.requeue_dead_letters`; tells of each whether it went."""
        return self.run(dead_letters.requeue_dead_letters(**wishes))

    def purge_dead_letters(self, *, dry_run: bool = False, **filters: Any) -> int:
        """Forget dead letters, at most 10,000 a call; gives how many went (or would go)."""
        return self.run(dead_letters.purge_dead_letters(dry_run=dry_run, **filters))

    # Reading -------------------------------------------------------------------------------------

    def list_tasks(self, **filters: Any) -> list[Document]:
        """Tasks, newest first; the filters are those of `inspection.list_tasks`."""
        return self.run(inspection.list_tasks(**filters))

    def list_queues(self) -> list[Document]:
        """Queues with their counts."""
        return self.run(inspection.list_queues())

    def list_workers(self, *, all: bool = False) -> list[Document]:
        """Workers that are alive and those lost within the hour; with `all` every one that ever was."""
        return self.run(inspection.list_workers(all=all))

    def list_executors(self) -> list[Document]:
        """Executors that workers have registered."""
        return self.run(inspection.list_executors())

    def get_status(self) -> Document:
        """Queues, workers, schedules, and problems with what to do about each."""
        return self.run(inspection.get_status())

    # Calls ---------------------------------------------------------------------------------------

    def run(self, call: Call[T]) -> T:
        """Make any call of `absurd.queue` or `absurd.inspection`."""
        return (self._opened()).run(call)

    def _run_on(self, connection: Any, call: Call[T]) -> T:
        """Make `call` on the caller's connection, in whose open transaction it stays; on one of ours if None."""
        if connection is None:
            return (self._opened()).run(call)
        return session_on(connection, schema=self.settings.schema).run_all([call])[0]

    def _spawn(self, specs: Iterable[TaskSpec], connection: Any) -> list[Spawned]:
        calls = spawn_calls(specs, self.settings.queue_name, self.middleware)
        if connection is None:
            results = (self._opened()).run_all(calls)
        else:
            made = list(calls)  # all of them first: a mistake must leave the caller's transaction as it was
            results = session_on(connection, schema=self.settings.schema).run_all(made)
        return [each for result in results for each in result]

    def _opened(self) -> SyncDatabase:
        if self._database is None:
            with self._connecting:
                if self._database is None:
                    database = SyncDatabase(
                        resolve_database(self.settings),
                        schema=self.settings.schema,
                        prepared_statements=self._prepared_statements,
                    )
                    database.open()
                    self._database = database
        return self._database

    def _wait(self, waiting: Patience, look: Callable[[], T | None]) -> T:
        """Look until there is something to see."""
        with self._news_of(waiting.id, "ended") as await_end:
            while True:
                try:
                    if (found := look()) is not None:
                        return found
                except DatabaseUnavailableError as error:
                    waiting.endure(error)
                await_end(waiting.pause())

    @contextmanager
    def _news_of(self, task_id: UUID, *topics: str) -> Iterator[Callable[[float], bool]]:
        """A function that waits for a notification about a task, for so many seconds at most: whether one came."""
        with self._opened().listening(*topics) as heard:

            def await_news(seconds: float) -> bool:
                deadline = time.monotonic() + seconds
                while (left := deadline - time.monotonic()) > 0:
                    if heard(left) == str(task_id):
                        return True
                return False

            yield await_news
