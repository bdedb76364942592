"""Where the password of the database to export from is found: nowhere, by whichever way it was given."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest
from exporting import Gate
from psycopg import sql
from psycopg.conninfo import make_conninfo

from absurd.config import load_settings
from absurd.embedded import EmbeddedServer
from absurd.errors import DatabaseUnavailableError
from absurd.tasks.export import ExportConfigError, export_query

Until = Callable[[Callable[[], object]], None]

SECRET = "it's a \\ secret"
FORMS = (SECRET, SECRET.replace("\\", "\\\\"), SECRET.replace("\\", "%5C").replace(" ", "%20"), "a \\", "s%20a")
"""As it is, and as it is written in files, addresses and JSON."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server that asks the role `guarded` for its password: the parts of its address, and where it lies."""
    server = EmbeddedServer(load_settings(environ={}, home=tmp_path_factory.mktemp("guarded")))
    url = server.start()
    status = server.status()
    rules = Path(str(status.data)) / "pg_hba.conf"
    rules.write_text("local all guarded scram-sha-256\n" + rules.read_text())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("create role guarded login password {}").format(SECRET))
        connection.execute("alter system set log_statement = 'all'")
        connection.execute("alter system set log_min_messages = info")
        connection.execute("select pg_reload_conf()")
        parts = {"host": connection.info.host, "port": str(connection.info.port), "dbname": connection.info.dbname}
    yield parts | {"user": "guarded", "log": str(status.log), "url": url}
    server.stop("immediate")
    server.destroy()


LOOKING = """
from pathlib import Path
from absurd.cli import export
from absurd.tasks.export import batch

made = batch.export_query

def look(*args, **options):
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            shown = each.read_bytes()
        except OSError:
            continue
        with open("processes", "ab") as file:
            file.write(shown)
    return made(*args, **options)

batch.export_query = look
export.main()
"""
"""``fast-export``, which notes down what the list of processes shows while it exports."""

TERMINAL = """
import fcntl, os, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
"""
"""Makes standard input the terminal at which a program asks for passwords."""

WAYS = (
    *("password", "dsn-url", "dsn-words", "PGPASSWORD", "PGPASSFILE", "service", "password-file", "stdin"),
    "ask-password",
)


