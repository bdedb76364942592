"""Each error a user can make: the exit code, one sentence on stderr, the same code under --json, no traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

if TYPE_CHECKING:
    from cli.conftest import Run, Start

UNKNOWN_ID = "0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e"

CALLS = [
    (2, "unknown_executor", "cli.add", ["spawn", "cli.ad", "a=1"]),
    (2, "unknown_executor", "executor list", ["spawn", "warp.drive"]),
    (2, "invalid_params", "b", ["spawn", "cli.add", "a=1"]),
    (2, "invalid_params", "not JSON", ["spawn", "cli.add", "--params", "{"]),
    (2, "invalid_params", "no-such-file", ["spawn", "cli.add", "--params", "@no-such-file"]),
    (2, "invalid_option", "max_attempts", ["spawn", "cli.fail", "--max-attempts", "-1"]),
    (2, "invalid_option", "xyz", ["spawn", "cli.fail", "--after", "xyz"]),
    (2, "unknown_parent", UNKNOWN_ID, ["spawn", "cli.fail", "--after", UNKNOWN_ID]),
    (2, "invalid_name", "no spaces", ["spawn", "cli.fail", "--queue", "no spaces"]),
    (2, "invalid_option", "xyz", ["task", "show", "xyz"]),
    (3, "task_not_found", UNKNOWN_ID, ["task", "show", UNKNOWN_ID]),
    (3, "task_not_found", UNKNOWN_ID, ["task", "why", UNKNOWN_ID]),
    (3, "task_not_found", UNKNOWN_ID, ["task", "cancel", UNKNOWN_ID]),
    (3, "task_not_found", UNKNOWN_ID, ["task", "retry", UNKNOWN_ID]),
    (3, "task_not_found", UNKNOWN_ID, ["task", "wait", UNKNOWN_ID]),
    (3, "queue_not_found", "nowhere", ["queue", "pause", "nowhere"]),
    (3, "queue_not_found", "nowhere", ["queue", "purge", "nowhere", "--yes"]),
    (3, "queue_not_found", "nowhere", ["task", "list", "--queue", "nowhere"]),
    (2, "invalid_option", "--yes", ["queue", "purge", "default"]),
    (2, "configuration_invalid", "no_such_module", ["executor", "list", "--import", "no_such_module"]),
    (2, "configuration_invalid", "Bad-Schema", ["--schema", "Bad-Schema", "status"]),
    (5, "schema_missing", "absurd db migrate", ["--schema", "elsewhere", "status"]),
    (4, "database_unavailable", "127.0.0.1:1", ["--database-url", "postgresql://ada:geheim@127.0.0.1:1/x", "status"]),
    (2, "configuration_invalid", "***", ["--database-url", "mysql://ada:geheim@h/x", "status"]),
    (2, "usage", "did you mean status", ["statsu"]),
    (2, "usage", "--speed", ["queue", "list", "--speed"]),
    (2, "usage", "NAME", ["queue", "create"]),
    (2, "usage", "key=value", ["spawn", "cli.add", "a"]),
    (2, "usage", "twice", ["spawn", "cli.add", "a=1", "a=2"]),
    (2, "usage", "not both", ["spawn", "cli.add", "a=1", "--params", "{}"]),
    (2, "usage", "--queue", ["spawn", "cli.add", "a=1", "b=2", "--here", "--queue", "q"]),
    (2, "usage", "duration", ["spawn", "cli.add", "--delay", "soon"]),
    (2, "usage", "time", ["spawn", "cli.add", "--at", "tomorrow"]),
]


@pytest.fixture(scope="module")
def database_url(server_url: str, template: str) -> str:
    """One database for all: what is refused changes nothing."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"create database errors template {template}")
    url = make_conninfo(server_url, dbname="errors")
    with psycopg.connect(url) as connection:
        connection.execute("select absurd.create_queue('default')")
    return url


def check(run: Run, code: int, kind: str, part: str, words: list[str]) -> None:
    """Run `words` as text and as JSON; both must tell the error in the agreed way."""
    plain = run(*words)
    document = run(*words, "--json")

    assert (code, "") == (plain.code, plain.out)
    assert plain.err.startswith("Error: ")
    assert 1 == plain.err.count("\n"), "one sentence"
    assert part in plain.err
    assert "geheim" not in plain.err + document.out
    assert code == document.code
    assert plain.err == document.err
    error = document.document["error"]
    assert {"code", "message", "details"} == error.keys()
    assert kind == error["code"]
    assert part in error["message"]


