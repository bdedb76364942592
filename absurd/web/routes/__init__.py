"""The routes, one file a resource: each parses, makes one call of the core, and answers."""

from __future__ import annotations

from absurd.web.routes import (
    alerts,
    cache,
    changes,
    cutouts,
    dead_letters,
    events,
    executors,
    exports,
    gain_sets,
    health,
    images,
    jobs,
    logs,
    measurement_sets,
    neighbours,
    qa,
    queues,
    schedules,
    sessions,
    sources,
    statistics,
    tasks,
    workers,
    workflows,
)

_QUEUE = (tasks, workflows, queues, dead_letters, schedules, workers, executors, jobs, logs, alerts, events, changes)
_PRODUCTS = (
    images,
    sources,
    measurement_sets,
    gain_sets,
    qa,
    sessions,
    exports,
    cutouts,
    statistics,
    cache,
    neighbours,
)

ROUTERS = [each.router for each in (*_QUEUE, *_PRODUCTS)] + [health.open_router, health.router]
"""In the order of the reference."""
PRODUCT_ROUTERS = [each.router for each in _PRODUCTS] + [health.open_router]
"""What is there with a file of products, where there is no queue."""
