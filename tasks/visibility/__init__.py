"""Visibilities: read, grouped, converted and flagged."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from absurd.tasks.visibility.convert import Conversion, convert_group
    from absurd.tasks.visibility.foreign import read_foreign, read_visibilities
    from absurd.tasks.visibility.measurement_set import read_measurement_set, write_measurement_set
    from absurd.tasks.visibility.measurement_set_columns import changing, put_column, put_columns, put_flags
    from absurd.tasks.visibility.uvh5 import read_subband, read_subband_header
    from absurd.tasks.visibility.uvw import phase_to
    from absurd.tasks.visibility.visibilities import Array, PhaseCentre, Visibilities

__all__ = [
    "Array",
    "Conversion",
    "PhaseCentre",
    "Visibilities",
    "changing",
    "convert_group",
    "phase_to",
    "put_column",
    "put_columns",
    "put_flags",
    "read_foreign",
    "read_measurement_set",
    "read_subband",
    "read_subband_header",
    "read_visibilities",
    "write_measurement_set",
]

_MODULES = {
    "Conversion": "convert",
    "changing": "measurement_set_columns",
    "convert_group": "convert",
    "phase_to": "uvw",
    "put_column": "measurement_set_columns",
    "put_columns": "measurement_set_columns",
    "put_flags": "measurement_set_columns",
    "read_foreign": "foreign",
    "read_measurement_set": "measurement_set",
    "read_subband": "uvh5",
    "read_subband_header": "uvh5",
    "read_visibilities": "foreign",
    "write_measurement_set": "measurement_set",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is: casacore and pyuvdata take their time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'visibilities')}"), name)
