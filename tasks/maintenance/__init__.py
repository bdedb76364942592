"""Upkeep of the queue's own database and of the folders its products lie in; executors ``maintenance.*``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from absurd.tasks.maintenance.backup import Backup, back_up
    from absurd.tasks.maintenance.errors import (
        BackupDiffersError,
        BackupError,
        BackupProgramError,
        RestoreDeniedError,
        UnhealthyError,
        UnsafeFolderError,
    )
    from absurd.tasks.maintenance.files import prune_files
    from absurd.tasks.maintenance.health import Health, examine

__all__ = [
    "Backup",
    "BackupDiffersError",
    "BackupError",
    "BackupProgramError",
    "Health",
    "RestoreDeniedError",
    "UnhealthyError",
    "UnsafeFolderError",
    "back_up",
    "examine",
    "prune_files",
]

_MODULES = {
    "Backup": "backup",
    "back_up": "backup",
    "prune_files": "files",
    "Health": "health",
    "examine": "health",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
