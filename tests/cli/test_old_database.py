"""Commands that meet a database of version 1: the embedded one is upgraded, a server's is not touched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from version1 import install_version_1

from absurd.cli import absurd
from absurd.cli.run import call
from absurd.config import Settings
from absurd.embedded import EmbeddedServer
from absurd.schema import VERSION

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run ``absurd`` with these words; gives the exit code, stdout and stderr."""
    monkeypatch.setenv("ABSURD_HOME", str(tmp_path / "home"))

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return call(absurd, "absurd", words), *capsys.readouterr()

    return run


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[str]:
    """URL of the embedded database that `command` uses, as a program of version 1 left it."""
    server = EmbeddedServer(Settings(home=tmp_path / "home"))
    make_old(url := server.start())
    yield url
    server.destroy()


def make_old(url: str) -> str:
    """Install version 1 and spawn a task; returns its id."""
    with psycopg.connect(url, autocommit=True) as connection:
        install_version_1(connection)
        row = connection.execute(
            "select task_id from absurd.spawn_task('default', 'demo.add', '{\"a\": 1}')"
        ).fetchone()
        assert row is not None
        return str(row[0])


def version(url: str) -> str:
    """The version that the database says it has."""
    with psycopg.connect(url) as connection:
        row = connection.execute("select value from absurd.meta where key = 'version'").fetchone()
        assert row is not None
        return str(row[0])


@pytest.mark.parametrize("running", [True, False])
def test_embedded_database_is_upgraded_by_whatever_touches_it(
    command: Command, embedded: str, tmp_path: Path, running: bool
) -> None:
    """`absurd status` finds the queue of version 1, upgrades it, and shows its task."""
    if not running:
        EmbeddedServer(Settings(home=tmp_path / "home")).stop()

    code, out, err = command("status", "--json")

    assert (0, "") == (code, err)
    assert [("default", 1)] == [(each["name"], each["pending"]) for each in json.loads(out)["queues"]]
    assert str(VERSION) == version(embedded)


def test_embedded_database_in_use(
    command: Command, embedded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another session holds its tables the command fails with a conflict, and the database stays as it was."""
    monkeypatch.setattr("absurd.schema.migrate.PATIENCE", 0.2)
    with psycopg.connect(embedded, application_name="notebook") as holder:
        holder.execute("select from absurd.task")

        code, out, err = command("status", "--json")
        assert (5, "schema_busy") == (code, json.loads(out or err)["error"]["code"])
        assert "1" == version(embedded)

    assert 0 == command("status")[0]
    assert str(VERSION) == version(embedded)


def test_server_is_upgraded_when_told_so(
    command: Command, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server an old schema is refused with the command to run, which upgrades it and keeps its tasks."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", empty_database_url)
    task = make_old(empty_database_url)

    for words in (["status"], ["spawn", "demo.add"], ["task", "show", task]):
        code, out, err = command(*words)
        assert (5, "") == (code, out)
        assert f"has version 1, this program needs {VERSION}: run `absurd db migrate`" in err
    assert "1" == version(empty_database_url)

    code, out, _ = command("db", "migrate", "--json")
    assert (0, {"schema": "absurd", "before": 1, "after": VERSION}) == (code, json.loads(out))
    assert "pending" == json.loads(command("task", "show", task, "--json")[1])["state"]
