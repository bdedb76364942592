"""All types that the server's catalogue lists, with values at their edges: kept exactly, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import export_witness as witness
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from export_decoders import DECODERS, both
from export_types import VALUES, Table, Type, make_tables, make_types
from proof import amount

from absurd.tasks.export import UnfitValueError, export_query, splitting
from absurd.tasks.export.snapshot import connected
from absurd.testing import ThrowawayServer

ALIKE = {"text", "varchar", "bpchar", "name", "json", "jsonb", "uuid", "refcursor"}
"""Base types whose values are text in a file without being flagged: they are text, or have one text only."""


@dataclass(frozen=True, slots=True)
class Every:
    """A database with a column of each type."""

    url: str
    types: dict[int, Type]
    tables: list[Table]


@pytest.fixture(scope="module")
def every(databases: ThrowawayServer) -> Iterator[Every]:
    """Made once: nothing here writes to it."""
    with databases.database("template1") as url, psycopg.connect(url, autocommit=True) as connection:
        types = make_types(connection)
        yield Every(url, types, make_tables(connection, types))


@pytest.fixture
def opened(every: Every) -> Iterator[psycopg.Connection[Any]]:
    """A connection to it."""
    with connected(every.url) as connection:  # as exports make theirs: types of all kinds are read side by side
        yield connection


def test_each_type_has_values(every: Every) -> None:
    """Of every type that takes values there are some, so that what is shown here is shown of all."""
    lists = {each.short for each in every.types.values() if each.kind == "b" and not each.texts}

    assert not [each.name for each in every.types.values() if not each.texts and not each.takes_none]
    assert lists < {each.short for each in every.types.values() if each.takes_none}
    assert len(every.types) > 600
    assert {name for name in VALUES if name in lists} <= {"xml"}  # which a server may be built without


def test_kept_or_refused(every: Every, opened: psycopg.Connection[Any], tmp_path: Path) -> None:
    """Each value is in the file as the server has it, or it is one of those that its column's type has no place for.

    Those are NULL here and counted; both decoders write the same file.
    """
    wrong: list[Any] = []
    for table in every.tables:
        query = f"select {', '.join(table.columns)} from {table.name} order by k"
        result = both(opened, query, tmp_path / "x.parquet", on_unfit="null")
        read = pq.read_table(tmp_path / "x.parquet")
        assert read.num_rows == table.rows
        for told, (name, kind) in zip(result.columns, table.columns.items(), strict=True):
            nulled, different = witness.compare(opened, table.name, name, read[name])
            assert told.nulled == nulled
            wrong += [(kind, *each) for each in different]
    assert not wrong, "\n".join(map(str, wrong))


def test_as_text_where_something_does_not_fit(every: Every, opened: psycopg.Connection[Any], tmp_path: Path) -> None:
    """With on_unfit "text", no value is lost: columns in which one did not fit are the server's text, and say so."""
    for table in every.tables:
        names = list(table.columns)
        query = f"select {', '.join(names)} from {table.name} order by k"
        result = both(opened, query, tmp_path / "x.parquet", on_unfit="text")
        read = pq.read_table(tmp_path / "x.parquet")
        texts = witness.texts(opened, query)
        for told, name, expected in zip(result.columns, names, texts, strict=True):
            assert told.nulled == 0
            if told.kept_as_text:
                assert read[name].to_pylist() == expected, table.columns[name]
            else:
                assert witness.compare(opened, table.name, name, read[name]) == (0, []), table.columns[name]


