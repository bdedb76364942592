"""A real worker beside a test, in its loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

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
