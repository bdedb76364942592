"""A real worker beside a test, in its loop."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg

from absurd.config import Settings
from absurd.workers import AbsurdWorker


@asynccontextmanager
async def working(settings: Settings, **options: Any) -> AsyncIterator[AbsurdWorker]:
    """A worker beside the test."""
    worker = AbsurdWorker(settings=settings, **options)
    runner = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        await worker.stop(grace=5)
        await runner


async def soon(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait for a condition to hold."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        await asyncio.sleep(0.01)


def completed_unpublished(settings: Settings, task_id: Any, path: Path, attempt_path: Path) -> None:
    """Complete a task, as a worker that dies before it has renamed its file; a minute ago."""
    files = [{"task": str(task_id), "path": str(path), "attempt_path": str(attempt_path), "kind": "text", "bytes": 5}]
    with psycopg.connect(settings.database_url or "", options="-c search_path=absurd") as connection:
        worker = connection.execute("select register_worker('w', 'h', 1, '{default}', 1, '{}', '{}', 30)").fetchone()
        assert worker is not None
        lease = (worker[0] << 32) + 1
        connection.execute("select claim_runs(%s, (select id from queue), 1, '{}', '{}')", (lease,))
        connection.execute(
            "select complete_runs(%s::bigint[], %s, '{0}', '{null}', %s)", ([lease], [task_id], json.dumps(files))
        )
        connection.execute("update artifact set completed_at = now() - interval '1 minute'")
