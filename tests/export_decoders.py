"""Exports by both decoders, whose files must be the same byte for byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from absurd.tasks.export import ExportResult, export_query
from absurd.tasks.export.compiled import library

DECODERS: tuple[Any, ...] = ("compiled", "numpy") if library() else ("numpy",)


def both(
    connection: psycopg.Connection[Any],
    query: str,
    path: Path,
    *,
    ways: Sequence[Mapping[str, Any]] = ({},),
    **options: Any,
) -> ExportResult:
    """Export with the compiled decoder and with numpy's, from one snapshot: the files are equal byte for byte.

    So they are for all `ways` to read, each of which is more options.
    """
    found: set[bytes] = set()
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        for way in ways:
            for decoder in DECODERS:
                result = export_query(connection, query, path, decoder=decoder, **options, **way)
                found.add(path.read_bytes())
    assert len(found) == 1
    return result
