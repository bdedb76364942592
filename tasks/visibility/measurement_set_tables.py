"""What a Measurement Set consists of: its columns, how these lie in files, and the tables beside them.

Each column of visibilities lies in files of its own, in tiles of some channels by many rows: it is written by sub-bands
and read by rows or by channels, and one column is replaced without touching another.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.errors import DataError
from absurd.tasks.radio.telescope import load_telescope, telescope_names
from absurd.tasks.visibility.correlations import NUMBERS
from absurd.tasks.visibility.visibilities import Array, PhaseCentre, Visibilities

Floats = NDArray[np.float64]

DATA_COLUMNS = ("DATA", "MODEL_DATA", "CORRECTED_DATA")
_TILE = 1 << 20
"""Bytes of a tile of visibilities, about."""
_WIDEST = 64
"""Channels of a tile where nothing else tells how data will be written."""
_TOPOCENTRIC = 5
"""Number of the frame in which frequencies are those that the telescope saw."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a Measurement Set of one spectral window tells but for visibilities, flags and weights.

    See `Visibilities`.
    """

    array: Array
    phase_centres: tuple[PhaseCentre, ...]
    frequencies_hz: Floats
    channel_width_hz: Floats
    correlations: tuple[str, ...]
    antenna1: NDArray[np.int32]
    antenna2: NDArray[np.int32]
    time_s: Floats
    exposure_s: Floats
    uvw_m: Floats
    field: NDArray[np.int32]
    scan: NDArray[np.int32]
    history: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, channels and correlations."""
        return len(self.time_s), len(self.frequencies_hz), len(self.correlations)


def described(visibilities: Visibilities) -> Description:
    """What goes with visibilities in memory."""
    names = Description.__dataclass_fields__
    return Description(**{name: getattr(visibilities, name) for name in names})


def create(
    folder: Path,
    description: Description,
    *,
    columns: Iterable[str] = ("DATA",),
    keywords: Mapping[str, str] | None = None,
    tile_channels: int | None = None,
) -> None:
    """Make a Measurement Set without visibilities, where there is no folder yet: zeros, nothing flagged, no weight.

    `tile_channels` is how many channels are written at once.
    """
    from casacore import tables

    rows, channels, correlations = description.shape
    layout = _Layout(rows, channels, correlations, min(channels, tile_channels or _WIDEST))
    required = tables.required_ms_desc("MAIN")
    for name in ("UVW", "FLAG", "WEIGHT", "SIGMA"):
        del required[name]
    own = [layout.column(name) for name in (*columns, "FLAG", "WEIGHT_SPECTRUM", "UVW", "WEIGHT", "SIGMA")]
    table_description = {**required, **tables.maketabdesc(own)}
    managers = {f"*{number}": manager for number, manager in enumerate(layout.managers(columns), 1)}
    main = tables.default_ms(os.fspath(folder), table_description, managers)
    try:
        main.addrows(rows)
        _fill_rows(main, description)
        _fill_tables(main, description)
        for name in columns:
            finish_column(main, name)
        for name, text in (keywords or {}).items():
            main.putkeyword(name, text)
        main.flush(recursive=True)
    finally:
        main.close()


def size(shape: tuple[int, int, int], columns: int = 1) -> int:
    """Bytes that a Measurement Set takes, about, with so many columns of visibilities."""
    rows, channels, correlations = shape
    return rows * (channels * correlations * (8 * columns + 5) + 8 * correlations + 200) + (8 << 20)


