"""Exports over a caller's connection: a second one sees the same, to the row, or there is none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg import sql

from absurd.tasks.export import ExportResult, export_query, export_query_to_parquet, splitting
from absurd.tasks.export.reader import one_snapshot
from absurd.tasks.export.snapshot import at_snapshot, connected, hold_snapshot

Connection = psycopg.Connection[Any]
Until = Callable[[Callable[[], object]], None]
ROWS = 4_000


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few pages are a part, so small tables are split."""
    monkeypatch.setattr(splitting, "RANGE_PAGES", 4)


@pytest.fixture
def tables(connection: Connection) -> Iterator[Connection]:
    """`one.t` and `public.t` with other rows, and a role that sees every second row of the latter."""
    connection.execute("create schema one")
    for table, first in (("public.t", 1), ("one.t", 100_001)):
        connection.execute(f"create table {table} (a int, b text)")
        connection.execute(f"insert into {table} select n + {first}, repeat('x', 50) from generate_series(1, {ROWS}) n")
    connection.execute("create role expread_limited")
    connection.execute("grant usage on schema public, one to expread_limited")
    connection.execute("grant select on public.t to expread_limited")
    yield connection
    if not connection.closed:
        connection.rollback()
        connection.execute("reset session authorization")
        connection.execute("reset role")
        connection.execute("drop owned by expread_limited")
        connection.execute("drop role expread_limited")
        connection.execute("drop schema one cascade")


def exported(connection: Connection, query: str, folder: Path) -> ExportResult:
    """Export what the session itself sees, and nothing else."""
    expected = connection.execute(query.encode()).fetchall()
    result = export_query(connection, query, folder / "x.parquet", connections=2)
    table = pq.read_table(folder / "x.parquet")
    assert [tuple(row.values()) for row in table.to_pylist()] == expected
    return result


STATES = {
    "nothing": ((), "table t", 2),
    "search_path": (("set search_path = one",), "table t", 2),
    "local search_path": (("begin isolation level repeatable read", "set local search_path = one"), "table t", 2),
    "shadowing temporary table": (
        ("create temp table t as select a - 7 as a, b from public.t where a % 3 < 2",), "table t", 1,
    ),
    "temporary table": (("create temp table u as select a, b from public.t",), "table u", 1),
    "custom setting": (
        ("set my.tenant = '7'",), "select a from t where a % 10 = current_setting('my.tenant', true)::int", 1,
    ),
    "custom setting in a view": (
        ("create view v as select a, current_setting('my.tenant', true) as x from t", "set my.tenant = '7'"), "table v",
        1,
    ),
    "local custom setting": (
        ("begin isolation level repeatable read", "set local my.tenant = '7'"),
        "select a, current_setting('my.tenant', true) as x from t", 1,
    ),
    "custom setting in row security": (
        (
            "alter table t enable row level security",
            "create policy p on t using (a % 10 = current_setting('my.tenant', true)::int)",
            "set my.tenant = '7'", "set role expread_limited",
        ), "table t", 1,
    ),
    "role with row security": (
        (
            "alter table t enable row level security", "create policy p on t using (a % 2 = 0)",
            "set role expread_limited",
        ), "table t", 1,
    ),
    "role": (("set role expread_limited",), "table t", 1),
    "session authorization": (("set session authorization expread_limited",), "table t", 1),
    "own changes": (
        (
            "begin isolation level repeatable read", "delete from t where a % 2 = 0",
            "insert into t select -n, 'new' from generate_series(1, 900) n",
        ), "table t", 1,
    ),
    "own changes in a savepoint": (
        ("begin isolation level repeatable read", "savepoint s", "update t set b = 'new' where a < 9", "release s"),
        "table t", 1,
    ),
    "own lock": (("begin isolation level repeatable read", "lock table t"), "table t", 1),
    "read committed": (("begin",), "table t", 1),
    "other settings": (("set enable_hashjoin = off", "set work_mem = '1MB'"), "table t", 2),
    "partitions": (
        (
            "create table p (a int, b text) partition by range (a)",
            "create table p1 partition of p for values from (0) to (2000)",
            "create table p2 partition of p default", "insert into p table t", "set my.tenant = '7'",
        ), "table p", 2,
    ),
}  # fmt: skip
"""What a session has been told, a query, and how many connections may be used for it."""


@pytest.mark.parametrize("state", STATES)
def test_a_session_sees_what_it_sees(tables: Connection, tmp_path: Path, state: str) -> None:
    """The file has the rows of the caller's session, whatever it has set, made, locked or changed."""
    statements, query, connections = STATES[state]
    for each in statements:
        tables.execute(each.encode())

    result = exported(tables, query, tmp_path)

    assert result.connections == connections
    if tables.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        tables.execute("rollback")


def test_the_function_of_old_sees_the_session_too(tables: Connection, tmp_path: Path) -> None:
    """Over a cursor, in the transaction of its connection, as scripts call it."""
    tables.execute("begin isolation level repeatable read")
    tables.execute("set local search_path = one")

    export_query_to_parquet(tables.cursor(), "table t", tmp_path / "x.parquet")

    assert pq.read_table(tmp_path / "x.parquet")["a"].to_pylist()[0] == 100_002
    tables.execute("rollback")


