"""Install and upgrade the schema over an open connection; give roles their functions.

Everything happens in one transaction under one advisory lock: of several that do it at once, one
works and the others find it done.

An upgrade has two halves, so that programs of the old and the new version can run beside one
another: ``<from>-<to>_pre.sql`` adds what the new program needs and leaves the old one working,
``<from>-<to>_post.sql`` takes away what only the old one used.  In the table `meta`, `version` is
the newest program that can work with the schema, and `oldest` (when absent: the same) the oldest.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any, Protocol

from absurd.errors import ForeignSchemaError, NotFoundError, SchemaMissingError, SchemaTooNewError, SchemaTooOldError
from absurd.schema import PRODUCT, VERSION, quoted, root, scripts
from absurd.schema.grants import FUNCTIONS, Profile


class Cursor(Protocol):
    """What is needed of its cursors."""

    def fetchall(self) -> Sequence[Any]: ...


class Connection(Protocol):
    """What is needed of a psycopg connection: ``%s`` placeholders, rows as tuples."""

    def execute(self, query: Any, params: Sequence[Any] | None = None, /) -> Cursor: ...

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
    SchemaTooNewError when it is too new; nothing is changed then.
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
        oldest = found.oldest
        for step in range(found.oldest, version):
            if step >= found.version:
                connection.execute(_step(schema, source, step, "pre"))
            if finish or step < version - 1:
                connection.execute(_step(schema, source, step, "post"))
                oldest = step + 1
        if (version, oldest) != (found.version, found.oldest):
            _note(connection, schema, {"version": str(version), "oldest": str(oldest)})
            for role, profile in _granted(connection, schema):
                _grant(connection, schema, role, profile)
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
    enter = f"set local search_path = {name}, pg_temp;\n"
    create = [f"create schema if not exists {name};\n"] if new else []  # needs a right that the owner may lack
    return [*create, guard, enter, *(f"-- {file}\n\n{text}" for file, text in scripts(source))]


def _step(schema: str, source: Traversable, step: int, half: str) -> str:
    """One half of an upgrade from version `step` to the next; either half may be absent, not both."""
    halves = {each: source / "migrations" / f"{step}-{step + 1}_{each}.sql" for each in ("pre", "post")}
    if not any(each.is_file() for each in halves.values()):
        raise SchemaTooOldError(
            f"schema {schema!r} has version {step}, which this release of absurd cannot upgrade: "
            "upgrade with an earlier release first",
            schema=schema,
            installed=step,
        )
    text = halves[half].read_text(encoding="utf-8") if halves[half].is_file() else ""
    return f"set local search_path = {quoted(schema)}, pg_temp;\n{text}"


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
