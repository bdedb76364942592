"""``export.query`` and ``export.batch``: exports on the queue."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from absurd.context import RunContext
from absurd.errors import AbsurdError, DatabaseUnavailableError, ExecutionError
from absurd.executor import executor
from absurd.model import TaskState
from absurd.outcome import Cancel, Reject, Snooze
from absurd.tasks.artifact import take_after
from absurd.tasks.export.config import options_of
from absurd.tasks.export.destination import is_address, place_of, real_place
from absurd.tasks.export.params import BatchParams, ExportParams

if TYPE_CHECKING:
    from absurd.client_sync import SyncAbsurdClient
    from absurd.tasks.export.query import ExportResult
    from absurd.tasks.export.snapshot import HeldSnapshot, HoldWatch

for module in ("numpy", "pyarrow"):
    if find_spec(module) is None:  # not registered then: a worker that has it will serve the tasks
        raise ImportError(f"{module} is missing, install absurd[export]", name=module)

LOOK_SECONDS = 0.2
"""How often a batch looks how its exports stand."""
PATIENCE_SECONDS = 3.0
"""After so long with exports that nobody has room for, and none that runs, a batch makes one itself."""
SNOOZE_SECONDS = 1.0
"""How often an export looks whether its batch holds a snapshot again."""
KEPT = "snapshot "
"""Begins the names of the steps by which exports of a batch tell the snapshot that they keep as well."""
TAKEN_BACK = "its batch makes the export itself: no worker had room for it"

_OF_EACH = ("columns", "files", "server_version")
"""What the result of a batch leaves to its exports' own results, and to the files."""

MOST_FILES = 1_000
"""How many files a result tells of; the manifest tells of all."""

Document = dict[str, Any]


@executor("export.query", runs_in="process")
def export(ctx: RunContext, params: ExportParams) -> Document:
    """Export a query to a Parquet file, or the files of a dataset, exactly, from one snapshot of the database.

    The result tells the path, rows, bytes and row groups, the files with their checksums, the manifest, each
    column with its types, and the snapshot.
    """
    from absurd.tasks.export.manifest import encode, manifest_path
    from absurd.tasks.export.query import export_query
    from absurd.tasks.export.snapshot import at_snapshot, connected, keep_too
    from absurd.tasks.export.stage import file_to_write

    def told(rows: int, size: int) -> None:
        ctx.progress(rows, None, _told(rows, size))

    held = None if params.batch is None else _held_by(params.batch)
    place = real_place(params.out)
    # an artifact is a local file: folders and addresses are written by the run itself, and put in place at its end
    is_file = not is_address(place) and params.partition_by is None and params.max_rows_per_file is None
    path = ctx.artifact(file_to_write(place), kind="parquet") if is_file else place
    with ExitStack() as stack:
        connection = stack.enter_context(connected(_address(params.database)))
        if held is not None and params.batch is not None:
            with _unless_gone(params.batch):
                stack.enter_context(at_snapshot(connection, held))
            kept = keep_too(connection, held)
            ctx.step(f"{KEPT}{kept.id}", lambda: asdict(kept))
        options = options_of(params.model_dump(), place)
        result = export_query(
            connection,
            params.sql,
            path,
            progress=told,
            private=is_file,
            publishing=ctx.heartbeat,  # nobody else runs this task
            warn=ctx.log.warning,
            taken_at=None if held is None else held.taken_at,
            **options,
        )
    if is_file:
        files = (replace(result.files[0], path=os.path.basename(place)),)
        result = replace(result, files=files, manifest=manifest_path(place, is_dataset=False))
        manifest = Path(ctx.artifact(file_to_write(result.manifest), kind="manifest"))
        manifest.write_bytes(encode(params.sql, result))
        for written, final in ((Path(path), place), (manifest, result.manifest)):
            take_after(Path(final), written)
    ctx.log.info("query_exported", rows=result.rows, bytes=result.bytes, row_groups=result.row_groups)
    return _document(result, params.out)


@executor("export.batch", runs_in="process")
def export_batch(ctx: RunContext, params: BatchParams) -> Document:
    """Export several queries to as many files, all from one snapshot: each by a task `export.query` of its own.

    One that fails keeps no other from being exported, unless asked.  The batch fails in the end if one did.  A batch
    that is tried again makes what is missing, from the same snapshot if that can still be had; the result tells.
    """
    from absurd.client_sync import SyncAbsurdClient
    from absurd.config import load_settings

    parts = [
        ctx.spawn(
            "export.query",
            params.export(number) | {"batch": str(ctx.task_id)},
            node=f"{number + 1} {os.path.basename(each.out)}"[-200:],
        )
        for number, each in enumerate(params.exports)
    ]
    ctx.sleep(0.001)  # they are written with the suspension, and exist from here on
    with SyncAbsurdClient(settings=load_settings()) as client:
        return _Batch(ctx, params, parts, client).run()