@dataclass(frozen=True, slots=True)
class _Layout:
    rows: int
    channels: int
    correlations: int
    tile_channels: int

    def column(self, name: str) -> Any:
        """The description of a column that lies in tiles."""
        from casacore import tables

        zero, kind, shape = self._kind(name)
        keywords: dict[str, Any] = {}
        if name == "UVW":
            keywords = {
                "QuantumUnits": np.array(["m", "m", "m"]),
                "MEASINFO": {"type": "uvw", "Ref": "J2000"},
            }
        elif name in DATA_COLUMNS:
            keywords = {"UNIT": "Jy"}
        return tables.makearrcoldesc(
            name,
            zero,
            ndim=len(shape),
            shape=shape,
            valuetype=kind,
            options=4,
            keywords=keywords,
            comment=_COMMENTS[name],
        )

    def manager(self, name: str) -> dict[str, Any]:
        """How the column lies in a file of its own."""
        _, kind, shape = self._kind(name)
        cells = [self.tile_channels, self.correlations] if len(shape) == 2 else shape
        size = {"complex": 8, "float": 4, "double": 8, "boolean": 1 / 8}[kind] * float(np.prod(cells))
        most = _TILE if kind != "boolean" else _TILE / 8  # as many rows as a tile of weights has, with bits for flags
        rows = 1 << int(np.log2(max(1.0, most / size)))
        rows = min(rows, 1 << (max(1, self.rows) - 1).bit_length())
        return {
            "TYPE": "TiledColumnStMan",
            "NAME": f"Tiled{name}",
            "COLUMNS": np.array([name]),
            "SPEC": {"DEFAULTTILESHAPE": np.array([*reversed(cells), rows], np.int32)},
        }

    def _kind(self, name: str) -> tuple[Any, str, list[int]]:
        spectrum = [self.channels, self.correlations]
        if name in DATA_COLUMNS:
            return 0j, "complex", spectrum
        return {
            "FLAG": (False, "boolean", spectrum),
            "WEIGHT_SPECTRUM": (0.0, "float", spectrum),
            "WEIGHT": (0.0, "float", [self.correlations]),
            "SIGMA": (0.0, "float", [self.correlations]),
            "UVW": (0.0, "double", [3]),
        }[name]

    def managers(self, columns: Iterable[str]) -> list[dict[str, Any]]:
        return [self.manager(name) for name in (*columns, "FLAG", "WEIGHT_SPECTRUM", "UVW", "WEIGHT", "SIGMA")]


_COMMENTS = {
    "DATA": "Visibilities as observed",
    "MODEL_DATA": "Visibilities of a model of the sky",
    "CORRECTED_DATA": "Visibilities with gains applied",
    "FLAG": "True where a visibility is not to be used",
    "WEIGHT_SPECTRUM": "1 / variance of the real part",
    "WEIGHT": "Mean over channels of WEIGHT_SPECTRUM",
    "SIGMA": "Standard deviation that goes with WEIGHT",
    "UVW": "Place of antenna 1 less that of antenna 2",
}


def beside(main: Any, name: str) -> str:
    """The path of a table that goes with an open Measurement Set.  Raises RuntimeError where there is none."""
    told: str = main.getkeyword(name)
    return told.removeprefix("Table: ")


def add_column(main: Any, name: str, channels: int, correlations: int) -> None:
    """Add a column of visibilities to an open table, zero everywhere."""
    from casacore import tables

    layout = _Layout(main.nrows(), channels, correlations, min(channels, _WIDEST))
    main.addcols(tables.maketabdesc([layout.column(name)]), layout.manager(name))
    finish_column(main, name)


def finish_column(main: Any, name: str) -> None:
    """Give a column the keyword that imagers of CASA look for."""
    if name != "MODEL_DATA":
        return
    from casacore import tables

    with tables.table(beside(main, "SPECTRAL_WINDOW"), ack=False) as windows:
        selection = [[0, int(number)] for number in windows.getcol("NUM_CHAN")]
    main.putcolkeyword(name, "CHANNEL_SELECTION", np.array(selection or [[0, 0]], np.int32))


def _fill_rows(main: Any, description: Description) -> None:
    rows = len(description.time_s)
    if not rows:
        return
    for name, values in {
        "ANTENNA1": description.antenna1.astype(np.int32),
        "ANTENNA2": description.antenna2.astype(np.int32),
        "TIME": description.time_s,
        "TIME_CENTROID": description.time_s,
        "INTERVAL": description.exposure_s,
        "EXPOSURE": description.exposure_s,
        "FIELD_ID": description.field.astype(np.int32),
        "SCAN_NUMBER": description.scan.astype(np.int32),
        "UVW": description.uvw_m,
    }.items():
        main.putcol(name, np.ascontiguousarray(values))
    for name in ("ARRAY_ID", "DATA_DESC_ID", "FEED1", "FEED2", "OBSERVATION_ID", "PROCESSOR_ID", "STATE_ID"):
        main.putcol(name, np.zeros(rows, np.int32))


