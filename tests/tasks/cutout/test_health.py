"""Health: what each check finds when its thing is well, poorly and broken, and that none of them raises."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ticking import Clock

from absurd.tasks.cutout.cache import CacheKey, CacheManager
from absurd.tasks.cutout.cache_disk import DiskLevel
from absurd.tasks.cutout.circuit import CircuitBreaker
from absurd.tasks.cutout.errors import ButlerConnectionError
from absurd.tasks.cutout.health import Finding, Health, check_health
from absurd.tasks.cutout.performance import PerformanceMonitor, Threshold


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hang() -> Iterator[Callable[[], Any]]:
    """A call that returns once the test is over."""
    over = threading.Event()
    yield lambda: over.wait(60)
    over.set()


def fails(error: Exception) -> Callable[[], object]:
    def call() -> object:
        raise error

    return call


def only(health: Health) -> Finding:
    [finding] = health.findings
    return finding


def test_all_is_well(tmp_path: Path, clock: Clock) -> None:
    """Every check is made, each says what it saw, and there is nothing to do."""
    health = check_health(
        connections={"butler": lambda: True, "folder": lambda: None},
        breakers=[CircuitBreaker("butler")],
        cache=CacheManager(disk=DiskLevel(tmp_path / "cache"), clock=clock),
        monitor=PerformanceMonitor([Threshold("p95", "read", most=1)]),
        memory_limit=1 << 50,
        folders={str(tmp_path / "not" / "made" / "yet"): 1},
    )

    assert health.state == "ok"
    assert health.problems == ()
    assert [each.check.split()[0] for each in health.findings] == [
        "connection", "connection", "circuit", "cache", "cache_disk", "thresholds", "memory", "disk",
    ]  # fmt: skip
    assert all(each.message and not each.advice for each in health.findings)
    assert json.loads(json.dumps(health.to_json()))["state"] == "ok"
    assert check_health().state == "ok"


def test_a_connection_that_fails(hang: Callable[[], Any]) -> None:
    """By an error, by saying no, by no answer: failing, with what went wrong and what to do."""
    away = ButlerConnectionError("401 Unauthorized", advice="renew the token")
    refused = only(check_health(connections={"butler": fails(away)}))
    no = only(check_health(connections={"butler": lambda: False}))
    bug = only(check_health(connections={"butler": fails(KeyError("x"))}))
    late = only(check_health(connections={"butler": hang}, seconds=0.01))

    assert {each.state for each in (refused, no, bug, late)} == {"failing"}
    assert "401 Unauthorized" in refused.message
    assert refused.advice == "renew the token"
    assert no.message == "butler cannot be reached"
    assert bug.message == "KeyError: 'x'"
    assert "an answer of butler took longer than 0.01 s" in late.message
    assert all(each.advice for each in (refused, no, bug, late))


def test_while_one_source_answers_the_work_goes_on() -> None:
    """Then it is degraded by the one that does not."""
    health = check_health(connections={"server": lambda: False, "folder": lambda: True})

    assert health.state == "degraded"
    assert [each.check for each in health.problems] == ["connection server"]


def test_an_open_breaker_is_degraded(clock: Clock) -> None:
    """With what opened it; half-open too, until it is closed."""
    breaker = CircuitBreaker("butler", threshold=1, cool_down=30, clock=clock)
    with pytest.raises(ConnectionResetError), breaker.guard():
        raise ConnectionResetError("reset")

    assert only(check_health(breakers=[breaker])).message == (
        "the breaker of butler is open after: ConnectionResetError: reset"
    )
    clock.tick(30)
    assert "is half-open after" in only(check_health(breakers=[breaker])).message
    with breaker.guard():
        pass
    assert check_health(breakers=[breaker]).state == "ok"


def test_a_cache_that_only_evicts_is_degraded(clock: Clock) -> None:
    """It is too small for what is asked of it."""
    cache = CacheManager(max_entries=2, clock=clock)
    for number in range(10):
        cache.put(CacheKey.of("wcs", number), number)

    finding = only(check_health(cache=cache))

    assert finding.state == "degraded"
    assert "more values were evicted (8) than found" in finding.message
    assert finding.advice == "raise cache_size or cache_bytes"


def test_a_cache_folder_that_fails_is_degraded(tmp_path: Path, clock: Clock) -> None:
    """Now, or before; and damaged files in it tell of a disk that is not well."""

    def disk_of(cache: CacheManager) -> Finding:
        return check_health(cache=cache).findings[1]

    (tmp_path / "file").write_text("in the way")
    broken = disk_of(CacheManager(disk=DiskLevel(tmp_path / "file" / "cache"), clock=clock))
    assert (broken.check, broken.state) == ("cache_disk", "degraded")
    assert "cannot be used: " in broken.message

    cache = CacheManager(max_entries=0, disk=DiskLevel(tmp_path / "cache"), clock=clock)
    cache.put(CacheKey.of("wcs", 1), 1)
    [stored] = (tmp_path / "cache").glob("*/??/*")
    stored.write_bytes(b"damaged")
    cache.get(CacheKey.of("wcs", 1))
    assert "1 damaged files were removed" in disk_of(cache).message
    stored.mkdir()
    cache.get(CacheKey.of("wcs", 1))
    assert "failed before: IsADirectoryError" in disk_of(cache).message


def test_thresholds_memory_and_disk(tmp_path: Path, clock: Clock) -> None:
    """Each beyond its limit, near it, and far from it."""
    monitor = PerformanceMonitor([Threshold("mean", "read", most=1, after=1)], clock=clock)
    with monitor.measure("read"):
        clock.tick(2)
    slow = only(check_health(monitor=monitor))
    memory = [only(check_health(memory_limit=1000, resident=partial(int, used))) for used in (500, 950, 1001)]
    disk = only(check_health(folders={str(tmp_path): 1 << 60}))

    assert (slow.state, slow.message) == ("degraded", "mean of read is 2 s; it must be at most 1 s")
    assert [each.state for each in memory] == ["ok", "degraded", "failing"]
    assert memory[2].message == "1,001 of 1,000 bytes"
    assert disk.state == "failing"
    assert disk.advice == "make room"


def test_the_worst_finding_is_the_state() -> None:
    """And problems come worst first."""
    findings = [Finding(name, state, "x") for name, state in (("a", "ok"), ("b", "degraded"), ("c", "failing"))]  # type: ignore[arg-type]

    health = Health(tuple(findings))

    assert health.state == "failing"
    assert [each.check for each in health.problems] == ["c", "b"]


def test_no_check_raises() -> None:
    """Whatever is wrong with what is checked, it is a finding."""

    class Broken:
        name = "broken"

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"no {name}")

        def __gt__(self, other: object) -> bool:
            raise RuntimeError("not to be compared")

    broken: Any = Broken()
    health = check_health(
        connections={"broken": broken}, breakers=[broken], monitor=broken, memory_limit=1, resident=fails(OSError("x")),  # type: ignore[arg-type]
        folders={".": broken},
    )  # fmt: skip

    assert [each.state for each in health.findings] == ["failing"] * 5
