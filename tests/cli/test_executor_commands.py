"""``absurd executor``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from cli.conftest import Run

Connection = psycopg.Connection[tuple[object, ...]]


def test_executors_are_listed(run: Run, connection: Connection) -> None:
    """Those that workers registered and those that can be imported here, each once."""
    described = [
        {"name": "far.away", "queue": "remote", "runs_in": "process", "description": "Far."},
        {"name": "cli.add"},
    ]
    connection.execute("select register_executors(%s)", [json.dumps(described)])

    listed = {each["name"]: each for each in run("executor", "list", "--json").document}

    assert (True, True) == (listed["cli.add"]["registered"], listed["cli.add"]["importable"])
    assert (True, False) == (listed["far.away"]["registered"], listed["far.away"]["importable"])
    assert (False, True) == (listed["cli.fail"]["registered"], listed["cli.fail"]["importable"])
    shown = run("executor", "list").out
    assert "workers and here" in shown
    assert "Add two numbers." in shown


def test_an_executor_shows_its_params(run: Run) -> None:
    """Names, types and defaults of the params, for people and as a JSON schema."""
    document = run("executor", "show", "cli.add", "--json").document
    assert {"a", "b", "c"} == document["params_schema"]["properties"].keys()
    assert ["a", "b"] == document["params_schema"]["required"]
    assert ("thread", 60) == (document["runs_in"], document["timeout"])

    shown = " ".join(run("executor", "show", "cli.add").out.split())
    assert "a integer (required)" in shown
    assert "c number | null null" in shown
    assert "absurd spawn cli.add a=… b=…" in shown
    assert "It takes any JSON object as params." in run("executor", "show", "cli.fail").out


def test_an_unknown_executor_is_told(run: Run) -> None:
    """Near names help."""
    ended = run("executor", "show", "cli.ad", "--json")

    assert (2, "unknown_executor") == (ended.code, ended.document["error"]["code"])
    assert "did you mean cli.add" in ended.err
