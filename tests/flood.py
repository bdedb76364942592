"""A run that writes far more than its log holds, and what is left of it; in the suite small, in the soak a gigabyte."""

from __future__ import annotations

import asyncio
from uuid import UUID

from absurd import AbsurdClient
from absurd.logs import LogLine

LIMIT = 1024 * 1024
ENDS = "the first line\nthe last line\n"


async def flood(client: AbsurdClient, size: int) -> tuple[UUID, int]:
    """Write `size` bytes to a log while other runs go on; gives the task, and how many others ended meanwhile."""
    task = await client.spawn("logs.flood", {"bytes": size})
    flooding = asyncio.create_task(client.wait(task, timeout=600))
    beside = 0
    while not flooding.done():
        other = await client.spawn("logs.say", {"lines": ["undisturbed"]})
        await client.wait(other, timeout=60)
        assert ["undisturbed\n"] == [line.text for line in await client.get_logs(other)]
        beside += 1
    await flooding
    return task, beside


def check(lines: list[LogLine], size: int) -> None:
    """The first and the last of it are there, no more than may be, and all that is missing is told."""
    kept = "".join(line.text for line in lines if line.stream != "worker")
    gaps = [line for line in lines if line.stream == "worker"]
    assert LIMIT * 0.8 < len(kept) <= LIMIT
    assert kept.startswith("the first line\n")
    assert kept.endswith("the last line\n")
    assert size + len(ENDS) - len(kept) == sum(gap.dropped_bytes for gap in gaps)
    assert size // 100 + 2 - kept.count("\n") == sum(gap.dropped_lines for gap in gaps)
    assert f"[{gaps[0].dropped_bytes} bytes in {gaps[0].dropped_lines} lines were dropped here]\n" == gaps[0].text
