"""``absurd db``: the embedded server's life, and the schema of whatever database is used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from absurd.cli import absurd
from absurd.cli.run import call
from absurd.config import Settings
from absurd.embedded import EmbeddedServer
from absurd.schema import VERSION

Command = Callable[..., tuple[int, str, str]]

REFUSED = "postgresql://ada:geheim@localhost:1/db"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run ``absurd db`` with these words; gives the exit code, stdout and stderr."""
    monkeypatch.setenv("ABSURD_HOME", str(tmp_path / "home"))

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = call(absurd, "absurd", ["db", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def on_server(command: Command, empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """As `command`, on a database of a server, in which nothing is installed."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", empty_database_url)
    return command


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The home that `command` uses; its server is destroyed in the end."""
    yield tmp_path / "home"
    EmbeddedServer(Settings(home=tmp_path / "home")).destroy()


def document(command: Command, *words: object) -> Any:
    """What the command prints under ``--json``, having succeeded."""
    code, out, err = command(*words, "--json")
    assert (0, "") == (code, err)
    return json.loads(out)


def test_life_of_the_embedded_database(command: Command, home: Path) -> None:
    """Absent, started with the queue in it, stopped, started by another command, and destroyed."""
    assert "absent" == document(command, "status")["state"]
    assert 3 == command("path")[0]
    assert (0, "The server does not run.\n", "") == command("stop")
    assert (0, "There is nothing to destroy.\n", "") == command("reset")

    started = document(command, "start")
    assert "running" == started["state"]
    status = document(command, "status")
    assert ("embedded", "running", VERSION, VERSION) == tuple(
        status[key] for key in ("kind", "state", "installed", "needed")
    )
    assert (0, f"{started['url']}\n", "") == command("url")
    assert (0, f"{started['data']}\n", "") == command("path")
    with psycopg.connect(started["url"]) as connection:
        connection.execute("create role night_shift")
    assert 0 == command("grant", "night_shift", "--as", "spawner")[0]

    assert document(command, "stop", "--mode", "smart") == {"stopped": True}
    assert "stopped" == document(command, "status")["state"]
    assert VERSION == document(command, "version")["installed"]
    assert "running" == document(command, "status")["state"]

    assert not document(command, "reset", "--dry-run")["destroyed"]
    code, out, err = command("reset")
    assert (2, "") == (code, out)
    assert f"{started['data']} (" in err
    assert "with 0 tasks" in err
    assert "--yes" in err
    assert "running" == document(command, "status")["state"]
    assert document(command, "reset", "--yes")["destroyed"]
    assert "absent" == document(command, "status")["state"]


def test_install_on_a_server(on_server: Command) -> None:
    """On a server nothing is installed unasked; `migrate` does it, and does nothing the second time."""
    assert document(on_server, "version")["installed"] is None
    assert document(on_server, "status")["installed"] is None

    assert {"schema": "absurd", "before": None, "after": VERSION} == document(on_server, "migrate")
    assert {"schema": "absurd", "before": VERSION, "after": VERSION} == document(on_server, "migrate")
    assert VERSION == document(on_server, "status")["installed"]


def test_missing_schema(on_server: Command) -> None:
    """What needs the queue says which command installs it."""
    code, out, err = on_server("size")

    assert (5, "") == (code, out)
    assert "absurd db migrate" in err
    assert "schema_missing" == json.loads(on_server("size", "--json")[1])["error"]["code"]


def test_size(on_server: Command) -> None:
    """The sizes of tables add up to the queue's, which is a part of the database's."""
    on_server("migrate")

    found = document(on_server, "size")

    assert found["queue_bytes"] == sum(table["bytes"] for table in found["tables"])
    assert 0 < found["queue_bytes"] < found["database_bytes"]
    (task,) = [table for table in found["tables"] if table["table"] == "task"]
    assert task["index_bytes"] < task["bytes"]
    assert task["partitions"] > 1
    assert (task["rows"], task["dead_rows"]) == (0, 0)
    assert "the whole database" in on_server("size")[1]


def test_sql_installs_the_same(on_server: Command, empty_database_url: str) -> None:
    """The script that `sql` prints installs what `migrate` would; it needs no database to be printed."""
    script = on_server("sql", "--database-url", REFUSED)[1]

    statements = "\n".join(line for line in script.splitlines() if not line.startswith("\\"))
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(statements.encode())

    assert {"schema": "absurd", "before": VERSION, "after": VERSION} == document(on_server, "migrate")


def test_reset_on_a_server(on_server: Command, empty_database_url: str) -> None:
    """On a server only the schema of the queue is made anew; what else is in the database stays."""
    on_server("migrate")
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("create table other as select 7 as n")
        connection.execute("select absurd.spawn_task('default', 'demo.add', '{}', '{}')")

    foretold = document(on_server, "reset", "--dry-run")
    done = document(on_server, "reset", "--yes")

    assert (1, False) == (foretold["tasks"], foretold["destroyed"])
    assert (1, True) == (done["tasks"], done["destroyed"])
    assert 0 == document(on_server, "reset", "--dry-run")["tasks"]
    with psycopg.connect(empty_database_url) as connection:
        assert (7,) == connection.execute("select n from other").fetchone()


def test_schema_of_another_product(on_server: Command, empty_database_url: str) -> None:
    """A schema that is not ours is neither installed over nor dropped."""
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("create schema absurd")
        connection.execute("create table absurd.theirs as select 7 as n")

    for words in (["migrate"], ["reset", "--yes"], ["version"]):
        code, _, err = on_server(*words)
        assert (words, 5) == (words, code)
        assert "absurd-sdk" in err

    with psycopg.connect(empty_database_url) as connection:
        assert (7,) == connection.execute("select n from absurd.theirs").fetchone()


def test_role_that_does_not_exist(on_server: Command) -> None:
    """A grant to nobody, or of an unknown kind, is refused with its name."""
    on_server("migrate")

    code, _, err = on_server("grant", "no_such_role", "--as", "reader")
    assert 3 == code
    assert "'no_such_role'" in err
    code, _, err = on_server("grant", "no_such_role", "--as", "king")
    assert 2 == code
    assert "king" in err


@pytest.mark.parametrize("words", [["start"], ["stop"], ["path"]])
def test_commands_for_the_embedded_server_only(command: Command, words: list[str]) -> None:
    """With a server set, what concerns the embedded one is refused, and the password is not shown."""
    code, out, err = command(*words, "--database-url", REFUSED)

    assert (2, "") == (code, out)
    assert "postgresql://ada:***@localhost:1/db" in err


@pytest.mark.parametrize("words", [["status"], ["version"], ["migrate"], ["size"], ["reset", "--dry-run"]])
def test_server_is_down(command: Command, words: list[str]) -> None:
    """Without an answer the exit code is 4, in one sentence without the password."""
    code, out, err = command(*words, "--database-url", REFUSED)

    assert (4, "") == (code, out)
    assert 1 == err.count("\n")
    assert "localhost:1" in err
    assert "geheim" not in err


def test_embedded_server_cannot_be_made(command: Command, tmp_path: Path) -> None:
    """A home that cannot be used is one sentence and exit code 4."""
    (tmp_path / "home").write_text("in the way")

    code, out, err = command("start")

    assert (4, "") == (code, out)
    assert "set ABSURD_HOME to another folder" in err
    assert 1 == err.count("\n")


def test_url_of_a_server(command: Command) -> None:
    """The address is printed without its password unless that is asked for."""
    assert (0, "postgresql://ada:***@localhost:1/db\n", "") == command("url", "--database-url", REFUSED)
    assert (0, f"{REFUSED}\n", "") == command("url", "--with-password", "--database-url", REFUSED)


@pytest.mark.parametrize("name", sorted(absurd.get_command(None, "db").commands))  # type: ignore[arg-type, union-attr]
def test_help_shows_an_example(command: Command, name: str) -> None:
    """Each command has a help with an example of it."""
    code, out, _ = command(name, "--help")

    assert 0 == code
    assert f"absurd db {name}" in out.partition("Example: ")[2]
    assert "--json" in out
