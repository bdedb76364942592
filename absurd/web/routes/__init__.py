"""The routes, one file a resource: each parses, makes one call of the core, and answers."""

from __future__ import annotations

from absurd.web.routes import (
    alerts,
    changes,
    dead_letters,
    events,
    executors,
    health,
    queues,
    schedules,
    tasks,
    workers,
    workflows,
)

ROUTERS = [
    each.router
    for each in (tasks, workflows, queues, dead_letters, schedules, workers, executors, alerts, events, changes, health)
]
"""In the order of the reference."""
