"""What the database tells of the whole queue, as samples for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from absurd.metrics import Sample

STATES = ("blocked", "pending", "sleeping", "running", "completed", "failed", "cancelled")
_TASKS = ("spawned", "completed", "failed", "cancelled", "pruned")
_RUNS = ("retried", "lost")
_WORKERS = ("running", "stopping", "lost")


def read_queue(status: dict[str, Any], metrics: dict[str, Any]) -> list[Sample]:
    """Samples of what `get_status` and `get_metrics` gave."""
    return [*_queues(status), *_counters(metrics), *_work(status), *_database(metrics)]


def _queues(status: dict[str, Any]) -> Iterator[Sample]:
    for each in status["queues"]:
        queue = {"queue": each["name"]}
        for state in STATES:
            yield Sample("absurd_tasks", each[state], queue | {"state": state})
        yield Sample("absurd_queue_oldest_pending_seconds", max(0.0, each["oldest_pending_seconds"] or 0.0), queue)
        yield Sample("absurd_queue_paused", each["paused"], queue)


def _counters(metrics: dict[str, Any]) -> Iterator[Sample]:
    for each in metrics["counters"]:
        queue = {"queue": each["queue"]}
        for what, kinds in (("tasks", _TASKS), ("runs", _RUNS)):
            for kind in kinds:
                yield Sample(f"absurd_{what}_{kind}_total", each[kind], queue)


def _work(status: dict[str, Any]) -> Iterator[Sample]:
    states = Counter(each["state"] for each in status["workers"])
    for state in _WORKERS:  # those that are none too: what is not there cannot be compared
        yield Sample("absurd_workers", states[state], {"state": state})
    alive = [each for each in status["workers"] if each["state"] != "lost"]
    yield Sample("absurd_slots", sum(each["wanted_concurrency"] or each["concurrency"] for each in alive))
    yield Sample("absurd_slots_busy", sum(each["running"] for each in alive))
    yield Sample("absurd_dead_letters", status["dead_letters"])
    for code, count in sorted(Counter(each["code"] for each in status["problems"]).items()):
        yield Sample("absurd_problems", count, {"code": code})


def _database(metrics: dict[str, Any]) -> Iterator[Sample]:
    for schedule, seconds in metrics["schedules"].items():
        yield Sample("absurd_schedule_lateness_seconds", seconds, {"schedule": schedule})
    for each in metrics["alerts"]:
        yield Sample("absurd_alert_firing", each["firing"], {"alert": each["name"], "severity": each["severity"]})
    for table, rows in metrics["tables"].items():
        yield Sample("absurd_table_rows", rows["live"], {"table": table})
        yield Sample("absurd_table_dead_rows", rows["dead"], {"table": table})
    yield Sample("absurd_oldest_snapshot_seconds", max(0.0, metrics["oldest_snapshot_seconds"]))
