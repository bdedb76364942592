"""Imagers behind one interface: the embedded one, WSClean and CASA's tclean, in processes of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from absurd.tasks.imaging.engines.engine import ENGINES, Engine, Recording, engine_named

__all__ = ["ENGINES", "Engine", "Recording", "engine_named"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from absurd.tasks.imaging.engines import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
