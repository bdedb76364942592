"""What was cut, converted and asked before, kept in memory and on disk: least recently used goes first.

A value is found under a `CacheKey`.  It counts while it is younger than its kind allows and the files it was made from
are what they were; both are looked at on every read.  Arrays that come out of the cache are read-only and shared.
"""

from __future__ import annotations

import gc
import logging
import re
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, Self, TypeVar

from absurd.tasks.cutout.cache_disk import DiskLevel, Stored
from absurd.tasks.cutout.cache_entry import MISSING, Entry, Flight
from absurd.tasks.cutout.cache_key import CacheKey, Version
from absurd.tasks.cutout.cache_policy import MIB, POLICIES, Policy
from absurd.tasks.cutout.cache_statistics import CacheStatistics, KindStatistics, MemoryAlert, Warmed
from absurd.tasks.cutout.cache_value import frozen, handed_out, size_of
from absurd.tasks.cutout.config import ButlerConfig
from absurd.tasks.cutout.errors import ButlerConfigError, DataIdValidationError
from absurd.tasks.cutout.memory import resident_bytes

__all__ = ["MISSING", "POLICIES", "CacheKey", "CacheManager", "CacheStatistics", "MemoryAlert", "Policy", "Warmed"]


T = TypeVar("T")
_log = logging.getLogger(__name__)
_Way = Literal["memory", "disk", "shared", "loaded", "missing"]


