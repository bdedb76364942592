"""One row for each request of a batch, in the order of the requests: what became of it, and where it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from absurd.tasks.artifact import write_aside
from absurd.tasks.cutout.fetched import State

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("ra", pa.float64(), metadata={"unit": "deg"}),
        pa.field("dec", pa.float64(), metadata={"unit": "deg"}),
        pa.field("state", pa.string(), nullable=False),
        pa.field("code", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("bands", pa.list_(pa.string()), nullable=False),
        pa.field("left_out", pa.list_(pa.string()), nullable=False),
        pa.field("sources", pa.list_(pa.string()), nullable=False),
        pa.field("note", pa.string()),
        pa.field("tract", pa.int32()),
        pa.field("patch", pa.int32()),
        pa.field("x", pa.float64(), metadata={"unit": "pixel"}),
        pa.field("y", pa.float64(), metadata={"unit": "pixel"}),
        pa.field("origin_x", pa.int32(), metadata={"unit": "pixel"}),
        pa.field("origin_y", pa.int32(), metadata={"unit": "pixel"}),
        pa.field("ny", pa.int32(), metadata={"unit": "pixel"}),
        pa.field("nx", pa.int32(), metadata={"unit": "pixel"}),
        pa.field("outside", pa.float32()),
        pa.field("not_finite", pa.float32()),
        pa.field("masked", pa.float32()),
        pa.field("path", pa.string()),
        pa.field("tensor", pa.int64()),
    ]
)
"""`row` counts the requests from 0; a band is null where no header tells it; `x`, `y` and the origin are of the first
band's image; the fractions are the worst of all bands; `sources` are all files that gave pixels, `note` says what is
unusual about how they were had: another source, less than all, stitched; `tensor` is the place in the file at `path`,
where that holds several."""

_VERSIONS = pa.list_(pa.struct([("name", pa.string()), ("version", pa.string())]))

PART_SCHEMA = pa.schema(
    [
        *SCHEMA,
        pa.field("may_improve", pa.bool_()),
        pa.field("files", _VERSIONS),
        pa.field("images", _VERSIONS),
        pa.field("thumbnail", pa.binary()),
        pa.field("pixels", pa.list_(pa.float32())),
        pa.field("valid", pa.list_(pa.uint8())),
    ]
)
"""A part has beside its rows what tells whether it is still good: `may_improve`, whether a row may end better another
time, its FITS files, and the images that gave pixels, with their versions.  And what all parts together make: pictures
(PNG), and tensors as (bands, ny, nx) in one list, with 1 where they have values."""

MERGED_ROWS, READ_ROWS = 65_536, 4_096


class PartFile:
    """Some rows, in any order, as an Arrow file that `merge` reads without loading it; it appears when it is whole."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._aside = write_aside(path)
        self._sink: Any = None
        self._writer: Any = None

    def __enter__(self) -> Self:
        self._sink = pa.OSFile(str(self._aside.__enter__()), "wb")
        self._writer = pa.ipc.new_file(self._sink, PART_SCHEMA)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()
        self._sink.close()
        self._aside.__exit__(kind, error, traceback)

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows by the names of `PART_SCHEMA`; what is not named is null."""
        table = pa.Table.from_pylist([dict(each) for each in rows], schema=PART_SCHEMA)
        self._writer.write_table(table.combine_chunks())


def write_part(rows: Iterable[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write a `PartFile` in one go."""
    with PartFile(path) as part:
        part.write(rows)


def read_part(path: str | os.PathLike[str]) -> Any:
    """The rows of a part, mapped into memory: a `pyarrow.Table` of `PART_SCHEMA`."""
    return _opened(path).read_all()


