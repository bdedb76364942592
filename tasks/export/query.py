"""One query to Parquet: a file, or a dataset of several."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import IO, TYPE_CHECKING, Any

import psycopg
import pyarrow as pa

from absurd.tasks.export import reader, sharing, source, splitting
from absurd.tasks.export.arrow_types import Column, Wishes, check_type_map, decimal_of
from absurd.tasks.export.block import bytes_at_most
from absurd.tasks.export.dataset import FilesWriter, check_partitions
from absurd.tasks.export.destination import name_of, place_of, real_place
from absurd.tasks.export.errors import ExportConfigError
from absurd.tasks.export.manifest import ExportedFile, encode, manifest_path
from absurd.tasks.export.meter import Meter
from absurd.tasks.export.pipeline import DEFAULT_BLOCK_SIZE, Failure, Pipeline
from absurd.tasks.export.provenance import identity_of, recorded
from absurd.tasks.export.row_group import COMPRESSIONS, DEFAULT_ROW_GROUP_SIZE
from absurd.tasks.export.snapshot import HoldWatch
from absurd.tasks.export.source import DecoderName
from absurd.tasks.export.stage import Stage, discard, staged
from absurd.tasks.export.unfit import ON_UNFIT, OnUnfit, UnfitAtError

if TYPE_CHECKING:
    from psycopg import Connection

Progress = Callable[[int, int], None]
"""Called several times a second with the rows read and the bytes they came in; what it raises ends the export."""

DEFAULT_CONNECTIONS = 2
TICK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class ExportedColumn:
    """A column of the file."""

    name: str
    postgres_type: str
    arrow_type: str
    kept_as_text: bool
    """Whether it holds the server's text, since Arrow has no exact counterpart of the type."""
    nulled: int = 0
    """Values that did not fit and are NULL in the file, with `on_unfit` ``null``."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was written."""

    rows: int
    bytes: int
    """Size of the file, or of all files of a dataset."""
    row_groups: int
    columns: tuple[ExportedColumn, ...]
    snapshot: reader.Snapshot
    files: tuple[ExportedFile, ...] = ()
    """One, or those of a dataset by their paths in its folder."""
    partition_by: tuple[str, ...] = ()
    manifest: str = ""
    """Where the manifest is; empty if none was written."""
    sha256: str = ""
    """Of the file; of a dataset that of its manifest, which holds those of its files."""
    connections: int = 1
    """How many were used."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Those that change what is in the files."""
    database: Mapping[str, Any] = field(default_factory=dict)
    """Which one it was, see `absurd.tasks.export.provenance`."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to export; see `export_query`."""

    row_group_size: int = DEFAULT_ROW_GROUP_SIZE
    compression: str = "zstd"
    connections: int = DEFAULT_CONNECTIONS
    type_map: Mapping[int | str, Any] = field(default_factory=dict)
    decimal: tuple[int, int] | None = None
    on_unfit: OnUnfit = "error"
    limit_mib_per_second: float | None = None
    block_size: int = DEFAULT_BLOCK_SIZE
    decoder: DecoderName = "auto"
    partition_by: tuple[str, ...] = ()
    max_rows_per_file: int | None = None

    @property
    def is_dataset(self) -> bool:
        """Whether a folder of files is to be written, not one file."""
        return bool(self.partition_by) or self.max_rows_per_file is not None

    def check(self) -> None:
        """Raise ExportConfigError for what cannot be meant."""
        if self.row_group_size < 1:
            raise ExportConfigError(f"row_group_size is {self.row_group_size}; it must be at least 1 row")
        if self.compression not in COMPRESSIONS:
            raise ExportConfigError(f"compression is {self.compression!r}; it must be one of {', '.join(COMPRESSIONS)}")
        if self.connections < 1:
            raise ExportConfigError(f"connections is {self.connections}; it must be at least 1")
        if self.block_size < 1:
            raise ExportConfigError(f"block_size is {self.block_size}; it must be at least 1 byte")
        if self.on_unfit not in ON_UNFIT:
            raise ExportConfigError(f"on_unfit is {self.on_unfit!r}; it must be one of {', '.join(ON_UNFIT)}")
        if self.limit_mib_per_second is not None and not self.limit_mib_per_second > 0:
            raise ExportConfigError(f"limit_mib_per_second is {self.limit_mib_per_second}; it must be above 0")
        if self.decimal is not None:
            decimal_of(*self.decimal)
        check_type_map(self.type_map)
        if self.max_rows_per_file is not None and self.max_rows_per_file < 1:
            raise ExportConfigError(f"max_rows_per_file is {self.max_rows_per_file}; it must be at least 1 row")
        twice = [name for name in self.partition_by if self.partition_by.count(name) > 1]
        if twice:
            raise ExportConfigError(f"partition_by names {twice[0]!r} more than once", column=twice[0])


