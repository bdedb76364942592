"""Whether a data fetcher can do its work: the connection, the cache, the thresholds, memory and disk.

A check never raises: what goes wrong inside is a finding.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from absurd.tasks.cutout.cache import CacheManager
from absurd.tasks.cutout.circuit import CircuitBreaker
from absurd.tasks.cutout.errors import RippleError
from absurd.tasks.cutout.memory import resident_bytes
from absurd.tasks.cutout.performance import PerformanceMonitor
from absurd.tasks.cutout.retry import call_within

State = Literal["ok", "degraded", "failing"]
"""All is well; work goes on, slower or with less; work cannot go on."""
_WORST: tuple[State, ...] = ("ok", "degraded", "failing")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    """connection, circuit, cache, cache_disk, thresholds, memory or disk; with the name of what was checked, if any."""
    state: State
    message: str
    advice: str = ""
    """What to do; empty where all is well."""


@dataclass(frozen=True, slots=True)
class Health:
    """What all checks found."""

    findings: tuple[Finding, ...]

    @property
    def state(self) -> State:
        """The worst of all findings; ok without any."""
        return max((each.state for each in self.findings), key=_WORST.index, default="ok")

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that are not ok, the worst first."""
        return tuple(
            sorted((each for each in self.findings if each.state != "ok"), key=lambda each: -_WORST.index(each.state))
        )

    def to_json(self) -> dict[str, Any]:
        """For ``--json`` and logs."""
        return {"state": self.state, "findings": [asdict(each) for each in self.findings]}


def check_health(
    *,
    connections: Mapping[str, Callable[[], object]] | None = None,
    seconds: float = 10.0,
    breakers: Iterable[CircuitBreaker] = (),
    cache: CacheManager | None = None,
    monitor: PerformanceMonitor | None = None,
    memory_limit: int | None = None,
    resident: Callable[[], int] = resident_bytes,
    folders: Mapping[str, int] | None = None,
) -> Health:
    """Make every check for which something is given.

    `connections` are calls by the name of their source, as ``ButlerClient.test_connection``; one that raises, gives
    False, or takes longer than `seconds` has failed.  Some that fail are degraded, for the others answer; all: failing.
    `folders` are those on whose disks must be so many bytes free.
    """
    findings = _check_connections(connections or {}, seconds)
    findings += [_safely(f"circuit {each.name}", _check_breaker, each) for each in breakers]
    if cache is not None:
        findings.append(_safely("cache", _check_cache, cache))
        if cache.disk is not None:
            findings.append(_safely("cache_disk", _check_cache_disk, cache))
    if monitor is not None:
        findings.append(_safely("thresholds", _check_thresholds, monitor))
    if memory_limit is not None:
        findings.append(_safely("memory", _check_memory, (memory_limit, resident)))
    findings += [_safely(f"disk {each[0]}", _check_disk, each) for each in (folders or {}).items()]
    return Health(tuple(findings))


def _safely(check: str, look: Callable[[Any], tuple[State, str, str]], at: Any) -> Finding:
    try:
        return Finding(check, *look(at))
    except Exception as error:
        advice = error.advice if isinstance(error, RippleError) else ""
        return Finding(check, "failing", f"{type(error).__name__}: {error}", advice or "see what it says")


def _check_connections(connections: Mapping[str, Callable[[], object]], seconds: float) -> list[Finding]:
    def look(connection: tuple[str, Callable[[], object]]) -> tuple[State, str, str]:
        name, call = connection
        if call_within(seconds, call, f"an answer of {name}") is False:
            return "failing", f"{name} cannot be reached", "see that its address is right and that it is up"
        return "ok", f"{name} answers", ""

    found = [_safely(f"connection {each[0]}", look, each) for each in connections.items()]
    if any(each.state == "ok" for each in found):
        return [each if each.state == "ok" else replace(each, state="degraded") for each in found]
    return found


def _check_breaker(breaker: CircuitBreaker) -> tuple[State, str, str]:
    state = breaker.state
    if state == "closed":
        return "ok", f"{breaker.name} is asked", ""
    return (
        "degraded",
        f"the breaker of {breaker.name} is {state} after: {breaker.last_failure}",
        "see that it is up; it is tried again by itself",
    )


def _check_cache(cache: CacheManager) -> tuple[State, str, str]:
    counted = cache.statistics()
    told = (
        f"{counted.entries} of {counted.max_entries} values, {counted.bytes:,} of {counted.max_bytes:,} bytes, "
        f"hit rate {counted.hit_rate:.0%}"
    )
    evicted = sum(each.evictions for each in counted.kinds.values())
    if evicted > counted.hits and evicted > counted.max_entries:
        return "degraded", f"{told}; more values were evicted ({evicted}) than found", "raise cache_size or cache_bytes"
    return "ok", told, ""


def _check_cache_disk(cache: CacheManager) -> tuple[State, str, str]:
    assert cache.disk is not None
    try:
        cache.disk.check()
    except OSError as error:
        return (
            "degraded",
            f"{cache.disk.folder} cannot be used: {error}",
            "make room, or name another cache_folder",
        )
    counted = cache.statistics()
    if counted.disk_error is not None:
        return "degraded", f"{cache.disk.folder} failed before: {counted.disk_error}", "see that the disk is well"
    if counted.corrupt:
        return "degraded", f"{counted.corrupt} damaged files were removed from {cache.disk.folder}", "check the disk"
    return "ok", f"{counted.disk_bytes:,} of {counted.disk_max_bytes:,} bytes in {cache.disk.folder}", ""


def _check_thresholds(monitor: PerformanceMonitor) -> tuple[State, str, str]:
    found = monitor.violations()
    if found:
        return "degraded", "; ".join(map(str, found)), "ask for less at a time, or look for what is slow"
    return "ok", f"{len(monitor.thresholds)} thresholds hold", ""


def _check_memory(asked: tuple[int, Callable[[], int]]) -> tuple[State, str, str]:
    limit, resident = asked
    used = resident()
    told = f"{used:,} of {limit:,} bytes"
    if used > limit:
        return "failing", told, "use smaller batches, fewer workers or a smaller cache, or raise the limit"
    if used > 0.9 * limit:
        return "degraded", told, "use smaller batches or a smaller cache before it is too late"
    return "ok", told, ""


def _check_disk(asked: tuple[str | os.PathLike[str], int]) -> tuple[State, str, str]:
    folder, wanted = asked
    there = Path(folder)
    while not there.exists() and there != there.parent:  # it will be made when it is needed
        there = there.parent
    free = shutil.disk_usage(there).free
    told = f"{free:,} bytes are free in {folder}"
    if free < wanted:
        return "failing" if free < wanted // 10 else "degraded", f"{told}, less than {wanted:,}", "make room"
    return "ok", told, ""
