"""Install and upgrade the schema over an open connection; give roles their functions.

Everything happens in one transaction under one advisory lock: of several that do it at once, one
works and the others find it done.

An upgrade has two halves, so that programs of the old and the new version can run beside one
another: ``<from>-<to>_pre*.sql`` adds to the tables what the new program needs, and the files of code
make its functions; ``<from>-<to>_post.sql`` takes away what only the old one used, functions
included.  In the table `meta`, `version` is the newest program that can work with the schema, and
`oldest` (when absent: the same) the oldest.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any, Protocol

from absurd.errors import (
    ForeignSchemaError,
    NotFoundError,
    SchemaBusyError,
    SchemaError,
    SchemaMissingError,
    SchemaTooNewError,
    SchemaTooOldError,
)
from absurd.schema import PRODUCT, VERSION, code, quoted, root, scripts
from absurd.schema.functions import Session, exchange
from absurd.schema.grants import FUNCTIONS, Profile

PATIENCE = 5.0
"""Seconds that an upgrade waits for calls that are under way to end, and for the tables."""


class Connection(Session, Protocol):
    """What is needed of a psycopg connection: ``%s`` placeholders, rows as tuples."""

    def transaction(self) -> AbstractContextManager[Any]: ...


@dataclass(frozen=True, slots=True)
class Installed:
    """The newest and the oldest program version that can work with what is installed."""

    version: int
    oldest: int

    @classmethod
    def read(cls, meta: dict[str, str], schema: str) -> Installed:
        """From the rows of `meta`; ForeignSchemaError if they are not ours."""
        if meta.get("product") != PRODUCT:
            raise foreign(schema)
        return cls(int(meta["version"]), int(meta.get("oldest", meta["version"])))

    def check(self, schema: str, version: int = VERSION) -> None:
        """Raise SchemaTooOldError or SchemaTooNewError unless a program of `version` can work with it."""
        if self.version < version:
            raise SchemaTooOldError(
                f"schema {schema!r} has version {self.version}, this program needs {version}: run `absurd db migrate`",
                schema=schema,
                installed=self.version,
                needed=version,
            )
        if self.oldest > version:
            raise SchemaTooNewError(
                f"schema {schema!r} has version {self.version}, this program knows only {version}: "
                f"install the release of absurd with schema version {self.version}",
                schema=schema,
                installed=self.version,
                needed=version,
            )


@dataclass(frozen=True, slots=True)
class Migration:
    """What `migrate` did: the schema's version before (None: nothing was installed) and after."""

    before: int | None
    after: int


def migrate(
    connection: Connection,
    schema: str = "absurd",
    *,
    finish: bool = True,
    source: Traversable | None = None,
    version: int = VERSION,
) -> Migration:
    """Install the queue into `schema` or upgrade it to `version`; does nothing when it is up to date.

    With ``finish=False`` the last step of an upgrade stops after its first half: programs of the
    version before can go on, and a later call finishes it.  `source` is the folder with ``sql/``
    and ``migrations/``.  Raises ForeignSchemaError when the schema is another product's and
    SchemaTooNewError when it is too new; nothing is changed then.  An upgrade needs all tables for
    itself: the driver's error for a lock that was not to be had leaves nothing changed either, and
    `busy` tells who holds it.
    """
    source = source or root()
    with connection.transaction():
        connection.execute(_lock(schema))
        found = installed(connection, schema)
        if found is None:
            for part in _creation(schema, source, new=not _exists(connection, schema)):
                connection.execute(part)
            return Migration(None, version)
        if found.version > version:
            found.check(schema, version)
            return Migration(found.version, found.version)
        if found.version == version and (found.oldest == version or not finish):
            return Migration(version, version)
        connection.execute(_enter(schema))
        _have_all(connection)
        for step in range(found.oldest, version):
            if step >= found.version:
                connection.execute(_step(schema, source, step, "pre"))
            if step < version - 1:
                connection.execute(_step(schema, source, step, "post"))
        exchange(connection, [text for _, text in code(source)], keep=not finish)
        if finish:
            connection.execute(_step(schema, source, version - 1, "post"))
        _note(connection, schema, {"version": str(version), "oldest": str(version if finish else version - 1)})
        for role, profile in _granted(connection, schema):
            _grant(connection, schema, role, profile)
        if found.oldest == 1:  # its calls do not look out for an upgrade
            _cancel_waiting(connection)
        return Migration(found.version, version)


def installed(connection: Connection, schema: str = "absurd") -> Installed | None:
    """What `schema` holds; None if there is no such schema or it is empty.

    Raises ForeignSchemaError when it holds another product.
    """
    quoted(schema)
    (has_meta, has_anything) = connection.execute(
        "select (select count(*) = 2 from pg_class c join pg_attribute a on a.attrelid = c.oid"
        "        where c.relnamespace = n.oid and c.relname = 'meta' and a.attname in ('key', 'value')),"
        "       exists (select from pg_class where relnamespace = n.oid)"
        "       or exists (select from pg_proc where pronamespace = n.oid)"
        "       or exists (select from pg_type where typnamespace = n.oid)"
        " from (select to_regnamespace(%s)::oid) n (oid)",
        [schema],
    ).fetchall()[0]
    if has_meta:
        return Installed.read(_meta(connection, schema), schema)
    if has_anything:
        raise foreign(schema)
    return None


