"""Installing and upgrading the schema, and giving roles their functions."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from version1 import NEXT, install_version_1

from absurd import SyncAbsurdClient, schema
from absurd.database_sync import grant_role, install, installed_version
from absurd.errors import (
    AuthenticationError,
    ConfigurationError,
    ForeignSchemaError,
    NotFoundError,
    SchemaMissingError,
    SchemaTooNewError,
    SchemaTooOldError,
)
from absurd.schema import VERSION, grants
from absurd.schema.migrate import Installed, Migration, installed, migrate, print_sql

Connection = psycopg.Connection[Any]


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection in autocommit mode."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def contents(connection: Connection) -> list[Any]:
    """Every object of every schema that is not the server's own, with its definition."""
    return connection.execute(
        """
        select n.nspname, 'relation', c.relname, c.relkind::text, c.oid::bigint::text from pg_class c
        join pg_namespace n on n.oid = relnamespace where nspname !~ '^(pg_|information_schema)'
        union all
        select n.nspname, 'function', p.oid::regprocedure::text, p.prosrc, coalesce(p.proacl::text, '') from pg_proc p
        join pg_namespace n on n.oid = pronamespace where nspname !~ '^(pg_|information_schema)'
        order by 1, 2, 3, 4, 5
        """
    ).fetchall()


# Installing --------------------------------------------------------------------------------------


def test_installing_twice_changes_nothing(empty_database_url: str) -> None:
    """The first call installs, the second finds it done (B106)."""
    assert installed_version(empty_database_url) is None
    assert Migration(None, VERSION) == install(empty_database_url)
    with connected(empty_database_url) as connection:
        before = contents(connection)

        assert Migration(VERSION, VERSION) == install(empty_database_url)
        assert VERSION == installed_version(empty_database_url)
        assert before == contents(connection)
        assert {"version": str(VERSION), "product": schema.PRODUCT} == dict(
            connection.execute("select key, value from absurd.meta").fetchall()
        )


def test_many_install_at_once(empty_database_url: str) -> None:
    """Of several that begin at the same moment one installs, and none fails (B106)."""
    with ThreadPoolExecutor(6) as threads:
        done = list(threads.map(install, [empty_database_url] * 6))

    assert {VERSION} == {each.after for each in done}
    assert 1 == [each.before for each in done].count(None)


def test_beside_work_that_is_under_way(database_url: str) -> None:
    """Nothing to do takes no lock that an open transaction of a worker would hold up."""
    with connected(database_url) as connection:
        connection.execute("begin")
        connection.execute("select absurd.spawn_task('q', 'n', '{}')")

        assert Migration(VERSION, VERSION) == install(database_url)
        connection.execute("rollback")


def test_another_schema_stands_by_itself(database_url: str) -> None:
    """The queue lives in a schema of any allowed name, beside another queue."""
    install(database_url, "night_2")
    with SyncAbsurdClient(database_url) as client:
        client.spawn("bare.add", {"here": 1})
    with connected(database_url) as connection:
        connection.execute("select night_2.spawn_task('q', 'demo.sub', '{}')")

        names = [
            connection.execute(f"select string_agg(t ->> 'name', ' ') from {each}.list_tasks() t").fetchall()
            for each in ("absurd", "night_2")
        ]

    assert [[("bare.add",)], [("demo.sub",)]] == names


@pytest.mark.parametrize("name", ["", "Absurd", "pg_queue", "1night", "a b", 'a"b', "a" * 51, "a;drop"])
def test_names_that_are_not_allowed(empty_database_url: str, name: str) -> None:
    """A schema name is checked before it gets into any SQL."""
    with pytest.raises(ConfigurationError, match="schema name"):
        install(empty_database_url, name)
    with pytest.raises(ConfigurationError, match="schema name"):
        print_sql(name)


def test_longest_name_has_room_for_its_channels(empty_database_url: str) -> None:
    """A schema of the longest name can notify."""
    name = "a" * 50
    install(empty_database_url, name)
    with connected(empty_database_url) as connection:
        connection.execute(f"select {name}.set_listening(1, array[1], true)")
        connection.execute(f"listen {name}_ready")
        connection.execute(f"select {name}.spawn_task('q', 'bare.add', '{{}}')")
        connection.execute(f"select {name}.spawn_task('q', 'bare.add', '{{}}')")


