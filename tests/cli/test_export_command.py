"""``absurd export``: what becomes a task, with which params, and what is done without one."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import observed
import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg.conninfo import conninfo_to_dict

from absurd.product_file import open_product_file

if TYPE_CHECKING:
    from cli.conftest import Run


def test_a_query_becomes_a_task(run: Run, tmp_path: Path) -> None:
    """Its params hold the query, the file as whoever typed it sees it, and a service; --no-wait prints the id."""
    ended = run("export", "--sql", "select 1 as n", "--out", "n.parquet", "--service", "archive", "--no-wait", "--json")

    task = run("task", "show", ended.document["id"], "--json").document
    assert (task["name"], task["state"]) == ("export.query", "pending")
    wanted = {"sql": "select 1 as n", "out": str(tmp_path / "n.parquet"), "database": "archive", "keep_temp": False}
    assert {name: value for name, value in task["params"].items() if value is not None} == wanted
    assert "No worker serves the queue" in ended.err


def test_a_list_becomes_a_workflow(run: Run, tmp_path: Path) -> None:
    """Its one node is a batch with all exports; what is said for all of them stands beside the list."""
    Path("x.json").write_text(json.dumps([{"sql": "select 1 as n", "out": "n.parquet", "row_group_size": 5}]))
    ended = run(
        "export", "--config", "x.json", "--compression", "lz4", "--stop-on-failure", "--queue", "q", "--no-wait"
    )

    task = run("task", "show", ended.out.strip(), "--json").document
    assert (task["name"], task["queue"], task["node"]) == ("export.batch", "q", "batch")
    assert (task["params"]["compression"], task["params"]["stop_on_failure"]) == ("lz4", True)
    (only,) = task["params"]["exports"]
    assert (only["out"], only["row_group_size"]) == (str(tmp_path / "n.parquet"), 5)
    workflow = run("workflow", "show", task["workflow_id"], "--json").document
    assert workflow["name"] == "export x.json"


def test_an_address_makes_no_task(run: Run, database_url: str) -> None:
    """No task may hold an address: this process exports."""
    parts = conninfo_to_dict(database_url)
    words = ("--sql", "select current_database() as name", "--out", "n.parquet", "--json")
    ended = run("export", "--dsn", database_url, *words)

    assert (ended.code, ended.document["exports"][0]["rows"]) == (0, 1)
    assert pq.read_table("n.parquet").to_pylist() == [{"name": parts["dbname"]}]
    assert run("task", "list", "--json").document == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--direct", "--no-wait"), "with an address there is none"),
        (("--host", "h", "--here"), "with an address there is none"),
        (("--resume",), "--resume is for --direct"),
        (("--here", "--queue", "q"), "--here makes a queue of its own"),
    ],
)
def test_what_contradicts_itself(run: Run, words: tuple[str, ...], message: str) -> None:
    """Flags that cannot both be meant are refused, and nothing is spawned."""
    ended = run("export", "--sql", "select 1", "--out", "n.parquet", *words)

    assert ended.code == 2
    assert message in ended.err
    assert run("task", "list", "--json").document == []


def test_products_are_written_to_a_file(run: Run, connection: psycopg.Connection[Any], tmp_path: Path) -> None:
    """All that was observed in a time, of one moment; other options are refused, and so is a place that is none."""
    connection.execute("set search_path = absurd, public")
    night = observed.fill(connection, tmp_path / "night")
    connection.commit()
    ended = run("export", "--products", "all.sqlite", "--json")
    assert (0, 4, 5) == (ended.code, ended.document["rows"]["product"], ended.document["rows"]["photometry"] + 1)
    until = run("export", "--products", "early.sqlite", "--until", "2026-03-01T05:00:00Z")
    assert "rows of 2 products" in until.out
    with closing(open_product_file(tmp_path / "early.sqlite")) as file:
        assert [night.images[0], night.mosaic] == [each["id"] for each in file.execute("select id from product")]

    assert 2 == run("export", "--products", "a.sqlite", "--sql", "select 1").code
    assert 2 == run("export", "--sql", "select 1", "--out", "a.parquet", "--since", "2026-01-01").code
    assert 2 == run("export", "--products", str(tmp_path / "none" / "a.sqlite")).code
