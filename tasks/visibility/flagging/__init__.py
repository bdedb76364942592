"""Flagging of visibilities: what was not received, what was not the sky, and what goes with it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from absurd.tasks.visibility.flagging.flagger import Report, flag
    from absurd.tasks.visibility.flagging.strategy import STRATEGIES, Strategy, strategy_named

__all__ = ["STRATEGIES", "Report", "Strategy", "flag", "strategy_named"]

_PLACES = {
    "Report": "flagger",
    "STRATEGIES": "strategy",
    "Strategy": "strategy",
    "flag": "flagger",
    "strategy_named": "strategy",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
