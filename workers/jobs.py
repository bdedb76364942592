"""What has to be known of asyncio's jobs."""

from __future__ import annotations

import asyncio


def cancel_begun(job: asyncio.Task[None]) -> None:
    """Cancel a run's job, but not before its first step: it would never run, and its slot never be free again."""
    job.get_loop().call_soon(job.cancel)  # a first step that is due is called before