def test_settings_of_a_transaction_are_put_back(tables: Connection, tmp_path: Path) -> None:
    """After the export, a caller's transaction goes on with what it had set, for itself or for the session."""
    tables.execute("set datestyle = 'SQL, DMY'")
    tables.execute("set idle_in_transaction_session_timeout = '7min'")
    tables.execute("begin isolation level repeatable read")
    tables.execute("set local timezone = 'Asia/Tokyo'")
    tables.execute("set local extra_float_digits = -3")
    look = "select name, setting from pg_settings order by 1"
    before = tables.execute(look).fetchall()

    export_query(tables, "table t", tmp_path / "x.parquet")

    assert tables.execute(look).fetchall() == before
    tables.execute("rollback")
    assert tables.execute("show datestyle").fetchone() == ("SQL, DMY",)


def test_a_batch_is_read_side_by_side(tables: Connection, database_url: str, tmp_path: Path) -> None:
    """Connections that are made here have no secrets: conditions and functions are no reason to be alone."""
    query = "select a, b || coalesce(current_setting('my.tenant', true), '') as b from t where a % 3 = 0"
    with connected(database_url) as holder, hold_snapshot(holder) as held:
        tables.execute("delete from t")
        with connected(database_url) as mine, at_snapshot(mine, held):
            result = exported(mine, query, tmp_path)

    assert (result.connections, result.rows) == (2, ROWS // 3)


def test_no_second_connection_waits_behind_a_lock(tables: Connection, database_url: str, tmp_path: Path,
                                                  until: Until) -> None:  # fmt: skip
    """Who waits to change the table waits for the first connection; a second would wait for both, for ever."""
    tables.execute("begin isolation level repeatable read")
    tables.execute("select from t limit 1")

    def change() -> None:
        with psycopg.connect(database_url) as other:
            other.execute("alter table t add c int")

    changing = threading.Thread(target=change)
    changing.start()
    with psycopg.connect(database_url, autocommit=True) as looking:
        until(lambda: looking.execute("select 1 from pg_locks where not granted").fetchone())

    result = exported(tables, "table t", tmp_path)

    tables.execute("rollback")
    changing.join()
    assert (result.connections, result.rows) == (1, ROWS)


def test_a_name_of_each_kind_is_stored(tables: Connection, tmp_path: Path) -> None:
    """Columns are known as such however they are called, and nothing else is."""
    tables.execute('create table "T 1" as select a as "A ""b""", b as "é", a as "user", b as b_1 from t')

    assert exported(tables, 'table "T 1"', tmp_path).connections == 2
    assert exported(tables, 'select "é", "user" from "T 1"', tmp_path).connections == 2
    for query in ("select user as u from t", "select a + 1 as a from t", "select t::text as x from t"):
        assert exported(tables, query, tmp_path).connections == 1


def test_idle_time_ends_no_export(tables: Connection, database_url: str, tmp_path: Path) -> None:
    """No limit of the server on idle transactions ends one while the last rows are written, on any connection."""
    tables.execute("alter role current_user in database export_tests set idle_in_transaction_session_timeout = 1000")
    seen: list[Any] = []

    def look() -> None:
        with psycopg.connect(database_url, autocommit=True) as looking:
            seen.extend(
                looking.execute(
                    "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                    " where state = 'idle in transaction' and datname = current_database()"
                ).fetchall()
            )

    try:
        shown: list[Any] = []
        with psycopg.connect(database_url, autocommit=True) as caller:
            assert caller.execute("show idle_in_transaction_session_timeout").fetchone() == ("1s",)
            caller.execute("begin isolation level repeatable read")
            export_query(caller, "table t", tmp_path / "x.parquet", publishing=lambda: shown.append(timeout_of(caller)))
            assert (timeout_of(caller), shown) == ("1s", ["0"])
        result = export_query(database_url, "table t", tmp_path / "y.parquet", publishing=look)
    finally:
        tables.execute("alter role current_user in database export_tests reset idle_in_transaction_session_timeout")

    assert result.connections == len(seen) == 2  # both were ended when all was read, which is no failure any more
    assert pq.read_table(tmp_path / "y.parquet").num_rows == ROWS


def timeout_of(connection: Connection) -> str:
    """How long the connection may be idle in a transaction."""
    (shown,) = connection.execute(sql.SQL("show idle_in_transaction_session_timeout")).fetchone() or ("",)
    return str(shown)


def test_transactions_of_our_own_have_no_limit(connection: Connection, database_url: str) -> None:
    """Only those: the limit that a caller's transaction has holds on."""
    if connection.info.server_version < 170_000:
        pytest.skip("the server knows no transaction_timeout")
    show = "show transaction_timeout"
    address = f"{database_url} options='-c transaction_timeout=1h'"
    with connected(address) as mine:
        with one_snapshot(mine):
            assert mine.execute(show).fetchone() == ("0",)
        assert mine.execute(show).fetchone() == ("1h",)
    with psycopg.connect(address) as theirs:
        theirs.execute("select 1")
        with one_snapshot(theirs):
            assert theirs.execute(show).fetchone() == ("1h",)
