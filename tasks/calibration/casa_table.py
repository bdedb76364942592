"""CASA's calibration tables of kinds G, B, K and T, read and written with python-casacore.

CASA counts frequencies in a K table from REF_FREQUENCY of its spectral window, in nanoseconds of delay; gains of G, B,
T and K stand for what happened to the sky, as `Gains` does, so nothing is inverted on the way.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.gains import Gains, Kind
from absurd.tasks.radio.errors import CalibrationError, DependencyError
from absurd.tasks.visibility.visibilities import unique_names

VisCal = Literal["G Jones", "B Jones", "K Jones", "T Jones"]
KINDS: Mapping[str, Kind] = {"G Jones": "gain", "T Jones": "gain", "B Jones": "bandpass", "K Jones": "delay"}
POLARISATIONS = {"linear": ("X", "Y"), "circular": ("R", "L")}
NANOSECONDS = 1e9


@dataclass(frozen=True, slots=True)
class CasaTable:
    """What a calibration table holds."""

    viscal: str
    tables: Mapping[int, Gains]
    """By number of the spectral window."""
    ms_name: str = ""
    """The Measurement Set it was solved from, as the table names it."""
    casa_version: str = ""
    fields: Mapping[int, NDArray[np.int32]] = field(default_factory=dict)
    """By number of the spectral window, (time,): the number of the field of each solution."""
    field_names: tuple[str, ...] = ()


def read_casa_table(path: str | os.PathLike[str], *, polarisations: tuple[str, str] | None = None) -> CasaTable:
    """A G, B, K or T table, each of its spectral windows as gains.

    Antennas of the table without a row are flagged.  `polarisations` are those of a table that does not tell.  Raises
    CalibrationError for what is no such table, or has no solutions; DependencyError without casacore.
    """
    tables = casacore_tables()
    place = os.fspath(path)
    if not os.path.isfile(os.path.join(place, "table.dat")):
        raise CalibrationError(f"{place} is no CASA table")
    try:
        with tables.table(place, ack=False) as main:
            return _read(tables, main, place, polarisations)
    except RuntimeError as error:
        raise CalibrationError(f"{place} cannot be read as a CASA calibration table: {error}") from error


def _read(tables: Any, main: Any, place: str, polarisations: tuple[str, str] | None) -> CasaTable:
    keywords = main.getkeywords()
    viscal = str(keywords.get("VisCal", ""))
    if viscal not in KINDS:
        raise CalibrationError(
            f"{place} is {f'a table of {viscal}' if viscal else 'no calibration table'}",
            advice=f"taken are {', '.join(KINDS)}",
        )
    if not main.nrows():
        raise CalibrationError(f"{place} holds no solutions")
    antennas = unique_names(_column(tables, place, "ANTENNA", "NAME"))
    fields = tuple(_column(tables, place, "FIELD", "NAME"))
    directions = np.asarray(_column(tables, place, "FIELD", "PHASE_DIR"))[:, 0, :]
    basis = polarisations or POLARISATIONS.get(str(keywords.get("PolBasis", "")), ("X", "Y"))
    with tables.table(f"{place}::SPECTRAL_WINDOW", ack=False) as windows:
        frequencies = [np.atleast_1d(windows.getcell("CHAN_FREQ", n)) for n in range(windows.nrows())]
        references = np.asarray(windows.getcol("REF_FREQUENCY"))
    numbers = main.getcol("SPECTRAL_WINDOW_ID")
    found: dict[int, Gains] = {}
    looked_at: dict[int, NDArray[np.int32]] = {}
    for window in np.unique(numbers).tolist():
        rows = np.flatnonzero(numbers == window)
        centres = references[[window]] if KINDS[viscal] == "delay" else frequencies[window]
        gains, field_ids = _window(main, rows, KINDS[viscal], antennas, basis, np.asarray(centres, np.float64))
        seen = np.unique(field_ids)
        one = directions[seen[0]] if len(seen) == 1 else np.full(2, np.nan)
        source = ", ".join(fields[each] for each in seen)
        found[window] = Gains(**gains, source=source, ra_rad=float(one[0] % (2 * np.pi)), dec_rad=float(one[1]))
        looked_at[window] = field_ids
    return CasaTable(
        viscal,
        found,
        ms_name=str(keywords.get("MSName", "")),
        casa_version=str(keywords.get("CASA_Version", "")),
        fields=looked_at,
        field_names=fields,
    )


def _window(
    main: Any,
    rows: NDArray[np.intp],
    kind: Kind,
    antennas: tuple[str, ...],
    polarisations: tuple[str, ...],
    frequencies_hz: NDArray[np.float64],
) -> tuple[dict[str, Any], NDArray[np.int32]]:
    """Of one spectral window what `Gains` takes, and the field of each time."""
    part = main.selectrows(rows)
    columns = {name: part.getcol(name) for name in ("TIME", "ANTENNA1", "ANTENNA2", "INTERVAL", "FIELD_ID", "FLAG")}
    values = part.getcol("FPARAM") / NANOSECONDS if kind == "delay" else part.getcol("CPARAM")
    snr = part.getcol("SNR") if "SNR" in part.colnames() else np.zeros(values.shape)
    part.close()
    if values.shape[1] != (1 if kind != "bandpass" else len(frequencies_hz)):
        raise CalibrationError(
            f"a {kind} table has {values.shape[1]} channels, and {len(frequencies_hz)} frequencies of its window"
        )
    arranged = by_time_and_antenna(
        columns, values, snr, (len(antennas), len(polarisations)), 0.0 if kind == "delay" else 1.0
    )
    order = np.argsort(frequencies_hz, kind="stable") if values.shape[1] > 1 else np.zeros(1, np.intp)
    of_time = arranged.row_of_time
    reference = columns["ANTENNA2"][of_time]
    return {
        "kind": kind,
        "values": arranged.values[:, :, order],
        "flags": arranged.flags[:, :, order],
        "snr": arranged.snr[:, :, order],
        "time_s": arranged.time_s,
        "interval_s": columns["INTERVAL"][of_time].astype(np.float64),
        "frequencies_hz": frequencies_hz[order] if values.shape[1] > 1 else np.atleast_1d(frequencies_hz.mean()),
        "polarisations": tuple(polarisations),
        "antennas": antennas,
        "reference": tuple(antennas[each] if 0 <= each < len(antennas) else "" for each in reference.tolist()),
    }, columns["FIELD_ID"][of_time].astype(np.int32)


@dataclass(frozen=True, slots=True)
class Arranged:
    """Rows of a calibration table by time and antenna."""

    values: NDArray[np.complex128]
    """(time, antenna, channel, polarisation), as `flags` and `snr`."""
    flags: NDArray[np.bool_]
    snr: NDArray[np.float32]
    time_s: NDArray[np.float64]
    row_of_time: NDArray[np.intp]
    """(time,), one of the rows of each time."""


def by_time_and_antenna(
    columns: Mapping[str, NDArray[Any]],
    values: NDArray[Any],
    snr: NDArray[Any],
    size: tuple[int, int],
    nothing: float = 1.0,
) -> Arranged:
    """Arrange rows by their TIME and ANTENNA1; `values` (row, channel, polarisation), `size` antennas, polarisations.

    What is flagged, is no number or has no row is flagged, with `nothing` in its place.
    """
    times, at = np.unique(columns["TIME"], return_inverse=True)
    at, antenna = at.reshape(-1), columns["ANTENNA1"]
    shape = (len(times), size[0], values.shape[1], size[1])
    whole, flags, signal = np.full(shape, nothing, np.complex128), np.ones(shape, np.bool_), np.zeros(shape, np.float32)
    whole[at, antenna], flags[at, antenna], signal[at, antenna] = values, columns["FLAG"], snr  # one of T goes for both
    flags |= ~np.isfinite(whole)
    whole[flags], signal[flags] = nothing, 0
    order = np.argsort(at, kind="stable")
    return Arranged(whole, flags, signal, times, order[np.searchsorted(at[order], np.arange(len(times)))])


def _column(tables: Any, place: str, subtable: str, name: str) -> Any:
    with tables.table(f"{place}::{subtable}", ack=False) as opened:
        return opened.getcol(name)


def casacore_tables() -> Any:
    """The module ``casacore.tables``.  Raises DependencyError without it."""
    try:
        import casacore.tables
    except ModuleNotFoundError as error:
        if error.name != "casacore":
            raise
        raise DependencyError("python-casacore is not installed", advice="pip install 'absurd[radio]'") from None
    return casacore.tables
