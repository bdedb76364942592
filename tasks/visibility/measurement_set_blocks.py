"""Rows of a Measurement Set with a block of them in memory: read, written, and compared with what was written.

Of all rows only what is told once a row is in memory: 64 bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.errors import DataError, StageError, ValidationError
from absurd.tasks.visibility.measurement_set_rows import (
    open_table,
    read_array,
    read_history,
    read_phase_centres,
    read_times,
    select,
)
from absurd.tasks.visibility.measurement_set_tables import Description, put_row_weights
from absurd.tasks.visibility.visibilities import Visibilities

BLOCK_BYTES = 16 << 20
"""Of visibilities that are in memory together."""
_AT_ONCE = 2048
"""Rows that are read in one call."""
_NUMBERS = {"antenna1": "ANTENNA1", "antenna2": "ANTENNA2", "field": "FIELD_ID", "scan": "SCAN_NUMBER"}
_OF_ROWS = ("uvw_m", "time_s", "exposure_s", *_NUMBERS)
_KINDS: dict[str, type[np.generic]] = {
    "boolean": np.bool_,
    "float": np.float32,
    "double": np.float64,
    "complex": np.complex64,
    "dcomplex": np.complex128,
}
"""What casacore calls them."""


def blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows that are in memory together, of (row, channel, correlation): all of them, in order."""
    rows, channels, correlations = shape
    step = max(1, BLOCK_BYTES // (8 * max(1, channels * correlations)))
    step = 1 << (step.bit_length() - 1)  # whole tiles, whose rows are a power of 2 too
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


class Reader:
    """The rows of one spectral window of an open Measurement Set; see `read_measurement_set`."""

    def __init__(
        self,
        main: Any,
        path: str,
        *,
        spectral_window: int | None = None,
        column: str = "DATA",
        fields: Sequence[int | str] | None = None,
    ) -> None:
        if column not in main.colnames():
            known = ", ".join(each for each in main.colnames() if each.endswith("DATA"))
            raise ValidationError(f"{path} has no column {column}; it has {known}", path=path)
        self._main, self._path, self._column = main, path, column
        self.selection = selection = select(main, path, spectral_window, fields)
        self._chosen = selection.chosen(main)
        rows = self._chosen.nrows()
        numbers: dict[str, Any] = {
            name: selection.get(main, column) if rows else np.zeros(0, np.int32) for name, column in _NUMBERS.items()
        }
        self.description = Description(
            array=read_array(main, path),
            phase_centres=read_phase_centres(main),
            frequencies_hz=selection.frequencies_hz,
            channel_width_hz=selection.channel_width_hz,
            correlations=selection.correlations,
            uvw_m=selection.get(main, "UVW") if rows else np.zeros((0, 3)),
            exposure_s=selection.get(main, "EXPOSURE") if rows else np.zeros(0),
            time_s=read_times(main, selection, path) if rows else np.zeros(0),
            history=read_history(main),
            **numbers,
        )
        self._has_spectrum = bool(
            rows and "WEIGHT_SPECTRUM" in main.colnames() and self._chosen.iscelldefined("WEIGHT_SPECTRUM", 0)
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, channels and correlations."""
        return self.description.shape

    def read(self, rows: slice) -> Visibilities:
        """Some rows.  Raises DataError for what cannot be read, ValidationError where these are no visibilities."""
        told = self.description
        data = self._spectra(self._column, rows)
        if not np.iscomplexobj(data):
            raise ValidationError(f"{self._path}: column {self._column} holds no visibilities", path=self._path)
        flags = self._spectra("FLAG", rows)
        if len(flags):
            flags[self._chosen.getcol("FLAG_ROW", rows.start, len(flags))] = True
        return Visibilities(
            data=data.astype(np.complex64, copy=False),
            flags=flags,
            weights=self._weights(rows),
            **{name: getattr(told, name)[rows] for name in _OF_ROWS},
            **{name: getattr(told, name) for name in Description.__dataclass_fields__ if name not in _OF_ROWS},
        )

    def _spectra(self, column: str, rows: slice) -> NDArray[Any]:
        """Of (channel, correlation), channels ascending; DataError where it is not filled or cells differ in shape."""
        shape = rows.stop - rows.start, *self.shape[1:]
        if not shape[0]:
            return np.zeros(shape, np.bool_ if column == "FLAG" else np.complex64)
        try:
            values = self._get(column, rows, shape)
        except RuntimeError as error:
            raise DataError(
                f"{self._path}: rows of column {column} have no values, or not all of shape {shape[1:]}",
                path=self._path,
            ) from error
        if values.shape != shape:
            raise DataError(
                f"{self._path}: {column} has shape {values.shape}, and {shape} goes with the tables", path=self._path
            )
        order = self.selection.channel_order
        return values if order is None else np.ascontiguousarray(values[:, order])

    def _get(self, column: str, rows: slice, shape: tuple[int, ...]) -> NDArray[Any]:
        """A few rows in each call, since casacore fills a whole column three times more slowly."""
        kind = _KINDS.get(self._main.getcoldesc(column)["valueType"])
        values: NDArray[Any]
        if kind is None:
            values = self._chosen.getcol(column, rows.start, shape[0])
            return values
        values = np.empty(shape, kind)
        for start in range(0, shape[0], _AT_ONCE):
            some = values[start : start + _AT_ONCE]
            self._chosen.getcolnp(column, some, rows.start + start, len(some))
        return values

    def _weights(self, rows: slice) -> NDArray[np.float32]:
        shape = rows.stop - rows.start, *self.shape[1:]
        if not shape[0]:
            return np.zeros(shape, np.float32)
        if self._has_spectrum:
            weights = self._spectra("WEIGHT_SPECTRUM", rows).astype(np.float32, copy=False)
            if not np.isfinite(weights.sum(dtype=np.float64)):
                np.nan_to_num(weights, copy=False, posinf=0, neginf=0)
            return weights
        weights = np.nan_to_num(self._chosen.getcol("WEIGHT", rows.start, shape[0]).astype(np.float32, copy=False))
        if weights.shape != (shape[0], shape[2]):
            raise DataError(
                f"{self._path}: WEIGHT has shape {weights.shape}, and {(shape[0], shape[2])} is wanted", path=self._path
            )
        return np.broadcast_to(weights[:, None, :], shape)


class Writer:
    """Puts values into an open Measurement Set, and compares what is read back with them."""

    def __init__(self, main: Any) -> None:
        self._main = main
        self._sums: dict[tuple[str, int, int, int, int], int] = {}

    def put_rows(
        self,
        rows: slice,
        columns: Mapping[str, NDArray[Any]],
        flags: NDArray[np.bool_],
        weights: NDArray[np.float32],
    ) -> None:
        """Visibilities of some rows by column, (row, channel, correlation), with their flags and weights."""
        for name, values in columns.items():
            self.put(name, rows, values.astype(np.complex64, copy=False))
        self.put("FLAG", rows, flags)
        self.put("WEIGHT_SPECTRUM", rows, weights.astype(np.float32, copy=False))
        put_row_weights(self._main, *row_weights(flags, weights), first=rows.start)

    def put(self, column: str, rows: slice, values: NDArray[Any], channels: slice | None = None) -> None:
        """Values of some rows and channels, or all channels: (row, channel, correlation)."""
        channels = slice(0, values.shape[1]) if channels is None else channels
        first, last = [channels.start, 0], [channels.stop - 1, values.shape[2] - 1]
        values = np.ascontiguousarray(values)
        self._main.putcolslice(column, values, first, last, [], rows.start, len(values))
        self._sums[column, rows.start, rows.stop, channels.start, channels.stop] = zlib.crc32(values.data)

    def compare(self, folder: Path) -> None:
        """Read all of it back: a full disk is not always told of when it happens.

        Raises StageError where it is something else.
        """
        with open_table(folder) as main:
            for (column, begin, end, low, high), expected in self._sums.items():
                correlations = main.getcell(column, begin).shape[1]
                values = main.getcolslice(column, [low, 0], [high - 1, correlations - 1], [], begin, end - begin)
                if zlib.crc32(values.data) != expected:
                    raise StageError(
                        f"{folder}: {column} of rows {begin} to {end} and channels {low} to {high} is not what was "
                        "written"
                    )


def row_weights(
    flags: NDArray[np.bool_], weights: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Weights (row, correlation), means over channels that are not flagged or 0; and (row,) whether all are flagged."""
    from absurd.tasks.visibility.loops import add_weights

    rows, _, correlations = flags.shape
    sums, counts = np.zeros((rows, correlations), np.float64), np.zeros((rows, correlations), np.int64)
    for some in blocks(flags.shape):
        each = np.ascontiguousarray(flags[some]), np.ascontiguousarray(weights[some], np.float32)
        add_weights(*each, sums[some], counts[some])
    is_flagged: NDArray[np.bool_] = np.all(counts == 0, axis=1)
    return (sums / np.maximum(counts, 1)).astype(np.float32), is_flagged
