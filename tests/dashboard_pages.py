"""Every page and every form of the dashboard, as addresses that lead to something in a `World`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from web_calls import ARTIFACT
from world import World


class Submit(NamedTuple):
    """Where a form goes, what it holds, and the least scope that may send it."""

    path: Callable[[World], str]
    fields: Mapping[str, str]
    scope: str
    action: str
    """As it stands in the record of changes."""


PAGES: dict[str, Callable[[World], str]] = {
    "/": lambda _: "/",
    "/queues": lambda _: "/queues",
    "/queues/{name}": lambda w: f"/queues/{w.queue}",
    "/search": lambda w: f"/search?q={w.failed}",
    "/tasks": lambda w: f"/tasks?queue={w.queue}&params=",
    "/tasks/{task_id}": lambda w: f"/tasks/{w.failed}",
    "/tasks/{task_id}/artifacts/{sha256}": lambda w: f"/tasks/{w.completed}/artifacts/{ARTIFACT}",
}
"""By route.  `test_dashboard.py` fails for one that is not among them."""

FORMS: dict[str, Submit] = {
    "/queues/{name}/pause": Submit(lambda w: f"/queues/{w.queue}/pause", {}, "operator", "pause_queue"),
    "/queues/{name}/resume": Submit(lambda w: f"/queues/{w.queue}/resume", {}, "operator", "resume_queue"),
    "/queues/{name}/limits": Submit(
        lambda w: f"/queues/{w.queue}/limits", {"running": "5", "rate": "100/minute"}, "operator", "limit_queue"
    ),
    "/tasks/{task_id}/cancel": Submit(
        lambda w: f"/tasks/{w.keyed}/cancel", {"reason": "clouds"}, "spawner", "cancel_task"
    ),
    "/tasks/{task_id}/retry": Submit(lambda w: f"/tasks/{w.failed}/retry", {}, "spawner", "retry_task"),
}
"""By route, in an order in which each finds something to do."""

OPEN = frozenset({"/login", "/logout", "/static/{name}"})
"""What needs no login."""
