"""Durable tasks on PostgreSQL for observatories.

The names are loaded when they are first used, so that a kernel or a process slot that imports the
package loads neither a database driver nor the rest.  `executor` alone is loaded at once: the module
of the same name would otherwise take its place as soon as anything imports it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from absurd.executor import executor

if TYPE_CHECKING:
    from absurd.client import AbsurdClient
    from absurd.client_sync import SyncAbsurdClient
    from absurd.config import Settings, load_settings
    from absurd.context import RunContext
    from absurd.errors import (
        AbsurdError,
        FilesMissing,
        StaleClaimError,
        TaskCancelled,
        TaskFailed,
        TaskNotFoundError,
        WaitTimeoutError,
        WorkflowCancelled,
        WorkflowFailed,
    )
    from absurd.model import QueueStats, Task, TaskSpec, TaskState
    from absurd.outcome import Cancel, Reject, RetryLater, Snooze
    from absurd.queue import Spawned, new_task_id
    from absurd.retry import ErrorRule, RetryPolicy
    from absurd.workflow import Workflow, WorkflowRun

__all__ = [
    "AbsurdClient",
    "AbsurdError",
    "Cancel",
    "ErrorRule",
    "FilesMissing",
    "QueueStats",
    "Reject",
    "RetryLater",
    "RetryPolicy",
    "RunContext",
    "Settings",
    "Snooze",
    "Spawned",
    "StaleClaimError",
    "SyncAbsurdClient",
    "Task",
    "TaskCancelled",
    "TaskFailed",
    "TaskNotFoundError",
    "TaskSpec",
    "TaskState",
    "WaitTimeoutError",
    "Workflow",
    "WorkflowCancelled",
    "WorkflowFailed",
    "WorkflowRun",
    "executor",
    "load_settings",
    "new_task_id",
]

_HOMES = {
    "AbsurdClient": "client",
    "AbsurdError": "errors",
    "Cancel": "outcome",
    "ErrorRule": "retry",
    "FilesMissing": "errors",
    "QueueStats": "model",
    "Reject": "outcome",
    "RetryLater": "outcome",
    "RetryPolicy": "retry",
    "RunContext": "context",
    "Settings": "config",
    "Snooze": "outcome",
    "Spawned": "queue",
    "StaleClaimError": "errors",
    "SyncAbsurdClient": "client_sync",
    "Task": "model",
    "TaskCancelled": "errors",
    "TaskFailed": "errors",
    "TaskNotFoundError": "errors",
    "TaskSpec": "model",
    "TaskState": "model",
    "WaitTimeoutError": "errors",
    "Workflow": "workflow",
    "WorkflowCancelled": "errors",
    "WorkflowFailed": "errors",
    "WorkflowRun": "workflow",
    "load_settings": "config",
    "new_task_id": "queue",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
