"""Several queries to as many files, all from one snapshot of the database."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from absurd.errors import AbsurdError
from absurd.tasks.export.config import check_exports, options_of
from absurd.tasks.export.destination import filesystem_of, is_address
from absurd.tasks.export.errors import ExportFailedError
from absurd.tasks.export.manifest import snapshot_of
from absurd.tasks.export.provenance import identity_of, recorded
from absurd.tasks.export.query import ExportResult, Options, export_query
from absurd.tasks.export.snapshot import HeldSnapshot, HoldWatch, at_snapshot, connected, hold_snapshot

Ending = Literal["exported", "kept", "failed", "skipped"]
"""Written now; found as an earlier run had written it; not written; not tried after a failure."""


@dataclass(frozen=True, slots=True)
class BatchItem:
    """How one export of a batch ended."""

    out: str
    state: Ending
    snapshot: str | None = None
    """What its rows were read from; None where there is no file."""
    result: ExportResult | None = None
    """Of an export that was made now."""
    error: AbsurdError | None = None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How the exports of a batch ended, in their order."""

    items: tuple[BatchItem, ...]

    @property
    def failed(self) -> tuple[BatchItem, ...]:
        """Those without a file."""
        return tuple(each for each in self.items if each.state in ("failed", "skipped"))

    @property
    def snapshots(self) -> tuple[str, ...]:
        """What the files were read from: one snapshot, unless files of an earlier run were kept."""
        return tuple(dict.fromkeys(each.snapshot for each in self.items if each.snapshot is not None))


def export_batch(
    database: str,
    exports: Sequence[Mapping[str, Any]],
    *,
    stop_on_failure: bool = False,
    resume: bool = False,
    keep_temp: bool = False,
    begun: Callable[[int, str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] | None = None,
    **options: Any,
) -> BatchResult:
    """Export each of `exports` (dicts as `load_config` gives them) from one snapshot, one after the other.

    One that fails does not keep the others from being exported, unless `stop_on_failure`.  With `resume`, what is
    there already and is whole and of the same query, database and options, as its manifest tells, stays as it is, in
    the snapshot of the run that wrote it.  With `keep_temp`, the unfinished file of an export that fails is kept, as
    `out` with ``.part`` behind it.  `begun` is called with the number (from 0) and the file before each export,
    `progress` as `export_query` tells, `warn` with a sentence once the snapshot is held for long.  `options` are
    those that an export may have of its own, for exports that do not say otherwise.

    Raises ExportConfigError for exports that cannot be used, ExportFailedError for an address that cannot be reached,
    DatabaseUnavailableError if there is no database to begin with.
    """
    check_exports(exports, "the batch", keep_temp=keep_temp)
    for export in exports:
        if is_address(export["out"]):  # one that cannot be had is told of before anything is written
            try:
                filesystem_of(export["out"])
            except OSError as error:
                raise ExportFailedError(f"{export['out']} cannot be reached: {error.strerror or error}") from error
    items: dict[int, BatchItem] = {}
    if resume:
        with connected(database) as asked:
            identity = identity_of(asked)
        for number, export in enumerate(exports):
            wanted = Options(**options_of({**options, **export}, export["out"]))
            snapshot = snapshot_of(export["out"], export["sql"], recorded(wanted), identity)
            if snapshot is not None:
                items[number] = BatchItem(export["out"], "kept", snapshot)
    if len(items) < len(exports):
        with connected(database) as holder, hold_snapshot(holder) as held:
            watch = HoldWatch(warn)

            def told(rows: int, size: int) -> None:
                watch.look()
                if progress is not None:
                    progress(rows, size)

            for number, export in enumerate(exports):
                if number in items:
                    continue
                if stop_on_failure and any(each.error is not None for each in items.values()):
                    items[number] = BatchItem(export["out"], "skipped")
                    continue
                if begun is not None:
                    begun(number, export["out"])
                given = {**options, **export, "keep_temp": keep_temp}
                items[number] = _export(database, export, held, options_of(given, export["out"]) | {"progress": told})
    return BatchResult(tuple(items[number] for number in range(len(exports))))


def export_at(database: str, sql: str, out: str | os.PathLike[str], held: HeldSnapshot, **options: Any) -> ExportResult:
    """As `export_query`, on a connection of its own, from a snapshot that another one holds.

    Raises SnapshotGoneError as well.
    """
    with connected(database) as connection, at_snapshot(connection, held):
        return export_query(connection, sql, out, taken_at=held.taken_at, **options)


def _export(database: str, export: Mapping[str, Any], held: HeldSnapshot, options: Mapping[str, Any]) -> BatchItem:
    try:
        result = export_at(database, export["sql"], export["out"], held, **options)
    except AbsurdError as error:
        return BatchItem(export["out"], "failed", error=error)
    except OSError as error:
        told = f"{export['out']} cannot be written: {error.strerror or error}"
        return BatchItem(export["out"], "failed", error=ExportFailedError(told))
    return BatchItem(export["out"], "exported", held.snapshot, result)