def schema_version(connection: Connection, schema: str = "absurd") -> int | None:
    """The version of what is installed in `schema`, None for nothing."""
    found = installed(connection, schema)
    return found.version if found else None


def print_sql(schema: str = "absurd") -> str:
    """The whole schema as one script for a database administrator: ``psql -f``, as the role that shall own it.

    It does what `migrate` does to a database without the queue, and refuses where there is something already.
    """
    parts = [_lock(schema) + ";\n", *_creation(schema, root(), new=True)]
    head = f"-- absurd: the schema of the queue, version {VERSION}.\n\\set ON_ERROR_STOP on\n\nbegin;\n"
    return "\n".join([head, *parts, "commit;\n"])


def grant(connection: Connection, role: str, profile: Profile, schema: str = "absurd") -> None:
    """Give `role` what its profile needs and nothing else: what it had of this schema before is taken away.

    Raises NotFoundError when there is no such role, SchemaMissingError when there is no queue.
    """
    with connection.transaction():
        connection.execute(_lock(schema))
        if installed(connection, schema) is None:
            raise missing(schema)
        if not connection.execute("select from pg_roles where rolname = %s", [role]).fetchall():
            raise NotFoundError(f"there is no database role {role!r}: make it with CREATE ROLE first", role=role)
        _grant(connection, schema, role, profile)
        _note(connection, schema, {f"grant.{role}": profile})  # an upgrade grants what it adds


def busy(connection: Connection, schema: str) -> SchemaBusyError:
    """The error of an upgrade that could not have the tables to itself; names the sessions that use them now."""
    rows = connection.execute(
        "select distinct a.pid, concat_ws(', ', nullif(a.application_name, ''), 'user ' || a.usename,"
        "                                 'in a transaction since ' || to_char(a.xact_start, 'HH24:MI:SS TZ'))"
        " from pg_locks l join pg_stat_activity a on a.pid = l.pid join pg_class c on c.oid = l.relation"
        " where l.database = (select oid from pg_database where datname = current_database()) and l.granted"
        "   and c.relnamespace = to_regnamespace(%s) and a.pid <> pg_backend_pid() order by 1",
        [quoted(schema)],
    ).fetchall()
    holders = ", ".join(f"{pid} ({told})" for pid, told in rows)
    return SchemaBusyError(
        f"the schema {schema!r} was not upgraded, and nothing was changed: another session holds its tables. "
        + (f"Processes that use them now: {holders}. " if holders else "")
        + "Let it end its transaction, or end it with pg_terminate_backend, then run `absurd db migrate`",
        schema=schema,
        sessions=[pid for pid, _ in rows],
    )


def dependent(schema: str, detail: str) -> SchemaError:
    """The error of an upgrade that would have to drop what people have built on our functions."""
    return SchemaError(
        f"the schema {schema!r} was not upgraded, and nothing was changed: something of yours is built on a function "
        f"that goes ({detail}). Drop it, run `absurd db migrate`, and make it again",
        schema=schema,
    )


def missing(schema: str) -> SchemaMissingError:
    """The error of a database without the queue."""
    return SchemaMissingError(
        f"the queue is not installed in schema {schema!r} of this database: run `absurd db migrate`", schema=schema
    )


def foreign(schema: str) -> ForeignSchemaError:
    """The error of a schema that another product lives in."""
    return ForeignSchemaError(
        f"schema {schema!r} exists and does not belong to {PRODUCT} (the unrelated absurd-sdk uses the same name); "
        "nothing was changed: choose another name with ABSURD_SCHEMA",
        schema=schema,
        product=PRODUCT,
    )


# Parts -------------------------------------------------------------------------------------------


def _lock(schema: str) -> str:
    quoted(schema)
    return f"select pg_advisory_xact_lock(hashtextextended('absurd.schema.{schema}', 0))"


def _exists(connection: Connection, schema: str) -> bool:
    return bool(connection.execute("select from pg_namespace where nspname = %s", [schema]).fetchall())


def _creation(schema: str, source: Traversable, *, new: bool) -> list[str]:
    """Scripts that make the schema out of nothing, to be run in one transaction."""
    name = quoted(schema)
    guard = f"""\
do $$ begin
    if exists (select from pg_class where relnamespace = '{name}'::regnamespace)
       or exists (select from pg_proc where pronamespace = '{name}'::regnamespace) then
        raise exception 'schema {schema} is not empty';
    end if;
end $$;
"""
    create = [f"create schema if not exists {name};\n"] if new else []  # needs a right that the owner may lack
    return [*create, guard, _enter(schema), *(f"-- {file}\n\n{text}" for file, text in scripts(source))]


