"""What two databases are compared by, and which programs fit a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from absurd.database_sync import connect, session_on
from absurd.tasks.maintenance import BackupDiffersError, BackupError, BackupProgramError, contents, programs
from absurd.tasks.maintenance.contents import Session
from absurd.tasks.maintenance.scratch import scratch_database
from absurd.testing import ThrowawayServer

FROZEN = {"datfrozenxid", "datminmxid"}
"""What no two databases have in common."""

TABLE = """
    create schema s;
    create table s.t (n int primary key, v text);
    comment on table s.t is 'things';
    create sequence s.q;
    create function s.f(int) returns int language sql as 'select 1';
    insert into s.t values (1, 'a'), (2, 'b'), (3, null);
    select nextval('s.q');
"""


@contextmanager
def opened(url: str) -> Iterator[Session]:
    connection = connect(url)
    try:
        session = session_on(connection, schema="s")
        contents.begin(session)
        yield session
    finally:
        connection.close()


def compare(original: Session, restored: Session) -> None:
    """Compare two databases in all respects."""
    names = contents.tables_of(original, "s")
    contents.check_objects(contents.objects_of(original, "s"), contents.objects_of(restored, "s"))
    position = contents.sequences_of(original, "s")
    contents.check_sequences(position, position, contents.sequences_of(restored, "s"))
    contents.check_tables(*(contents.count(each, names, lambda _: None) for each in (original, restored)))


@pytest.fixture(scope="module")
def pair(databases: ThrowawayServer) -> Iterator[tuple[str, str]]:
    """Two databases that are the same."""
    with databases.database("template1") as one:
        with psycopg.connect(one) as connection:
            connection.execute(TABLE)
        with databases.database(str(conninfo_to_dict(one)["dbname"])) as two:
            yield one, two


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("update s.t set v = 'a ' where n = 1", "s.t has 3 rows with other values"),
        ("update s.t set v = '' where v is null", "s.t has 3 rows with other values"),
        ("update s.t set v = case v when 'a' then 'b' when 'b' then 'a' end", "s.t has 3 rows with other values"),
        ("delete from s.t where n = 3", "s.t has 2 rows for 3"),
        ("alter sequence s.q restart 7", "the sequence s.q stands at 7, and stood at 1 to 1"),
        ("drop function s.f", r"function s.f\(integer\) is missing"),
        ("drop table s.t", "table s.t is missing"),
        ("alter table s.t drop constraint t_pkey", "constraint t_pkey of s.t is missing"),
        ("create view s.w as select 1", "relation s.w was not there"),
        ("comment on table s.t is 'other'", "comment on s.t"),
        ("create trigger g before update on s.t for each row execute function suppress_redundant_updates_trigger()",
         "trigger g of s.t was not there"),
    ],
)  # fmt: skip
def test_a_difference_is_found(pair: tuple[str, str], change: str, told: str) -> None:
    """Whatever differs is named: values, rows, places of sequences, and what is missing or too much."""
    with ExitStack() as stack:
        original, restored = (stack.enter_context(opened(url)) for url in pair)
        compare(original, restored)
        restored.fetch(change)  # and never committed

        with pytest.raises(BackupDiffersError, match=told):
            compare(original, restored)


def test_sequences_may_move_during_the_dump() -> None:
    """They know of no snapshot: any place between those before and after the dump is right."""
    before, after = {"q": (5, False)}, {"q": (7, True)}

    for position in ((5, False), (5, True), (6, True), (7, True)):
        contents.check_sequences(before, after, {"q": position})
    for position in ((4, True), (8, True)):
        with pytest.raises(BackupDiffersError, match="the sequence q"):
            contents.check_sequences(before, after, {"q": position})


def test_many_differences_are_counted() -> None:
    """An error stays readable: the first five are named."""
    with pytest.raises(BackupDiffersError, match=r"t1 is missing; .*t5 is missing \(and 4 more\)$"):
        contents.check_objects({f"t{n}" for n in range(1, 10)}, set())


def alike(url: str, options: str) -> None:
    """A scratch database is like one that was made with these options, and is gone afterwards."""

    @contextmanager
    def session(database: str | None) -> Iterator[Session]:
        with connect(make_conninfo(url, dbname=database or "alike")) as connection:
            yield session_on(connection, schema="s")

    about = "select d.datname, to_jsonb(d) - array['oid', 'datname'] as options from pg_database d where datname = $1"
    with connect(url) as connection:
        connection.execute(f"create database alike template template0 {options}".encode())
        try:
            with scratch_database(session, "me") as name, session(None) as original:
                (made,), (wanted,) = (original.fetch(about, each) for each in (name, "alike"))
                assert {key for key, value in wanted["options"].items() if made["options"][key] != value} <= FROZEN
            with session(None) as original:
                assert original.fetch(about, name) == []
        finally:
            connection.execute("drop database alike")


@pytest.mark.parametrize(
    "options", ["encoding 'LATIN1'", "encoding 'UTF8' locale_provider builtin builtin_locale 'C.UTF-8'"]
)
def test_a_scratch_database_is_like_the_original(server_url: str, options: str) -> None:
    """It has the same encoding and locale."""
    alike(server_url, f"{options} lc_collate 'C' lc_ctype 'C'")


def test_a_scratch_database_with_a_locale_of_icu(old_server: str) -> None:
    """It has the same locale on a server whose catalog names it otherwise."""
    alike(old_server, "encoding 'UTF8' lc_collate 'C' lc_ctype 'C' locale_provider icu icu_locale 'de-AT'")


def test_a_signal_does_not_keep_a_scratch_database(server_url: str) -> None:
    """SIGTERM may come while the block is being left for another reason: the database is dropped all the same."""
    sessions = []

    @contextmanager
    def session(database: str | None) -> Iterator[Session]:
        sessions.append(database)
        if len(sessions) == 3:  # that of the drop, after the keeper's and that of the creation
            raise SystemExit(143)
        with connect(server_url) as connection:
            yield session_on(connection, schema="s")

    with pytest.raises(SystemExit), scratch_database(session, "me") as name:
        raise BackupError("lost")

    assert len(sessions) == 4
    with connect(server_url) as connection:
        found = connection.execute("select from pg_database where datname = %s", (name,)).fetchall()
    assert found == []


def program(folder: Path, version: str, body: str = "") -> Path:
    """A folder with programs of a version."""
    folder.mkdir()
    for name in ("pg_dump", "pg_restore"):
        (folder / name).write_text(f"#!/bin/sh\n{body}\necho '{name} (PostgreSQL) {version} (Debian {version}-1)'\n")
        (folder / name).chmod(0o755)
    return folder


def test_the_nearest_programs_are_chosen(tmp_path: Path) -> None:
    """Those of the server's own version, else of the nearest newer one, the first of several; never broken ones."""
    broken = program(tmp_path / "broken", "16.1", "exit 1")
    folders = [
        broken,
        tmp_path / "none",
        *(program(tmp_path / name, name) for name in ("18.1", "16.4", "18.2", "15.9")),
    ]

    assert programs.choose(folders, 15).version == "15.9"
    assert programs.choose(folders, 16).version == "16.4"
    assert programs.choose(folders, 17).version == "18.1"
    with pytest.raises(
        BackupProgramError, match=r"PostgreSQL 19 .* older \(18\.1 in .*install .* postgresql-client-19"
    ):
        programs.choose(folders, 19)
    with pytest.raises(BackupProgramError, match="no pg_dump is found: install the package postgresql-client-15"):
        programs.choose([broken], 15)


