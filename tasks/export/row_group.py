"""Batches to a Parquet file, in row groups bounded in rows and in bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from absurd.tasks.export.arrow_types import Column

DEFAULT_ROW_GROUP_SIZE = 1_000_000
"""Rows of a row group, the last one excepted, unless `ROW_GROUP_BYTES` are reached first."""
ROW_GROUP_BYTES = 128 << 20
"""Bytes in memory at which a row group is written with the rows it has."""
COMPRESSIONS = ("zstd", "snappy", "gzip", "brotli", "lz4", "none")


class RowGroupWriter:
    """Collects batches and writes each full row group.  Memory: one row group.

    Strings get a dictionary, floats are split by byte, numbers neither: dictionaries on all columns take 3.7 times
    as long and give larger files.  The file has statistics, a page index and the Arrow schema.
    """

    def __init__(self, path: Path, columns: Sequence[Column], *, row_group_size: int, compression: str) -> None:
        self.rows = 0
        self.row_groups = 0
        self.size = row_group_size
        self._schema = pa.schema([column.field for column in columns])
        self._held: list[Any] = []
        self._held_rows = 0
        self._held_bytes = 0
        dictionaries = [_leaf(column) for column in columns if _element(column) in (pa.string(), pa.binary())]
        splits = [_leaf(column) for column in columns if pa.types.is_floating(_element(column))]
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression=compression,
            use_dictionary=dictionaries or False,
            use_byte_stream_split=splits or False,
            write_page_index=True,
        )

    def room(self) -> Iterator[int]:
        """Without end: how many rows the present row group can still take."""
        while True:
            yield self.size - self._held_rows

    def add(self, batch: Any) -> None:
        """Take a batch with no more rows than there is room for."""
        self._held.append(batch)
        self._held_rows += batch.num_rows
        self._held_bytes += batch.nbytes
        self.rows += batch.num_rows
        if self._held_rows >= self.size or self._held_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Write the last row group and the footer, with `metadata` in it."""
        self._flush()
        self._writer.add_key_value_metadata(dict(metadata))
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._writer.close()

    def _flush(self) -> None:
        if self._held:
            table = pa.Table.from_batches(self._held, self._schema)
            self._writer.write_table(table, row_group_size=self._held_rows)
            self.row_groups += 1
            self._held, self._held_rows, self._held_bytes = [], 0, 0


def _element(column: Column) -> Any:
    return column.arrow.value_type if column.is_list else column.arrow


def _leaf(column: Column) -> str:
    """What Parquet calls the column that holds the values."""
    return f"{column.name}.list.element" if column.is_list else column.name
