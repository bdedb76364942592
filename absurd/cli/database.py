"""``absurd db``: the embedded server's life, and the queue's schema in whatever database is used."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from absurd.cli.connection import database_of
from absurd.cli.output import Table, agree, clean, dry_run_options, emit, json_option, plural, settings_of, size
from absurd.errors import ConfigurationError, NotFoundError
from absurd.schema.grants import PROFILES, Profile

if TYPE_CHECKING:
    from absurd.config import Settings
    from absurd.embedded import EmbeddedServer


@click.group()
def db() -> None:
    """Start, stop and look at the database; install the queue in it."""


# The embedded server -----------------------------------------------------------------------------


@db.command(epilog="Example: absurd db start")
@json_option
@click.pass_context
def start(ctx: click.Context, as_json: bool) -> None:
    """Start the embedded PostgreSQL server.

    If need be it is made, and the queue installed in it.  Every command that needs the database does
    the same by itself.
    """
    from absurd.resolve import resolve_database

    server = _embedded(settings := settings_of(ctx))
    resolve_database(settings)
    status = server.status()
    emit(asdict(status), as_json=as_json, text=f"PostgreSQL {status.version} runs; its data is in {status.data}.")


@db.command(epilog="Example: absurd db stop")
@click.option(
    "--mode",
    type=click.Choice(["smart", "fast", "immediate"]),
    default="fast",
    show_default=True,
    help="smart waits until all clients have gone; fast sends them away; immediate kills, and the next start recovers.",
)
@json_option
@click.pass_context
def stop(ctx: click.Context, mode: str, as_json: bool) -> None:
    """Stop the embedded server; what needs it starts it again."""
    stopped = _embedded(settings_of(ctx)).stop(cast("Literal['smart', 'fast', 'immediate']", mode))
    text = "The server is stopped." if stopped else "The server does not run."
    emit({"stopped": stopped}, as_json=as_json, text=text)


@db.command(epilog="Example: absurd db path")
@json_option
@click.pass_context
def path(ctx: click.Context, as_json: bool) -> None:
    """Print the data folder of the embedded server."""
    status = _embedded(settings_of(ctx)).status()
    if status.data is None:
        raise NotFoundError(f"there is no embedded database in {status.home} yet: `absurd db start` makes it")
    emit({"path": status.data, "log": status.log}, as_json=as_json, text=status.data)


# Any database ------------------------------------------------------------------------------------


@db.command(epilog="Example: absurd db status --json")
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show which database is used and how it stands.

    It starts nothing; ``installed`` and ``needed`` are versions of the schema.
    """
    from absurd.config import redact_url

    settings = settings_of(ctx)
    document: dict[str, Any]
    if settings.database_url:
        document = {"kind": "server", "state": "running", "url": redact_url(settings.database_url)}
    else:
        document = {"kind": "embedded", **asdict(_embedded(settings).status())}
    if document["state"] == "running":
        document |= _versions(settings)
    known = {key: size(value) if key == "bytes" else value for key, value in document.items() if value is not None}
    text = "\n".join(f"{key:<10} {clean(value)}" for key, value in known.items())
    emit(document, as_json=as_json, text=text)


@db.command(epilog='Example: psql "$(absurd db url)"')
@click.option("--with-password", is_flag=True, help="Show the password of a server's address too.")
@json_option
@click.pass_context
def url(ctx: click.Context, with_password: bool, as_json: bool) -> None:
    """Print the database's address, for other programs.

    The embedded server is started if need be.
    """
    from absurd.config import redact_url

    address = _address(settings_of(ctx))
    shown = address if with_password else redact_url(address)
    emit({"url": shown}, as_json=as_json, text=shown)