def test_compressions(tmp_path: Path) -> None:
    """Each is given to pg_dump as its version takes it; one that it does not know is refused."""
    old, new = (programs.Programs(tmp_path, version) for version in ("15.9", "18.1"))

    assert programs.compression(new, None) == programs.compression(old, None) == []
    assert programs.compression(new, "zstd:9") == ["--compress=zstd:9"]
    assert programs.compression(old, "gzip:9") == ["--compress=9"]
    assert programs.compression(old, "none") == ["--compress=0"]
    with pytest.raises(BackupProgramError, match="zstd"):
        programs.compression(old, "zstd")


def test_addresses_of_programs() -> None:
    """The address is an argument without its password; quotes and blanks survive libpq."""
    address = {"host": "/run/it's here", "dbname": "a\\b", "password": "p w'"}

    assert conninfo_to_dict(programs.conninfo(address)) == {"host": "/run/it's here", "dbname": "a\\b"}
    assert conninfo_to_dict(programs.conninfo(address, "x", password=True)) == address | {"dbname": "x"}
    assert programs.environment(address)["PGPASSWORD"] == "p w'"


def quiet() -> None:
    """Say nothing of how far it is."""


def test_errors_of_programs(tmp_path: Path) -> None:
    """The first error counts; what only an older server does not know is none; a silent failure has its exit code."""
    error = 'pg_restore: error: could not execute query: ERROR:  parameter "transaction_timeout"'

    def script(text: str) -> list[str | Path]:
        return ["/bin/sh", "-c", text]

    programs.run(
        script(f"echo '{error}' >&2; echo 'pg_restore: warning: errors ignored on restore: 1' >&2; exit 1"), {}, quiet
    )
    with pytest.raises(BackupError, match="sh failed: no room left"):
        programs.run(script(f"echo '{error}' >&2; echo 'pg_restore: error: no room left' >&2; exit 1"), {}, quiet)
    with pytest.raises(BackupError, match="exit code 7"):
        programs.run(script("exit 7"), {}, quiet)


def test_a_program_that_hangs_is_stopped() -> None:
    """What is raised by telling how far it is stops it, even if it ignores SIGTERM."""

    def told() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        programs.run(["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], {}, told)
