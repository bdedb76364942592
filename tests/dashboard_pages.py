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
    "/alerts": lambda _: "/alerts",
    "/alerts/{name}": lambda w: f"/alerts/{w.alert}",
    "/dead-letters": lambda w: f"/dead-letters?queue={w.queue}",
    "/dead-letters/{task_id}": lambda w: f"/dead-letters/{w.failed}",
    "/products/{number}": lambda w: f"/products/{w.products['accepted']}",
    "/products/{number}/file": lambda w: f"/products/{w.observed.mosaic}/file",
    "/products/{number}/preview": lambda w: f"/products/{w.observed.mosaic}/preview",
    "/queues": lambda _: "/queues",
    "/queues/{name}": lambda w: f"/queues/{w.queue}",
    "/schedules": lambda _: "/schedules",
    "/schedules/{name}": lambda w: f"/schedules/{w.schedule}",
    "/search": lambda w: f"/search?q={w.failed}",
    "/sessions": lambda _: "/sessions?target=3C48&before=2100-01-01",
    "/sky": lambda _: "/sky",
    "/sources": lambda _: "/sources?ra=10&declination=50",
    "/sources/{number}": lambda w: f"/sources/{w.call('min(id) from source')}",
    "/tasks": lambda w: f"/tasks?queue={w.queue}&params=",
    "/tasks/{task_id}": lambda w: f"/tasks/{w.failed}",
    "/tasks/{task_id}/artifacts/{sha256}": lambda w: f"/tasks/{w.completed}/artifacts/{ARTIFACT}",
    "/tasks/{task_id}/artifacts/{sha256}/preview": lambda w: f"/tasks/{w.completed}/artifacts/{ARTIFACT}/preview",
    "/workers": lambda _: "/workers",
    "/workflows": lambda _: "/workflows?state=running",
    "/workflows/{workflow_id}": lambda w: f"/workflows/{w.workflow}",
}
"""By route.  `test_dashboard.py` fails for one that is not among them."""

FORMS: dict[str, Submit] = {
    "/alerts/{name}/silence": Submit(
        lambda w: f"/alerts/{w.alert}/silence", {"hours": "1.5", "reason": "clouds"}, "operator", "silence_alert"
    ),
    "/alerts/{name}/test": Submit(lambda w: f"/alerts/{w.alert}/test", {}, "operator", "try_alert"),
    "/queues/{name}/pause": Submit(lambda w: f"/queues/{w.queue}/pause", {}, "operator", "pause_queue"),
    "/queues/{name}/resume": Submit(lambda w: f"/queues/{w.queue}/resume", {}, "operator", "resume_queue"),
    "/queues/{name}/limits": Submit(
        lambda w: f"/queues/{w.queue}/limits", {"running": "5", "rate": "100/minute"}, "operator", "limit_queue"
    ),
    "/tasks/{task_id}/cancel": Submit(
        lambda w: f"/tasks/{w.keyed}/cancel", {"reason": "clouds"}, "spawner", "cancel_task"
    ),
    "/dead-letters/requeue": Submit(
        lambda _: "/dead-letters/requeue",
        {"all": "yes", "rate": "5", "params": '{"a": 1}'},
        "operator",
        "requeue_dead_letters",
    ),
    "/tasks/{task_id}/retry": Submit(lambda w: f"/tasks/{w.completed}/retry", {}, "spawner", "retry_task"),
    "/dead-letters/purge": Submit(lambda _: "/dead-letters/purge", {"all": "yes"}, "operator", "purge_dead_letters"),
    "/schedules/{name}/pause": Submit(lambda w: f"/schedules/{w.schedule}/pause", {}, "operator", "pause_schedule"),
    "/schedules/{name}/resume": Submit(lambda w: f"/schedules/{w.schedule}/resume", {}, "operator", "resume_schedule"),
    "/schedules/{name}/trigger": Submit(
        lambda w: f"/schedules/{w.schedule}/trigger", {}, "operator", "trigger_schedule"
    ),
    "/workers/{worker}/drain": Submit(lambda w: f"/workers/{w.worker}/drain", {}, "operator", "drain_worker"),
    "/workflows/{workflow_id}/cancel": Submit(
        lambda w: f"/workflows/{w.workflow}/cancel", {"reason": "clouds"}, "spawner", "cancel_workflow"
    ),
    "/workflows/{workflow_id}/retry": Submit(
        lambda w: f"/workflows/{w.workflow}/retry", {}, "spawner", "retry_workflow"
    ),
}
"""By route, in an order in which each finds something to do."""

OPEN = frozenset({"/login", "/logout", "/static/{name}"})
"""What needs no login."""