class _KeepAsTextError(Exception):
    """Some columns have to be read again, as text."""

    def __init__(self, places: frozenset[int]) -> None:
        super().__init__(places)
        self.places = places


def export_query(
    database: str | Connection[Any],
    query: str,
    path: str | os.PathLike[str],
    *,
    row_group_size: int = DEFAULT_ROW_GROUP_SIZE,
    compression: str = "zstd",
    progress: Progress | None = None,
    private: bool = False,
    connections: int = DEFAULT_CONNECTIONS,
    type_map: Mapping[int | str, Any] | None = None,
    decimal: tuple[int, int] | None = None,
    on_unfit: OnUnfit = "error",
    limit_mib_per_second: float | None = None,
    block_size: int = DEFAULT_BLOCK_SIZE,
    decoder: DecoderName = "auto",
    partition_by: Sequence[str] = (),
    max_rows_per_file: int | None = None,
    manifest: bool = True,
    publishing: Callable[[], None] | None = None,
    warn: Callable[[str], None] | None = None,
    unfinished: str | os.PathLike[str] | None = None,
    taken_at: str | None = None,
) -> ExportResult:
    """Write the rows of `query` to a Parquet file at `path`, exactly; or to the files of a dataset in a folder there.

    `database` is a libpq URL or DSN, or an open psycopg connection, whose transaction is used if it is in one; the rows
    are those that its session sees, which others share only where that is sure.
    Columns and rows come from one snapshot, in the order of the query.  An empty result gives a file with columns
    and no rows.  The file appears under its name when it is whole; memory is bounded by one row group, that is
    by `row_group_size` rows and 48 MiB, whichever is met first, and by the `block_size` bytes that are read ahead of
    it.  `path` may be an address of a file system that pyarrow or fsspec knows.  A manifest is written beside the
    file, see `absurd.tasks.export.manifest`, unless `manifest` is false; a dataset always has one.  A `private` path,
    as ``ctx.artifact`` gives, is written as it is, without a manifest.  `partition_by` and `max_rows_per_file` make a
    dataset, see `absurd.tasks.export.dataset`.

    `publishing` is called when all is written and nothing has its name yet; what it raises ends the export.  With
    `unfinished`, what there is when the export fails is kept under that name, with whole row groups and a footer, for
    whoever looks for the reason; else it is removed.  `taken_at` is when the snapshot was taken, where another
    transaction did that.

    Types are kept as `absurd.tasks.export.arrow_types` tells; those without an exact counterpart
    (numeric without a precision, ranges, ...) as the server's text, which the field's metadata say.  NULL, the empty
    string and the text ``NULL`` stay apart; NaN and infinite floats stay what they are.  Text is kept as stored,
    so character(n) with its blanks.

    Raises
    ------
    ExportQueryError
        PostgreSQL refuses the query, it is not one query, or two of its columns have one name.
    ExportConfigError
        An option cannot be meant, as `partition_by` with a column that the query does not give; an address cannot be
        used; or a folder is in the way that is no export.
    UnfitValueError
        A value does not fit: infinite dates and times, 24:00:00, NaN in a numeric with a precision, an
        array of several dimensions.  Column and row are named.
    ExportFailedError
        The query ended with an error of its own.
    DatabaseUnavailableError
        The server cannot be reached or went away; the same call may work later.
    OSError
        The file cannot be written.
    """
    options = Options(
        row_group_size=row_group_size,
        compression=compression,
        connections=connections,
        type_map=type_map or {},
        decimal=decimal,
        on_unfit=on_unfit,
        limit_mib_per_second=limit_mib_per_second,
        block_size=block_size,
        decoder=decoder,
        partition_by=tuple(partition_by),
        max_rows_per_file=max_rows_per_file,
    )
    options.check()
    place = place_of(os.fspath(path)) if private else real_place(os.fspath(path))
    with reader.connected(database) as connection, reader.one_snapshot(connection, taken_at) as snapshot:
        watch = HoldWatch(warn)
        wishes = Wishes(reader.types_by_oid(connection, options.type_map), options.decimal)
        columns = reader.describe(connection, query, wishes)
        check_partitions(options.partition_by, columns)
        parts = splitting.parts_of(connection, query)
        wanted = min(options.connections, len(parts))
        identity = identity_of(connection)
        with sharing.shared_connections(connection, wanted, query, columns) as shared:
            while True:
                export = _Export(query, parts, columns, snapshot, options, name_of(place), identity)
                try:
                    with staged(
                        place, is_dataset=options.is_dataset, private=private, manifest=manifest, unfinished=unfinished
                    ) as stage:
                        result = export.run(shared, stage, progress=progress, watch=watch)
                        if publishing is not None:
                            publishing()
                    described = options.is_dataset or (manifest and not private)
                    where = manifest_path(place, is_dataset=options.is_dataset) if described else ""
                    return replace(result, manifest=where)
                except _KeepAsTextError as again:
                    discard(unfinished)
                    wishes = replace(wishes, as_text=wishes.as_text | again.places)
                    columns = reader.describe(connection, query, wishes)
                    check_partitions(options.partition_by, columns)


