"""Measurement Sets: read into memory, and written whole or not at all.

casacore is not made for threads: one thread of a process at a time.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.errors import DataError
from absurd.tasks.visibility.measurement_set_blocks import Reader, Writer, blocks
from absurd.tasks.visibility.measurement_set_files import new_measurement_set
from absurd.tasks.visibility.measurement_set_rows import open_table
from absurd.tasks.visibility.measurement_set_tables import Description, create, described, size
from absurd.tasks.visibility.visibilities import Visibilities


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
        reader = Reader(main, told, spectral_window=spectral_window, column=column, fields=fields)
        return reader.read(slice(0, reader.shape[0]))


@contextmanager
def writing(
    path: str | os.PathLike[str],
    description: Description,
    *,
    columns: Collection[str] = ("DATA",),
    keywords: Mapping[str, str] | None = None,
) -> Iterator[Writer]:
    """A Measurement Set to be filled by blocks of rows, which is there when the block ends.

    It is whole or absent, as by `fill_aside`: written beside, read back and compared, flushed to the disk, put in place
    of what stood there.  Raises StageError where it cannot be written or what is read back is not what was written,
    OSError.
    """
    with new_measurement_set(path, size(description.shape, len(columns))) as folder:
        create(folder, description, columns=columns, keywords=keywords)
        with open_table(folder, readonly=False) as main:
            writer = Writer(main)
            yield writer
            main.flush(recursive=True)
        writer.compare(folder)


def write_measurement_set(
    visibilities: Visibilities,
    path: str | os.PathLike[str],
    *,
    model: NDArray[np.complex64] | None = None,
    corrected: NDArray[np.complex64] | None = None,
    keywords: Mapping[str, str] | None = None,
) -> None:
    """Write visibilities, with those of a model and corrected ones if given (of the same shape), as a Measurement Set.

    It is whole or absent, see `writing`.  Raises DataError for values that do not fit together, and what that raises.
    """
    columns = {"DATA": visibilities.data}
    for name, values in (("MODEL_DATA", model), ("CORRECTED_DATA", corrected)):
        if values is not None:
            if values.shape != visibilities.data.shape:
                raise DataError(f"{name} has shape {values.shape}, and {visibilities.data.shape} goes with the data")
            columns[name] = values
    with writing(path, described(visibilities), columns=columns, keywords=keywords) as writer:
        for rows in blocks(visibilities.data.shape):
            some = {name: values[rows] for name, values in columns.items()}
            writer.put_rows(rows, some, visibilities.flags[rows], visibilities.weights[rows])