@pytest.mark.parametrize("way", WAYS)
def test_a_password_is_found_nowhere(guarded: dict[str, str], tmp_path: Path, way: str) -> None:
    """By whichever way it is given, it opens the door, and is in no list of processes, no output, no file, no log."""
    given = tmp_path / "given"
    given.mkdir()
    work = tmp_path / "work"
    work.mkdir()
    address = {name: guarded[name] for name in ("host", "port", "dbname", "user")}
    words = [word for name, value in address.items() for word in (f"--{name}", value)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    text = ""
    match way:
        case "password":
            words += ["--password", SECRET]
        case "dsn-url":
            quoted = SECRET.replace("\\", "%5C").replace(" ", "%20").replace("'", "%27")
            words = ["--dsn", f"postgresql://guarded:{quoted}@/{address['dbname']}?host={address['host']}"]
            words[1] += f"&port={address['port']}"
        case "dsn-words":
            words = ["--dsn", make_conninfo(**address, password=SECRET)]
        case "PGPASSWORD":
            environment["PGPASSWORD"] = SECRET
        case "PGPASSFILE":
            escaped = SECRET.replace("\\", "\\\\")
            (given / "pgpass").write_text(f"*:*:*:guarded:{escaped}\n")
            (given / "pgpass").chmod(0o600)
            environment["PGPASSFILE"] = str(given / "pgpass")
        case "service":
            lines = "".join(f"{name}={value}\n" for name, value in (address | {"password": SECRET}).items())
            (given / "services.conf").write_text(f"[archive]\n{lines}")
            environment["PGSERVICEFILE"] = str(given / "services.conf")
            words = ["--service", "archive"]
        case "password-file":
            (given / "password").write_text(f"{SECRET}\n")
            words += ["--password-file", str(given / "password")]
        case "stdin":
            text = f"{SECRET}\n"
            words += ["--password-file", "-"]
        case "ask-password":
            words += ["--ask-password"]
    (work / "x.json").write_text(
        json.dumps([{"sql": "select 1 as a", "out": "a.parquet"}, {"sql": "select y", "out": "b.parquet"}])
    )
    program = [*words, "--config", "x.json", "--debug"]
    if way == "ask-password":
        code, out, err = at_a_terminal([sys.executable, "-c", TERMINAL + LOOKING, *program], work, environment)
        assert "Password: " in out
    else:
        done = subprocess.run(
            [sys.executable, "-c", LOOKING, *program],
            cwd=work, env=environment, input=text, capture_output=True, text=True, check=False,
        )  # fmt: skip
        code, out, err = done.returncode, done.stdout, done.stderr

    assert code == 1, out + err
    assert pq.read_table(work / "a.parquet").to_pylist() == [{"a": 1}]
    assert ("a password stood among the arguments" in err) == (way in ("password", "dsn-url", "dsn-words"))
    (work / "output").write_text(out + err)
    places = [*work.iterdir(), log_of(guarded)]
    assert {"processes", "a.parquet"} <= {place.name for place in places}
    assert leaks(places) == []


@pytest.mark.parametrize("way", ["service", "pgpass"])
def test_a_task_holds_no_password(
    guarded: dict[str, str], module_database_url: str, tmp_path: Path, until: Until, way: str
) -> None:
    """An export by a task names a service, which holds the password or leaves that to a password file.

    Neither the queue's tables nor its log hold what these say, nor the file, finished or not, nor, while the server
    makes the export wait, what any process shows of its arguments and its environment.
    """
    address = {name: guarded[name] for name in ("host", "port", "dbname", "user")}
    given = tmp_path / "given"
    given.mkdir()
    escaped = SECRET.replace("\\", "\\\\")
    (given / "pgpass").write_text(f"*:*:*:guarded:{escaped if way == 'pgpass' else 'wrong'}\n")
    (given / "pgpass").chmod(0o600)
    if way == "service":
        address["password"] = SECRET
    (given / "services.conf").write_text("[archive]\n" + "".join(f"{name}={at}\n" for name, at in address.items()))
    work = tmp_path / "work"
    work.mkdir()
    environment = os.environ | {
        "PGSERVICEFILE": str(given / "services.conf"),
        "PGPASSFILE": str(given / "pgpass"),
        "ABSURD_DATABASE_URL": module_database_url,
        "ABSURD_LOG_LEVEL": "debug",
    }
    words = [sys.executable, "-m", "absurd", "--debug", "export", "--service", "archive", "--here", "--json"]
    query = "select 1 as a, n from generate_series(1, 1000) n, (select pg_advisory_lock_shared(7) offset 0) as gate"
    with Gate(guarded["url"]) as gate, (work / "output").open("w") as output:
        process = subprocess.Popen(
            [*words, "--sql", query, "--out", "a.parquet"], cwd=work, env=environment, stdout=output, stderr=output
        )
        until(lambda: gate.waiting() and [path for path in work.iterdir() if path.name.startswith(".")])
        (work / "meanwhile").write_bytes(shown_by_processes())
        unfinished = leaks([path for path in work.iterdir() if path.is_file()])
        gate.open()
        assert process.wait(60) == 0
        refused = [*words, "--sql", "select x", "--out", "b.parquet"]
        assert subprocess.run(refused, cwd=work, env=environment, stdout=output, stderr=output, check=False).returncode
    with psycopg.connect(module_database_url) as connection, (work / "tables").open("w") as dump:
        owned = "select oid::regclass::text from pg_class where relkind = 'r' and relnamespace = 'absurd'::regnamespace"
        tables = connection.execute(owned).fetchall()
        for (table,) in tables:
            for (row,) in connection.execute(f"select t::text from {table} t"):
                dump.write(f"{row}\n")

    places = [*work.iterdir(), log_of(guarded)]
    assert "archive" in (work / "tables").read_text()
    assert b"absurd.workers.child" in (work / "meanwhile").read_bytes()
    assert pq.read_metadata(work / "a.parquet").num_rows == 1000
    assert unfinished == []
    assert leaks(places) == []


def shown_by_processes() -> bytes:
    """The arguments and the environment of every process that lets itself be seen."""
    shown = b""
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            shown += (each / "cmdline").read_bytes() + (each / "environ").read_bytes()
    return shown


def at_a_terminal(program: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str, str]:
    """Run a program at a terminal where the password is typed when it asks: its exit code, and all that is shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(program, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # EIO: nobody is left at the other end
        while piece := os.read(ours, 4096):
            shown += piece
            if shown.endswith(b"Password: "):
                os.write(ours, f"{SECRET}\n".encode())
    os.close(ours)
    return process.wait(), shown.decode(), ""


def log_of(guarded: dict[str, str]) -> Path:
    """What the server that asked for the password has written: every statement that came to it."""
    log = Path(guarded["log"])
    assert b"select 1 as a" in log.read_bytes()
    return log


def leaks(places: list[Path]) -> list[str]:
    """Files in which the password is found, in any form."""
    return [place.name for place in places for form in FORMS if form.encode() in place.read_bytes()]


CUT_SHORT = (
    "postgresql://guarded:b@HUSH@127.0.0.1:1/x",
    "postgres://guarded:b@HUSH@127.0.0.1/x",
    "postgresql://guarded:HUSH/b@127.0.0.1/x",
    "postgresql://guarded:1/HUSH@127.0.0.1/x",
    "postgresql://guarded:1@HUSH@127.0.0.1:1",
    "postgresql://guarded:b@HUSH@127.0.0.1,127.0.0.2:1/x",
    "postgresql://guarded@HUSH@127.0.0.1:1/x",
    "postgresql://guarded:b?HUSH@x/HUSH@127.0.0.1:1/x",
    "host=b@HUSH port=1 user=guarded",
    "postgresql:///x?host=b%40HUSH",
    "host=127.0.0.1 passwrd=HUSH",
)
"""Addresses that libpq understands otherwise than they are meant, with HUSH in the password."""


@pytest.mark.parametrize("address", CUT_SHORT)
def test_a_password_that_is_not_escaped_is_not_told(tmp_path: Path, address: str) -> None:
    """Its second half would be the host to look for, or the database: refused, with advice, without the value."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    for words in (["--sql", "select 1 as a", "--out", "x.parquet"], ["--config", "x.json"]):
        (tmp_path / "x.json").write_text('[{"sql": "select 1 as a", "out": "x.parquet"}]')
        done = subprocess.run(
            [sys.executable, "-m", "absurd", "--debug", "export", "--direct", "--dsn", address, *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert "HUSH" not in done.stdout + done.stderr
        assert "%40" in done.stderr
    with pytest.raises(ExportConfigError, match="%40") as caught:
        export_query(address, "select 1 as a", tmp_path / "x.parquet")
    assert "HUSH" not in str(caught.value) and caught.value.__cause__ is None


def test_an_escaped_password_and_a_socket_of_no_file_are_fine(tmp_path: Path) -> None:
    """What is escaped, parameters, and the hosts that begin with an @ in the way of libpq, are taken as they are."""
    for address in (
        "postgresql://guarded:b%40c%2Fd@127.0.0.1:1/x?application_name=a@b",
        "postgresql://127.0.0.1:1/a%40b",
        "host=@nowhere,127.0.0.1 port=1,1 dbname=a@b user=c@d",
    ):
        with pytest.raises(DatabaseUnavailableError, match="cannot be reached"):
            export_query(address, "select 1 as a", tmp_path / "x.parquet")