@pytest.mark.parametrize(("code", "kind", "part", "words"), CALLS, ids=[" ".join(each[3]) for each in CALLS])
def test_errors_are_told(run: Run, code: int, kind: str, part: str, words: list[str]) -> None:
    """Every wrong call ends with its family's exit code and a sentence that names what is wrong."""
    check(run, code, kind, part, words)


def test_wrong_password_is_told(run: Run, server_url: str) -> None:
    """A login that the server refuses is a database error, and says who refused."""
    url = server_url.replace("absurd@", "nobody@")

    check(run, 4, "database_authentication", "nobody", ["--database-url", url, "status"])


def test_unknown_database_is_told(run: Run, server_url: str) -> None:
    """A database that does not exist is named."""
    check(
        run,
        4,
        "database_unavailable",
        "nowhere",
        ["--database-url", make_conninfo(server_url, dbname="nowhere"), "status"],
    )


def test_missing_schema_is_told(run: Run, empty_database_url: str) -> None:
    """A server on which nothing is installed is refused with the command to run."""
    check(run, 5, "schema_missing", "absurd db migrate", ["--database-url", empty_database_url, "status"])


@pytest.mark.parametrize(("version", "kind"), [(0, "schema_too_old"), (99, "schema_too_new")])
def test_schema_of_another_version_is_told(
    run: Run, connection: psycopg.Connection[tuple[object, ...]], version: int, kind: str
) -> None:
    """An older or newer schema is refused, with what to do (B107)."""
    before = connection.execute("select value from meta where key = 'version'").fetchone()
    assert before is not None
    connection.execute("update meta set value = %s where key = 'version'", [str(version)])
    try:
        check(run, 5, kind, f"version {version}", ["status"])
    finally:
        connection.execute("update meta set value = %s where key = 'version'", before)


def test_foreign_schema_is_told(run: Run, empty_database_url: str) -> None:
    """The schema of another product is refused."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("create schema absurd create table absurd.meta (key text, value text)")

    check(run, 5, "schema_foreign", "absurd-sdk", ["--database-url", empty_database_url, "status"])


def test_debug_shows_the_traceback(run: Run) -> None:
    """With --debug, before or after the command, the traceback stands before the sentence."""
    for words in (["--debug", "task", "show", UNKNOWN_ID], ["task", "show", UNKNOWN_ID, "--debug"]):
        ended = run(*words)

        assert 3 == ended.code
        assert "Traceback (most recent call last)" in ended.err
        assert ended.err.splitlines()[-1].startswith("Error: there is no task")


def test_what_nobody_expected_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours ends with exit code 1, its type, and the way to see more."""

    def broken() -> None:
        raise RuntimeError("the dome is\nstuck")

    monkeypatch.setattr("absurd.inspection.list_queues", broken)

    ended = run("queue", "list", "--json")

    assert 1 == ended.code
    assert "Error: unexpected RuntimeError: the dome is stuck (run with --debug for the whole story)\n" == ended.err
    assert "internal" == ended.document["error"]["code"]


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends a command with exit code 130 and without a traceback."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("absurd.inspection.list_queues", interrupted)

    ended = run("queue", "list")

    assert (130, "") == (ended.code, ended.out)
    assert "Traceback" not in ended.err


def test_misspelt_setting_is_a_warning(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ABSURD_ variable that nobody knows is told on stderr, and nothing else changes."""
    monkeypatch.setenv("ABSURD_DATABSE_URL", "x")

    ended = run("task", "list", "--json")

    assert (0, []) == (ended.code, ended.document)
    assert "ABSURD_DATABSE_URL" in ended.err
    assert "ABSURD_DATABASE_URL?" in ended.err


def test_a_process_ends_so_too(program: Run) -> None:
    """The console script gives the shell what the function returned."""
    ended = program("absurd", "task", "show", UNKNOWN_ID, "--json")

    assert 3 == ended.code
    assert "task_not_found" == ended.document["error"]["code"]
    assert f"Error: there is no task {UNKNOWN_ID} (see `absurd explain task_not_found`)\n" == ended.err


def test_a_reader_that_leaves_is_no_error(start: Start) -> None:
    """``absurd … | head`` ends quietly when nobody reads any more."""
    with start("absurd", "queue", "list", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()

        assert "" == process.stderr.read()
