"""Sessions: every moment of a telescope belongs to one, and each becomes one file; executors ``session.*``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from absurd.tasks.session.catalog import build_catalog, build_index
    from absurd.tasks.session.errors import (
        SessionDamagedError,
        SessionFolderBusyError,
        SessionForeignError,
        SessionNotFoundError,
        SessionQueryError,
        SessionStateError,
        SessionStorageError,
        SessionValueError,
    )
    from absurd.tasks.session.manager import Session, SessionManager
    from absurd.tasks.session.manager_async import AsyncSession, AsyncSessionManager
    from absurd.tasks.session.masters import find_master
    from absurd.tasks.session.sealed import Sealed, seal
    from absurd.tasks.session.verification import Verified, verify

__all__ = [
    "AsyncSession",
    "AsyncSessionManager",
    "Sealed",
    "Session",
    "SessionDamagedError",
    "SessionFolderBusyError",
    "SessionForeignError",
    "SessionManager",
    "SessionNotFoundError",
    "SessionQueryError",
    "SessionStateError",
    "SessionStorageError",
    "SessionValueError",
    "Verified",
    "build_catalog",
    "build_index",
    "find_master",
    "seal",
    "verify",
]

_MODULES = {
    "AsyncSession": "manager_async",
    "AsyncSessionManager": "manager_async",
    "Session": "manager",
    "SessionManager": "manager",
    "Sealed": "sealed",
    "build_catalog": "catalog",
    "build_index": "catalog",
    "find_master": "masters",
    "seal": "sealed",
    "Verified": "verification",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
