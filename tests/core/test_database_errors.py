"""What goes wrong between a client and its database is one clear error, the same with both drivers."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from absurd.config import load_settings
from absurd.database import AsyncDatabase
from absurd.database_errors import check_server, translate
from absurd.database_sync import SyncDatabase, connect
from absurd.database_url import describe, for_asyncpg
from absurd.embedded import EmbeddedServer
from absurd.errors import (
    BY_SQLSTATE,
    AbsurdError,
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    DatabaseUnavailableError,
    ForeignSchemaError,
    InvalidParamsError,
    SchemaMissingError,
    SchemaTooNewError,
    SchemaTooOldError,
    UnsupportedServerError,
)

Opener = Callable[..., Awaitable[int]]


async def open_async(url: str, schema: str = "absurd") -> int:
    """One query on asyncpg."""
    async with AsyncDatabase(url, schema=schema) as database:
        return int((await database.fetch("select 42 as answer"))[0]["answer"])


async def open_sync(url: str, schema: str = "absurd") -> int:
    """One query on psycopg."""
    with SyncDatabase(url, schema=schema) as database:
        return int(database.fetch("select 42 as answer")[0]["answer"])


@pytest.fixture(params=[open_async, open_sync], ids=["asyncpg", "psycopg"])
def opened(request: pytest.FixtureRequest) -> Opener:
    """Opens a database with each of the two drivers."""
    opener: Opener = request.param
    return opener


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that asks the role `guarded` for its password."""
    server = EmbeddedServer(load_settings(environ={}, home=tmp_path_factory.mktemp("guarded")))
    url = server.start()
    rules = Path(str(server.status().data)) / "pg_hba.conf"
    rules.write_text("local all guarded scram-sha-256\nlocal all barred reject\n" + rules.read_text())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create role guarded login superuser password 'right'; create role barred login")
        connection.execute("select pg_reload_conf()")
    with connect(url) as connection:
        from absurd.schema.migrate import migrate

        migrate(connection)
    yield url
    server.stop("immediate")
    server.destroy()


# The server --------------------------------------------------------------------------------------


async def test_nobody_listens(opened: Opener) -> None:
    """A refused connection names host and port, and never the password."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: nobody else gets the port
        port = taken.getsockname()[1]
        with pytest.raises(DatabaseUnavailableError, match=f"127.0.0.1:{port}") as caught:
            await opened(f"postgresql://someone:hush@127.0.0.1:{port}/night")

    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_socket_is_not_there(opened: Opener, tmp_path: Path) -> None:
    """A missing socket is named by its folder."""
    with pytest.raises(DatabaseUnavailableError, match=str(tmp_path)):
        await opened(f"host={tmp_path} dbname=night")


async def test_host_is_unknown(opened: Opener) -> None:
    """A name that no address belongs to is named."""
    with pytest.raises(DatabaseUnavailableError, match=r"nowhere\.invalid:5432"):
        await opened("postgresql://nowhere.invalid/night")


async def test_server_says_nothing(opened: Opener) -> None:
    """A host that accepts and never answers is given up after `connect_timeout`."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(DatabaseUnavailableError, match=f"127.0.0.1:{port}"):
            await opened(f"host=127.0.0.1 port={port} connect_timeout=2 sslmode=disable")


async def test_login_is_refused(opened: Opener, guarded: str) -> None:
    """A wrong and a missing password, an unknown role and one that may not come in are authentication errors."""
    assert 42 == await opened(make_conninfo(guarded, user="guarded", password="right"))
    for wrong in ({"user": "guarded", "password": "hush"}, {"user": "guarded"}, {"user": "nobody"}, {"user": "barred"}):
        with pytest.raises(AuthenticationError) as caught:
            await opened(make_conninfo(guarded, **wrong))
        assert "hush" not in str(caught.value)
        assert wrong["user"] in str(caught.value) or "password" in str(caught.value)


async def test_database_is_unknown(opened: Opener, server_url: str) -> None:
    """A database that does not exist is named."""
    with pytest.raises(DatabaseUnavailableError, match="nights"):
        await opened(make_conninfo(server_url, dbname="nights"))


def test_server_is_too_old() -> None:
    """A server before version 15 is refused with its version."""
    with pytest.raises(UnsupportedServerError, match=r"PostgreSQL 14\.9.*15 or newer"):
        check_server(140_009, "here")
    check_server(150_000, "here")


