"""Extractions of catalogues that kill their process at a point: ``python -m dying KIND AT OUT REPO COLLECTION IDS``.

KIND is ``before`` or ``after``, when the table AT, counted from 1, gets its name among the parts, or ``bytes``, when so
many of the file are written.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from absurd.tasks.export.sink import HashingSink

POINT = "DYING_AT"
"""The variable with KIND and AT for `once`."""


def die_at(kind: str, at: int) -> None:
    """From now on, kill this process at that point."""
    replace, write, renamed = Path.replace, HashingSink.write, count(1)

    def replacing(path: Path, target: Any) -> Path:
        number = next(renamed) if path.suffix == ".unfinished" else 0
        if number == at and kind == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        moved = replace(path, target)
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return moved

    def writing(sink: HashingSink, data: Any) -> int:
        written = write(sink, data)
        if sink.bytes >= at:
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    if kind == "bytes":
        HashingSink.write = writing  # type: ignore[assignment, method-assign]
    else:
        Path.replace = replacing  # type: ignore[assignment, method-assign]


@contextmanager
def once(ctx: Any) -> Iterator[None]:
    """Middleware around calls: the process of a task's first attempt dies."""
    if ctx.attempt == 1:
        kind, at = os.environ[POINT].split()
        die_at(kind, int(at))
    yield


if __name__ == "__main__":
    from absurd.tasks.export.butler import extract_catalog

    die_at(sys.argv[1], int(sys.argv[2]))
    extract_catalog(*sys.argv[3:6], filter_ids=sys.argv[6])
