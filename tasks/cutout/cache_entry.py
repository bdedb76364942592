"""What the memory level of the cache holds: values, and loads that are under way."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, Final

from absurd.tasks.cutout.cache_key import CacheKey, Version


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = _Missing()
"""What `CacheManager.get` gives where nothing is; None is a value."""


@dataclass(slots=True)
class Entry:
    """A value in memory."""

    key: CacheKey
    value: Any
    size: int
    stored: float
    versions: tuple[Version, ...]


@dataclass(slots=True)
class Flight:
    """A value that one thread loads and others wait for."""

    thread: int
    done: threading.Event = field(default_factory=threading.Event)
    value: Any = MISSING
    error: Exception | None = None