async def test_broken_connections_are_made_anew(database_url: str) -> None:
    """A server that ended all sessions while the client was idle costs no error."""
    end_all = (
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    async with AsyncDatabase(database_url) as database:
        with SyncDatabase(database_url) as plain:
            from absurd.queue import get_states

            for _ in range(2):
                with psycopg.connect(database_url, autocommit=True) as other:
                    other.execute(end_all)

                assert {} == await database.run(get_states([])) == plain.run(get_states([]))


# The schema --------------------------------------------------------------------------------------


async def test_queue_is_not_installed(opened: Opener, empty_database_url: str) -> None:
    """A database without the queue is told with the command to run, and not changed."""
    with pytest.raises(SchemaMissingError, match="absurd db migrate"):
        await opened(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        assert [(None,)] == connection.execute("select to_regnamespace('absurd')").fetchall()


async def test_queue_has_another_version(opened: Opener, database_url: str) -> None:
    """An older schema asks to be migrated, a newer one for a newer program."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("update absurd.meta set value = '0' where key = 'version'")
        with pytest.raises(SchemaTooOldError, match=r"version 0.*absurd db migrate"):
            await opened(database_url)
        connection.execute("update absurd.meta set value = '99' where key = 'version'")
        with pytest.raises(SchemaTooNewError, match="install the release of absurd with schema version 99"):
            await opened(database_url)


async def test_schema_is_somebody_elses(opened: Opener, empty_database_url: str) -> None:
    """A schema of another product is not mistaken for ours."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("create schema absurd; create table absurd.meta (key text, value text)")
        with pytest.raises(ForeignSchemaError, match="absurd-sdk"):
            await opened(empty_database_url)
        connection.execute("drop table absurd.meta; create table absurd.meta (name text)")
        with pytest.raises(SchemaMissingError):
            await opened(empty_database_url)


async def test_schema_name_is_checked(opened: Opener, database_url: str) -> None:
    """A schema name never gets into SQL unchecked."""
    with pytest.raises(ConfigurationError, match="schema name"):
        await opened(database_url, 'absurd"; drop')


# SQLSTATEs ---------------------------------------------------------------------------------------


class DriverError(Exception):
    """As both drivers raise them: a message and a SQLSTATE."""

    def __init__(self, sqlstate: str, message: str = "words of the server") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        *BY_SQLSTATE.items(),
        ("08006", DatabaseUnavailableError),
        ("57P01", DatabaseUnavailableError),
        ("57P03", DatabaseUnavailableError),
        ("53300", DatabaseUnavailableError),
        ("53100", DatabaseUnavailableError),
        ("25006", DatabaseUnavailableError),
        ("28P01", AuthenticationError),
        ("42501", AuthenticationError),
        ("42883", SchemaMissingError),
        ("22P05", InvalidParamsError),
        ("40P01", ConflictError),
        ("40001", ConflictError),
        ("57014", AbsurdError),
    ],
)
def test_sqlstates(sqlstate: str, kind: type[AbsurdError]) -> None:
    """Each SQLSTATE becomes the class of what a caller can do, with the server's words."""
    error = translate(DriverError(sqlstate), address="here")

    assert kind is type(error)
    assert "words of the server" in error.message


# Addresses ---------------------------------------------------------------------------------------


async def test_any_libpq_address_will_do(
    opened: Opener, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """URLs, keyword DSNs, several hosts, service and password files, and options work with both drivers."""
    given = {name: str(value) for name, value in conninfo_to_dict(database_url).items()}
    folder, name = given["host"], given["dbname"]
    quoted = folder.replace("/", "%2F")
    service = tmp_path / "services"
    service.write_text(f"[night]\nhost={folder}\nuser=absurd\ndbname={name}\nport=5432\n")
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    for address in (
        f"postgresql://absurd@/{name}?host={folder}",
        f"postgres://absurd@{quoted}/{name}",
        f"postgresql:///{name}?host={folder}&user=absurd&application_name=dome%20a&connect_timeout=5&keepalives=1",
        f"host={folder} user=absurd dbname={name} sslmode=prefer gssencmode=disable channel_binding=prefer",
        f"host='{folder}' user=absurd dbname={name} options='-c statement_timeout=5000' password='with \\' and & %'",
        f"host={tmp_path},{folder} user=absurd dbname={name} port=5432,5432",
        f"host={folder} user=absurd dbname={name} passfile={tmp_path / 'absent'} target_session_attrs=read-write",
        "service=night",
        "postgresql://?service=night",
    ):
        assert 42 == await opened(address), address


def test_options_reach_the_server(database_url: str) -> None:
    """A schema or a time-out set in the address is the session's."""
    with SyncDatabase(make_conninfo(database_url, options="-c statement_timeout=4242")) as database:
        assert "4242ms" == database.fetch("show statement_timeout")[0]["statement_timeout"]
    assert "-c statement_timeout=4242" in str(for_asyncpg("options='-c statement_timeout=4242'")).replace(
        "+", " "
    ).replace("%3D", "=")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("postgresql://u:hush@db.example:5433/night", "db.example:5433"),
        ("postgresql://u:hush@db.example/night", "db.example:5432"),
        ("host=a,b port=1,2 password=hush", "a:1, b:2"),
        ("host=/run/x dbname=night password=hush", "/run/x (port 5432)"),
        ("dbname=night", "the local socket (port 5432)"),
        ("service=night", "service night"),
        ("postgresql://u:hush@[::1]:99/night", "::1:99"),
    ],
)
def test_addresses_in_messages(address: str, told: str) -> None:
    """Messages say where the server is and keep the password to themselves."""
    assert told == describe(address)


async def test_address_that_cannot_be_read(opened: Opener) -> None:
    """A malformed address is a configuration error; what it holds of a password is not repeated."""
    for address in (
        "postgresql://u:hush@host:port:5/x",
        "hosd=x password=hush",
        "postgresql://u:hu sh@x",
        "postgresql://u:b@hush@127.0.0.1:1/x",
        "postgresql://u:hush/b@127.0.0.1/x",
        "postgresql://u:1/hush@127.0.0.1/x",
        "postgresql://u:1?x@b/hush@127.0.0.1/x",
        "postgresql://u@hush@127.0.0.1:1/x",
        "host=b@hush port=1",
        "host='x",
        "host=x port=x",
        "host=x sslmode=maybe",
        "host=x connect_timeout=soon",
    ):
        with pytest.raises(ConfigurationError, match="cannot be read") as caught:
            await opened(address)
        assert "hush" not in str(caught.value)
        assert "hu sh" not in str(caught.value)