@pytest.mark.parametrize(
    "foreign",
    [
        "create table absurd.tasks (id int)",
        "create table absurd.meta (key text, value text); insert into absurd.meta values ('product', 'other')",
        "create table absurd.meta (id int)",
        "create function absurd.spawn_task() returns int language sql as 'select 1'",
        "create type absurd.state as enum ('a')",
    ],
)
def test_foreign_schema_is_left_alone(empty_database_url: str, foreign: str) -> None:
    """A schema of that name that is not ours is refused with both names, and nothing in it is touched."""
    with connected(empty_database_url) as connection:
        connection.execute(f"create schema absurd; {foreign}")
        before = contents(connection)

        with pytest.raises(ForeignSchemaError, match=r"'absurd'.*absurd-observatory.*absurd-sdk"):
            install(empty_database_url)
        with pytest.raises(ForeignSchemaError):
            installed_version(empty_database_url)
        assert before == contents(connection)


def test_owner_without_the_right_to_create_schemas(empty_database_url: str, role: Callable[[], str]) -> None:
    """A role that only owns an empty schema can install there; it needs to be no superuser."""
    owner = role()
    with connected(empty_database_url) as connection:
        connection.execute(f"create schema absurd authorization {owner}")
    as_owner = with_user(empty_database_url, owner)

    assert Migration(None, VERSION) == install(as_owner)
    with SyncAbsurdClient(as_owner) as client:
        client.spawn("bare.add")


def test_owner_waits_for_no_dump_of_somebody_else(
    empty_database_url: str, role: Callable[[], str], until: Callable[[Callable[[], object]], None]
) -> None:
    """An owner who may not see since when others' transactions last makes no partitions beside one that stays."""
    owner = role()
    with connected(empty_database_url) as connection:
        connection.execute(f"create schema absurd authorization {owner}")
    as_owner = with_user(empty_database_url, owner)
    install(as_owner)
    warnings: list[str] = []
    with connected(empty_database_url) as dump, connected(as_owner) as connection:
        connection.execute(
            "create or replace function absurd.clock_time() returns timestamptz language sql stable"
            " as $$ select clock_timestamp() + interval '16 days' $$"
        )
        connection.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
        with dump.transaction():
            dump.execute("select count(*) from absurd.task")
            old = "select now() < clock_timestamp() - interval '1 s'"
            until(lambda: dump.execute(old).fetchone() == (True,))

            assert connection.execute("select absurd.ensure_partitions()").fetchone() == (0,)
            assert not warnings, "it did not even try"

        made = connection.execute("select absurd.ensure_partitions()").fetchone()
        assert made is not None and made[0] > 0


def test_owner_upgrades_from_version_1(empty_database_url: str, role: Callable[[], str]) -> None:
    """Whoever owns the schema can upgrade it, being no superuser; others keep what they were granted."""
    owner, reader = role(), role()
    with connected(empty_database_url) as connection:
        connection.execute(
            sql.SQL("grant create on database {} to {}").format(
                sql.Identifier(connection.info.dbname), sql.Identifier(owner)
            )
        )
    as_owner = with_user(empty_database_url, owner)
    with connected(as_owner) as connection:
        install_version_1(connection)
    with connected(empty_database_url) as connection:
        connection.execute(f"grant usage on schema absurd to {reader}")
        connection.execute(f"grant execute on function absurd.get_task(uuid) to {reader}")

    assert Migration(1, VERSION) == install(as_owner)
    with SyncAbsurdClient(as_owner) as client:
        client.spawn("bare.add")
    assert {"get_task"} == may(empty_database_url, reader)


def test_role_without_rights_is_told_so(empty_database_url: str, role: Callable[[], str]) -> None:
    """Whoever may not create a schema gets one sentence."""
    with pytest.raises(AuthenticationError, match="permission denied"):
        install(with_user(empty_database_url, role()))


def test_printed_script_installs_the_same(empty_database_url: str, database_url: str, tmp_path: Path) -> None:
    """What a database administrator runs by hand is what `migrate` does; on an occupied schema it stops."""
    psql = shutil.which("psql") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/psql")), None)
    script = print_sql()
    with connected(empty_database_url) as by_hand, connected(database_url) as by_program:
        if psql:
            (tmp_path / "absurd.sql").write_text(script)
            command = [psql, "-X", "-q", "-d", empty_database_url, "-f", str(tmp_path / "absurd.sql")]
            subprocess.run(command, check=True, capture_output=True)
        else:
            by_hand.execute(script.replace("\\set ON_ERROR_STOP on", ""))

        def names(connection: Connection) -> list[Any]:
            rows = [row[:4] for row in contents(connection)]
            weeks = sorted({week for row in rows for week in re.findall(r"\d{4}w\d\d", row[2])})
            ordinal = {week: f"week {at}" for at, week in enumerate(weeks)}
            return [(*row[:2], re.sub(r"\d{4}w\d\d", lambda m: ordinal[m[0]], row[2]), row[3]) for row in rows]

        # The week may have turned since the program installed its own: partitions go by their place in the stock.
        assert names(by_program) == names(by_hand)
        assert Migration(VERSION, VERSION) == install(empty_database_url)
        with pytest.raises(psycopg.errors.RaiseException, match="not empty"):
            by_hand.execute(script.replace("\\set ON_ERROR_STOP on", ""))