def _enter(schema: str) -> str:
    return f"set local search_path = {quoted(schema)}, pg_temp;\n"


def _have_all(connection: Connection) -> None:
    """Have everything before anything is done: calls that are under way end first, no table is waited for later.

    The tables are asked for often and briefly: who gets stuck with us in a deadlock is let go, and
    nobody waits behind us for long while somebody sits on a table.  Those that calls of version 1,
    which do not stop for us, touch first come first: who holds one of them can then go on to the others.
    """
    patience = f"set local lock_timeout = {round(PATIENCE * 1000)}"
    connection.execute(patience)
    connection.execute("select pg_advisory_xact_lock(hashtextextended('absurd.upgrade.' || current_schema(), 0))")
    connection.execute(
        f"""
        set local lock_timeout = '0.2s';
        do $$
        declare
            v_until  timestamptz := clock_timestamp() + make_interval(secs => {PATIENCE});
            v_tables text := string_agg(oid::regclass::text, ', ' order by
                    array_position('{{queue,late,worker,timer,lease,ready}}', relname), relname) from pg_class
                where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p') and not relispartition;
        begin
            loop
                begin
                    execute 'lock table ' || v_tables || ' in access exclusive mode';
                    return;
                exception when lock_not_available or deadlock_detected then
                    if clock_timestamp() > v_until then
                        raise;
                    end if;
                    perform pg_sleep(0.05);
                end;
            end loop;
        end $$;
        """
    )
    connection.execute(patience)


def _cancel_waiting(connection: Connection) -> None:
    """Cancel statements that came meanwhile and wait for a table.

    They would go on with what is left of the functions they began with.  Workers make them again.
    """
    connection.execute(
        "select pg_cancel_backend(a.pid) from pg_locks l join pg_stat_activity a on a.pid = l.pid"
        " join pg_class c on c.oid = l.relation join pg_roles r on r.oid = a.usesysid"
        " where not l.granted and c.relnamespace = current_schema()::regnamespace"
        "   and l.database = (select oid from pg_database where datname = current_database())"
        "   and pg_has_role(r.oid, 'usage') and (not r.rolsuper or current_setting('is_superuser')::boolean)"
    )


def _step(schema: str, source: Traversable, step: int, half: str) -> str:
    """One half of an upgrade from version `step` to the next; either half may be absent, not both.

    A half may be several files, in the order of their names: ``1-2_pre.sql``, then ``1-2_pre_recordings.sql``.
    """
    texts: dict[str, list[str]] = {"pre": [], "post": []}
    for each in sorted((source / "migrations").iterdir(), key=lambda file: file.name.removesuffix(".sql")):
        for name, parts in texts.items():
            stem = each.name.removesuffix(".sql")
            if stem != each.name and f"{stem}_".startswith(f"{step}-{step + 1}_{name}_"):
                parts.append(each.read_text(encoding="utf-8"))
    if not any(texts.values()):
        raise SchemaTooOldError(
            f"schema {schema!r} has version {step}, which this release of absurd cannot upgrade: "
            "upgrade with an earlier release first",
            schema=schema,
            installed=step,
        )
    return "\n".join(texts[half])


def _meta(connection: Connection, schema: str) -> dict[str, str]:
    return dict(connection.execute(f"select key, value from {quoted(schema)}.meta").fetchall())


def _note(connection: Connection, schema: str, values: dict[str, str]) -> None:
    for key, value in values.items():
        connection.execute(
            f"insert into {quoted(schema)}.meta (key, value) values (%s, %s)"
            " on conflict (key) do update set value = excluded.value",
            [key, value],
        )


def _granted(connection: Connection, schema: str) -> list[tuple[str, Profile]]:
    """Roles that were given a profile and still exist."""
    rows = connection.execute(
        f"select rolname, value from {quoted(schema)}.meta join pg_roles on key = 'grant.' || rolname"
    ).fetchall()
    return [(role, profile) for role, profile in rows]


def _grant(connection: Connection, schema: str, role: str, profile: Profile) -> None:
    name, grantee = quoted(schema), '"' + role.replace('"', '""') + '"'
    functions = connection.execute(
        "select oid::regprocedure::text, proname from pg_proc"
        " where pronamespace = %s::regnamespace and not starts_with(proname, '_') order by 1",
        [name],
    ).fetchall()
    wanted = FUNCTIONS[profile]
    chosen = [signature for signature, function in functions if wanted is None or function in wanted]
    connection.execute(
        f"revoke all on all functions in schema {name} from {grantee};"
        f"revoke all on all tables in schema {name} from {grantee};"
        f"grant usage on schema {name} to {grantee};"
        f"grant select on {name}.meta to {grantee};"  # read at connect: is this the schema the program needs?
        f"grant execute on function {', '.join(chosen)} to {grantee};"
    )
