"""Backups: the dump is what the database was, proven by a restore, and nothing is left behind."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from dumps import BIN, everything, restored, scratch_databases
from live import soon, working
from memory_port import MemoryPort, claim_of
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from single_run import fail, run
from structlog.testing import capture_logs

from absurd import AbsurdClient, SyncAbsurdClient
from absurd.config import Settings
from absurd.context import RunContext, run_here
from absurd.executor import registry
from absurd.outcome import Completed
from absurd.retry import RetryPolicy
from absurd.testing import drain_sync
from absurd.workers.runs.execution import Defaults, run_sync

Until = Callable[..., None]

CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from single_run import run
run("maintenance.backup", {"out": sys.argv[2]})
"""


def test_the_dump_restores_to_what_was_dumped(worked: str, tmp_path: Path) -> None:
    """A restore of the queue's schema has the same rows, sequences, functions, comments and rights, and is a queue."""
    port = MemoryPort()

    result, kinds = run("maintenance.backup", {"out": f"{tmp_path}/dumps/", "jobs": 2}, port)

    dump = Path(result["path"])
    name = conninfo_to_dict(worked)["dbname"]
    assert kinds == ["backup"]
    assert re.fullmatch(rf"{name}\.absurd-\d{{8}}T\d{{6}}Z\.dump", dump.name)
    assert (result["verified"], result["schema"], result["bytes"]) == (True, "absurd", dump.stat().st_size)
    assert result["sha256"] == hashlib.sha256(dump.read_bytes()).hexdigest()
    assert stat.S_IMODE(dump.stat().st_mode) == 0o600
    assert [message for _, _, message in port.told][:1] == ["dumping"]
    assert port.told[-1] == (2 * result["tables"] + 2, 2 * result["tables"] + 2, "verified")
    original = everything(worked)
    tables = [rows for key, rows in original.items() if rows and isinstance(rows[0], str) and key != "definitions"]
    assert result["rows"] == sum(map(len, tables))
    assert scratch_databases(worked) == []
    assert list(dump.parent.iterdir()) == [dump]
    with restored(worked, dump) as url:
        copy = everything(url)
        assert {key for key in original.keys() | copy.keys() if original.get(key) != copy.get(key)} == set()
        with SyncAbsurdClient(url) as client:
            drain_sync("default", client)
            task = client.spawn("demo.add", {"a": 20, "b": 22}, key="new")
            assert client.spawn("demo.add", {"a": 1, "b": 2}, key="one") != task
            drain_sync("default", client)
            assert client.get_task(task).result == {"sum": 42}
            assert client.get_queue_stats("default").completed == 23


def test_the_whole_database(plain: str, tmp_path: Path) -> None:
    """Other schemas come along, whatever their tables are called and hold."""
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute('create schema "a B"')
        connection.execute("""create type "a B".colour as enum ('red', 'blue')""")
        connection.execute(
            """create table "a B"."we""ird t'" (t text, "{schema}" float8, c "a B".colour, z timestamptz, n numeric,
               b bytea, g text generated always as (upper(t)) stored)"""
        )
        connection.execute(
            """insert into "a B"."we""ird t'" values ('%s', 'nan', 'red', 'infinity', 'nan', '\\x00ff'),
               ('%s', 0.1, null, '2026-03-29 02:30+00', 1.10, ''), (null, '-infinity', 'blue', null, null, null),
               (null, '-infinity', 'blue', null, null, null)"""
        )
        connection.execute('create table "a B".nothing ()')
        connection.execute('insert into "a B".nothing default values')
        connection.execute('create table "a B".heir () inherits ("a B".nothing)')
        connection.execute('create unlogged table "a B".fast (id int generated always as identity, r regclass)')
        connection.execute("""insert into "a B".fast (r) values ('"a B".nothing'), (null)""")
        connection.execute('create materialized view "a B".seen as select count(*) from "a B".fast')
        connection.execute("""comment on table "a B".fast is 'it''s fast'""")

    result, _ = run("maintenance.backup", {"out": f"{tmp_path}/x.dump", "whole": True, "compress": "gzip:1"})

    assert (result["path"], result["schema"], result["verified"]) == (f"{tmp_path}/x.dump", None, True)
    with restored(plain, result["path"]) as url:
        original, copy = everything(plain), everything(url)
        assert '"a B"."we""ird t\'"' in copy
        assert {key for key in original.keys() | copy.keys() if original.get(key) != copy.get(key)} == set()


def test_writers_go_on_meanwhile(worked: str, tmp_path: Path) -> None:
    """Dump and comparison are of one snapshot: tasks that are spawned and run at the same time do no harm."""
    stop, done = threading.Event(), []

    def write() -> None:
        with SyncAbsurdClient(worked) as client:
            while not stop.is_set():
                client.spawn("demo.add", {"a": 1, "b": 1})
                done.append(client.cancel(client.spawn("demo.add", {"a": 2, "b": 2})))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        result, _ = run("maintenance.backup", {"out": f"{tmp_path}/x.dump"})
    finally:
        stop.set()
        writer.join()

    assert result["verified"]
    assert len(done) > 1