class CacheManager:
    """Memory in front of an optional disk level; safe for threads.

    `max_entries` and `max_bytes` bound the memory level.  When `memory_limit` is set and the process holds more bytes
    than that, half of what is cached goes with every value that comes, and garbage is collected once.  `on_alert` is
    told once when a limit of bytes is reached, and again only after use has fallen below 80 % of it.  A failing disk
    costs speed only: `statistics` tells of it.

    Raises DataIdValidationError for a kind without a policy, and TypeError for values that cannot be cached.
    """

    def __init__(
        self,
        max_entries: int = 1000,
        max_bytes: int = 256 * MIB,
        *,
        disk: DiskLevel | None = None,
        policies: Mapping[str, Policy] = POLICIES,
        memory_limit: int | None = None,
        on_alert: Callable[[MemoryAlert], object] | None = None,
        clock: Callable[[], float] = time.time,
        resident: Callable[[], int] = resident_bytes,
    ) -> None:
        for kind in policies:
            if not re.fullmatch(r"[a-z][a-z_]{0,30}", kind):  # it names a folder
                raise ButlerConfigError(f"a kind of cached values is {kind!r}; it must be lower-case letters and _")
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.disk = disk
        self.policies = policies
        self.memory_limit = memory_limit
        self._on_alert = on_alert
        self._clock = clock
        self._resident = resident
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._bytes = 0
        self._flights: dict[str, Flight] = {}
        self._epoch = 0
        self._alerted: set[str] = set()
        self._counts: dict[str, Counter[str]] = {kind: Counter() for kind in policies}
        self._disk_error: str | None = None

    @classmethod
    def of(
        cls,
        config: ButlerConfig,
        *,
        on_alert: Callable[[MemoryAlert], object] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """The cache that a configuration asks for.  Raises ButlerConfigError for a `cache_ttl` of an unknown kind."""
        policies = dict(POLICIES)
        for kind, ttl in config.cache_ttl.items():
            if kind not in policies:
                raise ButlerConfigError(
                    f"cache_ttl names {kind!r}, which is not cached", advice=f"there are {', '.join(policies)}"
                )
            policies[kind] = replace(policies[kind], ttl=ttl)
        disk = config.cache_folder and DiskLevel(config.cache_folder, max_bytes=config.cache_disk_bytes, clock=clock)
        return cls(
            config.cache_size,
            config.cache_bytes,
            disk=disk or None,
            policies=policies,
            memory_limit=config.memory_limit,
            on_alert=on_alert,
            clock=clock,
        )

    # Reading and storing -------------------------------------------------------------------------

    def get(self, key: CacheKey, default: Any = MISSING) -> Any:
        """The value under `key`, from memory or disk; `default` if there is none that counts."""
        value, way = self._look(key)
        self._count(key.kind, "misses" if way == "missing" else "hits")
        return default if way == "missing" else handed_out(value)

    def put(self, key: CacheKey, value: Any, *, versions: tuple[Version, ...] | None = None) -> bool:
        """Store `value` under `key`; whether its kind's policy and the bounds admit it.

        `versions` are those of the key's files, taken (`CacheKey.versions`) before they were read: otherwise a file
        that changed meanwhile would never be noticed.  None takes them now.
        """
        self._policy(key)
        return self._store(key, frozen(value), key.versions() if versions is None else versions, self._epoch)

    def get_or_load(self, key: CacheKey, load: Callable[[], Any]) -> Any:
        """The value under `key`, or what ``load()`` gives, which is then stored.

        Threads that ask for the same absent key at once load once; the others get its value, or its error.  What was
        invalidated while it was loaded is given to those who wait and not stored.
        """
        value, way = self._obtain(key, load)
        self._count(key.kind, "misses" if way == "loaded" else "hits")
        return handed_out(value)

    def warm(self, keys: Iterable[CacheKey], load: Callable[[CacheKey], Any], *, threads: int = 1) -> Warmed:
        """Load what is absent of `keys`; errors are collected, not raised.  Hits and misses are not counted."""
        ways: Counter[str] = Counter()
        failed: list[tuple[CacheKey, Exception]] = []

        def one(key: CacheKey) -> None:
            try:
                _, way = self._obtain(key, lambda: load(key))
            except Exception as error:
                failed.append((key, error))
            else:
                with self._lock:
                    ways["loaded" if way == "loaded" else "present"] += 1

        with ThreadPoolExecutor(threads, thread_name_prefix="cutout-warm") as pool:
            for _ in pool.map(one, keys):
                pass
        return Warmed(ways["loaded"], ways["present"], tuple(failed))

    # Invalidation --------------------------------------------------------------------------------

    def invalidate(self, key: CacheKey) -> bool:
        """Forget what is under `key`; whether there was anything."""
        here = self._forget(lambda entry: entry.key.digest == key.digest)
        there = self._on_disk(lambda disk: disk.remove(key), default=False)
        return here > 0 or there

    def invalidate_kind(self, kind: str) -> int:
        """Forget all of a kind; gives how many values went from the level that had more of them."""
        here = self._forget(lambda entry: entry.key.kind == kind)
        return max(here, self._on_disk(lambda disk: disk.remove_kind(kind), default=0))

    def invalidate_tag(self, tag: str) -> int:
        """Forget all with `tag`, or made from the file of that absolute path; counts as `invalidate_kind`."""
        here = self._forget(lambda entry: tag in entry.key.tags or tag in entry.key.files)
        return max(here, self._on_disk(lambda disk: disk.remove_tag(tag), default=0))

    def clear(self) -> None:
        """Forget everything."""
        for kind in self.policies:
            self.invalidate_kind(kind)

    def release(self, share: float = 1.0) -> int:
        """Give back `share` of the memory level, least recently used first; gives how many values went."""
        with self._lock:
            return self._evict(self.max_entries, int(self._bytes * (1 - share)))

    # Statistics ----------------------------------------------------------------------------------

    def statistics(self) -> CacheStatistics:
        """Everything counted since the cache was made."""
        disk_bytes = self._on_disk(lambda disk: disk.used_bytes(), default=0)
        with self._lock:
            entries, sizes = Counter[str](), Counter[str]()
            for entry in self._entries.values():
                entries[entry.key.kind] += 1
                sizes[entry.key.kind] += entry.size
            return CacheStatistics(
                kinds={
                    kind: KindStatistics(entries=entries[kind], bytes=sizes[kind], **counts)
                    for kind, counts in self._counts.items()
                },
                max_entries=self.max_entries,
                max_bytes=self.max_bytes,
                disk_bytes=disk_bytes,
                disk_max_bytes=self.disk.max_bytes if self.disk else 0,
                corrupt=self.disk.corrupt if self.disk else 0,
                disk_error=self._disk_error,
            )

    # Inside --------------------------------------------------------------------------------------

    def _obtain(self, key: CacheKey, load: Callable[[], Any]) -> tuple[Any, _Way]:
        while True:
            value, way = self._look(key)
            if way != "missing":
                return value, way
            with self._lock:
                flight = self._flights.get(key.digest)
                if flight is None:
                    mine = self._flights[key.digest] = Flight(threading.get_ident())
                    epoch = self._epoch
                    break
                if flight.thread == threading.get_ident():
                    raise RuntimeError(f"loading a value of kind {key.kind!r} asks the cache for that very value")
            flight.done.wait()
            if flight.error is not None:
                raise flight.error
            if flight.value is not MISSING:
                return flight.value, "shared"
        try:
            value, way = self._look(key)  # again: another flight may have landed since
            if way != "missing":
                mine.value = value
                return value, way
            versions = key.versions()
            mine.value = frozen(load())
            self._store(key, mine.value, versions, epoch)
        except Exception as error:
            mine.error = error
            raise
        finally:  # also when interrupted: then who waits looks again, and loads
            with self._lock:
                del self._flights[key.digest]
            mine.done.set()
        return mine.value, "loaded"

    def _look(self, key: CacheKey) -> tuple[Any, _Way]:
        policy = self._policy(key)
        with self._lock:
            entry = self._entries.get(key.digest)
        if entry is not None and self._is_good(entry.key, policy, entry.stored, entry.versions):
            with self._lock:
                if key.digest in self._entries:
                    self._entries.move_to_end(key.digest)
            return entry.value, "memory"
        if entry is not None:
            with self._lock:
                if self._entries.get(key.digest) is entry:
                    self._drop(key.digest)
        if not policy.on_disk:
            return MISSING, "missing"
        with self._lock:
            epoch = self._epoch
        found = self._on_disk(lambda disk: disk.read(key), default=None)
        if found is None:
            return MISSING, "missing"
        if not self._is_good(key, policy, found.stored, found.versions, count=entry is None):
            self._on_disk(lambda disk: disk.remove(key), default=False)
            return MISSING, "missing"
        self._count(key.kind, "disk_hits")
        self._keep(Entry(key, found.value, size_of(found.value), found.stored, found.versions), epoch)
        return found.value, "disk"

    def _is_good(
        self, key: CacheKey, policy: Policy, stored: float, versions: tuple[Version, ...], *, count: bool = True
    ) -> bool:
        reason = None
        if not policy.is_fresh(stored, self._clock()):
            reason = "expirations"
        elif key.files and key.versions() != versions:
            reason = "invalidations"
        if reason and count:
            self._count(key.kind, reason)
        return reason is None

    def _store(self, key: CacheKey, value: Any, versions: tuple[Version, ...], epoch: int) -> bool:
        policy, size = self._policy(key), size_of(value)
        if not policy.admits(value, size):
            self._count(key.kind, "refused")
            return False
        now = self._clock()
        kept = self._keep(Entry(key, value, size, now, versions), epoch)
        evicted = None
        if policy.on_disk:
            evicted = self._on_disk(lambda disk: disk.write(key, Stored(value, now, versions)), default=None)
        for kind, number in (evicted or {}).items():
            self._count(kind, "disk_evictions", number)
        with self._lock:
            outdated = epoch != self._epoch
        if outdated and evicted is not None:  # invalidated while it was written
            self._on_disk(lambda disk: disk.remove(key), default=False)
        kept = (kept or evicted is not None) and not outdated
        if not kept and not outdated:
            self._count(key.kind, "refused")
        return kept

    def _keep(self, entry: Entry, epoch: int) -> bool:
        """Put `entry` into memory, unless it is too large or was invalidated meanwhile."""
        resident = self._resident() if self.memory_limit is not None else 0
        alerts = []
        with self._lock:
            if epoch != self._epoch:
                return False
            if entry.size > self.max_bytes or self.max_entries < 1:
                return False
            self._drop(entry.key.digest)
            self._entries[entry.key.digest] = entry
            self._bytes += entry.size
            used = self._bytes
            evicted = self._evict(self.max_entries, self.max_bytes)
            if self._is_news("cache", used, self.max_bytes):
                alerts.append(MemoryAlert("cache", used, self.max_bytes, evicted))
            if self.memory_limit is not None:
                gone = self._evict(self.max_entries, self._bytes // 2) if resident > self.memory_limit else 0
                if self._is_news("process", resident, self.memory_limit):
                    alerts.append(MemoryAlert("process", resident, self.memory_limit, gone))
        if any(each.what == "process" for each in alerts):
            gc.collect()  # opened images of astropy hold their pixels in cycles
        for alert in alerts:  # not under the lock: who is told may ask the cache
            if self._on_alert is None:
                continue
            try:
                self._on_alert(alert)
            except Exception:  # what was asked for is there: it must not fail by who listens
                _log.exception("who is told of memory failed")
        return True

    def _is_news(self, what: str, used: int, limit: int) -> bool:
        if used <= limit:
            if used < 0.8 * limit:
                self._alerted.discard(what)
            return False
        known = what in self._alerted
        self._alerted.add(what)
        return not known

    def _evict(self, most_entries: int, most_bytes: int) -> int:
        """Under the lock: drop the least recently used until so much is left."""
        evicted = 0
        while len(self._entries) > most_entries or self._bytes > most_bytes:
            digest, entry = next(iter(self._entries.items()))
            self._drop(digest)
            self._counts[entry.key.kind]["evictions"] += 1
            evicted += 1
        return evicted

    def _drop(self, digest: str) -> None:
        entry = self._entries.pop(digest, None)
        if entry is not None:
            self._bytes -= entry.size

    def _forget(self, fits: Callable[[Entry], bool]) -> int:
        with self._lock:
            self._epoch += 1
            gone = [entry for entry in self._entries.values() if fits(entry)]
            for entry in gone:
                self._drop(entry.key.digest)
                self._counts[entry.key.kind]["invalidations"] += 1
        return len(gone)

    def _on_disk(self, ask: Callable[[DiskLevel], T], *, default: T) -> T:
        """What the disk level says; `default` without one, or when it fails, which is told by the statistics."""
        if self.disk is None:
            return default
        try:
            return ask(self.disk)
        except OSError as error:
            with self._lock:
                self._disk_error = f"{type(error).__name__}: {error}"
            return default

    def _count(self, kind: str, what: str, number: int = 1) -> None:
        with self._lock:
            if kind in self._counts:  # the disk may hold kinds of another program
                self._counts[kind][what] += number

    def _policy(self, key: CacheKey) -> Policy:
        try:
            return self.policies[key.kind]
        except KeyError:
            raise DataIdValidationError(
                f"there is no kind {key.kind!r} of cached values", advice=f"there are {', '.join(self.policies)}"
            ) from None
