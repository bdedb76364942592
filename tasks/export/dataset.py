"""The rows of an export to its files: one, or several by the values of columns and by their number of rows."""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from absurd.tasks.export import row_group
from absurd.tasks.export.arrow_types import Column
from absurd.tasks.export.errors import ExportConfigError, ExportFailedError, UnfitValueError
from absurd.tasks.export.manifest import ExportedFile
from absurd.tasks.export.row_group import RowGroupWriter

NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"
"""What readers take for NULL."""
MAX_PARTITIONS = 10_000
_LONGEST = 255
"""Bytes in the name of a folder."""
_OVERHEAD = 1_024
"""Bytes that a column of a small batch takes beside its values: they count where there are many partitions."""

Key = tuple[Any, ...]
Metadata = Callable[[int], Mapping[str, str]]
"""What a file's footer tells, from its rows."""


def check_partitions(partition_by: Sequence[str], columns: Sequence[Column]) -> None:
    """Raise ExportConfigError for columns that a dataset cannot be partitioned by."""
    found = {column.name: column for column in columns}
    for name in partition_by:
        if name not in found:
            raise ExportConfigError(
                f"partition_by names {name!r}, which the query does not give; it gives {', '.join(found)}", column=name
            )
        if name.startswith(("_", ".")) or set(name) & set("=/%\\") or not name.isprintable():
            raise ExportConfigError(
                f"partition_by names {name!r}, of which no folder can be made that readers find: give the column "
                "another name in the query, without =, /, % and \\, that does not begin with _ or .",
                column=name,
            )
        kept = found[name].arrow
        if not (
            pa.types.is_integer(kept) or pa.types.is_string(kept) or pa.types.is_date32(kept)
            or pa.types.is_boolean(kept)
        ):  # fmt: skip
            raise ExportConfigError(
                f"partition_by names {name!r}, which is {kept}: such values do not come back exactly from names of "
                f'folders; cast it in the query to text, date, boolean or an integer, as "{name}"::text',
                column=name,
            )
    if columns and len(set(partition_by)) == len(columns):
        raise ExportConfigError("partition_by names all columns of the query, so that none is left for the files")


def folder_of(names: Sequence[str], key: Key) -> str:
    """The folders of a partition: ``name=value/`` for each column, as Hive names them.

    All characters but letters, digits and ``_.-~`` are escaped by percent signs, as bytes of UTF-8.  Raises
    UnfitValueError for a value that no folder can be named after.
    """
    return "".join(f"{_folder(name, value)}/" for name, value in zip(names, key, strict=True))


