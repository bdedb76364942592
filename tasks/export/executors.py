"""``export.query``: the export on the queue."""

from __future__ import annotations

import os
from contextlib import closing
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from absurd.context import RunContext
from absurd.executor import executor

for module in ("numpy", "pyarrow"):
    if find_spec(module) is None:  # not registered then: a worker that has it will serve the tasks
        raise ImportError(f"{module} is missing, install absurd[export]", name=module)


class ExportParams(BaseModel):
    """What to export, and where to."""

    model_config = ConfigDict(extra="forbid")

    sql: str = Field(min_length=1, description="The query: one SELECT, VALUES or TABLE, with or without a semicolon.")
    out: str = Field(
        min_length=1, description="Parquet file to write; a relative path starts in the worker's working folder."
    )
    row_group_size: int = Field(
        default=1_000_000, ge=1, description="Rows in a row group; fewer where 128 MiB are reached first."
    )
    compression: Literal["zstd", "snappy", "gzip", "brotli", "lz4", "none"] = Field(
        default="zstd", description="Compression of the file's pages."
    )
    database: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Service to export from, as pg_service.conf on the worker's machine names it; without it the "
        "queue's own database.  Addresses and passwords belong there, not here.",
    )


@executor("export.query", runs_in="process")
def export(ctx: RunContext, params: ExportParams) -> dict[str, Any]:
    """Export a query to a Parquet file, exactly, from one snapshot of the database.

    The result tells the file's path, rows, bytes and row groups, each column with its types, and the snapshot.
    """
    from absurd.config import load_settings
    from absurd.database_sync import connect
    from absurd.resolve import resolve_database
    from absurd.tasks.export.query import export_query

    def told(rows: int, size: int) -> None:
        ctx.progress(rows, None, f"{rows:,} row{'' if rows == 1 else 's'}, {size / 1e6:,.1f} MB")

    path = ctx.artifact(params.out, kind="parquet")
    url = resolve_database(load_settings()) if params.database is None else f"service={params.database}"
    with closing(connect(url)) as connection:
        result = export_query(
            connection,
            params.sql,
            path,
            row_group_size=params.row_group_size,
            compression=params.compression,
            progress=told,
            private=True,
        )
    ctx.log.info("query_exported", rows=result.rows, bytes=result.bytes, row_groups=result.row_groups)
    return {
        "path": os.path.abspath(params.out),
        "rows": result.rows,
        "bytes": result.bytes,
        "row_groups": result.row_groups,
        "columns": [
            {
                "name": column.name,
                "postgres_type": column.postgres_type,
                "arrow_type": column.arrow_type,
                "kept_as_text": column.kept_as_text,
            }
            for column in result.columns
        ],
        "snapshot": result.snapshot.snapshot,
        "snapshot_at": result.snapshot.taken_at,
        "server_version": result.snapshot.server_version,
    }