class Parts:
    """The rows of several parts in the order of the requests.

    Memory: 24 bytes a row, and what is taken at once.  A row that is in several parts counts once, as the last has it.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        self._paths = [os.fspath(each) for each in paths]
        self._ends: list[NDArray[np.int64]] = []
        """Of each part's batches, in rows."""
        numbers = []
        for path in self._paths:
            batches = [each["row"].to_numpy() for each in _batches(path)]
            numbers.append(np.concatenate([np.zeros(0, np.int64), *batches]))
            self._ends.append(np.cumsum([len(each) for each in batches], dtype=np.int64))
        self.rows, self._places, self._parts = _sorted(numbers)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: NDArray[np.int64], columns: Sequence[str]) -> Any:
        """Columns of some rows, by their places in the order: a `pyarrow.Table`."""
        places, parts = self._places[which], self._parts[which]
        pieces, where = [], []
        for number in np.unique(parts).tolist():
            reader, ends = _opened(self._paths[number]), self._ends[number]
            ours = np.flatnonzero(parts == number)
            batches = np.searchsorted(ends, places[ours], side="right")
            # batch by batch: of several at once Arrow copies all, and not only the rows that are wanted
            for batch in np.unique(batches).tolist():
                here = ours[batches == batch]
                table = pa.Table.from_batches([reader.get_batch(batch)]).select(columns)
                first = ends[batch] - table.num_rows
                pieces.append(table.take(pa.array(places[here] - first)))
                where.append(here)
        order = np.argsort(np.concatenate(where), kind="stable")
        return pa.concat_tables(pieces).combine_chunks().take(pa.array(order)).combine_chunks()

    def thumbnails(self) -> dict[int, bytes]:
        """The pictures by row."""
        found: dict[int, bytes] = {}
        for path in self._paths:
            for batch in _batches(path):
                table = pa.Table.from_batches([batch]).select(["row", "thumbnail"])
                for each in table.filter(table["thumbnail"].is_valid()).to_pylist():
                    found[each["row"]] = each["thumbnail"]
        return found


Settle = Callable[[Any, int], Any]
"""What is done to rows before they are written, given these and the place of their first in the order."""


def merge(
    parts: Parts, path: str | os.PathLike[str], *, settle: Settle | None = None, private: bool = False
) -> dict[State, int]:
    """All rows in one Parquet file, in the order of the requests; how many there are in each state.

    Memory: `MERGED_ROWS` rows.
    """
    counts: dict[State, int] = {"accepted": 0, "rejected": 0, "failed": 0}
    with write_aside(path, private=private) as aside, pq.ParquetWriter(aside, SCHEMA, compression="zstd") as writer:
        for first in range(0, len(parts), MERGED_ROWS):
            chunk = parts.take(np.arange(first, min(first + MERGED_ROWS, len(parts))), SCHEMA.names)
            chunk = chunk if settle is None else settle(chunk, first)
            for state in chunk["state"].value_counts().to_pylist():
                counts[state["values"]] += state["counts"]
            writer.write_table(chunk)
    return counts


def read(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The rows of a manifest, one after the other, in bounded memory."""
    for batch in pq.ParquetFile(Path(path)).iter_batches(batch_size=READ_ROWS):
        yield from batch.to_pylist()


def _opened(path: str | os.PathLike[str]) -> Any:
    """A part, mapped into memory for as long as somebody holds it, or what is read of it."""
    return pa.ipc.open_file(pa.memory_map(os.fspath(path)))


def _batches(path: str | os.PathLike[str]) -> Iterator[Any]:
    """The batches of a part, one after the other."""
    reader = _opened(path)
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def _sorted(
    numbers: Sequence[NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers in order, with the place in its part and the part of each."""
    rows = np.concatenate([np.zeros(0, dtype=np.int64), *numbers])
    places = np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(len(each)) for each in numbers)])
    parts = np.repeat(np.arange(len(numbers)), [len(each) for each in numbers])
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    last = np.append(rows[1:] != rows[:-1], True) if len(rows) else np.zeros(0, dtype=bool)
    kept = order[last]
    return rows[last], places[kept], parts[kept]