def put_row_weights(main: Any, weights: NDArray[np.float32], is_flagged: NDArray[np.bool_], *, first: int = 0) -> None:
    """Fill what is told once a row, from a first one on: weights (row, correlation), whether all is flagged (row,)."""
    if not len(weights):
        return
    main.putcol("WEIGHT", weights, first, len(weights))
    with np.errstate(divide="ignore"):
        sigma = np.where(weights > 0, 1 / np.sqrt(weights), 0).astype(np.float32)
    main.putcol("SIGMA", sigma, first, len(weights))
    main.putcol("FLAG_ROW", is_flagged, first, len(weights))


# The tables beside the rows ----------------------------------------


def _fill_tables(main: Any, description: Description) -> None:
    array, centres = description.array, description.phase_centres
    receptors, products = _receptors(description.correlations)
    first, last = _span(description)
    telescope = _casa_name(array.telescope)
    antennas = len(array.names)
    _fill(main, "ANTENNA", antennas, {
        "NAME": list(array.names),
        "STATION": list(array.names),
        "TYPE": ["GROUND-BASED"] * antennas,
        "MOUNT": ["ALT-AZ"] * antennas,
        "POSITION": array.positions_m,
        "DISH_DIAMETER": np.full(antennas, array.dish_diameter_m),
    })  # fmt: skip
    _fill(main, "DATA_DESCRIPTION", 1, {})
    _fill(main, "FEED", antennas, {
        "ANTENNA_ID": np.arange(antennas, dtype=np.int32),
        "SPECTRAL_WINDOW_ID": np.full(antennas, -1, np.int32),
        "TIME": np.full(antennas, (first + last) / 2),
        "INTERVAL": np.zeros(antennas),
        "NUM_RECEPTORS": np.full(antennas, 2, np.int32),
        "BEAM_ID": np.full(antennas, -1, np.int32),
        "BEAM_OFFSET": np.zeros((antennas, 2, 2)),
        "POL_RESPONSE": np.tile(np.eye(2, dtype=np.complex64), (antennas, 1, 1)),
        "RECEPTOR_ANGLE": np.zeros((antennas, 2)),
        "POLARIZATION_TYPE": np.tile(np.array(receptors), (antennas, 1)),
    })  # fmt: skip
    directions = np.array([[[each.ra_rad, each.dec_rad]] for each in centres]).reshape(-1, 1, 2)
    fields = len(centres)
    _fill(main, "FIELD", fields, {
        "NAME": [each.name for each in centres],
        "TIME": np.full(fields, first),
        "SOURCE_ID": np.arange(fields, dtype=np.int32),
    } | dict.fromkeys(("DELAY_DIR", "PHASE_DIR", "REFERENCE_DIR"), directions), frame="ICRS")  # fmt: skip
    lines = [line for line in description.history if line]
    _fill(main, "HISTORY", len(lines), {
        "APPLICATION": ["absurd"] * len(lines),
        "MESSAGE": lines,
        "ORIGIN": ["absurd"] * len(lines),
        "PRIORITY": ["INFO"] * len(lines),
        "OBSERVATION_ID": np.zeros(len(lines), np.int32),
        "TIME": np.full(len(lines), first),
        "APP_PARAMS": np.full((len(lines), 1), ""),
        "CLI_COMMAND": np.full((len(lines), 1), ""),
    })  # fmt: skip
    _add_location(main)
    _fill(main, "OBSERVATION", 1, {
        "TELESCOPE_NAME": [telescope],
        "OBSERVER": [""],
        "PROJECT": [""],
        "SCHEDULE_TYPE": [""],
        "TIME_RANGE": np.array([[first, last]]),
        "TELESCOPE_LOCATION": array.position_m.reshape(1, 3),
    })  # fmt: skip
    _fill(main, "POLARIZATION", 1, {
        "NUM_CORR": np.array([len(description.correlations)], np.int32),
        "CORR_TYPE": np.array([[NUMBERS[each] for each in description.correlations]], np.int32),
        "CORR_PRODUCT": np.array([products], np.int32),
    })  # fmt: skip
    _fill(main, "PROCESSOR", 1, {"TYPE": ["CORRELATOR"]})
    widths = description.channel_width_hz.reshape(1, -1)
    _fill(main, "SPECTRAL_WINDOW", 1, {
        "NAME": ["all"],
        "NUM_CHAN": np.array([widths.size], np.int32),
        "CHAN_FREQ": description.frequencies_hz.reshape(1, -1),
        "CHAN_WIDTH": widths,
        "EFFECTIVE_BW": widths,
        "RESOLUTION": widths,
        "TOTAL_BANDWIDTH": np.array([widths.sum()]),
        "REF_FREQUENCY": description.frequencies_hz[:1],
        "MEAS_FREQ_REF": np.array([_TOPOCENTRIC], np.int32),
        "NET_SIDEBAND": np.ones(1, np.int32),
        "FREQ_GROUP_NAME": [""],
    })  # fmt: skip
    _fill(main, "STATE", 1, {"OBS_MODE": ["OBSERVE_TARGET#UNSPECIFIED"], "SIG": np.ones(1, np.bool_)})
    _add_sources(main, description, directions)