@db.command("size", epilog="Example: absurd db size")
@json_option
@click.pass_context
def size_(ctx: click.Context, as_json: bool) -> None:
    """Show how much room database and tables take.

    Rows are estimates of the server's; dead ones are room that a vacuum makes free.  Partitions hold a week each.
    """
    with database_of(ctx) as database:
        total = database.fetch("select pg_database_size(current_database()) as bytes")[0]["bytes"]
        rows = database.fetch(_TABLE_SIZES, database.schema)
    counted = ("rows", "dead_rows", "partitions")
    tables = [{"table": row["name"], **{key: row[key] for key in ("bytes", "index_bytes", *counted)}} for row in rows]
    queue = sum(int(table["bytes"]) for table in tables)
    listed = [
        (each["table"], size(each["bytes"]), size(each["index_bytes"]), *(f"{each[key]:,}" for key in counted))
        for each in tables
        if each["rows"] or each["dead_rows"]
    ]
    listed += [("all of the queue", size(queue), "", "", "", ""), ("the whole database", size(total), "", "", "", "")]
    headers = ("table", "size", "indexes", "rows", "dead", "partitions")
    text = Table(headers, listed, right=headers[1:])
    emit({"database_bytes": total, "queue_bytes": queue, "tables": tables}, as_json=as_json, text=text)


@db.command(epilog="Example: absurd db migrate")
@click.option("--no-finish", is_flag=True, help="Leave what the version before needs; a later call takes it away.")
@json_option
@click.pass_context
def migrate(ctx: click.Context, no_finish: bool, as_json: bool) -> None:
    """Install the queue in the database, or upgrade it.

    It does no harm to repeat it, nor to do it beside running workers.
    """
    from absurd.database_sync import install

    settings = settings_of(ctx)
    done = install(_address(settings), settings.schema, finish=not no_finish)
    if done.before is None:
        text = f"The queue is installed in schema {settings.schema} (version {done.after})."
    elif done.before == done.after:
        text = f"Schema {settings.schema} is up to date (version {done.after})."
    else:
        text = f"Schema {settings.schema} is upgraded from version {done.before} to {done.after}."
    emit({"schema": settings.schema, **asdict(done)}, as_json=as_json, text=text)


@db.command(epilog="Example: absurd db version")
@json_option
@click.pass_context
def version(ctx: click.Context, as_json: bool) -> None:
    """Show the versions of server and schema.

    Of the schema: the one that is installed, and the one this program needs.
    """
    found = _versions(settings_of(ctx))
    installed = "not installed" if found["installed"] is None else f"version {found['installed']}"
    text = f"PostgreSQL {found['server']}; schema {found['schema']}: {installed}, needed {found['needed']}"
    emit(found, as_json=as_json, text=text)


@db.command(epilog="Example: absurd db sql > absurd.sql")
@json_option
@click.pass_context
def sql(ctx: click.Context, as_json: bool) -> None:
    """Print the whole schema as one script.

    For a database administrator to read, and to run with psql.
    """
    from absurd.schema import VERSION
    from absurd.schema.migrate import print_sql

    schema = settings_of(ctx).schema
    script = print_sql(schema)
    emit({"schema": schema, "version": VERSION, "sql": script}, as_json=as_json, text=script)


@db.command(epilog="Example: absurd db grant night_shift --as spawner")
@click.argument("role")
@click.option("--as", "profile", required=True, type=click.Choice(PROFILES), help="What the role may do.")
@json_option
@click.pass_context
def grant(ctx: click.Context, role: str, profile: Profile, as_json: bool) -> None:
    """Let a database role use the queue.

    It gets the least rights that its part needs: reader looks; spawner also hands in work; worker also
    executes it; admin also manages queues.
    """
    from absurd.database_sync import grant_role

    settings = settings_of(ctx)
    grant_role(_address(settings), role, profile, settings.schema)
    document = {"role": role, "as": profile, "schema": settings.schema}
    emit(document, as_json=as_json, text=f"Role {role} may use schema {settings.schema} as {profile}.")


