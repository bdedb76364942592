"""The measurements of a night, as the database has them, in one Parquet file."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from absurd.tasks.photometry.rows import write_table

_DAY = timedelta(days=1)


def span_of_night(night: date, begins: float) -> tuple[datetime, datetime]:
    """Beginning and end of the night that begins on a day, so many hours of UTC after midnight."""
    start = datetime.combine(night, time(), UTC) + timedelta(hours=begins)
    return start, start + _DAY


def last_night(now: datetime, begins: float) -> date:
    """The day on which the last night began that has ended."""
    return (now - timedelta(hours=begins) - _DAY).astimezone(UTC).date()


def name_of_night(folder: str, night: date) -> str:
    """The path of a night's file."""
    return os.path.join(folder, f"photometry-{night.isoformat()}.parquet")


def write_night(
    database: str,
    schema: str,
    span: tuple[datetime, datetime],
    path: str,
    scratch: Path,
    progress: Callable[[int, int], None] = lambda rows, size: None,
) -> Any:
    """Write all measurements observed in a span of time, and give them as an Arrow table.

    They come from one snapshot, ordered by time, image and source.  The file tells the span and nothing of when it was
    written, so that the same rows give the same bits.  `path` is a private one, as ``ctx.artifact`` gives; `scratch` is
    a folder.  Raises as `export_query`.
    """
    import pyarrow.parquet as pq

    from absurd.tasks.export.query import export_query

    since, until = (each.isoformat() for each in span)
    query = f"select * from {schema}.get_photometry('{since}', '{until}')"
    exported = scratch / "night.parquet"
    export_query(database, query, exported, progress=progress, connections=1, manifest=False)
    table = pq.read_table(exported)
    exported.unlink()
    table = table.replace_schema_metadata({"absurd.since": since, "absurd.until": until})
    write_table(table, path, private=True)
    return table
