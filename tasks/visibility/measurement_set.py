"""Measurement Sets: read into memory, and written whole or not at all.

casacore is not made for threads: one thread of a process at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.errors import DataError, StageError, ValidationError
from absurd.tasks.visibility.measurement_set_files import new_measurement_set
from absurd.tasks.visibility.measurement_set_rows import (
    Selection,
    open_table,
    read_array,
    read_history,
    read_phase_centres,
    read_times,
    select,
)
from absurd.tasks.visibility.measurement_set_tables import create, described, put_row_weights, size
from absurd.tasks.visibility.visibilities import Visibilities

_BLOCK = 8 << 20
"""Bytes of visibilities that are written at once."""
_NUMBERS = {"antenna1": "ANTENNA1", "antenna2": "ANTENNA2", "field": "FIELD_ID", "scan": "SCAN_NUMBER"}


def read_measurement_set(
    path: str | os.PathLike[str],
    *,
    spectral_window: int | None = None,
    column: str = "DATA",
    fields: Sequence[int | str] | None = None,
) -> Visibilities:
    """All visibilities of a spectral window, or those of some fields (by number or name), by ascending frequency.

    Rows come in the order in which they lie.  Without `spectral_window` there must be one only.  Flags are those of
    FLAG and FLAG_ROW; weights those of WEIGHT_SPECTRUM, else of WEIGHT.  Directions of other frames are given as ICRS.

    Raises DataError with the reason for what cannot be read, ValidationError for a column or field that there is not.
    """
    told = os.fspath(path)
    with open_table(told) as main:
        if column not in main.colnames():
            known = ", ".join(each for each in main.colnames() if each.endswith("DATA"))
            raise ValidationError(f"{told} has no column {column}; it has {known}", path=told)
        selection = select(main, told, spectral_window, fields)
        chosen = selection.chosen(main)
        rows = chosen.nrows()
        shape = rows, len(selection.frequencies_hz), len(selection.correlations)
        data = _spectra(main, selection, column, shape, told)
        if not np.iscomplexobj(data):
            raise ValidationError(f"{told}: column {column} holds no visibilities", path=told)
        flags = _spectra(main, selection, "FLAG", shape, told)
        if rows:
            flags[chosen.getcol("FLAG_ROW")] = True
        numbers: dict[str, Any] = {
            name: selection.get(main, column) if rows else np.zeros(0, np.int32) for name, column in _NUMBERS.items()
        }
        return Visibilities(
            data=data.astype(np.complex64, copy=False),
            flags=flags,
            weights=_weights(main, selection, shape, told),
            uvw_m=selection.get(main, "UVW") if rows else np.zeros((0, 3)),
            exposure_s=selection.get(main, "EXPOSURE") if rows else np.zeros(0),
            time_s=read_times(main, selection, told) if rows else np.zeros(0),
            frequencies_hz=selection.frequencies_hz,
            channel_width_hz=selection.channel_width_hz,
            correlations=selection.correlations,
            array=read_array(main, told),
            phase_centres=read_phase_centres(main),
            history=read_history(main),
            **numbers,
        )


def _spectra(main: Any, selection: Selection, column: str, shape: tuple[int, int, int], path: str) -> NDArray[Any]:
    """A column of (channel, correlation); DataError where it is not filled or cells differ in shape."""
    if not shape[0]:
        return np.zeros(shape, np.bool_ if column == "FLAG" else np.complex64)
    try:
        values = selection.get_spectra(main, column, shape)
    except RuntimeError as error:
        raise DataError(
            f"{path}: rows of column {column} have no values, or not all of shape {shape[1:]}", path=path
        ) from error
    if values.shape != shape:
        raise DataError(f"{path}: {column} has shape {values.shape}, and {shape} goes with the tables", path=path)
    return values


def _weights(main: Any, selection: Selection, shape: tuple[int, int, int], path: str) -> NDArray[np.float32]:
    if not shape[0]:
        return np.zeros(shape, np.float32)
    chosen = selection.chosen(main)
    if "WEIGHT_SPECTRUM" in main.colnames() and chosen.iscelldefined("WEIGHT_SPECTRUM", 0):
        weights = _spectra(main, selection, "WEIGHT_SPECTRUM", shape, path).astype(np.float32, copy=False)
        if not np.isfinite(weights.sum(dtype=np.float64)):
            np.nan_to_num(weights, copy=False, posinf=0, neginf=0)
        return weights
    weights = np.nan_to_num(chosen.getcol("WEIGHT").astype(np.float32, copy=False))
    if weights.shape != (shape[0], shape[2]):
        raise DataError(f"{path}: WEIGHT has shape {weights.shape}, and {(shape[0], shape[2])} is wanted", path=path)
    return np.broadcast_to(weights[:, None, :], shape)


def write_measurement_set(
    visibilities: Visibilities,
    path: str | os.PathLike[str],
    *,
    model: NDArray[np.complex64] | None = None,
    corrected: NDArray[np.complex64] | None = None,
    keywords: Mapping[str, str] | None = None,
) -> None:
    """Write visibilities, with those of a model and corrected ones if given (of the same shape), as a Measurement Set.

    It is whole or absent, as by `fill_aside`: written beside, read back and compared, flushed to the disk, put in place
    of what stood there.  Raises DataError for values that do not fit together, StageError where it cannot be written
    or what is read back is not what was written, OSError.
    """
    columns = {"DATA": visibilities.data}
    for name, values in (("MODEL_DATA", model), ("CORRECTED_DATA", corrected)):
        if values is not None:
            if values.shape != visibilities.data.shape:
                raise DataError(f"{name} has shape {values.shape}, and {visibilities.data.shape} goes with the data")
            columns[name] = values
    with new_measurement_set(path, size(visibilities.data.shape, len(columns))) as folder:
        create(folder, described(visibilities), columns=columns, keywords=keywords)
        everything: dict[str, NDArray[Any]] = {
            **{name: values.astype(np.complex64, copy=False) for name, values in columns.items()},
            "FLAG": visibilities.flags,
            "WEIGHT_SPECTRUM": visibilities.weights.astype(np.float32, copy=False),
        }
        with open_table(folder, readonly=False) as main:
            for name, column in everything.items():
                for rows in blocks(column.shape):
                    main.putcol(name, np.ascontiguousarray(column[rows]), rows.start, rows.stop - rows.start)
            put_row_weights(main, *row_weights(visibilities.flags, visibilities.weights))
            main.flush(recursive=True)
        _compare(folder, everything)


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


def blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows that are written or read at once: all of them, in order."""
    rows, channels, correlations = shape
    step = max(1, _BLOCK // (8 * max(1, channels * correlations)))
    step = 1 << (step.bit_length() - 1)  # whole tiles, whose rows are a power of 2 too
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def _compare(folder: Path, everything: Mapping[str, NDArray[Any]]) -> None:
    """Read back what was written: a full disk is not always told of when it happens."""
    with open_table(folder) as main:
        for name, values in everything.items():
            for rows in blocks(values.shape):
                wanted = np.ascontiguousarray(values[rows])
                found = np.empty_like(wanted)
                main.getcolnp(name, found, rows.start, len(found))
                if not np.array_equal(found.view(np.uint8), wanted.view(np.uint8)):  # as bytes: some are no numbers
                    raise StageError(f"{folder}: {name} of rows {rows.start}-{rows.stop} is not what was written")