class _Stoppable:
    """A file that takes nothing any more once the export is to stop: a row group takes some codecs ten seconds."""

    def __init__(self, file: IO[bytes], meter: Meter) -> None:
        self._file = file
        self._check = meter.check
        self.flush, self.close = file.flush, file.close

    def write(self, data: bytes) -> int:
        """Write all of `data`.  Raises StoppedError."""
        self._check()
        return self._file.write(data)


class _Export:
    """One pass over the rows of a query."""

    def __init__(
        self,
        query: str,
        parts: Sequence[splitting.Part],
        columns: Sequence[Column],
        snapshot: reader.Snapshot,
        options: Options,
        name: str,
        database: Mapping[str, Any],
    ) -> None:
        self._database = database
        self._name = name
        self._query = query
        self._parts = parts
        self._columns = columns
        self._snapshot = snapshot
        self._options = options
        self._meter = Meter(options.limit_mib_per_second)
        self._nulled = dict.fromkeys(range(len(columns)), 0)
        self._version = version("absurd")

    def run(
        self,
        connections: Sequence[Connection[Any]],
        stage: Stage,
        *,
        progress: Progress | None,
        watch: HoldWatch,
    ) -> ExportResult:
        statements = source.statements_for(connections[0], self._parts, self._columns)
        options = self._options
        refuse, check_text = options.on_unfit == "error", not self._snapshot.is_checked
        most = bytes_at_most(options.block_size)
        readers = [
            source.PartReader(
                each,
                statements,
                source.make_decoder(
                    options.decoder, self._columns, refuse=refuse, check_text=check_text, block_bytes=most
                ),
                self._meter,
            )
            for each in connections
        ]

        def write(pipeline: Pipeline) -> tuple[ExportedFile, ...]:
            return self._write(pipeline, stage)

        try:
            with Pipeline(len(self._parts), readers, self._meter, write, options.block_size) as pipeline:
                self._watch(pipeline, progress, watch)
        except BaseException:  # it did not fail, it was told to stop: in the middle of a row group, maybe
            stage.spoil()
            raise
        files: tuple[ExportedFile, ...] = pipeline.result
        result = ExportResult(
            rows=sum(each.rows for each in files),
            bytes=sum(each.bytes for each in files),
            row_groups=sum(each.row_groups for each in files),
            columns=tuple(
                ExportedColumn(
                    column.name, column.postgres_type, str(column.arrow), column.kept_as_text, self._nulled[n]
                )
                for n, column in enumerate(self._columns)
            ),
            snapshot=self._snapshot,
            files=files,
            partition_by=self._options.partition_by,
            sha256=files[0].sha256,
            connections=len(connections),
            options=recorded(options),
            database=self._database,
        )
        described = encode(self._query, result)
        stage.conclude(described)
        if self._options.is_dataset:
            result = replace(result, sha256=hashlib.sha256(described).hexdigest())
        return result

    def _watch(self, pipeline: Pipeline, progress: Progress | None, watch: HoldWatch) -> None:
        """Tell how far it is until all is written."""
        is_done = False
        while not is_done:
            is_done = pipeline.wait(TICK_SECONDS)
            if progress is not None:
                progress(self._meter.rows, self._meter.bytes)
            watch.look()

    def _write(self, pipeline: Pipeline, stage: Stage) -> tuple[ExportedFile, ...]:
        """All rows into the files; for the thread that writes."""
        to_text: set[int] = set()
        options = self._options

        def create(name: str) -> _Stoppable:
            return _Stoppable(stage.create(name), self._meter)

        with FilesWriter(
            create,
            self._columns,
            self._metadata,
            row_group_size=options.row_group_size,
            compression=options.compression,
            single=None if options.is_dataset else self._name,
            partition_by=options.partition_by,
            max_rows_per_file=options.max_rows_per_file,
            open_files=stage.open_files,
        ) as writer:
            rows, part, before = 0, 0, 0
            for item in pipeline.taken():
                if pipeline.part != part:
                    part, before = pipeline.part, rows
                if isinstance(item, Failure):
                    raise self._explained(item.error, before)
                rows += item.batch.num_rows
                for place, found in item.unfit.items():
                    column = self._columns[place]
                    if options.on_unfit == "text":
                        if column.received == column.arrow == pa.string():  # as text it would not fit either
                            raise UnfitAtError(column, found.row, found.what).told(before)
                        to_text.add(place)
                    self._nulled[place] += found.count
                if to_text:  # the file will be begun again; what else does not fit is only to be found
                    item.recycle()
                else:
                    writer.add(item.batch, item.recycle)
            if to_text:
                raise _KeepAsTextError(frozenset(to_text))
            return writer.finish()

    def _explained(self, error: BaseException, rows: int) -> BaseException:
        """The error for the caller; `rows` come before the part that failed."""
        if isinstance(error, UnfitAtError):
            return error.told(rows)
        if isinstance(error, psycopg.Error):
            return reader.explain(error, rows=self._meter.rows)
        return error

    def _metadata(self, rows: int) -> dict[str, str]:
        """What a file with so many rows tells of its origin; no address and no user of the database."""
        types = {column.name: column.postgres_type for column in self._columns}
        return {
            "absurd.query": self._query,
            "absurd.rows": str(rows),
            "absurd.columns": json.dumps(types, ensure_ascii=False),
            "absurd.snapshot": self._snapshot.snapshot,
            "absurd.snapshot_at": self._snapshot.taken_at,
            "absurd.server_version": self._snapshot.server_version,
            "absurd.version": self._version,
        }
