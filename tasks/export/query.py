"""One query to one Parquet file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absurd.tasks.artifact import write_aside
from absurd.tasks.export import reader
from absurd.tasks.export.arrow_types import Column
from absurd.tasks.export.errors import ExportConfigError
from absurd.tasks.export.row_group import COMPRESSIONS, DEFAULT_ROW_GROUP_SIZE, RowGroupWriter

if TYPE_CHECKING:
    from psycopg import Connection

Progress = Callable[[int, int], None]
"""Called with the rows read and the bytes they take in memory, after each batch."""


@dataclass(frozen=True, slots=True)
class ExportedColumn:
    """A column of the file."""

    name: str
    postgres_type: str
    arrow_type: str
    kept_as_text: bool
    """Whether it holds the server's text, since Arrow has no exact counterpart of the type."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was written."""

    rows: int
    bytes: int
    """Size of the file."""
    row_groups: int
    columns: tuple[ExportedColumn, ...]
    snapshot: reader.Snapshot


def export_query(
    database: str | Connection[Any],
    query: str,
    path: str | os.PathLike[str],
    *,
    row_group_size: int = DEFAULT_ROW_GROUP_SIZE,
    compression: str = "zstd",
    progress: Progress | None = None,
    private: bool = False,
) -> ExportResult:
    """Write the rows of `query` to a Parquet file at `path`, exactly.

    `database` is a libpq URL or DSN, or an open psycopg connection, whose transaction is used if it is in one.
    Columns and rows come from one snapshot, in the order of the query.  An empty result gives a file with columns
    and no rows.  The file appears under its name when it is whole; memory is bounded by one row group, that is
    by `row_group_size` rows and 128 MiB, whichever is met first.  A `private` path, as ``ctx.artifact`` gives, is
    written as it is.

    Types are kept as `absurd.tasks.export.arrow_types` tells; those without an exact counterpart (interval,
    numeric without a precision, ranges, ...) as the server's text, which the field's metadata say.  NULL, the empty
    string and the text ``NULL`` stay apart; NaN and infinite floats stay what they are.  Text is kept as stored,
    so character(n) with its blanks.

    Raises
    ------
    ExportQueryError
        PostgreSQL refuses the query, it is not one query, or two of its columns have one name.
    ExportConfigError
        `row_group_size` is below 1, or `compression` is unknown.
    UnfitValueError
        A value does not fit: infinite or BC dates and times, 24:00:00, NaN in a numeric with a precision, an
        array of several dimensions.  Column and row are named.
    ExportFailedError
        The query ended with an error of its own.
    DatabaseUnavailableError
        The server cannot be reached or went away; the same call may work later.
    OSError
        The file cannot be written.
    """
    if row_group_size < 1:
        raise ExportConfigError(f"row_group_size is {row_group_size}; it must be at least 1 row")
    if compression not in COMPRESSIONS:
        raise ExportConfigError(f"compression is {compression!r}; it must be one of {', '.join(COMPRESSIONS)}")
    with reader.connected(database) as connection, reader.one_snapshot(connection) as snapshot:
        columns = reader.describe(connection, query)
        with (
            write_aside(path, private=private) as part,
            RowGroupWriter(part, columns, row_group_size=row_group_size, compression=compression) as writer,
        ):
            size = 0
            with closing(reader.read(connection, query, columns, writer.room())) as batches:
                for batch in batches:
                    writer.add(batch)
                    size += batch.nbytes
                    if progress is not None:
                        progress(writer.rows, size)
            writer.finish(_metadata(query, columns, snapshot, writer.rows))
    return ExportResult(
        rows=writer.rows,
        bytes=Path(path).stat().st_size,
        row_groups=writer.row_groups,
        columns=tuple(
            ExportedColumn(column.name, column.postgres_type, str(column.arrow), column.kept_as_text)
            for column in columns
        ),
        snapshot=snapshot,
    )


def _metadata(query: str, columns: Sequence[Column], snapshot: reader.Snapshot, rows: int) -> dict[str, str]:
    """What the file tells of its origin; no address and no user of the database."""
    return {
        "absurd.query": query,
        "absurd.rows": str(rows),
        "absurd.columns": json.dumps({column.name: column.postgres_type for column in columns}, ensure_ascii=False),
        "absurd.snapshot": snapshot.snapshot,
        "absurd.snapshot_at": snapshot.taken_at,
        "absurd.server_version": snapshot.server_version,
        "absurd.version": version("absurd"),
    }