class FilesWriter:
    """Writes rows to the files of an export.

    With `single`, to the one of that name.  Else to a dataset: ``part-00000.parquet`` and so on, in the order of the
    rows, in a folder for each value of `partition_by`, whose columns are left out of the files; `max_rows_per_file`
    rows in each file at most.  Without rows there is one file, with columns.

    Memory: the rows that are held for all partitions are bounded as one row group is, by 48 MiB; the partitions that
    hold most are written then.  At most `open_files` files are open; the one that has waited longest is finished for
    another, and its partition goes on with a new file.  So the files depend on the rows only.
    """

    def __init__(
        self,
        create: Callable[[str], Any],
        columns: Sequence[Column],
        metadata: Metadata,
        *,
        row_group_size: int,
        compression: str,
        single: str | None = None,
        partition_by: Sequence[str] = (),
        max_rows_per_file: int | None = None,
        open_files: int = 1,
    ) -> None:
        self.rows = 0
        self.files: list[ExportedFile] = []
        """Those that are finished."""
        self._create = create
        self._metadata = metadata
        self._row_group_size = row_group_size
        self._compression = compression
        self._single = single
        self._names = tuple(partition_by)
        self._keys = [number for name in self._names for number, each in enumerate(columns) if each.name == name]
        self._kept = [number for number in range(len(columns)) if number not in self._keys]
        self._columns = [columns[number] for number in self._kept]
        self._max_rows = max_rows_per_file
        self._open_files = open_files
        self._partitions: dict[Key, _Partition] = {}
        self._open: OrderedDict[Key, None] = OrderedDict()
        """Partitions whose file is open; the one that was written last is last."""
        if not self._names:
            self._partition(()).writer.open()

    def add(self, batch: Any, release: Callable[[], None]) -> None:
        """Take a batch; `release` is called when its memory is not needed any more."""
        if not self._names:
            self.rows += batch.num_rows
            self._put(self._partition(()), batch, release)
            return
        for key, part in self._split(batch):
            self._put(self._partition(key), part, None)
        self.rows += batch.num_rows
        release()
        self._bound()

    def finish(self) -> tuple[ExportedFile, ...]:
        """Write what is held; all files, sorted by their paths."""
        if not self._partitions:  # no rows: the columns are still to be seen
            self._partition((None,) * len(self._names), folder="")
        for partition in self._partitions.values():
            if partition.writer.rows or not partition.number:
                self._finish(partition)
        return tuple(sorted(self.files, key=lambda each: each.path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            with ExitStack() as stack:  # one that cannot be closed keeps no other from being
                for partition in self._partitions.values():
                    stack.callback(partition.writer.abandon)

    def _partition(self, key: Key, folder: str | None = None) -> _Partition:
        found = self._partitions.get(key)
        if found is None:
            if len(self._partitions) >= MAX_PARTITIONS:
                raise ExportFailedError(
                    f"{' and '.join(self._names)} have more than {MAX_PARTITIONS:,} values, each of which would be a "
                    "folder: partition by something coarser, as a year or a remainder"
                )
            where = folder_of(self._names, key) if folder is None else folder
            found = self._partitions[key] = _Partition(key if folder is None else (), where)
            self._begin(found)
        return found

    def _begin(self, partition: _Partition) -> None:
        """A new file for a partition; it is created with its first row group."""
        name = self._single or f"{partition.folder}part-{partition.number:05}.parquet"
        partition.path = name

        def create() -> Any:
            while len(self._open) >= self._open_files:
                waited = self._partitions[next(iter(self._open))]
                self._finish(waited)
                self._begin(waited)
            self._open[partition.key] = None
            return self._create(name)

        partition.writer = RowGroupWriter(
            create, self._columns, row_group_size=self._row_group_size, compression=self._compression
        )

    def _put(self, partition: _Partition, batch: Any, release: Callable[[], None] | None) -> None:
        while self._max_rows is not None and (room := self._max_rows - partition.writer.rows) < batch.num_rows:
            if room:
                partition.writer.add(batch.slice(0, room))
                batch = batch.slice(room)
            self._finish(partition)
            self._begin(partition)
        partition.writer.add(batch, release)
        if partition.key in self._open:
            self._open.move_to_end(partition.key)

    def _finish(self, partition: _Partition) -> None:
        writer = partition.writer
        sink = writer.finish(self._metadata(writer.rows))
        self._open.pop(partition.key, None)
        partition.number += 1
        value = {name: _told(each) for name, each in zip(self._names, partition.key, strict=False)}
        self.files.append(ExportedFile(partition.path, writer.rows, sink.bytes, writer.row_groups, sink.sha256, value))

    def _bound(self) -> None:
        """Write row groups of those partitions that hold most, once all together hold as much as one row group may."""
        overhead = _OVERHEAD * len(self._columns)
        held = {key: size for key, each in self._partitions.items() if (size := each.writer.held(overhead))}
        total = sum(held.values())
        if total < row_group.ROW_GROUP_BYTES:
            return
        for key in sorted(held, key=lambda key: -held[key]):
            self._partitions[key].writer.flush()
            total -= held[key]
            if total <= row_group.ROW_GROUP_BYTES // 2:
                break

    def _split(self, batch: Any) -> Iterator[tuple[Key, Any]]:
        """The rows of a batch by partition, as copies: they do not keep the whole batch in memory."""
        codes = np.zeros(batch.num_rows, np.int64)
        for place in self._keys:
            encoded = batch.column(place).dictionary_encode(null_encoding="encode")
            codes = codes * len(encoded.dictionary) + encoded.indices.to_numpy(zero_copy_only=False)
            codes = np.unique(codes, return_inverse=True)[1]
        _, first, counts = np.unique(codes, return_index=True, return_counts=True)
        order = np.argsort(codes, kind="stable")
        ends = np.cumsum(counts)
        kept = batch.select(self._kept)
        for group in np.argsort(first):  # as they come in the rows
            rows = order[ends[group] - counts[group] : ends[group]]
            key = tuple(self._value(batch, place, int(first[group])) for place in self._keys)
            yield key, kept.take(pa.array(rows))

    def _value(self, batch: Any, place: int, row: int) -> Any:
        name = batch.schema.field(place).name
        try:
            return batch.column(place)[row].as_py()
        except (OverflowError, ValueError):
            raise UnfitValueError(
                f"row {self.rows + row + 1} of column {name!r} holds {batch.column(place)[row].cast(pa.int32())} days "
                "since 1970, which no folder can be named after: a date before the year 1 or after 9999; "
                f'cast it in the query, as "{name}"::text',
                column=name,
                row=self.rows + row + 1,
            ) from None


class _Partition:
    """One value of the columns that a dataset is partitioned by, and the file that is written for it."""

    __slots__ = ("folder", "key", "number", "path", "writer")
    writer: RowGroupWriter

    def __init__(self, key: Key, folder: str) -> None:
        self.key = key
        self.folder = folder
        self.number = 0
        self.path = ""


def _folder(name: str, value: Any) -> str:
    if value is None:
        return f"{name}={NULL_FOLDER}"
    text = _text(value)
    folder = f"{name}={quote(text, safe='')}"
    if text == NULL_FOLDER:
        raise UnfitValueError(
            f"column {name!r} holds the text {NULL_FOLDER}, for which readers have NULL: leave such rows out",
            column=name,
        )
    if len(folder.encode()) > _LONGEST:
        raise UnfitValueError(
            f"column {name!r} holds a value of {len(text)} characters, too long for a folder's name of {_LONGEST} "
            "bytes: partition by something shorter, as left(…, 40)",
            column=name,
        )
    return folder


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, dt.date) else str(value)


def _told(value: Any) -> Any:
    """The value as JSON has it."""
    return value.isoformat() if isinstance(value, dt.date) else value
