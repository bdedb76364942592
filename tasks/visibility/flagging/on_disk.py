"""Flagging of a Measurement Set in place: a block of baselines in memory, each state a version of its record."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.folder import clear_aside
from absurd.tasks.radio.errors import DataError, StateManagementError
from absurd.tasks.visibility.convert import missing_channels
from absurd.tasks.visibility.flag_record import FlagRecord, Version
from absurd.tasks.visibility.flagging.aoflagger import check
from absurd.tasks.visibility.flagging.flagger import BYTES_AT_ONCE, BYTES_OF_VISIBILITY, flag_recording
from absurd.tasks.visibility.flagging.recording import with_input
from absurd.tasks.visibility.flagging.sorted_file import Sorted
from absurd.tasks.visibility.flagging.strategy import Strategy
from absurd.tasks.visibility.flagging.waterfalls import Waterfalls, waterfalls
from absurd.tasks.visibility.flags import Reason, Reasons, histogram, tally
from absurd.tasks.visibility.measurement_set_columns import changing
from absurd.tasks.visibility.measurement_set_rows import open_table, read_array, read_phase_centres, read_times, select
from absurd.tasks.visibility.visibilities import Visibilities

COLUMNS = ("FLAG", "FLAG_ROW")
CHUNK_BYTES = 4 << 20
"""Of reasons: what is compressed at once."""
Told = Callable[[int, int], None]


def _silent(done: int, total: int) -> None: ...


class OnDisk:
    """The rows of one spectral window of an open Measurement Set; see `Recording`."""

    def __init__(self, main: Any, path: str, spectral_window: int | None) -> None:
        self._main, self._path = main, path
        self._selection = select(main, path, spectral_window, None)
        self.window = self._selection.spectral_window
        mine = self._selection.rows
        self._rows = np.arange(main.nrows()) if mine is None else mine
        self.channels = len(self._selection.frequencies_hz)
        self.correlation_names = self._selection.correlations
        self.correlations = len(self.correlation_names)
        self.array = read_array(main, path)
        self.antennas = self.array.names
        self.antenna1, self.antenna2, self.scan = (
            self._all(name).astype(np.int32) for name in ("ANTENNA1", "ANTENNA2", "SCAN_NUMBER")
        )
        self.exposure_s = self._all("EXPOSURE").astype(np.float64)
        self.time_s = read_times(main, self._selection, path) if len(self._rows) else np.zeros(0)
        self._sorted: tuple[NDArray[np.int64], Sorted, Sorted] | None = None
        self.earlier: tuple[FlagRecord, int, NDArray[np.int64]] | None = None
        """The record, the version that tells the reasons of flags, and at which place of it each row is."""

    def order(self) -> Waterfalls:
        return waterfalls(self.antenna1, self.antenna2, self.scan, self.time_s, self.exposure_s)

    def sort_into(self, folder: Path, order: Waterfalls, bytes_at_once: int) -> None:
        """Copy data and flags to files in the order in which they are looked at; `read` takes them from there.

        Rows lie by time, and in tiles of many: to take some baselines out of each time is to read nearly all, again
        for each block of them.  Raises OSError.
        """
        place = _places(order.rows)
        shape = (self.channels, self.correlations)
        sorted_data, sorted_flags = (
            Sorted(folder / "data", np.complex64, shape),
            Sorted(folder / "flags", np.bool_, shape),
        )
        for first, last in _stretches(self, bytes_at_once):
            rows = np.arange(first, last)
            data, flags = self.read(rows)
            sorted_data.write(place[rows], data)
            sorted_flags.write(place[rows], flags)
        self._sorted = (place, sorted_data, sorted_flags)

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        if self._sorted is not None:
            place, data, flags = self._sorted
            return data.read(place[rows]), flags.read(place[rows])
        return self._some("DATA", rows).astype(np.complex64, copy=False), self.flags(rows)

    def flags(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Of some rows, in that order."""
        flags: NDArray[np.bool_] = self._some("FLAG", rows) | self._some("FLAG_ROW", rows)[:, None, None]
        return flags

    def reasons_of_input(self, flags: NDArray[np.bool_]) -> Reasons:
        """Reasons of flags, (row, channel, correlation), of which there is no record."""
        missing = np.zeros((self.channels, 1), np.uint16)
        for channels in missing_channels(self._main):
            missing[channels] = int(Reason.MISSING)
        return with_input(np.where(flags, missing, np.uint16(0)), flags)

    def known(self, rows: NDArray[np.int64]) -> Reasons:
        if self.earlier is None:
            return np.zeros((len(rows), self.channels, self.correlations), np.uint16)
        record, number, place = self.earlier
        at = place[rows]
        first, last = int(at.min()), int(at.max()) + 1  # the same sorting made it, so this is the block
        known: Reasons = record.places(self.window, number, first, last)[at - first]
        return known

    def put(self, rows: NDArray[np.int64], flags: NDArray[np.bool_]) -> None:
        """Write the flags of some rows."""
        order = np.argsort(rows, kind="stable")
        chosen = replace(self._selection, rows=self._rows[rows[order]])
        chosen.put(self._main, "FLAG", flags[order])
        chosen.put(self._main, "FLAG_ROW", np.asarray(flags[order].all(axis=(1, 2))))

    def visibilities(self, rows: NDArray[np.int64]) -> Visibilities:
        data, flags = self.read(rows)
        return Visibilities(
            data=data,
            flags=flags,
            weights=np.broadcast_to(np.float32(1), data.shape),
            uvw_m=self._some("UVW", rows),
            time_s=self.time_s[rows],
            exposure_s=self.exposure_s[rows],
            antenna1=self.antenna1[rows],
            antenna2=self.antenna2[rows],
            field=self._some("FIELD_ID", rows),
            scan=self.scan[rows],
            frequencies_hz=self._selection.frequencies_hz,
            channel_width_hz=self._selection.channel_width_hz,
            correlations=self.correlation_names,
            array=self.array,
            phase_centres=read_phase_centres(self._main),
        )

    def _all(self, column: str) -> NDArray[Any]:
        return self._selection.get(self._main, column) if len(self._rows) else np.zeros(0)

    def _some(self, column: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Of some rows, in that order; they are read in the order in which they lie."""
        order = np.argsort(rows, kind="stable")
        try:
            found = replace(self._selection, rows=self._rows[rows[order]]).get(self._main, column)
        except RuntimeError as error:
            raise DataError(f"{self._path}: rows of column {column} have no values, or not all of one shape") from error
        back = np.empty_like(found)
        back[order] = found
        return back


@dataclass(frozen=True, slots=True)
class Done:
    """What a change of flags came to."""

    version: Version
    resumed: bool = False
    """Whether an earlier attempt of the same task had made the version."""


def flag_measurement_set(
    path: str | os.PathLike[str],
    strategy: Strategy,
    *,
    spectral_window: int | None = None,
    key: str | None = None,
    bytes_at_once: int = BYTES_AT_ONCE,
    scratch: Path | None = None,
    told: Told = _silent,
) -> Done:
    """Flag a Measurement Set in place, and keep the reasons as a new version of its record, both in one step.

    A second call with the same `key` gives what the first has done.  A kill at any moment leaves what there was.  Who
    changes the set meanwhile waits.  What is more than `bytes_at_once` is sorted into files in a new folder in
    `scratch`, or beside the set, that need as much room as its data and flags.

    Raises DataError for what cannot be read or has no rows, StageError.
    """
    if strategy.aoflagger is not None:
        check(strategy.aoflagger)
    if (same := _done_before(path, spectral_window, key)) is not None:
        return same
    with changing(path, COLUMNS) as main:
        recording, record = OnDisk(main, os.fspath(path), spectral_window), FlagRecord(main.name())
        window = recording.window
        if (same := _made_by(record, window, key)) is not None:
            return same
        order = recording.order()
        if not len(order.rows):
            raise DataError(f"{os.fspath(path)} has no rows")
        newest = _newest(record, recording, bytes_at_once)
        recording.earlier = (record, newest, _places(record.rows(window, newest)))
        with record.new_version(window, newest + 1, order.rows, _shape(recording), _chunk(recording)) as made:
            with _sorted(recording, order, scratch or Path(path).absolute().parent, bytes_at_once):
                report = flag_recording(recording, order, strategy, made, bytes_at_once=bytes_at_once, told=told)
            version = made.describe("visibility.flag", strategy.told(), report.told(recording.correlation_names), key)
        _show(record, recording, newest + 1, bytes_at_once)
    return Done(version)


def restore_flags(
    path: str | os.PathLike[str],
    number: int,
    *,
    spectral_window: int | None = None,
    key: str | None = None,
    bytes_at_once: int = BYTES_AT_ONCE,
) -> Done:
    """Give a Measurement Set the flags of an earlier version: that is a new version, and none is lost.

    Flags that others have set since the newest version are kept as a version before that.  Raises DataError for a
    version that there is not.
    """
    if (same := _done_before(path, spectral_window, key)) is not None:
        return same
    with changing(path, COLUMNS) as main:
        recording, record = OnDisk(main, os.fspath(path), spectral_window), FlagRecord(main.name())
        window = recording.window
        if (same := _made_by(record, window, key)) is not None:
            return same
        rows = record.rows(window, number)
        newest = _keep_others(record, recording, _newest(record, recording, bytes_at_once), bytes_at_once)
        combinations = np.zeros(1 << 16, np.int64)
        with record.new_version(window, newest + 1, rows, _shape(recording), _chunk(recording)) as made:
            for first, last in _stretches(recording, bytes_at_once):
                reasons = record.places(window, number, first, last)
                combinations += histogram(reasons)
                made.write(first, reasons)
            version = made.describe("restore", {"version": number}, _told(combinations), key)
        _show(record, recording, newest + 1, bytes_at_once)
    return Done(version)


@contextmanager
def _sorted(recording: OnDisk, order: Waterfalls, folder: Path, bytes_at_once: int) -> Iterator[None]:
    """Have a recording that is more than one block sorted while the block goes on."""
    if len(list(_stretches(recording, bytes_at_once))) < 2:
        yield
        return
    with TemporaryDirectory(prefix=".flagging-", dir=folder) as made:
        recording.sort_into(Path(made), order, bytes_at_once)
        yield


def _done_before(path: str | os.PathLike[str], spectral_window: int | None, key: str | None) -> Done | None:
    """What an earlier attempt has done, if it has; the set is not copied for that, and nobody waited for."""
    if key is None:
        return None
    with open_table(path) as main:
        window = select(main, os.fspath(path), spectral_window, None).spectral_window
    if (same := _made_by(FlagRecord(path), window, key)) is not None:
        clear_aside(path)
    return same


def _made_by(record: FlagRecord, window: int, key: str | None) -> Done | None:
    """The version that a task has made, if it has; to be asked again where nobody else can be making it."""
    versions = record.versions(window) if key is not None else []
    return next((Done(each, resumed=True) for each in versions if each.key == key), None)


def _check_same(record: FlagRecord, recording: OnDisk, number: int) -> None:
    """Raise StateManagementError where rows or channels are others than those that the record is about."""
    found = record.shape(recording.window, number)
    expected = (len(recording.time_s), *_shape(recording))
    if found != expected:
        raise StateManagementError(
            f"the record of flags is about visibilities of shape {found}, and there are {expected} now",
            advice=f"remove {record.folder} if its reasons are not needed",
        )


def _newest(record: FlagRecord, recording: OnDisk, bytes_at_once: int) -> int:
    """The number of the newest version; if there is none, make one of the flags as they are."""
    if versions := record.versions(recording.window):
        _check_same(record, recording, versions[-1].number)
        return versions[-1].number
    order = recording.order()
    combinations = np.zeros(1 << 16, np.int64)
    with record.new_version(recording.window, 0, order.rows, _shape(recording), _chunk(recording)) as made:
        for first, last in _stretches(recording, bytes_at_once):
            reasons = recording.reasons_of_input(recording.flags(order.rows[first:last]))
            combinations += histogram(reasons)
            made.write(first, reasons)
        made.describe("input", {}, _told(combinations), None)
    return 0


def _keep_others(record: FlagRecord, recording: OnDisk, newest: int, bytes_at_once: int) -> int:
    """Make a version of the flags as they are if others have changed them; the number of the newest one."""
    rows = record.rows(recording.window, newest)

    def now(first: int, last: int) -> tuple[Reasons, NDArray[np.bool_]]:
        return record.places(recording.window, newest, first, last), recording.flags(rows[first:last])

    stretches = list(_stretches(recording, bytes_at_once))
    if all(np.array_equal(reasons != 0, flags) for reasons, flags in (now(*each) for each in stretches)):
        return newest
    combinations = np.zeros(1 << 16, np.int64)
    with record.new_version(recording.window, newest + 1, rows, _shape(recording), _chunk(recording)) as made:
        for first, last in stretches:
            reasons, flags = now(first, last)
            reasons = np.where(flags, with_input(reasons, flags), np.uint16(0))
            combinations += histogram(reasons)
            made.write(first, reasons)
        made.describe("input", {}, _told(combinations), None)
    return newest + 1


def _show(record: FlagRecord, recording: OnDisk, number: int, bytes_at_once: int) -> None:
    """Make the column FLAG that of a version."""
    rows = record.rows(recording.window, number)
    for first, last in _stretches(recording, bytes_at_once):
        recording.put(rows[first:last], record.places(recording.window, number, first, last) != 0)


def _stretches(recording: OnDisk, bytes_at_once: int) -> Iterator[tuple[int, int]]:
    """Places that are in memory together."""
    several = max(1, bytes_at_once // (recording.channels * recording.correlations * BYTES_OF_VISIBILITY))
    for first in range(0, len(recording.time_s), several):
        yield first, min(first + several, len(recording.time_s))


def _shape(recording: OnDisk) -> tuple[int, int]:
    return recording.channels, recording.correlations


def _chunk(recording: OnDisk) -> int:
    """Rows of a chunk of reasons."""
    return max(1, CHUNK_BYTES // (2 * recording.channels * recording.correlations))


def _places(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(row,): the place of each row."""
    place = np.empty_like(rows)
    place[rows] = np.arange(len(rows))
    return place


def _told(combinations: NDArray[np.int64]) -> dict[str, Any]:
    total = int(combinations.sum())
    flagged = total - int(combinations[0])
    return {"visibilities": total, "flagged": flagged, "by_reason": tally(combinations)}
