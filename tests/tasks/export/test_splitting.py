"""Queries that are read in parts: the same rows in the same order as in one piece, whatever the query is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

from absurd.tasks.export import export_query, splitting

Connection = psycopg.Connection[Any]

MADE = (
    'create table t (a int, b text, c bool, k char(4), "D 1" int8)',
    "insert into t select n, md5(n::text), n % 3 = 0, n % 100, -n from generate_series(1, 6000) n",
    "create view plain as select b, a from t",
    "create view barred with (security_barrier) as select a, b from t where a % 2 = 0",
    "create view over as select a, b || 'y' as b from only t where a < 5000 or b > 'c'",
    "create view summed as select c, count(*) as n from t group by c",
    "create table p (a int, b text, c int8) partition by range (a)",
    "create table p2 (c int8, b text, x int, a int)",  # other columns, in another order
    "alter table p2 drop column x",
    "create table p1 partition of p for values from (0) to (3000)",
    "alter table p attach partition p2 for values from (3000) to (5000)",
    "create table p3 partition of p for values from (5000) to (9000) partition by list (c)",
    "create table p3a partition of p3 for values in (1)",
    "create table p3b partition of p3 default",
    "create table p4 partition of p default",
    "insert into p select n, md5(n::text), n % 2 from generate_series(1, 8000) n",
    "create table child (d int) inherits (t)",
    "insert into child select n, 'child', null, 'x', n, 7 from generate_series(1, 3000) n",
    "analyze",
)  # fmt: skip

SPLIT = (
    "select * from only t",
    "select a, b from only t where a > 100",
    "select a from only t where a < 100 or b > 'd'",
    "select a from only t where c",
    "select a from only t where not c or c is null",
    "select k, a::numeric(10, 2) / 3 as x, b || 'y' as y, 5 as five, 'z' as z, null as n, \"D 1\" from only t",
    "select k from only t where k = '7' or k = '8'",
    "select x.a from (select a, b from only t where c or a > 5) x where x.a % 7 = 0",
    "with x as (select a, b from only t) select * from x where a > 10 or b like 'a%'",
    "table p",
    "select c, a from p where a % 2 = 0 or b < '8'",
    "select a + c as s, upper(b) as u from p where a > 2500",
    "select x.b from (select * from p where c = 1) x",
    "select * from t",
    "select a, b from only t union all select a, b from p",
    "select tableoid::regclass::text as source, a from p",
)
"""Queries that the server reads by scans of tables and nothing else."""

VIEWS = ("table plain", "select * from barred", "select b, a from over")

WHOLE = (
    "select a from only t order by b",
    "select a from only t limit 5000",
    "select c, count(*) as n from only t group by c",
    "table summed",
    "select distinct b from only t",
    "select a, row_number() over () as r from only t",
    "select x.a from only t x join only t y using (a)",
    "select a, (select max(a) from p) as m from only t",
    "select a from p order by a",
    "select generate_series(1, 2) as g, a from only t",
    "select a from only t where a in (select c from p)",
    "select a from only t tablesample system (50) repeatable (1)",
    "select a from only t union select a from p",
    "select a from only t where now() is null",
    "select p from p",
    "select a from barred where b > 'c' or a::text > '7'",
)
"""Queries that are more than that."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few pages are a part, so small tables are split."""
    monkeypatch.setattr(splitting, "RANGE_PAGES", 8)


@pytest.fixture
def tables(connection: Connection) -> Connection:
    """Tables, views and partitions."""
    for each in MADE:
        connection.execute(each.encode())
    return connection


def parts(connection: Connection, query: str, path: Path, url: str) -> int:
    """Export a query: as many rows, and the same, as it gives in one piece; how many parts it has."""
    expected = connection.execute(b"select x::text from (" + query.encode() + b") as x").fetchall()
    export_query(url, query, path, connections=3)
    with path.open("rb") as file:
        names = pq.read_schema(file).names
    described = connection.execute(query.encode()).description
    assert described is not None and names == [each.name for each in described]
    rows = pq.read_table(path).to_pydict()
    with psycopg.connect(url) as again:
        again.execute("set max_parallel_workers_per_gather = 0")
        found = splitting.parts_of(again, query)
        texts = [row for part in found for row in again.execute(
            b"select x::text from (" + part.query.encode() + b") as x").fetchall()]  # fmt: skip
    assert texts == expected
    assert {len(values) for values in rows.values()} == {len(expected)}
    return len(found)


@pytest.mark.parametrize("query", [*SPLIT, *VIEWS])
def test_the_rows_of_all_parts_are_those_of_the_query(
    tables: Connection, database_url: str, tmp_path: Path, query: str
) -> None:
    """In parts and in one piece: the same rows, in the same order, from the columns of the query."""
    assert parts(tables, query, tmp_path / "x.parquet", database_url) > 2


@pytest.mark.parametrize("query", WHOLE)
def test_what_is_more_than_scans_is_read_in_one_piece(
    tables: Connection, database_url: str, tmp_path: Path, query: str
) -> None:
    """An order, a limit, groups, joins, sub-queries and the like are the server's, and nothing of it is lost."""
    assert parts(tables, query, tmp_path / "x.parquet", database_url) == 1


def test_rights_on_the_parent_are_enough(tables: Connection, tmp_path: Path) -> None:
    """Who may read a partitioned table or a view, and not what is below, reads it in one piece."""
    tables.execute("create role expread_reader")
    tables.execute("grant usage on schema public to expread_reader")
    tables.execute("grant select on p, over to expread_reader")
    tables.execute("set role expread_reader")
    try:
        for query in ("table p", "table over"):
            assert [each.query for each in splitting.parts_of(tables, query)] == [query]
        assert export_query(tables, "table p", tmp_path / "x.parquet", connections=2).rows == 8000
    finally:
        tables.execute("reset role")
        tables.execute("drop owned by expread_reader")
        tables.execute("drop role expread_reader")


def test_row_security_of_a_partition_is_not_added(tables: Connection, tmp_path: Path) -> None:
    """A policy of the parent holds, and that of a partition, which holds for who asks it directly, does not."""
    tables.execute("create role expread_reader")
    for each in (
        "grant usage on schema public to expread_reader",
        "grant select on all tables in schema public to expread_reader",
        "alter table p enable row level security",
        "create policy shown on p using (a % 3 = 0)",
        "alter table p1 enable row level security",
        "create policy hidden on p1 using (false)",
        "set role expread_reader",
    ):
        tables.execute(each.encode())
    try:
        result = export_query(tables, "table p", tmp_path / "x.parquet", connections=2)
        assert result.rows == 8000 // 3
    finally:
        tables.execute("reset role")
        tables.execute("drop owned by expread_reader")
        tables.execute("drop role expread_reader")
