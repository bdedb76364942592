"""Endpoints of the backend that this interface takes the place of, and where each is now; for the reference of REST.

A new place is a call of the OpenAPI, which `tests/reference.py` looks up, so that none is told that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Earlier(NamedTuple):
    """An endpoint that was, what is there now, and what there is to say."""

    call: str
    now: Sequence[str] = ()
    remark: str = ""


EARLIER: dict[str, list[Earlier]] = {
    "Images": [
        Earlier("GET /images", ["GET /images"], "`after` in place of `offset`"),
        Earlier("GET /images/{id}", ["GET /images/{number}"]),
        Earlier(
            "GET /images/{id}/provenance, /children", ["GET /images/{number}/provenance"], "`used_in` are the children"
        ),
        Earlier("GET /images/{id}/qa", ["GET /qa/{number}"]),
        Earlier("GET /images/{id}/fits", ["GET /images/{number}/file"]),
        Earlier("GET /images/{id}/versions", ["GET /images"], "with `state=superseded`: another file at the same path"),
        Earlier("GET /images/{id}/thumbnail", ["GET /images/{number}/thumbnail"]),
        Earlier(
            "GET /images/{id}/png", ["GET /images/{number}/png"], "one stretch, which shows faint and bright alike"
        ),
        Earlier("GET /images/{id}/cutout", ["GET /images/{number}/cutout"], "FITS or PNG, in arcseconds or pixels"),
        Earlier("GET /images/{id}/animation", (), "`absurd pipeline plot` draws how sources change"),
        Earlier("POST /images/{id}/reimage", ["POST /tasks"], "`imaging.image`"),
        Earlier("masks, regions, ratings, comments of images", (), "verdicts are those of gates, which are measured"),
        Earlier("DELETE /images/{id}", (), "rows of products stay; `quarantine_product` takes one out of use"),
        Earlier("GET|POST /images/bulk-download", ["GET /images/{number}/file"], "one by one, each with its hash"),
    ],
    "Sources": [
        Earlier("GET /sources, GET /sources/{id}", ["GET /sources", "GET /sources/{number}"], "also around a position"),
        Earlier(
            "GET /sources/{id}/lightcurve", ["GET /sources/{number}/lightcurve"], "with limits where it was not seen"
        ),
        Earlier("GET /sources/{id}/variability", ["GET /sources/{number}/variability"]),
        Earlier("GET /sources/{id}/qa", ["GET /qa"], "gates measure images, in which sources are"),
        Earlier("GET /sources/{id}/contributing-images", ["GET /sources/{number}/images"]),
        Earlier(
            "GET /sources/{id}/export, GET /sources/export",
            ["GET /sources/{number}/lightcurve", "POST /tasks"],
            "JSON; as Parquet `photometry.export_night`",
        ),
    ],
    "Jobs": [
        Earlier("GET /jobs, GET /jobs/{run_id}", ["GET /jobs", "GET /jobs/{task_id}"]),
        Earlier("GET /jobs/{run_id}/provenance", ["GET /jobs/{task_id}/provenance"]),
        Earlier("GET /jobs/{run_id}/logs, GET /logs/{run_id}", ["GET /logs/{task_id}", "GET /tasks/{task_id}/logs"]),
        Earlier(
            "POST /jobs/{run_id}/rerun, POST /jobs/bulk-rerun", ["POST /tasks/{task_id}/retry", "POST /jobs/rerun"]
        ),
        Earlier("POST /jobs/bulk-cancel", ["POST /jobs/cancel"]),
        Earlier("POST /batch/…", ["POST /jobs"], "all or none"),
        Earlier("GET /jobs/export", ["GET /jobs"], "JSON, page by page"),
        Earlier(
            "GET /queue, /queue/stats, /queue/jobs[/{id}]", ["GET /queues", "GET /queues/{name}/stats", "GET /tasks"]
        ),
        Earlier("POST /queue/jobs/{id}/cancel", ["POST /tasks/{task_id}/cancel"]),
    ],
    "Measurement Sets, calibration, quality": [
        Earlier("GET /ms/{path}/metadata", ["GET /ms", "GET /ms/{number}"], "by number: no path comes from a caller"),
        Earlier("GET /ms/{path}/provenance", ["GET /ms/{number}/provenance"]),
        Earlier("GET /ms/{path}/calibrator-matches", ["GET /cal"], "by telescope and time"),
        Earlier("GET /ms/{path}/raster, /antennas", (), "`absurd pipeline plot` draws them"),
        Earlier("GET /cal/{path}, /calibration, /calibration/timeline", ["GET /cal", "GET /cal/{number}"]),
        Earlier("GET /calibration/nearest, /applylist", ["GET /cal"], "which is applied, `calibration.apply` chooses"),
        Earlier("GET /calibration/qa", ["GET /cal/{number}"], "its `quality`"),
        Earlier("GET /qa/image|ms|job/{id}", ["GET /qa", "GET /qa/{number}"]),
    ],
    "How it stands": [
        Earlier("GET /stats", ["GET /stats"]),
        Earlier("GET /cache", ["GET /cache"]),
        Earlier("POST /cache/invalidate/{pattern}, /cache/clear", ["POST /cache/invalidate", "POST /cache/clear"]),
        Earlier("GET /services/status[/{port}]", ["GET /services", "GET /services/{name}"]),
        Earlier("GET /api/health, /health?detailed, /health/system", ["GET /health", "GET /status"]),
        Earlier("GET /health/docker|systemd|gpus|pointing", (), "what runs beside it is probed by `GET /services`"),
        Earlier("GET /health/validity-windows, /flux-monitoring", ["GET /cal", "GET /qa"]),
        Earlier(
            "GET /health/alerts[/ack]",
            ["GET /alerts", "GET /alerts/{name}/history", "POST /alerts/{name}/silence"],
            "who knows of one silences it",
        ),
        Earlier(
            "alert-policies: CRUD, dry run, silences",
            ["PUT /alerts/{name}", "DELETE /alerts/{name}", "POST /alerts/{name}/test", "POST /alerts/{name}/silence"],
        ),
        Earlier("GET /storage/…", (), "`absurd db size`; workers tell of their disks in `GET /workers`"),
        Earlier("WS /ws/jobs/{id}, /ws/pipeline", ["GET /events"], "a WebSocket at the same address"),
    ],
    "The queue (mounted at /absurd)": [
        Earlier("POST /tasks, POST /tasks/with-deps", ["POST /tasks"], "`depends_on`, `workflow`; answers 201"),
        Earlier("GET /tasks, GET /tasks/{id}", ["GET /tasks", "GET /tasks/{task_id}"]),
        Earlier("DELETE /tasks/{id}", ["POST /tasks/{task_id}/cancel"]),
        Earlier("GET /queues, /queues/stats, /queues/{q}/stats", ["GET /queues", "GET /queues/{name}/stats"]),
        Earlier("GET /pipeline/status, /health/detailed", ["GET /status"]),
        Earlier("GET /workers, /workers/metrics", ["GET /workers"]),
        Earlier("POST /workers/{id}/heartbeat", (), "workers give signs of life in the database"),
        Earlier("GET /metrics, /metrics/prometheus", (), "`/metrics`, for Prometheus, beside `/api/v1`"),
        Earlier("GET /metrics/history", (), "it was made up; Prometheus keeps the history"),
        Earlier(
            "/templates …", ["POST /jobs", "PUT /schedules/{name}"], "graphs of tasks are workflows, made in Python"
        ),
        Earlier(
            "GET|POST /schedules, GET|PATCH|DELETE /schedules/{n}",
            ["GET /schedules", "PUT /schedules/{name}", "DELETE /schedules/{name}"],
        ),
        Earlier("POST /schedules/{n}/trigger", ["POST /schedules/{name}/trigger"]),
        Earlier(
            "GET|POST /workflows, /workflows/{id}, /dag, /ready",
            ["GET /workflows", "GET /workflows/{workflow_id}", "GET /workflows/{workflow_id}/graph"],
        ),
    ],
    "The pipeline": [
        Earlier("GET /pipeline/registered, /stages", ["GET /executors"]),
        Earlier(
            "POST /pipeline/run, /full, /stage, /calibrate, /image",
            ["POST /tasks"],
            "`pipeline.batch`, or a stage's executor",
        ),
        Earlier("GET /pipeline/executions[/{id}]", ["GET /workflows", "GET /workflows/{workflow_id}"]),
        Earlier("/conversion …", ["POST /tasks", "GET /ms"], "`visibility.ingest`, `visibility.convert_group`"),
        Earlier(
            "POST /mosaic/create, GET /mosaic/status/{name}",
            ["POST /tasks", "GET /tasks/{task_id}"],
            "`imaging.mosaic`",
        ),
        Earlier("GET /mosaic/list", ["GET /images"], "`kind=mosaic`"),
        Earlier("triggers, retention, backups", ["PUT /schedules/{name}"], "executors of `maintenance` on schedules"),
        Earlier("vo exports, saved queries", ["POST /tasks", "GET /exports"], "`export.query`"),
    ],
    "Who may": [
        Earlier(
            "POST /auth/login, /logout, /refresh, GET /auth/me",
            (),
            "tokens: `absurd token create`; pages log in by one",
        ),
    ],
}
"""By topic."""

EARLIER_SETTINGS = {
    "DSA110_DB_BACKEND": ("web_products", "a file of products, or by default the queue's PostgreSQL"),
    "PRODUCTS_DB_PATH": ("web_products", "written by `absurd export --products`"),
    "REDIS_URL": ("web_cache", "in the memory of the process: there is no other service"),
    "DSA110_QUEUE_NAME": ("queue_name", ""),
    "DSA110_LOG_LEVEL": ("log_level", ""),
    "DSA110_TIMEOUT_DB_CONNECTION": ("timeout_db_connection", ""),
    "DSA110_TIMEOUT_WEBSOCKET_PING": ("timeout_websocket_ping", ""),
    "DSA110_TIMEOUT_HEALTH_CHECK": ("timeout_health_check", ""),
    "DSA110_ALLOWED_IPS": ("web_allow", ""),
    "DSA110_CORS_ORIGINS": ("web_origins", ""),
}
"""What its variables were for, by the name of the setting that is for it now."""
