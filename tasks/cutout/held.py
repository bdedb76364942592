"""What is dear to open, kept for whoever asks next; what is dropped is closed once nobody uses it any more."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Closes(Protocol):
    """What can be kept."""

    def close(self) -> None: ...


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Closes)


@dataclass(slots=True)
class _One(Generic[V]):
    value: V
    users: int = 0
    dropped: bool = False


class Held(Generic[K, V]):
    """The last `most` values that were lent, by key, open; for several threads, which may have one at the same time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[K, _One[V]] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, key: K, make: Callable[[], V]) -> Iterator[V]:
        """What is kept under `key`, or made now, which must not take long; it stays open until the block ends."""
        with self._lock:
            one = self._kept.get(key)
            if one is None:
                one = self._kept[key] = _One(make())
            self._kept.move_to_end(key)
            one.users += 1
            unused = self._drop(len(self._kept) - self._most)
        try:
            _close(unused)
            yield one.value
        finally:
            with self._lock:
                one.users -= 1
                last = one.dropped and not one.users
            if last:
                one.value.close()

    def close(self) -> None:
        """Drop all; what is lent is closed when its last user is done."""
        with self._lock:
            unused = self._drop(len(self._kept))
        _close(unused)

    def _drop(self, number: int) -> list[_One[V]]:
        """Forget those that were lent longest ago; gives those that nobody uses."""
        dropped = [self._kept.popitem(last=False)[1] for _ in range(number)]
        for each in dropped:
            each.dropped = True
        return [each for each in dropped if not each.users]


def _close(unused: list[_One[V]]) -> None:
    for each in unused:
        each.value.close()
