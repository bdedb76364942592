"""Gains of antennas: solved against a model of the sky, kept, and applied."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from absurd.tasks.calibration.apply import Applied, apply_gains, unapply_gains
    from absurd.tasks.calibration.calibrator import CalibratorSolution, solve_calibrator
    from absurd.tasks.calibration.casa_export import write_casa_table
    from absurd.tasks.calibration.casa_table import CasaTable, read_casa_table
    from absurd.tasks.calibration.gain_table import GainSet, read_gains, write_gains
    from absurd.tasks.calibration.gains import Gains
    from absurd.tasks.calibration.interpolation import interpolate
    from absurd.tasks.calibration.settings import CalibratorSettings, GainSettings
    from absurd.tasks.calibration.sky_model import Component, SkyModel
    from absurd.tasks.calibration.solve import solve_bandpass, solve_gains

_MODULES = {
    "Applied": "apply",
    "CalibratorSettings": "settings",
    "CalibratorSolution": "calibrator",
    "CasaTable": "casa_table",
    "Component": "sky_model",
    "GainSet": "gain_table",
    "GainSettings": "settings",
    "Gains": "gains",
    "SkyModel": "sky_model",
    "apply_gains": "apply",
    "interpolate": "interpolation",
    "read_casa_table": "casa_table",
    "read_gains": "gain_table",
    "solve_bandpass": "solve",
    "solve_calibrator": "calibrator",
    "solve_gains": "solve",
    "unapply_gains": "apply",
    "write_casa_table": "casa_export",
    "write_gains": "gain_table",
}

__all__ = [
    "Applied",
    "CalibratorSettings",
    "CalibratorSolution",
    "CasaTable",
    "Component",
    "GainSet",
    "GainSettings",
    "Gains",
    "SkyModel",
    "apply_gains",
    "interpolate",
    "read_casa_table",
    "read_gains",
    "solve_bandpass",
    "solve_calibrator",
    "solve_gains",
    "unapply_gains",
    "write_casa_table",
    "write_gains",
]


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is: numba, zarr and casacore take their time."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
