"""A transaction that is held open keeps every dead row: what the queue does all day must not walk through them."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import psycopg
from proof import amount
from sql_queue import Queue

from absurd.queue import new_task_id

Connection = psycopg.Connection[Any]

BATCH = 500
FACTOR = 3.0
"""Buffers per call beside the held snapshot, over those of the clean queue."""
SLACK = 60
"""Buffers more are no matter: a page here or there of a catalogue."""
SECONDS = amount(4, 1800)
RATE = amount(10_000, 1_000)
"""Tasks a second, at most."""

BEAT_SECONDS = 10.0
"""Between two beats, as of a worker; each leaves a dead row of its own."""
MARK_SECONDS = amount(0, 2)
"""Between two times that the marks are advanced, by both halves; a round a second does one half."""
LAG = {"empty claim": amount(0, 200)}
"""Buffers more for what has died since the marks were advanced: this does not grow with the time."""


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
        self.queue.call(
            "count(*) from beat(%s, '{}')", self.queue.worker
        )  # within its lease, however long this goes on
        self._call("recover_runs", "", (), measured)
        self._call("fold_tallies", "", (), measured)
        self._call("get_queue_stats", "'default'", (), measured)
        if time.monotonic() >= self.marks_at:
            for _ in range(2):
                self.queue.call("advance_marks()")
            self.marks_at = time.monotonic() + MARK_SECONDS

    def _call(self, function: str, sql: str, args: tuple[Any, ...], measured: bool, name: str | None = None) -> None:
        if not measured:
            self.connection.execute(f"select * from {function}({sql})", args)
            return
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


def test_a_held_snapshot_costs_the_queue_little(connection: Connection, database_url: str) -> None:
    """Beside tens of thousands of dead rows each call reads little more than in a clean queue."""
    busy = Busy(connection)
    for _ in range(3):
        busy.work(measured=False)
    clean = busy.measure()
    with psycopg.connect(database_url) as holder:
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select count(*) from pg_class")
        begun, batches = time.monotonic(), 0
        while time.monotonic() < begun + SECONDS:
            busy.work(measured=False)
            batches += 1
            time.sleep(max(0.0, begun + batches * BATCH / RATE - time.monotonic()))
        held = busy.measure()
    print(f"{batches * BATCH} tasks beside a held snapshot; clean {clean}; held {held}")

    too_dear = {
        name: (clean[name], buffers)
        for name, buffers in held.items()
        if buffers > FACTOR * clean[name] + SLACK + LAG.get(name, 0)
    }
    assert too_dear == {}


def test_status_names_the_session_that_holds_a_snapshot(connection: Connection, database_url: str) -> None:
    """After five minutes `absurd status` says which session it is, and how to end it."""
    with psycopg.connect(database_url, application_name="forgotten") as holder:
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select 1 from pg_class")
        connection.execute(
            "create or replace function clock_time() returns timestamptz language sql stable"
            " as 'select clock_timestamp() + interval ''10 minutes'''"
        )
        result = subprocess.run(
            [sys.executable, "-m", "absurd", "status", "--json"],
            env=os.environ | {"ABSURD_DATABASE_URL": database_url},
            capture_output=True,
            check=False,
        )
        held = [each for each in json.loads(result.stdout)["problems"] if each["code"] == "snapshot_held"]
        pid = holder.info.backend_pid

    assert [each["action"] for each in held] == [f"select pg_terminate_backend({pid})"]
    assert f"session {pid} (forgotten)" in held[0]["message"]
