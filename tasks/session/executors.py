"""``session.*``: sessions on the queue."""

from __future__ import annotations

import os
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from absurd.context import RunContext
from absurd.executor import executor
from absurd.retry import ErrorRule, RetryPolicy

if find_spec("yaml") is None:  # not registered then: a worker that has it will serve the tasks
    raise ImportError("yaml is missing, install absurd[session]", name="yaml")

_IN_VAIN = tuple(ErrorRule(exception=name, action="reject") for name in ("SessionNotFoundError", "SessionStateError"))


MOST_ROWS = 20_000
"""Rows that one completion tells the database."""


class FolderParams(BaseModel):
    """Which data folder."""

    model_config = ConfigDict(extra="forbid")

    data_dir: str = Field(description="The data folder, by its absolute path on the worker's machine.")

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, path: str) -> str:
        if not os.path.isabs(path):
            raise ValueError(f"{path!r} is not absolute")
        return os.path.normpath(path)


class SealParams(FolderParams):
    """Which session."""

    session_id: str = Field(description="The session's name.")


class CatalogParams(FolderParams):
    """Which catalogue, and how."""

    full: bool = Field(default=False, description="Read all files again, also those that are as they were.")
    sqlite: bool = Field(default=False, description="Write the SQLite index too.")


@executor("session.seal", runs_in="process", retry=RetryPolicy(max_attempts=10, rules=_IN_VAIN))
def seal(ctx: RunContext, params: SealParams) -> dict[str, Any]:
    """Write the file of a session that has ended from its journal and frames, and let go of these once it is whole.

    The result tells session_id, path, sha256, bytes, whether it was recovered, and its metrics.  Of a session that is
    sealed already it tells the same.  The database's catalogue has its row, with the checksum.
    """
    from absurd.tasks.session.entries import entry_of
    from absurd.tasks.session.sealed import seal as seal_session

    done = seal_session(params.data_dir, params.session_id)
    folder = Path(params.data_dir)
    ctx.product("session", entry_of(folder, Path(done.path)).row(folder) | {"sha256": done.sha256})
    ctx.log.info("session_sealed", session_id=done.session_id, path=done.path, bytes=done.bytes)
    return asdict(done)


@executor("session.catalog", runs_in="process")
def catalog(ctx: RunContext, params: CatalogParams) -> dict[str, Any]:
    """Bring the catalogue of a data folder up to date: rows in the database, and ``catalog/catalog.parquet``.

    Both come from the heads of the files, of which only those that have changed are read; what is damaged, foreign or a
    second file of one session is listed in ``catalog/problems.json`` and told by the database, and hides no other.
    The result tells path, how many files there are of each state, how many were read, and rows the database was told.
    """
    from absurd.client_sync import SyncAbsurdClient
    from absurd.tasks.session.catalog import SQLITE, known_entries, scan, write, write_sqlite
    from absurd.tasks.session.entries import changes

    with SyncAbsurdClient.from_env() as client:  # before files are looked at: one that is sealed meanwhile is not gone
        stored = client.list_session_files(params.data_dir)
    made = scan(params.data_dir, {} if params.full else known_entries(params.data_dir))
    rows = changes(made.data_dir, made.entries, stored)
    for each in rows[:MOST_ROWS]:
        ctx.product("session", each)
    if len(rows) > MOST_ROWS:  # what is told by then is left out
        ctx.spawn("session.catalog", {"data_dir": params.data_dir})

    def place(final: str) -> str:
        return ctx.artifact(final, kind="catalog")

    path = write(made, place)
    if params.sqlite:
        write_sqlite(made, made.data_dir / SQLITE, place)
    counts = made.counts()
    ctx.log.info("session_catalog", sessions=counts["sealed"], read=made.read, told=len(rows))
    return {"path": path, **counts, "read": made.read, "told": len(rows[:MOST_ROWS])}
