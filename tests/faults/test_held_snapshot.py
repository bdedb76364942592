"""A transaction that is held open keeps every dead row: what the queue does all day must not walk through them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import psycopg
from busy import BATCH, Busy
from proof import amount

Connection = psycopg.Connection[Any]

FACTOR = 3.0
"""Buffers per call beside the held snapshot, over those of the clean queue."""
SLACK = 60
"""Buffers more are no matter: a page here or there of a catalogue."""
SECONDS = amount(4, 1800)
RATE = amount(10_000, 1_000)
"""Tasks a second, at most."""
LAG = {"empty claim": amount(0, 200)}
"""Buffers more for what has died since the marks were advanced: this does not grow with the time."""


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
