"""`HealthChecker` and `PipelineMetrics`: what is told is what was measured."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from absurd.errors import DatabaseUnavailableError
from absurd.tasks.pipeline import HealthCheck, HealthChecker, PipelineConfig, PipelineMetrics, load_pipeline_config
from absurd.tasks.pipeline import health as measured

QUIET: dict[str, Any] = {
    "workers": [{"state": "running"}],
    "queues": [{"paused": False, "oldest_pending_seconds": 1.0, "pending": 3}],
    "problems": [],
}


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    return load_pipeline_config("testing", overrides={"paths": {"base_dir": str(tmp_path)}})


def checks(config: PipelineConfig, status: Mapping[str, Any] | None = None) -> dict[str, HealthCheck]:
    look = None if status is None else lambda: status
    return {each.name: each for each in HealthChecker(look).check_all_health(config)}


def test_the_machine_is_measured(config: PipelineConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other loads, memory and disks give other values, and each its own word."""
    memory = tmp_path / "meminfo"
    monkeypatch.setattr(measured, "_MEMORY", memory)
    seen = []
    for share in (0.5, 0.8, 0.97):
        monkeypatch.setattr(os, "getloadavg", lambda share=share: (2 * share, 0, 0))
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
        memory.write_text(f"MemTotal: 1000 kB\nMemAvailable: {round(1000 * (1 - share))} kB\n")
        usage = type("Usage", (), {"total": 1000, "used": 0, "free": 1000 * (1 - share)})
        monkeypatch.setattr(shutil, "disk_usage", lambda place, usage=usage: usage)
        found = checks(config)
        seen.append([found[name].status for name in ("cpu", "memory", "disk.images_dir")])
        assert [found[name].value for name in ("cpu", "memory", "disk.images_dir")] == pytest.approx([100 * share] * 3)
        assert (found["cpu"].error_message is None) == (share == 0.5)

    assert seen == [["healthy"] * 3, ["degraded", "degraded", "healthy"], ["unhealthy"] * 3]
    memory.unlink()
    assert checks(config)["memory"].status == "unknown"


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """One that is yet to be made is not: the disk counts on which it will be."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    config = load_pipeline_config(
        "testing", overrides={"paths": {"base_dir": str(tmp_path), "images_dir": "later/images"}}
    )

    assert checks(config)["disk.images_dir"].value is not None
    assert checks(config)["disk.images_dir"].status != "unknown"


@pytest.mark.parametrize(
    ("change", "check", "status"),
    [
        ({}, "workers", "healthy"),
        ({"workers": [{"state": "lost"}]}, "workers", "unhealthy"),
        ({"queues": [{"paused": False, "oldest_pending_seconds": 700.0, "pending": 1}]}, "oldest_pending", "degraded"),
        ({"queues": [{"paused": True, "oldest_pending_seconds": 9999.0, "pending": 1}]}, "oldest_pending", "healthy"),
        ({"queues": [{"paused": False, "oldest_pending_seconds": None, "pending": 1001}]}, "queue_depth", "unhealthy"),
        ({"problems": [{"message": "a worker was lost", "action": "look"}]}, "queue", "degraded"),
    ],
)
def test_the_queue_is_looked_at(config: PipelineConfig, change: dict[str, Any], check: str, status: str) -> None:
    """By what it says of itself."""
    assert checks(config, QUIET | change)[check].status == status


def test_a_database_that_is_away_is_told(config: PipelineConfig) -> None:
    """With its reason; the machine is measured all the same."""

    def away() -> Mapping[str, Any]:
        raise DatabaseUnavailableError("nobody listens")

    found = {each.name: each for each in HealthChecker(away).check_all_health(config)}

    assert (found["database"].status, found["database"].error_message) == ("unhealthy", "nobody listens")
    assert "workers" not in found
    assert found["cpu"].value is not None


def test_metrics_of_what_was_recorded() -> None:
    """Rate and mean are of the hours asked for; of no block nothing is known."""
    metrics = PipelineMetrics()
    assert (metrics.get_success_rate(), metrics.get_average_processing_time()) == (None, None)
    metrics.record_block_processing(block_id="one", success=True, processing_time=120.5, ms_count=5, image_count=5)
    metrics.record_block_processing("two", False, 60.5, 5, 2)
    old = datetime.now(UTC) - timedelta(hours=30)
    metrics.record_block_processing("old", False, 1.0, ended_at=old)

    recent = metrics.get_recent_metrics(hours=24)

    assert (recent["blocks"], recent["failed"], recent["recordings"], recent["images"]) == (2, 1, 10, 7)
    assert [each["block_id"] for each in recent["records"]] == ["one", "two"]
    assert metrics.get_success_rate(hours=24) == 0.5
    assert metrics.get_success_rate(hours=48) == pytest.approx(1 / 3)
    assert metrics.get_average_processing_time(hours=24) == 90.5