def test_marks_go_on_in_a_restored_database(database_url: str) -> None:
    """The transaction that marks wait for was another server's, which was far ahead: it is not waited for."""
    with psycopg.connect(database_url, autocommit=True, options="-c search_path=absurd") as connection:
        connection.execute("select advance_marks()")
        connection.execute("update horizon set xid = '9000000000000'")

        connection.execute("select advance_marks()")

        assert connection.execute("select advance_marks()").fetchone() == (True,)


def test_the_password_is_not_to_be_seen(plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs get the password through their environment; no argument and no line of the log holds it."""
    seen = tmp_path / "seen"
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("pg_dump", "pg_restore"):
        script = programs / name
        script.write_text(f'#!/bin/sh\nprintf \'%s\\n\' "{name} $* in=$PGPASSWORD" >>{seen}\nexec {BIN}/{name} "$@"\n')
        script.chmod(0o755)
    monkeypatch.setenv("ABSURD_PG_BIN", str(programs))
    monkeypatch.setenv("ABSURD_DATABASE_URL", make_conninfo(plain, password="open it's 1\\2"))

    with capture_logs() as logs:
        result, _ = run("maintenance.backup", {"out": f"{tmp_path}/x.dump", "whole": True})

    calls = [line.partition(" in=") for line in seen.read_text().splitlines() if "--dbname" in line]
    assert [call.split()[0] for call, _, _ in calls] == ["pg_dump", "pg_restore"]
    assert {password for _, _, password in calls} == {"open it's 1\\2"}
    assert "open it" not in f"{[call for call, _, _ in calls]}{logs}{result}"


def test_a_service_names_the_database(plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Address and role come from a service of libpq, for the dump and for the restore; the task holds neither."""
    lines = "".join(f"{key}={value}\n" for key, value in conninfo_to_dict(plain).items() if value)
    (tmp_path / "services.conf").write_text(f"[nightly]\n{lines}")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services.conf"))
    monkeypatch.delenv("ABSURD_DATABASE_URL")

    result, _ = run("maintenance.backup", {"out": f"{tmp_path}/d/", "whole": True, "database": "nightly"})

    assert (result["verified"], result["rows"]) == (True, 100)
    assert Path(result["path"]).name.startswith(f"{conninfo_to_dict(plain)['dbname']}-2")


def test_the_rights_of_a_role(plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told before anything is dumped, with the ways out: without a restore, or with the right, the dump is made.

    No other privilege is needed than that and to read: a dump by one who may not is refused.
    """
    role = f"plain_{os.getpid()}"
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f"create role {role} login in role pg_read_all_data".encode())
        try:
            monkeypatch.setenv("ABSURD_DATABASE_URL", make_conninfo(plain, user=role))
            out = tmp_path / "x.dump"

            error = fail("maintenance.backup", {"out": str(out), "whole": True})
            assert error["code"] == "backup_restore_denied"
            assert f"alter role {role} createdb" in error["message"]
            assert "verify=false" in error["message"]
            assert list(tmp_path.iterdir()) == []

            result, _ = run("maintenance.backup", {"out": str(out), "whole": True, "verify": False})
            assert (result["verified"], result["rows"], out.stat().st_size) == (False, None, result["bytes"])

            connection.execute(f"alter role {role} createdb".encode())
            result, _ = run("maintenance.backup", {"out": str(out), "whole": True})
            assert result["verified"]
            assert scratch_databases(plain) == []

            connection.execute(f"revoke pg_read_all_data from {role}".encode())
            error = fail("maintenance.backup", {"out": str(tmp_path / "y.dump"), "whole": True, "verify": False})
            assert error["message"].startswith("the database reports") or "permission denied" in error["message"]
            assert list(tmp_path.iterdir()) == [out]
        finally:
            connection.execute(f"drop role {role}".encode())


def test_a_failed_dump_leaves_nothing(plain: str, tmp_path: Path) -> None:
    """pg_dump's own sentence is the error; there is no file and no scratch database."""
    error = fail("maintenance.backup", {"out": str(tmp_path / "x.dump"), "whole": True, "compress": "gzip:77"})

    assert (error["code"], error["message"][:15]) == ("backup_failed", "pg_dump failed:")
    assert "77" in error["message"] or "level" in error["message"]
    assert list(tmp_path.iterdir()) == []
    assert scratch_databases(plain) == []


def test_a_dump_that_cannot_be_restored_is_found(plain: str, tmp_path: Path) -> None:
    """A constraint that existing rows break lets pg_dump succeed: the restore fails, and so does the backup."""
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute("create table public.broken (n int)")
        connection.execute("insert into public.broken values (-1)")
        connection.execute("create function public.fits(n int) returns bool language sql as 'select n < 0'")
        connection.execute("alter table public.broken add check (public.fits(n))")
        connection.execute("create or replace function public.fits(n int) returns bool language sql as 'select n > 0'")

    error = fail("maintenance.backup", {"out": str(tmp_path / "x.dump"), "whole": True})

    assert (error["code"], error["message"][:18]) == ("backup_failed", "pg_restore failed:")
    assert "broken" in error["message"]
    assert list(tmp_path.iterdir()) == []
    assert scratch_databases(plain) == []


def test_a_killed_run_is_cleared_up_by_the_next(worked: str, tmp_path: Path, until: Until) -> None:
    """`kill -9` in the midst of the restore leaves a scratch database, which the next backup drops, and no other's."""
    tests = Path(sys.modules["single_run"].__file__ or "").parent
    first = subprocess.Popen([sys.executable, "-c", CHILD, str(tests), str(tmp_path / "x.dump")])
    until(lambda: scratch_databases(worked) or first.poll() is not None)
    first.send_signal(signal.SIGKILL)
    first.wait()
    (left,) = scratch_databases(worked)
    prefix = left[: left.index("_", len("absurd_scratch_")) + 1]
    with (
        psycopg.connect(worked, autocommit=True) as connection,
        psycopg.connect(worked) as maker,
    ):
        alive = f"{prefix}of_another_run"
        connection.execute(f"create database {alive}".encode())
        maker.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (alive,))
        with capture_logs() as logs:
            run("maintenance.backup", {"out": str(tmp_path / "x.dump")})

        assert scratch_databases(worked) == [alive]
        assert [each["names"] for each in logs if each["event"] == "scratch_databases_removed"] == [[left]]
        maker.rollback()
        run("maintenance.backup", {"out": str(tmp_path / "y.dump"), "verify": False})
        assert scratch_databases(worked) == []


def test_attempts_write_to_one_name(plain: str, tmp_path: Path) -> None:
    """The file is named in the first attempt, so that a later one finds, and removes, what a killed one has written."""
    port, task = MemoryPort(), uuid4()
    port.checkpoints[task] = {"name": "named-before.dump"}
    left = tmp_path / f".{task.hex[-12:]}-1-6.part.named-before.dump"
    left.write_text("half")
    claim = claim_of(
        "maintenance.backup", {"out": str(tmp_path), "whole": True, "verify": False}, task_id=task, attempt=2
    )

    outcome = run_sync(
        RunContext(claim, port, run_here), claim, registry.require(claim.name), Defaults(RetryPolicy(), None)
    )

    assert isinstance(outcome, Completed)
    assert [each.path for each in outcome.artifacts] == [str(tmp_path / "named-before.dump")]
    assert not left.exists()


async def test_a_cancelled_backup_leaves_nothing(
    worked: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while it restores, it drops its scratch database, stops its programs and removes its file."""
    monkeypatch.setattr(
        "absurd.workers.child.process.TERMINATE_SECONDS", 30.0
    )  # a machine under load is slow to connect
    async with working(settings, queues=["upkeep"]), AbsurdClient(settings=settings) as client:
        task: UUID = await client.spawn("maintenance.backup", {"out": str(tmp_path / "x.dump")}, queue="upkeep")
        await soon(lambda: scratch_databases(worked))

        await client.cancel(task)

        await soon(lambda: not scratch_databases(worked) and not list(tmp_path.glob("*.dump")))
        await soon(lambda: not list(tmp_path.glob(".*.dump")))


def test_old_dumps_go(plain: str, tmp_path: Path) -> None:
    """With `keep` the newest stay, this one included; files of other names and of other databases are not touched."""
    name = conninfo_to_dict(plain)["dbname"]
    others = ["notes.txt", f"{name}.absurd-20200101T000000Z.dump", f"{name}-20200101T000000Z.dump.bak"]
    old = [f"{name}-2020010{day}T000000Z.dump" for day in range(1, 6)]
    for each in others + old:
        (tmp_path / each).write_text("x")

    result, _ = run("maintenance.backup", {"out": str(tmp_path), "whole": True, "verify": False, "keep": 3})

    assert result["removed"] == old[:3]
    assert {each.name for each in tmp_path.iterdir()} == {*others, *old[3:], Path(result["path"]).name}
    assert (
        fail("maintenance.backup", {"out": f"{tmp_path}/x.dump", "whole": True, "keep": 3})["code"] == "invalid_input"
    )


@pytest.mark.parametrize("own", [True, False])
def test_a_server_of_another_version(
    old_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    """The programs of the server's own version are preferred, and newer ones do it too."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", old_server)
    if not own:
        monkeypatch.setattr("absurd.embedded_binaries._SYSTEM_FOLDERS", ())
        monkeypatch.setenv("PATH", "/nowhere")

    result, _ = run("maintenance.backup", {"out": f"{tmp_path}/x.dump"})

    assert result["verified"]
    assert (result["pg_dump_version"].partition(".")[0] == result["server_version"].partition(".")[0]) is own
