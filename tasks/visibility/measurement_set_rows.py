"""Which rows and channels of a Measurement Set are meant, and what it tells of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.errors import DataError, PipelineError, StageError, ValidationError
from absurd.tasks.said import first_line
from absurd.tasks.visibility.correlations import CASA, named
from absurd.tasks.visibility.directions import to_icrs
from absurd.tasks.visibility.measurement_set_tables import beside
from absurd.tasks.visibility.visibilities import Array, PhaseCentre, unique_names

_DAY_S = 86_400.0


@contextmanager
def open_table(path: str | os.PathLike[str], *, readonly: bool = True) -> Iterator[Any]:
    """A casacore table, closed when the block ends.

    Nobody is waited for: to read needs no lock.  Raises DataError for what is no table, and for what casacore raises in
    the block; StageError for that where it is opened to be written.
    """
    from casacore import tables

    told = os.fspath(path)
    if not os.path.exists(told):
        raise DataError(f"{told} is not there", path=told)
    if not tables.tableexists(told):
        raise DataError(f"{told} is no Measurement Set", path=told)
    try:
        with tables.table(told, readonly=readonly, ack=False, lockoptions="autonoread") as table:
            yield table
    except PipelineError:
        raise
    except RuntimeError as error:
        kind, what = (DataError, "read") if readonly else (StageError, "written")
        raise kind(f"{told} cannot be {what}: {first_line(error)}", path=told) from error


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows of one spectral window of a Measurement Set, by the order in which they lie there."""

    rows: NDArray[np.int64] | None
    """None for all that there are."""
    spectral_window: int
    frequencies_hz: NDArray[np.float64]
    """(channel,), ascending."""
    channel_width_hz: NDArray[np.float64]
    channel_order: NDArray[np.intp] | None
    """Where in the Measurement Set a channel stands; None for as they are."""
    correlations: tuple[str, ...]

    def get(self, table: Any, column: str) -> NDArray[Any]:
        """The values of a column, by rows; channels ascend where it has channels."""
        values: NDArray[Any] = self.chosen(table).getcol(column)
        if self.channel_order is None or values.ndim != 3:
            return values
        return np.ascontiguousarray(values[:, self.channel_order])

    def put(self, table: Any, column: str, values: NDArray[Any], first: int = 0) -> None:
        """The way back of `get`, of as many rows as there are values, from `first` on."""
        if self.channel_order is not None and values.ndim == 3:
            values = values[:, np.argsort(self.channel_order)]
        self.chosen(table).putcol(column, np.ascontiguousarray(values), first, len(values))

    def chosen(self, table: Any) -> Any:
        """The table with these rows only."""
        return table if self.rows is None else table.selectrows(self.rows)


def select(main: Any, path: str, spectral_window: int | None, fields: Sequence[int | str] | None) -> Selection:
    """The rows that are asked for; without a spectral window of the only one that has rows.

    Raises DataError where there is none or more than one, ValidationError for what is not in the Measurement Set.
    """
    of_row = main.getcol("DATA_DESC_ID") if main.nrows() else np.zeros(0, np.int32)
    with open_table(beside(main, "DATA_DESCRIPTION")) as table:
        windows, polarizations = table.getcol("SPECTRAL_WINDOW_ID"), table.getcol("POLARIZATION_ID")
    used = [int(each) for each in np.unique(of_row)]
    if any(not 0 <= each < len(windows) for each in used):
        raise DataError(f"{path}: rows have descriptions that are not there", path=path)
    if not used and len(windows) == 1:
        used = [0]
    wanted = [each for each in used if spectral_window in {None, int(windows[each])}]
    with open_table(beside(main, "SPECTRAL_WINDOW")) as table:
        if len(wanted) != 1:
            raise _not_one(table, path, [int(windows[each]) for each in used], spectral_window, wanted)
        window = int(windows[wanted[0]])
        frequencies = np.array(table.getcell("CHAN_FREQ", window), np.float64)
        widths = np.abs(np.array(table.getcell("CHAN_WIDTH", window), np.float64))
    with open_table(beside(main, "POLARIZATION")) as table:
        correlations = named(table.getcell("CORR_TYPE", int(polarizations[wanted[0]])), CASA, path)
    order = np.argsort(frequencies, kind="stable")
    mine = of_row == wanted[0]
    if fields is not None:
        mine &= np.isin(main.getcol("FIELD_ID"), _numbers(main, path, fields))
    is_ascending = bool(np.all(order == np.arange(len(order))))
    return Selection(
        rows=None if mine.all() else np.flatnonzero(mine),
        spectral_window=window,
        frequencies_hz=frequencies[order],
        channel_width_hz=widths[order],
        channel_order=None if is_ascending else order,
        correlations=correlations,
    )


