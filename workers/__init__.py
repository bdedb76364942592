"""Workers: they claim runs and execute them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from absurd.workers.worker import AbsurdWorker

__all__ = ["AbsurdWorker"]


def __getattr__(name: str) -> Any:
    # On demand: a child process of a slot imports this package and needs neither worker nor driver.
    if name == "AbsurdWorker":
        from absurd.workers.worker import AbsurdWorker

        return AbsurdWorker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
