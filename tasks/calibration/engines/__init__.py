"""Solvers behind one interface: the embedded one, and CASA in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from absurd.tasks.calibration.engines.engine import ENGINES, Engine, engine_named

__all__ = ["ENGINES", "Engine", "engine_named"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from absurd.tasks.calibration.engines import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
