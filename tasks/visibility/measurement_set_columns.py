"""Columns of a Measurement Set, replaced or added, and flags: all that is asked for at once, or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.errors import DataError, StageError, ValidationError
from absurd.tasks.visibility.measurement_set_blocks import blocks, row_weights
from absurd.tasks.visibility.measurement_set_files import twin
from absurd.tasks.visibility.measurement_set_rows import Selection, open_table, select
from absurd.tasks.visibility.measurement_set_tables import DATA_COLUMNS, add_column

_WEIGHTS = "WEIGHT_SPECTRUM"
_ADDED = (*DATA_COLUMNS[1:], _WEIGHTS)
"""What is added where it is not there."""


def put_column(
    path: str | os.PathLike[str],
    column: str,
    values: NDArray[Any],
    *,
    spectral_window: int | None = None,
    fields: Sequence[int | str] | None = None,
) -> None:
    """As `put_columns`, of one."""
    put_columns(path, {column: values}, spectral_window=spectral_window, fields=fields)


def put_columns(
    path: str | os.PathLike[str],
    columns: Mapping[str, NDArray[Any]],
    *,
    spectral_window: int | None = None,
    fields: Sequence[int | str] | None = None,
) -> None:
    """Put values into columns of a Measurement Set: all of them, or none when the process is killed meanwhile.

    Rows and channels are those that `read_measurement_set` gives for the same spectral window and fields; other rows
    stay.  MODEL_DATA, CORRECTED_DATA and WEIGHT_SPECTRUM are added where they are not there, 0 in other rows; with the
    last go WEIGHT and SIGMA.  Flags are put by `put_flags`.

    Raises DataError for values of another shape, ValidationError for columns that are not to be put, StageError,
    OSError.
    """
    told = os.fspath(path)
    if unknown := [name for name in columns if name not in {*DATA_COLUMNS, _WEIGHTS}]:
        known = ", ".join((*DATA_COLUMNS, _WEIGHTS))
        raise ValidationError(f"column {unknown[0]} is not put; {known} are", path=told)
    with open_table(told) as main:
        selection = _fitting(main, told, spectral_window, fields, columns)
    is_whole = selection.rows is None
    with changing(told, columns, whole=is_whole) as main:
        selection = _fitting(main, told, spectral_window, fields, columns)
        if is_whole and selection.rows is not None:
            raise StageError(f"{told} was replaced meanwhile", path=told)
        for name, values in columns.items():
            _put(main, selection, name, values)
        if _WEIGHTS in columns:
            _put_row_weights(main, selection, columns[_WEIGHTS])


def put_flags(
    path: str | os.PathLike[str],
    flags: NDArray[np.bool_],
    *,
    spectral_window: int | None = None,
    fields: Sequence[int | str] | None = None,
) -> int:
    """Flag what is not flagged yet, and give how many visibilities that are; nothing is unflagged.

    Rows and channels as in `put_columns`.  FLAG_ROW becomes true where all of a row is flagged.
    """
    told = os.fspath(path)
    with changing(told, ("FLAG", "FLAG_ROW"), whole=False) as main:
        selection = select(main, told, spectral_window, fields)
        chosen = selection.chosen(main)
        if not chosen.nrows():
            return 0
        before = selection.get(main, "FLAG")
        if flags.shape != before.shape:
            raise DataError(f"flags have shape {flags.shape}, and {before.shape} is that of the rows", path=told)
        row_flags = chosen.getcol("FLAG_ROW")
        before |= row_flags[:, None, None]
        after = before | flags
        selection.put(main, "FLAG", after)
        chosen.putcol("FLAG_ROW", np.logical_or(row_flags, after.all(axis=(1, 2))))
        return int(np.count_nonzero(after)) - int(np.count_nonzero(before))


@contextmanager
def changing(path: str | os.PathLike[str], columns: Collection[str], *, whole: bool = False) -> Iterator[Any]:
    """An open table of casacore in which columns may be changed, and no others; it takes its place when the block ends.

    MODEL_DATA, CORRECTED_DATA and WEIGHT_SPECTRUM are added where they are not there.  With `whole`, each of these
    columns is written from its first row to its last, and what was in it need not be copied: it is 0 at first.

    When the block raises, or the process is killed, the Measurement Set is what it was.  Another change of the same one
    waits until this one ends, so none may be made within the block.  Raises ValidationError for a
    column that there is not, StageError, OSError.
    """
    told = os.fspath(path)
    change = _Change(told, columns, whole=whole)
    with twin(told, change.plan) as folder, open_table(folder, readonly=False) as main:
        change.begin(main)
        yield main
        main.flush(recursive=True)


class _Change:
    """Which columns are written anew, which are changed in a copy of their files, and which files stay as they are."""

    def __init__(self, path: str, columns: Collection[str], *, whole: bool) -> None:
        self._path, self._columns, self._whole = path, set(columns), whole
        self._removed: list[str] = []
        self._added: list[str] = []
        self._cells = 0, 0
        self._copied: set[str] = set()

    def plan(self) -> tuple[Callable[[str], bool], int]:
        """See `twin`."""
        with open_table(self._path) as main:
            managers, known, rows = main.getdminfo().values(), main.colnames(), main.nrows()
            if rows and "DATA" in known:
                _, firsts = np.unique(main.getcol("DATA_DESC_ID"), return_index=True)
                shapes = {tuple(main.getcell("DATA", row).shape) for row in firsts}
                self._cells = main.getcell("DATA", 0).shape
                if len(shapes) > 1 and not self._columns <= {*known}:
                    raise ValidationError(
                        f"{self._path} has spectral windows of several shapes: {', '.join(map(str, sorted(shapes)))}",
                        advice="split it by spectral windows before columns are added",
                    )
        if missing := self._columns - {*known, *_ADDED}:
            raise ValidationError(f"{self._path} has no column {min(missing)}; it has {', '.join(known)}")
        for each in managers:
            here = set(each["COLUMNS"])
            if not here & self._columns:
                continue
            if not os.path.exists(os.path.join(self._path, f"table.f{each['SEQNR']}")):
                raise ValidationError(f"{self._path} refers to another table", advice="change that one")
            if self._whole and len(here) == 1 and here <= set(_ADDED) and each["TYPE"].startswith("Tiled"):
                self._removed += here
            else:
                self._copied.add(f"table.f{each['SEQNR']}_TSM")
        self._added = sorted({*self._removed, *(self._columns - {*known})})
        return self._is_shared, rows * self._cells[0] * self._cells[1] * 8 * len(self._added)

    def _is_shared(self, name: str) -> bool:
        return "_TSM" in name and name.rstrip("0123456789") not in self._copied

    def begin(self, main: Any) -> None:
        """Make the columns that are written anew."""
        if self._removed:
            main.removecols(self._removed)
        for name in self._added:
            add_column(main, name, *self._cells)


def _fitting(
    main: Any,
    path: str,
    spectral_window: int | None,
    fields: Sequence[int | str] | None,
    columns: Mapping[str, NDArray[Any]],
) -> Selection:
    """The rows that are asked for.  Raises DataError for values that are not of their shape."""
    selection = select(main, path, spectral_window, fields)
    shape = selection.chosen(main).nrows(), len(selection.frequencies_hz), len(selection.correlations)
    for name, values in columns.items():
        if values.shape != shape:
            raise DataError(f"{name} has shape {values.shape}, and {shape} is that of the rows", path=path)
    return selection


def _put(main: Any, selection: Selection, name: str, values: NDArray[Any]) -> None:
    for rows in blocks(values.shape):
        selection.put(main, name, values[rows], rows.start)


def _put_row_weights(main: Any, selection: Selection, weights: NDArray[np.float32]) -> None:
    flags = selection.get(main, "FLAG")
    mean, _ = row_weights(flags, weights)
    chosen = selection.chosen(main)
    chosen.putcol("WEIGHT", mean)
    with np.errstate(divide="ignore"):
        chosen.putcol("SIGMA", np.where(mean > 0, 1 / np.sqrt(mean), 0).astype(np.float32))