def _fill(main: Any, name: str, rows: int, columns: Mapping[str, Any], *, frame: str | None = None) -> None:
    from casacore import tables

    with tables.table(beside(main, name), ack=False, readonly=False) as table:
        _put(table, rows, columns, frame)


def _put(table: Any, rows: int, columns: Mapping[str, Any], frame: str | None) -> None:
    table.addrows(rows)
    for column, values in columns.items():
        if frame and column.endswith("_DIR"):
            known = table.getcolkeyword(column, "MEASINFO")
            table.putcolkeyword(column, "MEASINFO", {**known, "Ref": frame})
        if rows:
            table.putcol(column, values)


def _add_location(main: Any) -> None:
    """Where the array's centre is has no place in a Measurement Set; pyuvdata puts and finds it here."""
    from casacore import tables

    with tables.table(beside(main, "OBSERVATION"), ack=False, readonly=False) as table:
        column = tables.makearrcoldesc("TELESCOPE_LOCATION", 0.0, ndim=1, shape=[3], valuetype="double", options=4)
        table.addcols(tables.maketabdesc([column]))


def _add_sources(main: Any, description: Description, directions: Floats) -> None:
    from casacore import tables

    path = os.path.join(main.name(), "SOURCE")
    first, last = _span(description)
    sources = len(directions)
    with tables.default_ms_subtable("SOURCE", path) as table:
        _put(table, sources, {
            "SOURCE_ID": np.arange(sources, dtype=np.int32),
            "NAME": [each.name for each in description.phase_centres],
            "SPECTRAL_WINDOW_ID": np.full(sources, -1, np.int32),
            "TIME": np.full(sources, (first + last) / 2),
            "INTERVAL": np.full(sources, last - first),
            "CALIBRATION_GROUP": np.full(sources, -1, np.int32),
            "CODE": [""] * sources,
            "DIRECTION": directions[:, 0],
            "PROPER_MOTION": np.zeros((sources, 2)),
            "NUM_LINES": np.zeros(sources, np.int32),
        }, None)  # fmt: skip
        table.putcolkeyword("DIRECTION", "MEASINFO", {**table.getcolkeyword("DIRECTION", "MEASINFO"), "Ref": "ICRS"})
        table.flush()
    main.putkeyword("SOURCE", f"Table: {path}")


def _span(description: Description) -> tuple[float, float]:
    """When the first integration begins and the last one ends; zeros without rows."""
    if not len(description.time_s):
        return 0.0, 0.0
    half = description.exposure_s / 2
    return float((description.time_s - half).min()), float((description.time_s + half).max())


def _receptors(correlations: tuple[str, ...]) -> tuple[list[str], list[list[int]]]:
    """What the feeds receive, and which receptors each correlation is of."""
    letters = "RL" if set("".join(correlations)) <= set("RL") else "XY"
    if set("".join(correlations)) <= set("IQUV"):  # of no receptors; CASA wants numbers all the same
        return list(letters), [[0, 0]] * len(correlations)
    if unknown := set("".join(correlations)) - set(letters):
        raise DataError(f"correlations {', '.join(correlations)} mix feeds: {', '.join(sorted(unknown))}")
    return list(letters), [[letters.index(letter) for letter in each] for each in correlations]


def _casa_name(telescope: str) -> str:
    """The name under which CASA knows a telescope, for those that are known here."""
    for each in telescope_names():
        known = load_telescope(each)
        if telescope in {known.name, each}:
            return known.casa_name
    return telescope
