"""A queue that is worked through in batches by plain SQL, and what each call costs in buffers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
from proof import amount
from sql_queue import Queue

from absurd.queue import new_task_id

Connection = psycopg.Connection[Any]

BATCH = 500
BEAT_SECONDS = 10.0
"""Between two beats, as of a worker; each leaves a dead row of its own."""
MARK_SECONDS = amount(0, 2)
"""Between two times that the marks are advanced, by both halves; a round a second does one half."""
CHILDREN = 20
OLD = """
with made as (
    insert into task (id, created_at, queue_id, executor_id, params)
    select new_task_id(), clock_time(), %(queue)s, x.id, '{}' from executor x, generate_series(1, %(n)s)
    where x.name = 'demo.add' returning id),
ended as (
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends)
    select id, clock_time(), clock_time() - interval '60.5 min', 1, 'completed', 1, true from made),
counted as (
    insert into tally (queue_id, completed) values (%(queue)s, %(n)s))
insert into pruning (queue_id, up_to) values (%(queue)s, clock_time() - interval '61 min')
"""


class Busy:
    """A queue that is worked through in batches, and what each call costs in buffers."""

    def __init__(self, connection: Connection) -> None:
        self.queue = Queue(connection)
        self.connection = connection
        self.queue.call("create_queue('default')")
        self.queue_id = self.queue.call("id from queue where name = 'default'")
        self.lease = self.queue.worker << 32
        self.buffers: dict[str, list[int]] = {}
        self.wal: dict[str, list[int]] = {}
        self.beat_at = self.marks_at = 0.0

    def work(self, *, measured: bool) -> None:
        """Spawn a batch, some of it delayed, claim it, complete it, and make the rounds."""
        ids = [new_task_id() for _ in range(BATCH)]
        many = (["default"] * BATCH, ["demo.add"] * BATCH, ["{}"] * BATCH)
        options = ['{"delay": 0.001}' if n % 10 == 0 else None for n in range(BATCH)]
        self._call("spawn_tasks", "%s::uuid[], %s, %s, %s::jsonb[], %s::jsonb[]", (ids, *many, options), measured)
        self._call("promote_timers", "", (), measured)
        self.lease += 1
        self._call("claim_runs", "%s, %s, %s, '{}', '{}'", (self.lease, self.queue_id, BATCH), measured)
        tasks = self._held()
        n = len(tasks)
        arguments = ([self.lease] * n, tasks, [0] * n, [None] * n)
        self._call("complete_runs", "%s::bigint[], %s, %s::int[], %s::text[]", arguments, measured)
        self.lease += 1
        self._call("claim_runs", "%s, %s, 1, '{}', '{}'", (self.lease, self.queue_id), measured, "empty claim")
        if time.monotonic() >= self.beat_at:
            self.queue.call("count(*) from beat(%s, '{}')", self.queue.worker)
            self.beat_at = time.monotonic() + BEAT_SECONDS
        self._call("recover_runs", "", (), measured)
        self._call("fold_tallies", "", (), measured)
        self._call("get_queue_stats", "'default'", (), measured)
        if time.monotonic() >= self.marks_at:
            for _ in range(2):
                self.queue.call("advance_marks()")
            self.marks_at = time.monotonic() + MARK_SECONDS

    def _call(self, function: str, sql: str, args: tuple[Any, ...], measured: bool, name: str | None = None) -> None:
        if measured:
            self.explain(function, sql, args, name)
        else:
            self.connection.execute(f"select * from {function}({sql})", args)

    def explain(self, function: str, sql: str = "", args: tuple[Any, ...] = (), name: str | None = None) -> None:
        """Make a call, and note what it costs."""
        row = self.connection.execute(
            f"explain (analyze, buffers, wal, format json) select * from {function}({sql})", args
        ).fetchone()
        assert row is not None
        plan = row[0][0]["Plan"]
        self.buffers.setdefault(name or function, []).append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
        self.wal.setdefault(name or function, []).append(plan["WAL Bytes"])

    def measure(self) -> dict[str, float]:
        """Median buffers of a call, of five batches."""
        self.buffers, self.wal = {}, {}
        for _ in range(5):
            self.work(measured=True)
        return {name: statistics.median(values) for name, values in self.buffers.items()}

    def measure_singly(self) -> dict[str, float]:
        """Median buffers of calls about one task, of rounds and of upkeep, of three each in a warm session."""
        self.buffers = {}
        self.queue.spawn()
        held = self.claimed(1)
        self.complete(*held)
        done = held[1][0]
        calls: dict[str, tuple[str, str, Callable[[], tuple[Any, ...]]]] = {
            "maintain": ("maintain", "", tuple),
            "spawn_plain": ("spawn_plain", "%s, 'default', 'demo.add', '{}'", lambda: (new_task_id(),)),
            "step": ("step", "%s::bigint[], %s, '{0}', array[null::text], %s, %s, 1, '{}', '{}'", self._next_step),
            "complete_runs of a parent": (
                "complete_runs", "%s::bigint[], %s, '{0}', array[null::text]", lambda: self._parent(CHILDREN),
            ),
            "sweep_late": ("sweep_late", "", self._late_child),
            "advance_marks": ("advance_marks", "", self._numbers),
            "beat": ("beat", "%s, %s::bigint[]", lambda: (self.queue.worker, [self.lease])),
            "recover_runs": ("recover_runs", "", tuple),
            "list_workers": ("list_workers", "", tuple),
            "get_status": ("get_status", "", tuple),
            "get_metrics": ("get_metrics", "", tuple),
            "get_state": ("get_state", "%s", lambda: (done,)),
            "get_states": ("get_states", "%s", lambda: ([done] * 20,)),
            "get_task": ("get_task", "%s", lambda: (done,)),
            "list_tasks": ("list_tasks", "", tuple),
            "cancel_task": ("cancel_task", "%s", lambda: (self.queue.spawn(),)),
            "prune_ended": ("prune_ended", "", self._old),
        }  # fmt: skip
        for name, (function, sql, args) in calls.items():
            for _ in range(4):
                self.explain(function, sql, args(), name)
        return {name: statistics.median(values[1:]) for name, values in self.buffers.items()}

    def claimed(self, wanted: int) -> tuple[list[int], list[UUID]]:
        """The leases and tasks of a claim, as a report names them."""
        self.lease += 1
        self.queue.call("claim_runs(%s, %s, %s, '{}', '{}')", self.lease, self.queue_id, wanted)
        tasks = self._held()
        return [self.lease] * len(tasks), tasks

    def _held(self) -> list[UUID]:
        """The tasks of the last claim, read without a scan that would be taken for one of the calls'."""
        with self.connection.transaction():
            self.connection.execute("set local enable_seqscan = off")
            tasks: list[UUID] = self.queue.call("task_ids from lease where id = %s", self.lease)
        return tasks

    def complete(self, leases: list[int], tasks: list[UUID]) -> None:
        n = len(tasks)
        self.queue.call("complete_runs(%s::bigint[], %s, %s::int[], %s::text[])", leases, tasks, [0] * n, [None] * n)

    def _next_step(self) -> tuple[Any, ...]:
        self.queue.spawn()
        self.queue.spawn()
        held = self.claimed(1)
        self.lease += 1
        return *held, self.lease, self.queue_id

    def _parent(self, children: int) -> tuple[list[int], list[UUID]]:
        """A claim of a task that others wait for."""
        parent = self.queue.spawn(priority=5000)  # goes first
        for _ in range(children):
            self.queue.spawn(depends_on=[str(parent)])
        self.queue.call("sweep_late()")
        leases, tasks = self.claimed(1)
        assert tasks == [parent]
        return leases, tasks

    def _late_child(self) -> tuple[()]:
        self.queue.spawn(depends_on=[str(self.queue.spawn())])
        return ()

    def _numbers(self) -> tuple[()]:
        """As many spawned as makes each base rise."""
        self.queue.spawn()
        self.queue.call("setval('ready_seq', nextval('ready_seq') + 2000)")
        return ()

    def _old(self) -> tuple[()]:
        """A hundred tasks that ended longer ago than their queue keeps them, where the next round looks."""
        self.queue.call("set_queue_retention('default', 1800)")
        self.connection.execute(OLD, {"queue": self.queue_id, "n": 100})
        return ()
