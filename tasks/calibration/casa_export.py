"""Gains written as calibration tables that CASA takes: G, B or K, whole or absent."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from absurd.tasks.calibration.casa_table import NANOSECONDS, POLARISATIONS, casacore_tables
from absurd.tasks.calibration.gains import Gains, Kind
from absurd.tasks.folder import fill_aside
from absurd.tasks.radio.errors import CalibrationError
from absurd.tasks.visibility.measurement_set_files import check_table
from absurd.tasks.visibility.visibilities import Array

VISCAL: Mapping[Kind, str] = {"gain": "G Jones", "bandpass": "B Jones", "delay": "K Jones"}
CASA_VERSION = "6.7.0-31"
"""That whose form is written: of K tables of versions before 5.3 CASA counts frequencies from another channel."""
_TYPE = "Calibration"
_SCALARS = {
    "TIME": 0.0,
    "FIELD_ID": 0,
    "SPECTRAL_WINDOW_ID": 0,
    "ANTENNA1": 0,
    "ANTENNA2": 0,
    "INTERVAL": 0.0,
    "SCAN_NUMBER": 0,
    "OBSERVATION_ID": 0,
}
_DIRECT = 5
"""Option of a column: of fixed shape, and stored as it is."""
_SECONDS = {"QuantumUnits": ["s"]}
_EPOCH = _SECONDS | {"MEASINFO": {"type": "epoch", "Ref": "UTC"}}


def write_casa_table(
    path: str | os.PathLike[str],
    windows: Gains | Sequence[Gains],
    array: Array,
    *,
    channel_width_hz: float | Sequence[float] | None = None,
    ms_name: str = "",
) -> Path:
    """Write gains of one kind, a spectral window each, as a CASA calibration table, in place of an older one.

    `array` gives the antennas, of which the gains' are some.  Widths are those of the solutions' channels, Hz; without
    them the distance of neighbours.  Raises CalibrationError for gains that CASA has no table for; ValidationError
    where a folder holds anything else; OSError; DependencyError without casacore.
    """
    gains = [windows] if isinstance(windows, Gains) else list(windows)
    kinds = {each.kind for each in gains}
    bases = {each.polarisations for each in gains}
    if len(kinds) != 1 or len(bases) != 1:
        raise CalibrationError(
            f"a CASA table holds gains of one kind and basis, not of {sorted(kinds)}, {sorted(bases)}"
        )
    basis = next((name for name, pair in POLARISATIONS.items() if pair == gains[0].polarisations), None)
    if basis is None:
        raise CalibrationError(f"CASA has no table for polarisations {', '.join(gains[0].polarisations)}")
    if unknown := sorted({name for each in gains for name in each.antennas} - set(array.names)):
        raise CalibrationError(f"antennas {', '.join(unknown)} of the gains are none of {array.telescope}")
    widths = np.broadcast_to(np.asarray(0 if channel_width_hz is None else channel_width_hz, np.float64), len(gains))
    final = Path(path)
    with fill_aside(final, check_older=partial(check_table, kind=_TYPE)) as folder:
        inner = folder / "table"
        _write(inner, gains, array, widths.tolist(), ms_name, basis)
        for each in list(inner.iterdir()):  # names of subtables are relative: they may move together
            each.rename(folder / each.name)
        inner.rmdir()
    return final


def _write(path: Path, gains: list[Gains], array: Array, widths: list[float], ms_name: str, basis: str) -> None:
    tables = casacore_tables()
    kind = gains[0].kind
    real = kind == "delay"
    name = "FPARAM" if real else "CPARAM"
    scalars = [tables.makescacoldesc(each, kind_of, options=_DIRECT) for each, kind_of in _SCALARS.items()]
    arrays = [
        tables.makearrcoldesc(name, 0.0 if real else 0j, valuetype="float" if real else "complex", ndim=-1),
        tables.makearrcoldesc("PARAMERR", 0.0, valuetype="float", ndim=-1),
        tables.makearrcoldesc("FLAG", False, valuetype="boolean", ndim=-1),
        tables.makearrcoldesc("SNR", 0.0, valuetype="float", ndim=-1),
        tables.makearrcoldesc("WEIGHT", 0.0, valuetype="float", ndim=-1),
    ]
    number = {each: place for place, each in enumerate(array.names)}
    with tables.table(str(path), tables.maketabdesc([*scalars, *arrays]), nrow=0, ack=False) as main:
        for window, each in enumerate(gains):
            _rows(main, window, each, number, name)
        main.putcolkeywords("TIME", _EPOCH)
        main.putcolkeywords("INTERVAL", _SECONDS)
        main.putinfo({"type": _TYPE, "subType": VISCAL[kind], "readme": ""})
        main.putkeywords(
            {
                "ParType": "Float" if real else "Complex",
                "MSName": os.path.basename(ms_name),
                "VisCal": VISCAL[kind],
                "PolBasis": basis,
                "CASA_Version": CASA_VERSION,
            }
        )
        for subtable in ("OBSERVATION", "ANTENNA", "FIELD", "SPECTRAL_WINDOW", "HISTORY"):
            with tables.default_ms_subtable(subtable, str(path / subtable)) as opened:
                _SUBTABLES[subtable](opened, gains, array, widths)
            main.putkeyword(subtable, f"Table: {path / subtable}")


def _rows(main: Any, window: int, gains: Gains, number: Mapping[str, int], name: str) -> None:
    """A row for each time and each antenna of the array; those that the gains do not have are flagged."""
    times, _, channels, polarisations = gains.values.shape
    antennas = len(number)
    shape = (times, antennas, channels, polarisations)
    place = np.array([number[each] for each in gains.antennas], np.intp)
    real = gains.kind == "delay"
    values = np.zeros(shape, np.float32) if real else np.ones(shape, np.complex64)
    values[:, place] = (gains.values.real * NANOSECONDS) if real else gains.values
    flags = np.ones(shape, np.bool_)
    flags[:, place] = gains.flags
    snr = np.zeros(shape, np.float32)
    snr[:, place] = gains.snr
    error = np.divide(np.abs(values), snr, out=np.zeros(shape, np.float32), where=snr > 0)
    start, rows = main.nrows(), times * antennas
    main.addrows(rows)

    def put(column: str, cells: Any) -> None:
        main.putcol(column, np.ascontiguousarray(cells), startrow=start, nrow=rows)

    def each_time(cells: Any) -> Any:
        return np.repeat(cells, antennas)

    put("TIME", each_time(gains.time_s))
    put("INTERVAL", each_time(gains.interval_s))
    put("FIELD_ID", np.zeros(rows, np.int32))
    put("SPECTRAL_WINDOW_ID", np.full(rows, window, np.int32))
    put("ANTENNA1", np.tile(np.arange(antennas, dtype=np.int32), times))
    put("ANTENNA2", each_time(np.array([number.get(each, -1) for each in gains.reference], np.int32)))
    put("SCAN_NUMBER", np.ones(rows, np.int32))
    put("OBSERVATION_ID", np.zeros(rows, np.int32))
    for column, cells in ((name, values), ("PARAMERR", error), ("FLAG", flags), ("SNR", snr), ("WEIGHT", snr**2)):
        put(column, cells.reshape(rows, channels, polarisations))


# Subtables ---------------------------------------------------------------------------------------


def _observation(opened: Any, gains: list[Gains], array: Array, _widths: list[float]) -> None:
    opened.addrows(1)
    opened.putcell("TELESCOPE_NAME", 0, array.telescope)
    opened.putcell("TIME_RANGE", 0, np.array(_span(gains)))


def _antenna(opened: Any, _gains: list[Gains], array: Array, _widths: list[float]) -> None:
    count = len(array.names)
    opened.addrows(count)
    opened.putcol("NAME", list(array.names))
    opened.putcol("STATION", list(array.names))
    opened.putcol("TYPE", ["GROUND-BASED"] * count)
    opened.putcol("MOUNT", ["ALT-AZ"] * count)
    opened.putcol("POSITION", np.ascontiguousarray(array.positions_m, np.float64))
    opened.putcol("OFFSET", np.zeros((count, 3)))
    opened.putcol("DISH_DIAMETER", np.full(count, array.dish_diameter_m))
    opened.putcol("FLAG_ROW", np.zeros(count, np.bool_))


def _field(opened: Any, gains: list[Gains], _array: Array, _widths: list[float]) -> None:
    opened.addrows(1)
    told = gains[0]
    direction = np.nan_to_num(np.array([[told.ra_rad, told.dec_rad]]))
    for column in ("DELAY_DIR", "PHASE_DIR", "REFERENCE_DIR"):
        opened.putcell(column, 0, direction)
    opened.putcell("NAME", 0, told.source)
    opened.putcell("TIME", 0, _span(gains)[0])
    opened.putcell("SOURCE_ID", 0, -1)


def _spectral_window(opened: Any, gains: list[Gains], _array: Array, widths: list[float]) -> None:
    opened.addrows(len(gains))
    for row, (each, told) in enumerate(zip(gains, widths, strict=True)):
        centres = each.frequencies_hz
        width = told or (float(np.median(np.diff(centres))) if len(centres) > 1 else 1.0)
        each_width = np.full(len(centres), width)
        for column in ("CHAN_WIDTH", "EFFECTIVE_BW", "RESOLUTION"):
            opened.putcell(column, row, each_width)
        opened.putcell("CHAN_FREQ", row, centres)
        opened.putcell("NUM_CHAN", row, len(centres))
        opened.putcell("REF_FREQUENCY", row, float(centres[0]))
        opened.putcell("TOTAL_BANDWIDTH", row, float(each_width.sum()))
        opened.putcell("MEAS_FREQ_REF", row, 5)  # topocentric
        opened.putcell("NET_SIDEBAND", row, 1)
        opened.putcell("NAME", row, f"window {row}")


def _nothing(_opened: Any, _gains: list[Gains], _array: Array, _widths: list[float]) -> None:
    """HISTORY, which CASA leaves empty, too."""


_SUBTABLES = {
    "OBSERVATION": _observation,
    "ANTENNA": _antenna,
    "FIELD": _field,
    "SPECTRAL_WINDOW": _spectral_window,
    "HISTORY": _nothing,
}


def _span(gains: list[Gains]) -> list[float]:
    """From when to when the gains were solved, seconds since MJD 0."""
    return [
        float(min((each.time_s - each.interval_s / 2).min() for each in gains)),
        float(max((each.time_s + each.interval_s / 2).max() for each in gains)),
    ]