def test_version_is_the_one_in_the_sql() -> None:
    """The program and its first SQL file tell the same version, and files are installed in order."""
    names = [name for name, _ in schema.scripts()]

    assert f"('version', '{VERSION}')" in dict(schema.scripts())["00_schema.sql"]
    assert names == sorted(names)


# Upgrading ---------------------------------------------------------------------------------------


def test_upgrade_in_two_halves(database_url: str, releases: Path) -> None:
    """After the first half old and new programs work; the second ends the old ones."""
    with connected(database_url) as connection:
        assert Migration(VERSION, NEXT) == migrate(connection, source=releases, version=NEXT, finish=False)
        assert Installed(NEXT, VERSION) == installed(connection)
        for version in (VERSION, NEXT):
            Installed(NEXT, VERSION).check("absurd", version)
        assert Migration(NEXT, NEXT) == migrate(connection)  # the old program finds nothing to do
        assert Migration(NEXT, NEXT) == migrate(connection, source=releases, version=NEXT, finish=False)
        with SyncAbsurdClient(database_url) as old:
            old.spawn("bare.add")

        assert Migration(NEXT, NEXT) == migrate(connection, source=releases, version=NEXT)
        assert Installed(NEXT, NEXT) == installed(connection)
        assert [("pre",), ("post",)] == connection.execute("select what from absurd.noted").fetchall()
        with pytest.raises(SchemaTooNewError, match=rf"version {NEXT}.*knows only {VERSION}"):
            migrate(connection)
        with pytest.raises(SchemaTooNewError), SyncAbsurdClient(database_url):
            pass


def test_upgrade_over_several_versions(database_url: str, releases: Path) -> None:
    """Steps are made in order; a step in the middle is finished even when the last is not."""
    with connected(database_url) as connection:
        assert Migration(VERSION, NEXT + 1) == migrate(connection, source=releases, version=NEXT + 1, finish=False)
        assert Installed(NEXT + 1, NEXT) == installed(connection)
        assert Migration(NEXT + 1, NEXT + 1) == migrate(connection, source=releases, version=NEXT + 1)
        assert Installed(NEXT + 1, NEXT + 1) == installed(connection)


@pytest.mark.parametrize("place", [f"migrations/{NEXT}-{NEXT + 1}_post.sql", "sql/96_wrong.sql"])
def test_upgrade_that_fails_changes_nothing(database_url: str, releases: Path, place: str) -> None:
    """An error in any script takes the whole upgrade back."""
    (releases / place).write_text("select 1/0;")
    with connected(database_url) as connection:
        before = contents(connection)

        with pytest.raises(psycopg.errors.DivisionByZero):
            migrate(connection, source=releases, version=NEXT + 1)
        assert before == contents(connection)
        assert Installed(VERSION, VERSION) == installed(connection)


def test_version_too_old_to_upgrade(database_url: str, releases: Path) -> None:
    """A step this release does not know is an error with a way out."""
    with connected(database_url) as connection, pytest.raises(SchemaTooOldError, match="earlier release"):
        migrate(connection, source=releases, version=NEXT + 2)


def test_upgrade_grants_what_it_adds(database_url: str, releases: Path, role: Callable[[], str]) -> None:
    """Roles that were given a profile get the new functions of it; a role that has gone does no harm."""
    admin, gone = role(), role()
    grant_role(database_url, admin, "admin")
    grant_role(database_url, gone, "reader")
    with connected(database_url) as connection:
        connection.execute(f"drop owned by {gone}; drop role {gone}")
        migrate(connection, source=releases, version=NEXT)
    with connected(with_user(database_url, admin)) as connection:
        assert [(2,)] == connection.execute("select absurd.added()").fetchall()


# Rights ------------------------------------------------------------------------------------------


