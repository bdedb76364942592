"""A call of every operation of the web interface that finds something to do in a `World`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from world import World


class Request(NamedTuple):
    """What is put into the path, the query and the body."""

    path: Mapping[str, Any] = MappingProxyType({})
    body: Any = None
    query: Mapping[str, Any] = MappingProxyType({})


ARTIFACT = "c" * 64
"""SHA-256 of an artifact of `World.completed`; see `conftest.Site`."""


def _task(name: str, body: Any = None) -> Callable[[World], Request]:
    return lambda w: Request({"task_id": getattr(w, name)}, body)


def _named(name: str, body: Any = None) -> Callable[[World], Request]:
    return lambda w: Request({"name": getattr(w, name)}, body)


def _flow(body: Any = None) -> Callable[[World], Request]:
    return lambda w: Request({"workflow_id": w.workflow}, body)


def _nothing(_: World) -> Request:
    return Request()


def _of(path: str, name: str, **query: Any) -> Callable[[World], Request]:
    """A parameter of the path that `observed.Observed` has."""

    def made(w: World) -> Request:
        found = getattr(w.observed, name)
        return Request({path: found[0] if isinstance(found, list) else found}, query=query)

    return made


def _file(task: str, file: str) -> Callable[[World], Request]:
    return lambda w: Request({"task_id": getattr(w.observed, task), "sha256": w.observed.hashes[file]})


PRODUCT_CALLS: dict[str, Callable[[World], Request]] = {
    "get_cutout": _of("task_id", "cutout"),
    "get_cutout_file": _file("cutout", "stamp"),
    "get_cutout_thumbnail": _file("cutout", "stamp"),
    "get_export": _of("task_id", "export"),
    "get_export_file": _file("export", "export"),
    "get_gain_set": _of("number", "gains"),
    "get_gain_set_provenance": _of("number", "gains"),
    "get_image": _of("number", "images"),
    "get_image_cutout": _of("number", "images", ra=150, declination=54.5, size=100),
    "get_image_file": _of("number", "images"),
    "get_image_png": _of("number", "images"),
    "get_image_provenance": _of("number", "mosaic"),
    "get_image_thumbnail": _of("number", "images", size=64),
    "get_light_curve": _of("number", "source"),
    "get_measurement_set": _of("number", "ms"),
    "get_measurement_set_provenance": _of("number", "ms"),
    "get_measures": _of("number", "images"),
    "get_session": _of("session_id", "session"),
    "get_session_file": _of("session_id", "session"),
    "get_source": _of("number", "source"),
    "get_stats": _nothing,
    "get_variability": _of("number", "source"),
    "list_cutouts": _nothing,
    "list_exports": _nothing,
    "list_gain_sets": _nothing,
    "list_images": _nothing,
    "list_measurement_sets": _nothing,
    "list_measures": _nothing,
    "list_sessions": _nothing,
    "list_source_images": _of("number", "source"),
    "list_sources": lambda _: Request(query={"ra": 0, "declination": 54.5, "radius": 10}),
}
"""Reads of products, which a file of products answers too."""

CALLS: dict[str, Callable[[World], Request]] = PRODUCT_CALLS | {
    "cancel_jobs": lambda w: Request(body={"ids": [str(w.keyed)], "reason": "clouds"}),
    "cancel_task": _task("keyed", {"reason": "clouds"}),
    "cancel_workflow": _flow({"reason": "clouds"}),
    "clear_cache": _nothing,
    "create_jobs": lambda w: Request(body={"jobs": [{"name": w.executor, "queue": w.queue}] * 2}),
    "drain_worker": lambda w: Request({"worker": w.worker}),
    "get_alert": _named("alert"),
    "get_artifact": lambda w: Request({"task_id": w.completed, "sha256": ARTIFACT}),
    "get_cache": _nothing,
    "get_dead_letter": _task("failed"),
    "get_executor": _named("executor"),
    "get_graph": _flow(),
    "get_health": _nothing,
    "get_job": _of("task_id", "task"),
    "get_job_provenance": _of("task_id", "task"),
    "get_log": _task("completed"),
    "get_logs": _task("completed"),
    "get_queue_stats": _named("queue"),
    "get_schedule": _named("schedule"),
    "get_service": lambda _: Request({"name": "here"}),
    "get_status": _nothing,
    "get_task": _task("failed"),
    "get_why": _task("keyed"),
    "get_workflow": _flow(),
    "group_dead_letters": lambda w: Request(query={"queue": w.queue}),
    "invalidate_cache": lambda _: Request(body={"pattern": "stats"}),
    "limit_queue": _named("queue", {"running": 5, "rate": "100/minute"}),
    "list_alert_events": _named("alert"),
    "list_alerts": _nothing,
    "list_artifacts": _task("completed"),
    "list_changes": _nothing,
    "list_dead_letters": lambda w: Request(query={"queue": w.queue, "limit": 1}),
    "list_due": lambda w: Request({"name": w.schedule}, query={"count": 3}),
    "list_executors": _nothing,
    "list_jobs": lambda w: Request(query={"queue": w.queue, "limit": 2}),
    "list_queues": _nothing,
    "list_schedules": _nothing,
    "list_services": _nothing,
    "list_tasks": lambda w: Request(query={"queue": w.queue, "limit": 2}),
    "list_ticks": _named("schedule"),
    "list_workers": _nothing,
    "list_workflows": _nothing,
    "pause_queue": _named("queue"),
    "pause_schedule": _named("schedule"),
    "purge_dead_letters": lambda w: Request(body={"ids": [str(w.failed)]}),
    "remove_alert": _named("alert"),
    "remove_schedule": _named("schedule"),
    "requeue_dead_letters": lambda w: Request(body={"queue": w.queue, "set": {"a": 1}}),
    "rerun_jobs": lambda w: Request(body={"ids": [str(w.failed)]}),
    "resume_queue": _named("queue"),
    "resume_schedule": _named("schedule"),
    "retry_task": _task("failed"),
    "retry_workflow": _flow(),
    "set_alert": lambda w: Request({"name": "new"}, {"measure": "queue_age", "threshold": 60, "for": 5}),
    "set_schedule": lambda w: Request({"name": "new"}, {"trigger": "every 60 s", "executor": w.executor}),
    "silence_alert": _named("alert", {"seconds": 60, "reason": "clouds"}),
    "spawn_task": lambda w: Request(body={"name": w.executor, "queue": w.queue, "params": {"a": 1}, "priority": 3}),
    "watch_events": lambda w: Request(query={"once": "true", "queue": w.queue}),
    "trigger_schedule": _named("schedule", {"overlap": "allow"}),
    "try_alert": _named("alert"),
}
"""By operation id.  `tests/web/test_routes.py` fails for an operation that is not among them."""
