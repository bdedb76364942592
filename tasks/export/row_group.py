"""Batches to a Parquet file, in row groups bounded in rows and in bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from absurd.tasks.export.arrow_types import Column
from absurd.tasks.export.block import schema_of
from absurd.tasks.export.encodings import QUICK_LEVEL, Encodings, encodings_for
from absurd.tasks.export.sink import HashingSink

DEFAULT_ROW_GROUP_SIZE = 1_000_000
"""Rows of a row group, the last one excepted, unless `ROW_GROUP_BYTES` are reached first."""
ROW_GROUP_BYTES = 48 << 20
"""Bytes in memory at which a row group is written with its rows.  64 MiB are no faster, and take up to 60 MiB more."""
COMPRESSIONS = ("zstd", "snappy", "gzip", "brotli", "lz4", "none")
_LEVELS = {"zstd": 1, "gzip": 6, "brotli": 4}
"""zstd 3 takes a tenth longer and saves a hundredth; pyarrow's own level for brotli takes minutes."""
_PAGE_ROWS = 1 << 17
"""Rows of a page at most: 1 MiB of numbers.  Newer Arrow has 20,000, and begins the codec anew for each page, which
takes a twentieth of the time to write; files of longer pages are up to 2 % smaller.  Older Arrow has no such bound."""
_HAS_BOUND = "max_rows_per_page" in signature(pq.ParquetWriter).parameters
LARGE_PAGES = {"max_rows_per_page": _PAGE_ROWS} if _HAS_BOUND else {}
_SMALL_PAGES = {"data_page_size": 1 << 18, "write_batch_size": 32}
_PAGES = {"gzip": _SMALL_PAGES, "brotli": _SMALL_PAGES}
"""Bytes at which a page is full, and values after which that is looked at: 1 MiB and 1,024 by default.  While a page is
compressed nothing can be stopped, and one of 1,024 values of 64 KiB takes brotli more than a second."""


class RowGroupWriter:
    """Collects batches and writes each full row group.  Memory: one row group.

    The first row group decides how columns are encoded, see `encodings_for`.  The file has statistics
    (but of huge values), a page index and the Arrow schema.  `create` gives the file to write to, when there is
    something to write.
    """

    def __init__(
        self, create: Callable[[], Any], columns: Sequence[Column], *, row_group_size: int, compression: str
    ) -> None:
        self.rows = 0
        self.row_groups = 0
        self.held_bytes = 0
        """Bytes of the rows that are not written yet."""
        self.sink: HashingSink | None = None
        self._create = create
        self._columns = columns
        self._compression = compression
        self._size = row_group_size
        self._schema = schema_of(columns)
        self._held: list[Any] = []
        self._release: list[Callable[[], None]] = []
        self._held_rows = 0
        self._writer: Any = None

    def open(self) -> HashingSink:
        """Create the file, if it is not there yet."""
        if self.sink is None:
            self.sink = HashingSink(self._create())
        return self.sink

    def add(self, batch: Any, release: Callable[[], None] | None = None) -> None:
        """Take a batch; `release` is called when its memory is not needed any more."""
        while (room := self._size - self._held_rows) < batch.num_rows:
            self._hold(batch.slice(0, room))
            batch = batch.slice(room)
        if release is not None:
            self._release.append(release)
        self._hold(batch)

    def flush(self) -> None:
        """Write the rows that are held as a row group; none is written if there are none."""
        if self._held:
            writer = self._begun()
            table = pa.Table.from_batches(self._held, self._schema)
            writer.write_table(table, row_group_size=self._held_rows)
            self.row_groups += 1
            self._held, self._held_rows, self.held_bytes = [], 0, 0
            del table
            for release in self._release:
                release()
            self._release = []

    def finish(self, metadata: Mapping[str, str]) -> HashingSink:
        """Write the last row group and the footer, with `metadata` in it, and close the file."""
        self.flush()
        self._begun().add_key_value_metadata(dict(metadata))
        self._writer.close()
        sink = self.open()
        sink.close()
        return sink

    def abandon(self) -> None:
        """Close the file with the row groups it has; for one that is not to be finished."""
        if self.sink is not None and not self.sink.closed:
            try:
                self._begun().close()
            finally:
                self.sink.close()

    def held(self, overhead: int) -> int:
        """Bytes of memory that the rows which are not written yet take, with so many for each batch."""
        return self.held_bytes + overhead * len(self._held)

    def _hold(self, batch: Any) -> None:
        self._held.append(batch)
        self._held_rows += batch.num_rows
        self.held_bytes += batch.nbytes
        self.rows += batch.num_rows
        if self._held_rows >= self._size or self.held_bytes >= ROW_GROUP_BYTES:
            self.flush()

    def _begun(self) -> Any:
        if self._writer is None:
            encodings = encodings_for(self._columns, self._held)
            self._writer = pq.ParquetWriter(
                self.open().native(),
                self._schema,
                compression=self._compression,
                compression_level=self._levels(encodings),
                use_dictionary=encodings.dictionaries or False,
                use_byte_stream_split=encodings.splits or False,
                column_encoding=encodings.named or None,
                write_statistics=encodings.statistics or False,
                **_PAGES.get(self._compression, LARGE_PAGES),
                write_page_index=True,
            )
        return self._writer

    def _levels(self, encodings: Encodings) -> Any:
        """One for all columns, or those of some: the others have Arrow's own then, which for zstd is 1 too."""
        if self._compression == "zstd" and encodings.noisy:
            return dict.fromkeys(encodings.noisy, QUICK_LEVEL)
        return _LEVELS.get(self._compression)