@pytest.fixture
def role(server_url: str) -> Iterator[Callable[[], str]]:
    """Makes database roles that may log in and nothing else."""
    made: list[str] = []

    def make() -> str:
        name = f"role_{id(made)}_{len(made)}"
        with connected(server_url) as connection:
            connection.execute(f"create role {name} login")
        made.append(name)
        return name

    yield make
    with connected(server_url) as connection:
        for name in made:
            connection.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{name}'")
            databases = connection.execute("select datname from pg_database where datallowconn").fetchall()
            for (database,) in databases:
                with connected(psycopg.conninfo.make_conninfo(server_url, dbname=database)) as there:
                    if there.execute("select from pg_roles where rolname = %s", [name]).fetchall():
                        there.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(name)))
            connection.execute(f"drop role if exists {name}")


def with_user(url: str, user: str) -> str:
    """`url` for another user."""
    return psycopg.conninfo.make_conninfo(url, user=user)


def may(url: str, user: str) -> set[str]:
    """Names of the functions that a role may call."""
    with connected(url) as connection:
        rows = connection.execute(
            "select distinct proname from pg_proc where pronamespace = 'absurd'::regnamespace"
            " and has_schema_privilege(%s, 'absurd', 'usage') and has_function_privilege(%s, oid, 'execute')",
            [user, user],
        ).fetchall()
    return {name for (name,) in rows}


def test_public_may_do_nothing(database_url: str, role: Callable[[], str]) -> None:
    """A role without a grant sees nothing and calls nothing."""
    nobody = role()

    assert set() == may(database_url, nobody)
    with pytest.raises(AuthenticationError, match="absurd db grant"), SyncAbsurdClient(with_user(database_url, nobody)):
        pass


def test_profiles_name_functions_that_exist(database_url: str, role: Callable[[], str]) -> None:
    """Each profile gets exactly its functions, each of these exists and runs with the owner's rights."""
    with connected(database_url) as connection:
        rows = connection.execute(
            "select proname, prosecdef from pg_proc where pronamespace = 'absurd'::regnamespace"
        ).fetchall()
        public = {name for name, _ in rows if not name.startswith("_")}
        owned = {name for name, definer in rows if definer}
    assert grants.READER < grants.SPAWNER < grants.WORKER <= public
    assert owned <= public
    assert set() == grants.WORKER - owned - {"clock_time", "lease_worker"}
    for profile, functions in grants.FUNCTIONS.items():
        user = role()
        grant_role(database_url, user, profile)

        assert (public if functions is None else functions) == may(database_url, user)
        with connected(database_url) as connection:
            tables = connection.execute(
                "select relname from pg_class where relnamespace = 'absurd'::regnamespace and relkind in ('r', 'p')"
                " and has_table_privilege(%s, oid, 'select, insert, update, delete')",
                [user],
            ).fetchall()
        assert [("meta",)] == tables


def test_spawner_spawns_and_does_not_claim(database_url: str, role: Callable[[], str]) -> None:
    """A spawner works with the client as it is, and is refused what is the worker's."""
    spawner = role()
    grant_role(database_url, spawner, "spawner")
    with SyncAbsurdClient(with_user(database_url, spawner)) as client:
        parent = client.spawn("bare.add", {"a": 1}, key="k", tags=["t"], queue="made_by_it")
        client.spawn("bare.add", depends_on=[parent], delay=5)

        assert 1 == client.get_queue_stats("made_by_it").pending
        assert client.get_status()["queues"]
        client.cancel(parent)
        with pytest.raises(TimeoutError):
            client.wait(client.spawn("bare.add"), timeout=0.1)
        for refused in (
            "claim_runs(1, 1, 1, '{}', '{}')",
            "register_worker('n', 'h', 1, '{}', 1, '{}', '{}', 1)",
            "purge_queue('made_by_it')",
        ):
            with (
                connected(with_user(database_url, spawner)) as own,
                pytest.raises(psycopg.errors.InsufficientPrivilege),
            ):
                own.execute(f"select absurd.{refused}")
        with connected(with_user(database_url, spawner)) as own, pytest.raises(psycopg.errors.InsufficientPrivilege):
            own.execute("select from absurd.task")


def test_grant_again_takes_away(database_url: str, role: Callable[[], str]) -> None:
    """A role has the rights of its last grant only."""
    user = role()
    grant_role(database_url, user, "admin")
    grant_role(database_url, user, "reader")

    assert grants.READER == may(database_url, user)


def test_grants_that_cannot_be(database_url: str, empty_database_url: str, role: Callable[[], str]) -> None:
    """A role that does not exist and a database without the queue are told apart."""
    with pytest.raises(NotFoundError, match="CREATE ROLE"):
        grant_role(database_url, "nobody's", "reader")
    with pytest.raises(SchemaMissingError, match="absurd db migrate"):
        grant_role(empty_database_url, role(), "reader")