@db.command(epilog="Example: absurd db reset --dry-run")
@dry_run_options("Only say what would be destroyed.")
@json_option
@click.pass_context
def reset(ctx: click.Context, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Destroy the queue with all tasks, and begin anew.

    Of the embedded server everything is removed, other tables in it included; on another server the
    schema of the queue alone is dropped and installed again.
    """
    settings = settings_of(ctx)
    document, target = _what_goes(settings)
    if target is None:
        emit(document, as_json=as_json, text="There is nothing to destroy.")
        return
    if dry_run:
        emit(document | {"destroyed": False}, as_json=as_json, text=f"This would destroy {target}.")
        return
    agree(f"Destroy {target}?", yes=yes, may_ask=not as_json)
    if settings.database_url:
        _reinstall(settings.database_url, settings.schema)
    else:
        _embedded(settings).destroy()
    emit(document | {"destroyed": True}, as_json=as_json, text=f"Destroyed: {target}.")


# Parts -------------------------------------------------------------------------------------------

_TABLE_SIZES = """
select coalesce(parent.relname, own.relname)::text as name,
       sum(pg_total_relation_size(own.oid))::bigint as bytes, sum(pg_indexes_size(own.oid))::bigint as index_bytes,
       sum(pg_stat_get_live_tuples(own.oid))::bigint as rows,
       sum(pg_stat_get_dead_tuples(own.oid))::bigint as dead_rows, count(parent.oid) as partitions
from pg_class own left join pg_inherits on inhrelid = own.oid left join pg_class parent on parent.oid = inhparent
where own.relnamespace = $1::text::regnamespace and own.relkind in ('r', 'm')
group by 1 order by bytes desc, name
"""  # a partitioned table is the sum of its parts


def _embedded(settings: Settings) -> EmbeddedServer:
    """The embedded server; refused where a server of the user's own is set."""
    from absurd.config import redact_url
    from absurd.embedded import EmbeddedServer

    if settings.database_url:
        raise ConfigurationError(
            f"the database is the server at {redact_url(settings.database_url)}, which is not absurd's to start, stop "
            "or look into; this command is for the embedded one (unset ABSURD_DATABASE_URL)",
            setting="database_url",
        )
    return EmbeddedServer(settings)


def _address(settings: Settings) -> str:
    """The database's address, whatever is installed in it; the embedded server is started if need be."""
    from absurd.embedded import ensure_running

    return settings.database_url or ensure_running(settings)


def _versions(settings: Settings) -> dict[str, Any]:
    """What runs, what is installed in it, and what this program needs."""
    from absurd.database_sync import connect, installed_version
    from absurd.schema import VERSION

    address = _address(settings)
    with connect(address) as connection:
        server = connection.info.server_version
    return {
        "server": f"{server // 10_000}.{server % 10_000}",
        "schema": settings.schema,
        "installed": installed_version(address, settings.schema),
        "needed": VERSION,
    }


def _what_goes(settings: Settings) -> tuple[dict[str, Any], str | None]:
    """What a reset destroys, for programs and as a sentence for people (None: nothing is there)."""
    from absurd.config import redact_url
    from absurd.database_sync import installed_version

    if settings.database_url:
        where = redact_url(settings.database_url)
        if installed_version(settings.database_url, settings.schema) is None:
            return {"kind": "server", "url": where, "schema": settings.schema, "tasks": None}, None
        tasks = _count_tasks(settings.database_url, settings.schema)
        document: dict[str, Any] = {"kind": "server", "url": where, "schema": settings.schema, "tasks": tasks}
        return document, f"schema {settings.schema} of {where} with {_told(tasks)}"
    status = _embedded(settings).status()
    tasks = _count_tasks(status.url, settings.schema) if status.url and status.state == "running" else None
    document = {"kind": "embedded", "path": status.data, "bytes": status.bytes, "tasks": tasks}
    return document, f"{status.data} ({size(status.bytes) or 'gone'}) with {_told(tasks)}" if status.data else None


def _told(tasks: int | None) -> str:
    return "all tasks" if tasks is None else plural(tasks, "task")


def _count_tasks(url: str, schema: str) -> int | None:
    """How many tasks there are in all; None where this program cannot tell."""
    from absurd.database_sync import SyncDatabase
    from absurd.errors import SchemaError
    from absurd.inspection import list_queues
    from absurd.model import TaskState

    try:
        with SyncDatabase(url, schema=schema) as database:
            return sum(int(queue[state]) for queue in database.run(list_queues()) for state in TaskState)
    except SchemaError:  # not installed, or of another version
        return None


def _reinstall(url: str, schema: str) -> None:
    """Drop the schema and install it anew.  That it is ours was checked."""
    from absurd.database_sync import SyncSession, connect, install
    from absurd.database_url import describe

    with connect(url) as connection:
        session = SyncSession(connection, schema=schema, address=describe(url))
        session.fetch("set lock_timeout = '10s'")  # a worker may hold on to a table for ever
        session.fetch("drop schema {schema} cascade")
    install(url, schema)