class _Batch:
    """A run of a batch: it holds the snapshot while the tasks export."""

    def __init__(self, ctx: RunContext, params: BatchParams, parts: list[UUID], client: SyncAbsurdClient) -> None:
        self._ctx = ctx
        self._params = params
        self._parts = parts
        self._client = client
        self._made: dict[int, Document] = {}
        """What this task has exported itself, by number."""
        self._failed: dict[int, str] = {}
        """What it could not."""
        self._states: Mapping[UUID, TaskState | None] = {}
        self._moved_at = time.monotonic()

    def run(self) -> Document:
        """Serve the exports to their ends.  Raises Reject if one failed."""
        from absurd.tasks.export.snapshot import HeldSnapshot, HoldWatch, connected, hold_snapshot

        self._look()
        if self._left():
            with ExitStack() as stack:
                connection = stack.enter_context(connected(_address(self._params.database)))
                taken: HeldSnapshot | None = None
                earlier: HeldSnapshot | None = None

                def take() -> Document:
                    nonlocal taken
                    taken = stack.enter_context(hold_snapshot(connection, self._kept(earlier)))
                    return asdict(taken)

                while taken is None:  # what earlier runs took comes first
                    earlier = HeldSnapshot(**self._ctx.step("snapshot", take))
                watch = HoldWatch(self._ctx.log.warning)
                while left := self._left():
                    watch.look()
                    self._serve(left, taken, watch)
                    connection.execute("select 1")  # raises once nobody holds the snapshot any more
                    time.sleep(LOOK_SECONDS)
                    self._look()
        return self._result()

    def _kept(self, earlier: HeldSnapshot | None) -> list[HeldSnapshot]:
        """The snapshot of an earlier run, under the ids that it may still be kept by: its own, and those of exports."""
        from absurd.claims import get_checkpoints
        from absurd.tasks.export.snapshot import HeldSnapshot

        if earlier is None:
            return []
        running = [part for part in self._parts if self._states[part] == TaskState.RUNNING]
        steps = [step for part in running for step in self._client.run(get_checkpoints(part)).items()]
        told = [HeldSnapshot(**value) for name, value in steps if name.startswith(KEPT)]
        return [earlier, *(each for each in told if each.snapshot == earlier.snapshot)]

    def _look(self) -> None:
        ended = len(self._parts) - len(self._left()) if self._states else -1
        states = self._states = self._client.get_states(self._parts)
        if TaskState.RUNNING in states.values() or len(self._parts) - len(self._left()) > ended:
            self._moved_at = time.monotonic()
        for number, part in enumerate(self._parts):
            if states[part] == TaskState.CANCELLED and number not in self._made and number not in self._failed:
                self._find(number)

    def _find(self, number: int) -> None:
        """What became of an export that has no task any more: it was taken back, or somebody cancelled it."""
        reason = self._client.get_task(self._parts[number]).reason
        if reason != TAKEN_BACK:
            self._failed[number] = f"cancelled: {reason or 'no reason was given'}"

    def _left(self) -> list[int]:
        """Numbers of the exports that have not ended."""
        known = self._made.keys() | self._failed.keys()
        return [
            number
            for number, part in enumerate(self._parts)
            if number not in known and self._states[part] not in (TaskState.COMPLETED, TaskState.FAILED)
        ]

    def _serve(self, left: list[int], held: HeldSnapshot, watch: HoldWatch) -> None:
        done, total = len(self._parts) - len(left), len(self._parts)
        self._ctx.progress(done, total, f"{done} of {total} exports ended")
        if self._params.stop_on_failure and (self._failed or TaskState.FAILED in self._states.values()):
            for number in left:
                self._client.cancel(self._parts[number], reason="another export of its batch failed")
                self._failed.setdefault(number, "cancelled: another export failed")
            return
        taken_back = [each for each in left if self._states[self._parts[each]] == TaskState.CANCELLED]
        if taken_back:
            self._export(taken_back[0], held, watch)
        elif time.monotonic() - self._moved_at > PATIENCE_SECONDS:
            waiting = [each for each in left if self._states[self._parts[each]] == TaskState.PENDING]
            if waiting:
                self._client.cancel(self._parts[waiting[0]], reason=TAKEN_BACK)

    def _export(self, number: int, held: HeldSnapshot, watch: HoldWatch) -> None:
        """Make an export in this run.  It is recorded as a step: what is done stays so if the run is lost."""
        from absurd.tasks.export.batch import export_at

        params = self._params.export(number)
        done, total = len(self._parts) - len(self._left()), len(self._parts)

        def make() -> Document:
            self._ctx.heartbeat()  # nobody else runs this batch
            options = options_of(params, params["out"])

            def told(rows: int, size: int) -> None:
                self._ctx.progress(done, total, f"{done} of {total} exports ended, one at {_told(rows, size)}")
                watch.look()

            address = _address(params.get("database"))
            result = export_at(address, params["sql"], params["out"], held, progress=told, **options)
            return _document(result, params["out"])

        try:
            self._made[number] = self._ctx.step(f"export {number + 1}", make)
        except DatabaseUnavailableError:
            raise
        except ExecutionError as error:
            self._failed[number] = error.message

    def _result(self) -> Document:
        ends = self._ctx.wait_for(self._parts, return_exceptions=True)
        exports: list[Document] = []
        for number, end in enumerate(ends):
            made = self._made.get(number)
            if made is None and isinstance(end, AbsurdError):
                told = self._failed.get(number) or (end.details.get("error") or {}).get("message") or end.message
                self._failed[number] = told
            else:
                told = {name: value for name, value in (made or end).items() if name not in _OF_EACH}
                exports.append(told | {"task_id": None if made else str(self._parts[number])})
        if self._failed:
            failed = "; ".join(
                f"{self._params.exports[each].out}: {self._failed[each]}" for each in sorted(self._failed)
            )
            raise Reject(f"{len(self._failed)} of {len(ends)} exports failed, {len(exports)} are made. {failed}")
        snapshots = {each["snapshot"]: each["snapshot_at"] for each in exports}
        return {
            "exports": exports,
            "rows": sum(each["rows"] for each in exports),
            "bytes": sum(each["bytes"] for each in exports),
            "one_snapshot": len(snapshots) == 1,
            "snapshots": [{"snapshot": each, "taken_at": at} for each, at in snapshots.items()],
        }


