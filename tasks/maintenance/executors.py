"""``maintenance.*``: upkeep on the queue."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from absurd.context import RunContext
from absurd.duration import seconds
from absurd.errors import AbsurdError, InvalidInputError
from absurd.executor import executor
from absurd.retry import RetryPolicy

if TYPE_CHECKING:
    from absurd.database_sync import SyncSession
    from absurd.tasks.maintenance.backup import Backup
    from absurd.tasks.maintenance.files import Pruned

BATCH = 1_000
"""Tasks that are pruned in one transaction."""
GIB = 1 << 30


class BackupParams(BaseModel):
    """What to dump, where to, and whether to prove it."""

    model_config = ConfigDict(extra="forbid")

    out: str = Field(
        min_length=1,
        description="The file to write, or a folder (one that exists, or a path that ends in /): then its name is "
        "DATABASE.SCHEMA-TIME.dump, with the time in UTC.  A relative path starts in the worker's working folder.",
    )
    whole: bool = Field(
        default=False, description="Dump the whole database; without it only the schema of the queue, with its tasks."
    )
    verify: bool = Field(
        default=True,
        description="Restore the dump into a scratch database of the same server and compare every table; needs room "
        "for it there, and the right to create databases.",
    )
    compress: str | None = Field(
        default=None,
        pattern=r"^(none|(gzip|lz4|zstd)(:\d{1,2})?)$",
        description="Compression, with a level if need be: none, gzip, lz4, zstd, such as zstd:9; without it pg_dump's "
        "own choice.",
    )
    jobs: int = Field(default=1, ge=1, le=64, description="Connections that the restore uses at once.")
    keep: int | None = Field(
        default=None,
        ge=2,
        description="Dumps of this database to keep in the folder, this one included; older ones are deleted once this "
        "one is written and verified.  At least 2, for there must be a whole one at any moment.  Without it all.",
    )
    database: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Service to dump, as pg_service.conf on the worker's machine names it: the queue's database under "
        "a role that may do it, or another one.  Without it the worker's own connection.",
    )


class PruneParams(BaseModel):
    """Which ended tasks go, or which files."""

    model_config = ConfigDict(extra="forbid")

    older_than: float | str = Field(
        description="How long ago a task must have ended, or a file been written: seconds, or 90s, 15m, 12h, 30d, 4w."
    )
    queue: str | None = Field(default=None, description="The queue whose ended tasks go; without it all queues'.")
    folder: str | None = Field(
        default=None,
        min_length=1,
        description="Delete files below this folder (absolute) instead of tasks: those whose name fits `pattern`.",
    )
    pattern: str | None = Field(
        default=None, min_length=1, description="The form of the names of files that may go, such as *.png."
    )
    dry_run: bool = Field(default=False, description="Only tell what would go.")

    @field_validator("older_than")
    @classmethod
    def _in_seconds(cls, value: float | str) -> float:
        try:
            span = seconds(value) if isinstance(value, str) else value
        except AbsurdError as error:
            raise ValueError(error.message) from None
        if not (math.isfinite(span) and span >= 0):
            raise ValueError(f"{value!r} is not a time of at least 0 seconds")
        return span

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if (self.folder is None) != (self.pattern is None):
            raise ValueError("folder and pattern belong together: files go by their names in a folder")
        if self.folder is not None and self.queue is not None:
            raise ValueError("queue and folder exclude one another: spawn one task for each")
        return self


class HealthParams(BaseModel):
    """What to look at, and what to fail on."""

    model_config = ConfigDict(extra="forbid")

    folders: list[str] = Field(
        default=[], description="Folders whose disks must have room; without any the worker's ABSURD_HOME."
    )
    min_free_gib: float = Field(default=5.0, ge=0, description="Room there must be for each folder, GiB.")
    max_pending: float | None = Field(
        default=3600.0, gt=0, description="How long a task may be pending, seconds; null: for ever."
    )
    max_skew: float = Field(
        default=2.0, gt=0, description="How far the clocks of this machine and of the database may be apart, seconds."
    )
    fail_on: list[str] = Field(
        default=[], description="Codes of the problems that make the task fail; any stands for all of them."
    )

    @field_validator("fail_on")
    @classmethod
    def _known(cls, codes: list[str]) -> list[str]:
        from absurd.tasks.maintenance.health import ANY, CODES

        if unknown := sorted(set(codes) - CODES - {ANY}):
            raise ValueError(f"{', '.join(unknown)} is no code of a problem; there are {', '.join(sorted(CODES))}")
        return codes


class NotifyParams(BaseModel):
    """Whom to tell what."""

    model_config = ConfigDict(extra="forbid")

    target: str = Field(
        min_length=1, max_length=64, description="Name of the target, of the setting alert_targets of the worker."
    )
    message: str = Field(min_length=1, max_length=10_000, description="What is told.")
    title: str | None = Field(default=None, max_length=200, description="What it is about; without it the task's id.")
    severity: Literal["warning", "critical"] = Field(default="warning", description="How bad it is.")


@executor("maintenance.backup", runs_in="process")
def backup(ctx: RunContext, params: BackupParams) -> dict[str, Any]:
    """Dump the database with pg_dump, and prove that the dump can be restored.

    The result tells path, bytes, sha256, tables, rows, seconds, whether it was verified, and what was deleted.
    """
    from absurd import database_sync
    from absurd.config import load_settings
    from absurd.database_url import describe, parse
    from absurd.embedded_binaries import candidates
    from absurd.resolve import resolve_database
    from absurd.tasks.maintenance.backup import back_up, dump_name, remove_old
    from absurd.tasks.maintenance.programs import conninfo

    settings = load_settings()
    url = resolve_database(settings) if params.database is None else f"service={params.database}"
    address = parse(url)
    if "sslpassword" in address:
        raise InvalidInputError("the database address holds sslpassword, which would be seen: put it into a service")

    @contextmanager
    def connect(database: str | None) -> Iterator[SyncSession]:
        connection = database_sync.connect(conninfo(address, database, password=True))
        try:
            yield database_sync.session_on(connection, schema=settings.schema, address=describe(url))
        finally:
            connection.close()

    schema = None if params.whole else settings.schema
    in_folder = params.out.endswith(os.sep) or os.path.isdir(params.out)
    if params.keep is not None and not in_folder:
        raise InvalidInputError(f"keep is {params.keep} and out is the file {params.out!r}: keep needs a folder")
    with connect(None) as session:
        (now,) = session.fetch(
            "select current_database() as database,"
            """ to_char(now() at time zone 'UTC', 'YYYYMMDD"T"HH24MISS"Z"') as stamp"""
        )
    # The same name in each attempt, so that the next one finds what a killed one has left.
    name = ctx.step("name", lambda: dump_name(now["database"], schema, now["stamp"]))
    out = os.path.abspath(os.path.join(params.out, name) if in_folder else params.out)
    done: Backup = back_up(
        connect,
        address,
        ctx.artifact(out, kind="backup"),
        folders=[*([settings.pg_bin] if settings.pg_bin else []), *candidates()],
        schema=schema,
        owner=ctx.task_id.hex[-12:],
        compress=params.compress,
        jobs=params.jobs,
        verify=params.verify,
        told=ctx.progress,
    )
    if done.leftovers:
        ctx.log.warning("scratch_databases_removed", names=list(done.leftovers))
    # One less than wanted: this one gets its name when the run has completed.
    removed = remove_old(os.path.dirname(out), now["database"], schema, params.keep - 1) if params.keep else []
    ctx.log.info("database_backed_up", tables=done.tables, rows=done.rows, bytes=done.bytes, verified=done.verified)
    return {
        "path": out,
        "bytes": done.bytes,
        "sha256": done.sha256,
        "schema": schema,
        "tables": done.tables,
        "rows": done.rows,
        "seconds": done.seconds,
        "verified": done.verified,
        "taken_at": done.taken_at,
        "server_version": done.server_version,
        "pg_dump": done.pg_dump,
        "pg_dump_version": done.pg_dump_version,
        "removed": removed,
    }


@executor("maintenance.prune", runs_in="process")
def prune(ctx: RunContext, params: PruneParams) -> dict[str, Any]:
    """Remove ended tasks from queues, or old files from a folder.

    The result tells how many went of each queue, or files, bytes and the first hundred paths.
    """
    assert isinstance(params.older_than, float | int)
    if params.folder is not None:
        return _prune_files(ctx, params, params.older_than)
    from absurd.client_sync import SyncAbsurdClient

    pruned: dict[str, int] = {}
    with SyncAbsurdClient.from_env() as client:
        names = [each["name"] for each in client.list_queues()] if params.queue is None else [params.queue]
        for name in names:
            pruned[name] = 0
            if params.dry_run:
                pruned[name] = client.prune_queue(name, params.older_than, limit=2_000_000_000, dry_run=True)
            else:
                while gone := client.prune_queue(name, params.older_than, limit=BATCH):
                    pruned[name] += gone
                    ctx.heartbeat()  # ends the run where its claim is lost
                    ctx.progress(sum(pruned.values()), None, f"queue {name}")
    total = sum(pruned.values())
    ctx.log.info("tasks_pruned", pruned=total, dry_run=params.dry_run)
    return {"queues": pruned, "pruned": total, "dry_run": params.dry_run}


@executor("maintenance.health", runs_in="process", retry=RetryPolicy(max_attempts=1))
def health(ctx: RunContext, params: HealthParams) -> dict[str, Any]:
    """Look whether all is well with queues, workers and disks; fail on the problems that are named.

    The result tells the problems (code, message, action), dead letters, the oldest wait, and the free room.
    """
    from absurd.client_sync import SyncAbsurdClient
    from absurd.config import load_settings
    from absurd.inspection import get_status
    from absurd.tasks.maintenance.errors import UnhealthyError
    from absurd.tasks.maintenance.health import examine, existing

    settings = load_settings()
    with SyncAbsurdClient(settings=settings) as client:
        status = client.run(get_status())
        found = examine(
            status,
            params.folders or [str(existing(settings.home))],
            min_free=int(params.min_free_gib * GIB),
            max_pending=params.max_pending,
            skew=_skew(client),
            max_skew=params.max_skew,
        )
    for problem in found.problems:
        ctx.log.warning("problem_found", **problem)
    if failing := found.of(params.fail_on):
        raise UnhealthyError(
            "; ".join(f"{each['message']} ({each['code']})" for each in failing),
            problems=[dict(each) for each in found.problems],
        )
    return {
        "problems": [dict(each) for each in found.problems],
        "dead_letters": found.dead_letters,
        "oldest_pending_seconds": found.oldest_pending_seconds,
        "free_bytes": dict(found.free_bytes),
    }


@executor("maintenance.notify", retry=RetryPolicy(max_attempts=8, base=10.0, factor=2.0, maximum=600.0))
def notify(ctx: RunContext, params: NotifyParams) -> dict[str, Any]:
    """Send a message to one of the targets of alerts, by webhook, e-mail or apprise.

    The result tells the target.  It fails with code `delivery_failed` and is tried again.
    """
    from absurd.config import load_settings
    from absurd.targets import send

    message = {"id": str(ctx.task_id), "alert": params.title or str(ctx.task_id), "state": "told"}
    message |= {"severity": params.severity, "message": params.message}
    send(load_settings(), params.target, message | dict.fromkeys(("measure", "at", "value", "threshold")))
    return {"target": params.target}


def _prune_files(ctx: RunContext, params: PruneParams, older_than: float) -> dict[str, Any]:
    from absurd.config import load_settings
    from absurd.embedded_place import SHARED_STATE
    from absurd.tasks.maintenance.files import prune_files

    assert params.folder is not None
    assert params.pattern is not None

    def told(so_far: Pruned) -> None:
        ctx.progress(so_far.files, None, f"{so_far.bytes / 1e6:,.1f} MB")

    done = prune_files(
        params.folder,
        params.pattern,
        older_than,
        guarded=[load_settings().home, SHARED_STATE],
        dry_run=params.dry_run,
        told=told,
    )
    ctx.log.info("files_pruned", folder=params.folder, files=done.files, bytes=done.bytes, dry_run=params.dry_run)
    return {
        "folder": str(Path(params.folder)),
        "files": done.files,
        "bytes": done.bytes,
        "paths": done.paths,
        "dry_run": params.dry_run,
    }


def _skew(client: Any) -> float:
    """Seconds by which this machine's clock is ahead of the database's."""
    from absurd.call import Call

    begun = time.time()
    call = Call("select extract(epoch from clock_timestamp())::float8 as now", (), lambda rows: float(rows[0]["now"]))
    now: float = client.run(call)
    return (begun + time.time()) / 2 - now
