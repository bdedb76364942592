"""Rows of a catalogue as a file, in bounded memory, with the units of their columns."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
from pyarrow import parquet

from absurd.tasks.artifact import write_aside
from absurd.tasks.cutout.catalogs.columns import as_plain, to_astropy
from absurd.tasks.cutout.catalogs.fits_table import write_fits_table
from absurd.tasks.cutout.catalogs.rows import Rows, for_astropy, rows_of
from absurd.tasks.cutout.errors import DataIdValidationError

ROWS_AT_ONCE = 65536


def write_catalog(rows: Any, path: str | os.PathLike[str]) -> int:
    """Write `Rows`, or a `pyarrow.Table`, whole or not at all; gives the number of rows.

    The suffix of `path` tells the form: ``.parquet``, ``.arrow`` (Arrow's file format), ``.fits`` (a binary table),
    ``.ecsv`` or ``.csv``.  All but CSV keep units.  In memory are 65,536 rows, or a part of the catalogue where that is
    larger.  Raises OSError, DataIdValidationError for another suffix or a column that the form has no place for, and
    what the catalogue raises while it is read.
    """
    final = Path(path)
    write = form_of(final)
    catalog = rows if isinstance(rows, Rows) else rows_of(rows)
    counted = 0

    def tables() -> Iterator[Any]:
        nonlocal counted
        for table in catalog.gathered(ROWS_AT_ONCE):
            counted += table.num_rows
            yield table

    with write_aside(final) as part:
        write(tables(), catalog.schema, part)
    return counted


def form_of(path: Path) -> Callable[[Iterator[Any], Any, Path], None]:
    """What writes tables of a schema to a file with this suffix.  Raises DataIdValidationError."""
    forms = {
        ".parquet": _write_parquet,
        ".arrow": _write_arrow,
        ".fits": write_fits_table,
        ".ecsv": _write_ecsv,
        ".csv": _write_csv,
    }
    if path.suffix not in forms:
        raise DataIdValidationError(f"the name {path.name!r} tells no form; it must end in {', '.join(forms)}")
    return forms[path.suffix]


def _write_parquet(tables: Iterator[Any], schema: Any, path: Path) -> None:
    with parquet.ParquetWriter(path, for_astropy(schema), compression="zstd") as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(writer.schema.metadata))


def _write_arrow(tables: Iterator[Any], schema: Any, path: Path) -> None:
    told = for_astropy(schema)
    with pa.ipc.new_file(path, told, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(told.metadata))


def _write_csv(tables: Iterator[Any], schema: Any, path: Path) -> None:
    plain = as_plain(schema.empty_table(), "CSV", lists=False).schema
    with pyarrow.csv.CSVWriter(path, plain) as writer:
        for table in tables:
            writer.write_table(as_plain(table, "CSV", lists=False))


def _write_ecsv(tables: Iterator[Any], schema: Any, path: Path) -> None:
    header = _ecsv(schema.empty_table())
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(header)
        for table in tables:
            file.writelines(_ecsv(table)[len(header) :])


def _ecsv(table: Any) -> list[str]:
    """The lines of a table; as many as an empty one has are the header, which tells of no row."""
    text = io.StringIO(newline="")
    to_astropy(as_plain(table, "ECSV")).write(text, format="ascii.ecsv", delimiter=",")
    return text.getvalue().splitlines(keepends=True)