def _held_by(batch: UUID) -> HeldSnapshot:
    """The snapshot that a batch holds, or held last.  Raises Snooze while there is none, Cancel if none will come."""
    from absurd.claims import get_checkpoints
    from absurd.client_sync import SyncAbsurdClient
    from absurd.config import load_settings
    from absurd.tasks.export.snapshot import HeldSnapshot

    with SyncAbsurdClient(settings=load_settings()) as client:
        steps = client.run(get_checkpoints(batch))
        names = ["snapshot", *(f"snapshot#{number}" for number in range(2, len(steps) + 2))]
        taken = [steps[name] for name in names if name in steps]
        if taken:
            return HeldSnapshot(**taken[-1])
        _wait_for(client, batch)
    raise AssertionError("the wait raises")


@contextmanager
def _unless_gone(batch: UUID) -> Iterator[None]:
    """Raise Snooze where the snapshot of a batch is gone and another one will come, Cancel where none will."""
    from absurd.client_sync import SyncAbsurdClient
    from absurd.config import load_settings
    from absurd.tasks.export.errors import SnapshotGoneError

    try:
        yield
    except SnapshotGoneError:
        with SyncAbsurdClient(settings=load_settings()) as client:
            _wait_for(client, batch)


def _wait_for(client: SyncAbsurdClient, batch: UUID) -> NoReturn:
    state = client.get_states([batch])[batch]
    if state is None or state.ended:
        raise Cancel(f"its batch {batch} holds no snapshot any more: retry the batch, and what is missing is made")
    raise Snooze(SNOOZE_SECONDS, f"until its batch {batch} holds a snapshot")


def _address(database: str | None) -> str:
    from absurd.config import load_settings
    from absurd.database_url import for_psycopg
    from absurd.resolve import resolve_database

    return for_psycopg(resolve_database(load_settings())) if database is None else f"service={database}"


def _told(rows: int, size: int) -> str:
    return f"{rows:,} row{'' if rows == 1 else 's'}, {size / 1e6:,.1f} MB"


def _document(result: ExportResult, out: str) -> Document:
    return {
        "path": place_of(out),
        "rows": result.rows,
        "bytes": result.bytes,
        "row_groups": result.row_groups,
        "sha256": result.sha256,
        "files": [asdict(each) for each in result.files[:MOST_FILES]],
        "file_count": len(result.files),
        "manifest": result.manifest,
        "connections": result.connections,
        "columns": [
            {
                "name": column.name,
                "postgres_type": column.postgres_type,
                "arrow_type": column.arrow_type,
                "kept_as_text": column.kept_as_text,
                "nulled": column.nulled,
            }
            for column in result.columns
        ],
        "snapshot": result.snapshot.snapshot,
        "snapshot_at": result.snapshot.taken_at,
        "server_version": result.snapshot.server_version,
    }
