"""What has to be known of asyncio's jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


def cancel_begun(job: asyncio.Task[None]) -> None:
    """Cancel a run's job, but not before its first step: it would never run, and its slot never be free again."""
    job.get_loop().call_soon(job.cancel)  # a first step that is due is called before


async def to_its_end(call: Awaitable[None]) -> None:
    """Await a call to its end even if cancelled: what it leaves in the database has to be known."""
    job = asyncio.ensure_future(call)
    try:
        await asyncio.shield(job)
    except asyncio.CancelledError:
        await asyncio.wait([job])
        raise
