"""A queue that is worked through in batches by plain SQL, and what each call costs in buffers."""

from __future__ import annotations

import statistics
import time
from typing import Any

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


class Busy:
    """A queue that is worked through in batches, and what each call costs in buffers."""

    def __init__(self, connection: Connection) -> None:
        self.queue = Queue(connection)
        self.connection = connection
        self.queue.call("create_queue('default')")
        self.queue_id = self.queue.call("id from queue where name = 'default'")
        self.lease = self.queue.worker << 32
        self.buffers: dict[str, list[int]] = {}
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
        tasks = self.queue.call("task_ids from lease where id = %s", self.lease)
        n = len(tasks)
        arguments = ([self.lease] * n, tasks, [0] * n, [None] * n)
        self._call("complete_runs", "%s::bigint[], %s, %s::int[], %s::text[]", arguments, measured)
        self._call("claim_runs", "%s, %s, 1, '{}', '{}'", (self.lease + 10**6, self.queue_id), measured, "empty claim")
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
            f"explain (analyze, buffers, format json) select * from {function}({sql})", args
        ).fetchone()
        assert row is not None
        plan = row[0][0]["Plan"]
        self.buffers.setdefault(name or function, []).append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

    def measure(self) -> dict[str, float]:
        """Median buffers of a call, of five batches."""
        self.buffers = {}
        for _ in range(5):
            self.work(measured=True)
        return {name: statistics.median(values) for name, values in self.buffers.items()}
