"""``session.*``: sessions on the queue."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

from absurd.context import RunContext
from absurd.executor import executor
from absurd.retry import ErrorRule, RetryPolicy

if find_spec("yaml") is None:  # not registered then: a worker that has it will serve the tasks
    raise ImportError("yaml is missing, install absurd[session]", name="yaml")

_IN_VAIN = tuple(
    ErrorRule(exception=name, action="reject")
    for name in ("SessionNotFoundError", "SessionStateError", "SessionValueError")
)


MOST_ROWS = 20_000
"""Rows that one completion tells the database."""


MOST_KEPT = 1000
"""Files that stay, of which a result tells."""
SessionType = Literal["observation", "alignment", "experiment", "maintenance", "idle"]


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


class MasterParams(SealParams):
    """Which frames become a master, and how."""

    kind: Literal["dark", "flat", "bias"] = Field(description="What it is a master of.")
    camera: str | None = Field(
        default=None, description="The camera whose frames they are; without it the arrays told as calibration."
    )
    exposure_us: PositiveFloat | None = Field(default=None, description="Only frames of this exposure, microseconds.")
    subtract: str | None = Field(
        default=None, description="A master to take from each frame first, in the data folder."
    )
    clip: PositiveFloat = Field(
        default=4.0, description="Values farther off their pixel's median are left out, in sigma."
    )


class CatalogParams(FolderParams):
    """Which catalogue, and how."""

    full: bool = Field(default=False, description="Read all files again, also those that are as they were.")
    sqlite: bool = Field(default=False, description="Write the SQLite index too.")
    checksums: bool = Field(
        default=False, description="Read files through whose checksum the database does not know, and tell it."
    )


class RetireParams(FolderParams):
    """Which files may go."""

    keep_days: dict[SessionType, PositiveFloat] = Field(
        description="By type of session, how many days after its end a file is kept; other types are kept for ever."
    )
    simulate: bool = Field(default=False, description="Only tell what would go.")
    at: AwareDatetime | None = Field(default=None, description="The time by which ages are counted, now without it.")
    limit: PositiveInt = Field(default=1000, description="Files at most, the oldest first.")


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
    The result tells path, how many files there are of each state, how many were read, rows the database was told, and
    with `checksums` the files that are not whole.
    """
    from absurd.client_sync import SyncAbsurdClient
    from absurd.tasks.session.catalog import SQLITE, known_entries, scan, write, write_sqlite
    from absurd.tasks.session.checksums import add_checksums
    from absurd.tasks.session.entries import changes
    from absurd.tasks.session.errors import SessionNotFoundError

    with SyncAbsurdClient.from_env() as client:  # before files are looked at: one that is sealed meanwhile is not gone
        stored = client.list_session_files(params.data_dir)
    made = scan(params.data_dir, {} if params.full else known_entries(params.data_dir))
    left = sum(each["state"] not in {"gone", "retired"} for each in stored)
    if left and not made.entries:  # as an empty mount point has none
        raise SessionNotFoundError(f"{made.data_dir} holds none of {left} files that are known: is its disk mounted?")
    rows = changes(made.data_dir, made.entries, stored)
    damaged = add_checksums(made.data_dir, made.sessions, stored, rows, ctx.progress) if params.checksums else []
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
    return {"path": path, **counts, "read": made.read, "told": len(rows[:MOST_ROWS]), "not_whole": damaged}


@executor("session.retire", runs_in="process")
def retire(ctx: RunContext, params: RetireParams) -> dict[str, Any]:
    """Let go of files of sessions that have been kept long enough, with their frames.

    One stays whose row or checksum in the database is missing or tells of another file, that is damaged, or held
    (`absurd session hold`).  What goes is on record in ``catalog/retired.jsonl`` and its row stays, as retired; the
    catalogue is brought up to date.  The result tells what went, or with `simulate` what would, and what stayed, and
    why.
    """
    from absurd.client_sync import SyncAbsurdClient
    from absurd.tasks.session import retirement
    from absurd.tasks.session.catalog import known_entries, scan

    now = params.at or datetime.now(UTC)
    with SyncAbsurdClient.from_env() as client:
        stored = client.list_session_files(params.data_dir)
    made = scan(params.data_dir, known_entries(params.data_dir))
    gone: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    keep_days = {str(kind): days for kind, days in params.keep_days.items()}
    for due in retirement.find_due(made.data_dir, made.sessions, keep_days, stored, now):
        reason = due.kept
        if reason is None and not params.simulate:
            ctx.progress(len(gone), None, due.session_id)  # raises where the claim is lost: another run goes on
            reason = retirement.retire(made.data_dir, due, now.isoformat())
        (gone if reason is None else kept).append({**asdict(due), "kept": reason})
        if len(gone) >= params.limit:
            break
    if not params.simulate:
        known = {each["path"] for each in stored if each["state"] != "retired"}
        for each in retirement.retired(made.data_dir):  # also what a run before this one did not come to tell
            if each["path"] in known:
                reason = f"kept for {each['age_days']} days, retired by the rules of {each['at']}"
                row = {"folder": params.data_dir, "path": each["path"], "state": "retired", "reason": reason}
                ctx.product("session", row)
        if gone:
            ctx.spawn("session.catalog", {"data_dir": params.data_dir})
    told = [{name: each[name] for name in ("path", "session_id", "age_days", "bytes")} for each in gone]
    stayed = [{name: each[name] for name in ("path", "session_id", "age_days", "kept")} for each in kept]
    ctx.log.info("session_retired", files=len(gone), kept=len(kept), simulated=params.simulate)
    return {
        "simulated": params.simulate,
        "files": len(gone),
        "bytes": sum(each["bytes"] for each in gone),
        "gone": told,
        "kept": stayed[:MOST_KEPT],
    }


@executor("session.master", runs_in="process", retry=RetryPolicy(rules=_IN_VAIN))
def master(ctx: RunContext, params: MasterParams) -> dict[str, Any]:
    """Make a master frame of the darks, flats or biases of a sealed session, for all later ones.

    It is the mean of each pixel without what lies off, in ``calibration/darks``, ``flats`` or ``bias`` of the data
    folder; sessions refer to it by `add_master`.  The result tells path, kind, camera, exposure, frames, noise of a
    frame, median, values left out.
    """
    from absurd.tasks.artifact import write_aside
    from absurd.tasks.session import masters
    from absurd.tasks.session.arrays import SessionArrays
    from absurd.tasks.session.listing import find

    folder = Path(params.data_dir)
    made = masters.make_master(
        SessionArrays(find(folder, params.session_id)),
        params.kind,
        ctx.scratch,
        camera=params.camera,
        exposure_us=params.exposure_us,
        subtract=None if params.subtract is None else folder / params.subtract,
        clip=params.clip,
        progress=ctx.progress,
    )
    path = str(folder / masters.name_of(made.facts))
    with write_aside(ctx.artifact(path, kind="master"), private=True) as part:
        masters.write_master(made, part)
    ctx.log.info("session_master", path=path, frames=made.facts["frames"])
    return {"path": path, **masters.told(made.facts)}