def _not_one(table: Any, path: str, used: list[int], asked: int | None, wanted: list[int]) -> PipelineError:
    told = ", ".join(
        f"{each} ({table.getcell('NUM_CHAN', each)} channels "
        f"from {table.getcell('CHAN_FREQ', each).min() / 1e9:.6g} GHz)"
        for each in sorted(set(used))
    )
    if not used:
        return DataError(f"{path} has no rows", path=path)
    if asked is not None and not wanted:
        return ValidationError(f"{path} has no rows of spectral window {asked}; it has {told}", path=path)
    if asked is not None or len(set(used)) == 1:
        return DataError(f"{path}: rows of spectral window {told} have several sets of correlations", path=path)
    return DataError(f"{path} has several spectral windows: {told}", advice="name one (spectral_window)", path=path)


def _numbers(main: Any, path: str, fields: Sequence[int | str]) -> list[int]:
    with open_table(beside(main, "FIELD")) as table:
        names = list(table.getcol("NAME")) if table.nrows() else []
    numbers: list[int] = []
    for each in fields:
        found = [number for number, name in enumerate(names) if each in {number, name}]
        if not found:
            raise ValidationError(f"{path} has no field {each!r}; it has {', '.join(names) or 'none'}", path=path)
        numbers += found
    return numbers


# What the tables beside the rows tell ----------------------------------------


def read_array(main: Any, path: str) -> Array:
    """The antennas.  The array's centre is where the file tells it, else in the middle of them."""
    with open_table(beside(main, "ANTENNA")) as table:
        if not table.nrows():
            raise DataError(f"{path} has no antennas", path=path)
        names, positions, diameters = (table.getcol(each) for each in ("NAME", "POSITION", "DISH_DIAMETER"))
        frame = table.getcolkeyword("POSITION", "MEASINFO").get("Ref", "ITRF")
    if frame not in {"ITRF", "ITRS"}:
        raise DataError(f"{path}: antennas stand in frame {frame}, and not in ITRF", path=path)
    telescope, centre = "", None
    with open_table(beside(main, "OBSERVATION")) as table:
        if table.nrows():
            telescope = table.getcell("TELESCOPE_NAME", 0)
            if "TELESCOPE_LOCATION" in table.colnames() and table.iscelldefined("TELESCOPE_LOCATION", 0):
                centre = np.ravel(table.getcell("TELESCOPE_LOCATION", 0))
    stand = np.any(positions != 0, axis=1)  # some programs fill gaps between numbers with antennas that are nowhere
    if centre is None:
        centre = positions[stand].mean(axis=0) if stand.any() else np.zeros(3)
    measured = diameters[diameters > 0]
    return Array(
        telescope=telescope,
        names=unique_names(names),
        positions_m=positions,
        dish_diameter_m=float(np.median(measured)) if len(measured) else 0.0,
        position_m=np.asarray(centre, np.float64),
    )


def read_phase_centres(main: Any) -> tuple[PhaseCentre, ...]:
    """Of the fields, by their numbers.  Raises DataError for frames that move with the Earth."""
    with open_table(beside(main, "FIELD")) as table:
        info = table.getcolkeyword("PHASE_DIR", "MEASINFO")
        frames = [info.get("Ref", "J2000")] * table.nrows()
        if (variable := info.get("VarRefCol")) and variable in table.colnames():
            names = dict(zip(map(int, info["TabRefCodes"]), info["TabRefTypes"], strict=True))
            frames = [names[int(code)] for code in np.ravel(table.getcol(variable))]
        centres = []
        for number, frame in enumerate(frames):
            longitude, latitude = np.atleast_2d(table.getcell("PHASE_DIR", number))[0]
            direction = to_icrs(float(longitude), float(latitude), frame)
            centres.append(PhaseCentre(table.getcell("NAME", number), *direction))
    return tuple(centres)


def read_times(main: Any, selection: Selection, path: str) -> NDArray[np.float64]:
    """TIME, the middle of the interval, as seconds of UTC since MJD 0.  Raises DataError for scales but UTC and TAI."""
    times: NDArray[np.float64] = selection.get(main, "TIME")
    keywords = main.getcolkeywords("TIME")
    if np.ravel(keywords.get("QuantumUnits", ["s"]))[0] == "d":
        times = times * _DAY_S
    scale = keywords.get("MEASINFO", {}).get("Ref", "UTC")
    if scale == "UTC":
        return times
    if scale != "TAI":
        raise DataError(f"{path}: times are in {scale}", advice="those in UTC and TAI are read", path=path)
    import erfa

    seconds = times
    for _ in range(2):  # the table of leap seconds goes by UTC
        year, month, day, fraction = erfa.jd2cal(2_400_000.5, seconds / _DAY_S)
        seconds = times - erfa.dat(year, month, day, fraction)
    return seconds


def read_history(main: Any) -> tuple[str, ...]:
    """What was done, a line each."""
    if "HISTORY" not in main.getkeywords():
        return ()
    with open_table(beside(main, "HISTORY")) as table:
        return tuple(table.getcol("MESSAGE")) if table.nrows() else ()