def test_refused_with_column_and_row(every: Every, opened: psycopg.Connection[Any], tmp_path: Path) -> None:
    """Without more ado, what does not fit is an error that names its column and the first row; the rest is exported."""
    refused = 0
    for table in every.tables:
        fitting = []
        names = [name for name, kind in table.columns.items() if not kind.startswith("every.d")]
        export_query(opened, f"select {', '.join(['k', *names])} from {table.name} limit 0", tmp_path / "x.parquet")
        schema = pq.read_schema(tmp_path / "x.parquet")
        for name in names:
            query, kind = f"select {name} from {table.name} order by k", schema.field(name).type
            said = witness.said(opened, table.name, name, kind)
            first = next((row for row, value in enumerate(said, 1) if not witness.fits(value, kind)), None)
            if first is None:
                fitting.append(name)
                continue
            refused += 1
            for decoder in DECODERS:
                with pytest.raises(UnfitValueError) as caught:
                    export_query(opened, query, tmp_path / "x.parquet", decoder=decoder)
                assert caught.value.details["row"] == first, (kind, said[first - 1])
                assert str(caught.value).startswith(f"row {first} of column {name!r} holds ")
        query = f"select {', '.join(['k', *fitting])} from {table.name} order by k"
        assert both(opened, query, tmp_path / "x.parquet").rows == table.rows
    assert refused > 50


def test_what_is_text_says_so(every: Every, opened: psycopg.Connection[Any], tmp_path: Path) -> None:
    """Each text column of another type is flagged in the metadata of its field, and none that is not text."""
    for table in every.tables:
        export_query(opened, f"select {', '.join(table.columns)} from {table.name} limit 0", tmp_path / "x.parquet")
        for field in pq.read_schema(tmp_path / "x.parquet"):
            told = opened.execute(
                "with recursive b (oid, kind, short, base) as ("
                " select oid, typtype, typname, typbasetype from pg_type where oid = (select atttypid from pg_attribute"
                "  where attrelid = %s::regclass and attname = %s)"
                " union all select t.oid, typtype, typname, typbasetype from b join pg_type t on t.oid = b.base)"
                " select short::text, kind::text from b where kind <> 'd'",
                (table.name, field.name),
            ).fetchone()
            assert told is not None
            is_text = field.type == pa.string() and told[0] not in ALIKE and told[1] != "e"
            assert (field.metadata.get(b"absurd.kept_as") == b"text") == is_text, table.columns[field.name]


def test_the_same_file_in_any_way(
    every: Every, opened: psycopg.Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row in each block, rows of a group in pieces, many parts on four connections: the file is the same."""
    monkeypatch.setattr(splitting, "RANGE_PAGES", 1)
    ways = ({"connections": 1}, {"connections": 1, "block_size": 8}, {"connections": 4, "block_size": 10_000})
    split = 0
    tables = [*every.tables[:: amount(6, 1)], every.tables[-1]]
    for table in tables:
        query = f"select {', '.join(table.columns)} from {table.name}"
        result = both(opened, query, tmp_path / "x.parquet", ways=ways, on_unfit="null", row_group_size=3)
        split += result.connections > 1
    assert split > len(tables) // 2


def test_values_that_have_no_input(opened: psycopg.Connection[Any], tmp_path: Path) -> None:
    """Types that take no text have values in the catalogue itself, where extended statistics and defaults are."""
    query = (
        "select d.stxdndistinct as a, d.stxddependencies as b, d.stxdmcv as c, s.stxkeys as e, stxkind as f,"
        " stxexprs as g, d.stxdexpr as h from pg_statistic_ext s join pg_statistic_ext_data d on d.stxoid = s.oid"
    )
    opened.execute("drop table if exists public.t")
    opened.execute(
        "create table public.t as select n % 3 as a, n % 5 as b, 'x' || n % 2 as c from generate_series(1, 999) n"
    )
    opened.execute("create statistics public.s on a, b, (a + b) from public.t")
    opened.execute("analyze public.t")
    for each in (
        query,
        "select most_common_vals as v, histogram_bounds as w from pg_stats order by tablename, attname",
        "select ev_action from pg_rewrite order by oid limit 20",
        "select c as whole, relacl from pg_class c order by oid",
        "select inet_out('::1') as c, row(1, 'a,b') as r, null as n, pg_notify('a', '') as nothing",
    ):
        both(opened, each, tmp_path / "x.parquet")
        read = pq.read_table(tmp_path / "x.parquet")
        for column, expected in zip(read.columns, witness.texts(opened, each), strict=True):
            if column.type == pa.string():
                assert column.to_pylist() == expected
