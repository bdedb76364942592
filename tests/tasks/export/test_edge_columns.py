"""The columns of edge values over which other exporters were compared: what the documentation says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import export_witness as witness
import psycopg
import pyarrow.parquet as pq
import pytest
from house import ROOT

from absurd.tasks.export import UnfitValueError, export_query

REFUSED = {"ts", "tz", "d", "tm", "i2d", "ilb", "tsa", "tsfar", "nan38", "nana"}
"""Columns with a value that their type in Arrow has no place for."""


def test_none_is_changed(connection: psycopg.Connection[Any], tmp_path: Path) -> None:
    """Of 43 columns 33 are kept as the server has them and 10 refused by name; with on_unfit "text" all are kept."""
    statements = (ROOT / "tests" / "edge_columns.sql").read_text()
    try:
        connection.execute("select '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:  # a server may be built without: its text is what is kept anyway
        statements = statements.replace(" x xml,", " x text,")
    connection.execute(statements)
    listed = connection.execute(
        "select attname::text from pg_attribute where attrelid = 'public.edge'::regclass and attnum > 1"
    )
    names = [name for (name,) in listed]
    assert (len(names), len(REFUSED)) == (43, 10)
    out = tmp_path / "x.parquet"
    for name in names:
        query = f"select {name} from public.edge order by k"
        if name in REFUSED:
            with pytest.raises(UnfitValueError, match=f"of column {name!r} holds "):
                export_query(connection, query, out)
        else:
            export_query(connection, query, out)
            assert witness.compare(connection, "public.edge", name, pq.read_table(out)[name]) == (0, []), name
        (told,) = export_query(connection, query, out, on_unfit="text").columns
        found = pq.read_table(out)[name]
        if told.kept_as_text:
            assert found.to_pylist() == witness.texts(connection, query)[0], name
        else:
            assert witness.compare(connection, "public.edge", name, found) == (0, []), name
