"""What a worker tells of itself with each sign of life."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

_PAGE = os.sysconf("SC_PAGE_SIZE")


def measure(*, running: int, concurrency: int, **troubles: str | None) -> dict[str, Any]:
    """How busy a worker and its machine are: runs at work, runs at a time, load average, resident bytes.

    Of `troubles` those are told that it has: ``polls`` is why it hears no notifications and polls instead, ``scratch``
    which disk has no room for runs or cannot be used.
    """
    try:
        average = round(os.getloadavg()[0], 2)
    except OSError:
        average = None
    told = {"running": running, "concurrency": concurrency, "load_average": average, "rss_bytes": resident_bytes()}
    return told | {name: why for name, why in troubles.items() if why is not None}


def resident_bytes() -> int | None:
    """Bytes of memory that this process holds now; None where that cannot be told."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return None
