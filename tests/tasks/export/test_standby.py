"""Exports from a standby, and from an address that names several servers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from absurd.config import load_settings
from absurd.embedded import EmbeddedServer
from absurd.tasks.export import export_batch, export_query, splitting


@pytest.fixture(scope="module")
def standby(quick_folder: Path) -> Iterator[str]:
    """A server that waits for what its primary would send it, and lets itself be read meanwhile: its address."""
    home = quick_folder / "standby"
    server = EmbeddedServer(load_settings(environ={}, home=home))
    with psycopg.connect(server.start(), autocommit=True) as connection:
        connection.execute("alter system set wal_level = replica")
    server.stop()
    with psycopg.connect(server.start(), autocommit=True) as connection:
        connection.execute("create table t as select n as a, repeat('x', 50) as b from generate_series(1, 4000) n")
    server.stop()
    data = Path(str(server.status().data))
    (data / "standby.signal").touch()
    shutil.chown(data / "standby.signal", data.stat().st_uid, data.stat().st_gid)
    yield server.start()
    server.stop("immediate")
    server.destroy()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few pages are a part, so small tables are split."""
    monkeypatch.setattr(splitting, "RANGE_PAGES", 4)


def test_a_standby_is_read_side_by_side(standby: str, tmp_path: Path) -> None:
    """Its snapshots are shared as a primary's are, by the connections of an export and by a batch."""
    with psycopg.connect(standby) as connection:
        assert connection.execute("select pg_is_in_recovery()").fetchone() == (True,)

    result = export_query(standby, "table t", tmp_path / "x.parquet", connections=2)
    batch = export_batch(standby, [{"sql": "select a from t where a % 2 = 0", "out": str(tmp_path / "y.parquet")}])

    assert (result.rows, result.connections) == (4000, 2)
    assert pq.read_table(tmp_path / "x.parquet")["a"].to_pylist() == list(range(1, 4001))
    assert [each.result and each.result.connections for each in batch.items] == [2]


def test_all_connections_lead_to_one_server(standby: str, server_url: str, tmp_path: Path) -> None:
    """Of an address with several hosts, of which libpq takes any, all connections of an export take the same."""
    hosts: list[dict[str, Any]] = [conninfo_to_dict(each) for each in (server_url, standby)]
    address = make_conninfo(
        server_url,
        host=",".join(each["host"] for each in hosts),
        port=",".join(str(each["port"]) for each in hosts),
        load_balance_hosts="random",
    )
    for _ in range(12):
        result = export_query(address, "select oid, proname from pg_proc", tmp_path / "x.parquet", connections=2)
        assert result.connections == 2
