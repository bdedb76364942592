"""Gates: measures of a product, and whether they let it pass."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from absurd.tasks.qa.calibration import check_calibration
    from absurd.tasks.qa.closure import Closure, closure_of
    from absurd.tasks.qa.gates import GATES, Gate, Limits, gates_with
    from absurd.tasks.qa.image_gates import IMAGE_GATES, MOSAIC_GATES
    from absurd.tasks.qa.quarantine import find_in_quarantine, put_into_quarantine, release_from_quarantine
    from absurd.tasks.qa.report import Measure, QualityReport

__all__ = [
    "GATES",
    "IMAGE_GATES",
    "MOSAIC_GATES",
    "Closure",
    "Gate",
    "Limits",
    "Measure",
    "QualityReport",
    "check_calibration",
    "closure_of",
    "find_in_quarantine",
    "gates_with",
    "put_into_quarantine",
    "release_from_quarantine",
]

_MODULES = {
    "GATES": "gates",
    "IMAGE_GATES": "image_gates",
    "MOSAIC_GATES": "image_gates",
    "Closure": "closure",
    "Gate": "gates",
    "Limits": "gates",
    "Measure": "report",
    "QualityReport": "report",
    "check_calibration": "calibration",
    "closure_of": "closure",
    "gates_with": "gates",
    "find_in_quarantine": "quarantine",
    "put_into_quarantine": "quarantine",
    "release_from_quarantine": "quarantine",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is: numba takes its time."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
