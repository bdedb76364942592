"""Whether the machine, the folders and the queue of a pipeline are well: measured when it is asked for."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from absurd.errors import AbsurdError
from absurd.tasks.pipeline.config import PipelineConfig

Status = Literal["healthy", "degraded", "unhealthy", "unknown"]
Limits = tuple[float, float]
"""Above the first it is degraded, above the second unhealthy."""
CPU, MEMORY, DISK = (70.0, 90.0), (70.0, 90.0), (85.0, 95.0)
"""Percent."""
LATENCY_S, WAIT_S, DEPTH = (0.5, 1.0), (600.0, 3600.0), (500.0, 1000.0)
_MEMORY = Path("/proc/meminfo")
_FOLDERS = ("hdf5_dir", "ms_stage1_dir", "cal_tables_dir", "images_dir", "mosaics_dir", "photometry_dir", "log_dir")


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """What was measured, and how that is."""

    name: str
    status: Status
    error_message: str | None = None
    """What is wrong; None where nothing is."""
    value: float | None = None
    unit: str = ""

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class HealthChecker:
    """Looks at this machine, and by `queue_status` (what `get_status` gives) at the queue, if it is there."""

    def __init__(self, queue_status: Callable[[], Mapping[str, Any]] | None = None) -> None:
        self._queue_status = queue_status

    def check_all_health(self, config: PipelineConfig) -> list[HealthCheck]:
        """Processors, memory, the disk of each folder of the configuration, and the queue."""
        checks = [_cpu(), _memory(), *_disks(config)]
        if self._queue_status is not None:
            checks += _queue(self._queue_status)
        return checks


def _judged(name: str, value: float, unit: str, limits: Limits, what: str) -> HealthCheck:
    status: Status = "unhealthy" if value > limits[1] else "degraded" if value > limits[0] else "healthy"
    if status == "healthy":
        return HealthCheck(name, status, None, value, unit)
    bound = limits[status == "unhealthy"]
    return HealthCheck(name, status, f"{what}: {value:.3g} {unit}, more than {bound:g}", value, unit)


def _cpu() -> HealthCheck:
    """Runnable processes of the last minute, for each processor that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _judged("cpu", 100 * os.getloadavg()[0] / cores, "%", CPU, "processors are busy")


def _memory() -> HealthCheck:
    try:
        lines = dict(line.split(":", 1) for line in _MEMORY.read_text(encoding="ascii").splitlines())
        total, free = (float(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError) as error:
        return HealthCheck("memory", "unknown", f"{_MEMORY} does not tell: {error}")
    return _judged("memory", 100 * (1 - free / total), "%", MEMORY, "memory is used")


def _disks(config: PipelineConfig) -> Iterator[HealthCheck]:
    for name in _FOLDERS:
        folder = config.paths.folder(name)
        assert folder is not None
        place = Path(folder).absolute()
        while not place.exists():
            place = place.parent  # it is made when it is first written to
        try:
            usage = shutil.disk_usage(place)
        except OSError as error:
            yield HealthCheck(f"disk.{name}", "unhealthy", f"{folder} cannot be looked at: {error.strerror}")
            continue
        if not os.access(place, os.W_OK):
            yield HealthCheck(f"disk.{name}", "unhealthy", f"{folder} cannot be written to")
            continue
        yield _judged(f"disk.{name}", 100 * (1 - usage.free / usage.total), "%", DISK, f"the disk of {folder} is full")


def _queue(look: Callable[[], Mapping[str, Any]]) -> Iterator[HealthCheck]:
    begun = time.monotonic()
    try:
        told = look()
    except AbsurdError as error:
        yield HealthCheck("database", "unhealthy", error.message)
        return
    yield _judged("database", time.monotonic() - begun, "s", LATENCY_S, "the database answers late")
    alive = sum(each["state"] == "running" for each in told["workers"])
    none = None if alive else "no worker runs; start one: absurd-worker"
    yield HealthCheck("workers", "healthy" if alive else "unhealthy", none, alive)
    waits = [each["oldest_pending_seconds"] or 0.0 for each in told["queues"] if not each["paused"]]
    yield _judged("oldest_pending", max(waits, default=0.0), "s", WAIT_S, "a task waits")
    yield _judged("queue_depth", sum(each["pending"] for each in told["queues"]), "tasks", DEPTH, "tasks wait")
    problems = told["problems"]
    message = "; ".join(f"{each['message']}: {each['action']}" for each in problems) or None
    yield HealthCheck("queue", "degraded" if problems else "healthy", message, len(problems), "problems")
