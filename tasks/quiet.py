"""Keeping back, in one thread, what astropy warns of while it reads and writes.

`warnings.catch_warnings` swaps the filters of the whole process: of two threads that do so at once, one may put back
what the other had for the time, for good, or let warnings through that are errors where filters make them so.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Here(threading.local):
    depth = 0


class _WhereQuiet:
    """Stands in a filter for the pattern of messages: all match in threads that are within `quiet`, none in others."""

    def match(self, _message: str) -> bool:
        return _here.depth > 0


_here = _Here()
_installing = threading.Lock()
_FILTER: Any = ("ignore", _WhereQuiet(), Warning, None, 0)


@contextmanager
def quiet() -> Iterator[None]:
    """Warn of nothing in this thread, until the block ends; other threads warn as before.

    The filters of `warnings` get one more, once, which stays and does nothing elsewhere.  What others put before it
    while the block runs goes before it.
    """
    _install()
    _here.depth += 1
    try:
        yield
    finally:
        _here.depth -= 1


def _install() -> None:
    """Have the filter first, in the list that there is now: `catch_warnings` of others begins new ones."""
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    if filters and filters[0] is _FILTER:
        return
    with _installing:
        if not filters or filters[0] is not _FILTER:
            filters.insert(0, _FILTER)
            for place in range(len(filters) - 1, 0, -1):  # where it was before others were put in front
                if filters[place] is _FILTER:
                    del filters[place]
