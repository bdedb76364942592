"""The decoder in C: see decoder.c, whose structures stand here once more.

It is built when the package is installed where a C compiler is; without one, `wire` does the same in numpy.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import pyarrow as pa
from psycopg import OperationalError, pq

from absurd.tasks.export import block as blocks
from absurd.tasks.export.arrow_types import Column
from absurd.tasks.export.block import Block
from absurd.tasks.export.copy_stream import CopyStream
from absurd.tasks.export.errors import ExportFailedError
from absurd.tasks.export.meter import Meter, StoppedError
from absurd.tasks.export.unfit import WHAT, Unfit, UnfitAtError

_LAYOUT = 2
_LIMBS = 8
_MORE, _FULL, _END, _STOPPED, _LOST, _UNFIT, _DAMAGED, _NO_MEMORY = range(8)
_BOOL, _FIXED, _DATE, _TIME, _TIMESTAMP, _BYTES, _JSONB, _UUID, _UUID_TEXT, _DECIMAL, _INTERVAL, _LIST = range(12)
_FORMS = {
    "bool": (_BOOL, 0),
    "int16": (_FIXED, 2),
    "int32": (_FIXED, 4),
    "int64": (_FIXED, 8),
    "uint32": (_FIXED, 4),
    "float32": (_FIXED, 4),
    "float64": (_FIXED, 8),
    "date": (_DATE, 4),
    "time": (_TIME, 8),
    "timestamp": (_TIMESTAMP, 8),
    "text": (_BYTES, 0),
    "bytes": (_BYTES, 0),
    "jsonb": (_JSONB, 0),
    "uuid": (_UUID, 16),
    "uuid_text": (_UUID_TEXT, 0),
    "interval": (_INTERVAL, 0),
}
"""Form of a column: the number it has in C, and the bytes of a value in memory."""


class _Column(ctypes.Structure):
    _fields_ = (
        ("form", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("scale", ctypes.c_int32),
        ("child", ctypes.c_int32),
        ("top", ctypes.c_int32),
        ("what", ctypes.c_int32),
        ("limit", ctypes.c_uint32 * _LIMBS),
        ("unfit", ctypes.c_int64),
        ("unfit_row", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("nulls", ctypes.c_int64),
        ("capacity", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("room", ctypes.c_int64),
        ("valid", ctypes.c_void_p),
        ("data", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
    )


class _Block(ctypes.Structure):
    _fields_ = (
        ("columns", ctypes.c_int32),
        ("every", ctypes.c_int32),
        ("refuse", ctypes.c_int32),
        ("error_column", ctypes.c_int32),
        ("rows", ctypes.c_int64),
        ("most_rows", ctypes.c_int64),
        ("wire", ctypes.c_int64),
        ("most_wire", ctypes.c_int64),
        ("first_row", ctypes.c_int64),
        ("held", ctypes.c_int64),
        ("all", ctypes.POINTER(_Column)),
    )


class _Stream(ctypes.Structure):
    _fields_ = (
        ("connection", ctypes.c_void_p),
        ("get", ctypes.c_void_p),
        ("consume", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("stop", ctypes.c_void_p),
        ("received", ctypes.c_int64),
        ("pause_at", ctypes.c_int64),
        ("waited_at", ctypes.c_int64),
        ("socket", ctypes.c_int32),
        ("begun", ctypes.c_int32),
    )


@cache
def library() -> Any:
    """The compiled decoder; None where it was not built, or built from other sources than these."""
    found = find_spec("absurd.tasks.export._decoder")
    if found is None or found.origin is None or sys.byteorder != "little":
        return None
    try:
        loaded = ctypes.CDLL(found.origin)
        if loaded.absurd_layout() != _LAYOUT:
            return None
        libpq_functions()
    except (OSError, AttributeError):
        return None
    loaded.absurd_reset.restype = loaded.absurd_prepare.restype = loaded.absurd_free.restype = None
    return loaded


@cache
def libpq_functions() -> tuple[int, int, int]:
    """Addresses of PQgetCopyData, PQconsumeInput and PQfreemem of the very libpq that psycopg uses.

    Another libpq of the process must not touch its connections.  psycopg is linked with it, or has loaded it.
    Raises OSError or AttributeError if they cannot be found.
    """
    if pq.__impl__ == "python":
        from psycopg.pq import _pq_ctypes

        loaded = _pq_ctypes.pq  # type: ignore[attr-defined]
    else:  # a name is looked for in a module, then in the libraries that this module needs
        module = sys.modules[pq.PGconn.__module__]
        loaded = ctypes.CDLL(module.__file__)
    functions = (loaded[name] for name in ("PQgetCopyData", "PQconsumeInput", "PQfreemem"))
    get, consume, release = (ctypes.cast(each, ctypes.c_void_p).value or 0 for each in functions)
    return get, consume, release


class CompiledDecoder:
    """Decodes the streams of one connection, one after the other, into blocks that it uses again."""

    def __init__(self, columns: Sequence[Column], *, refuse: bool, check_text: bool, block_bytes: int) -> None:
        self._library = library()
        self._columns = columns
        self._schema = blocks.schema_of(columns)
        self._refuse = refuse
        self._check_text = check_text
        self._most_bytes = block_bytes
        self._most_rows = blocks.rows_at_most(columns, block_bytes)
        self._idle: list[_Memory] = []
        self._latest: _Memory | None = None

    def read(self, stream: CopyStream, meter: Meter) -> Iterator[Block]:
        """The rows of a running stream.

        Raises UnfitAtError, ExportFailedError for a damaged stream, StoppedError, MemoryError, and `psycopg.Error`.
        """
        get, consume, release = libpq_functions()
        pgconn: Any = stream.pgconn
        running = _Stream(
            pgconn.pgconn_ptr, get, consume, release, ctypes.addressof(meter.stop), 0, 0, 0, pgconn.socket, 0
        )
        row, status = 1, _FULL
        while status != _END:
            memory = self._memory(row)
            status = self._fill(memory.block, running, meter)
            if status == _END:
                stream.finish()
            elif status != _FULL:
                self._fail(status, memory.block, pgconn)
            if memory.block.rows:
                row += int(memory.block.rows)
                yield self._block(memory)
            else:
                self._idle.append(memory)

    def _fill(self, held: _Block, running: _Stream, meter: Meter) -> int:
        """Fill a block, in pieces; how that ended."""
        status = _MORE
        while status == _MORE:
            bytes_before, rows_before = running.received, held.rows
            running.pause_at = bytes_before + meter.piece
            status = self._library.absurd_fill(ctypes.byref(held), ctypes.byref(running))
            meter.spend(running.received - bytes_before, held.rows - rows_before)
        return status

    def _memory(self, first_row: int) -> _Memory:
        memory = self._idle.pop() if self._idle else self._new_memory()
        self._latest = memory
        self._library.absurd_reset(ctypes.byref(memory.block))
        memory.block.first_row = first_row
        memory.block.most_rows = self._most_rows
        memory.block.most_wire = self._most_bytes
        return memory

    def _block(self, memory: _Memory) -> Block:
        first = int(memory.block.first_row)
        arrays = [memory.array(column, place) for place, column in enumerate(self._columns)]
        try:
            batch, unfit = blocks.finish(
                self._columns, self._schema, arrays, refuse=self._refuse, check_text=self._check_text
            )
        except UnfitAtError as error:
            raise UnfitAtError(error.column, first - 1 + error.row, error.what) from None
        unfit = {place: Unfit(each.count, first - 1 + each.row, each.what) for place, each in unfit.items()}
        for place in range(len(self._columns)):
            column = memory.block.all[place]
            if column.unfit:
                unfit[place] = Unfit(int(column.unfit), int(column.unfit_row), WHAT[column.what])
        return Block(batch, int(memory.block.wire), int(memory.block.held), lambda: self._idle.append(memory), unfit)

    def _new_memory(self) -> _Memory:
        made = _Memory(self._library, self._columns, refuse=self._refuse)
        like = self._latest
        if like is not None and like.block.held < 4 * self._most_bytes:  # else a row of unusual length has been there
            self._library.absurd_prepare(ctypes.byref(made.block), ctypes.byref(like.block))
        return made

    def _fail(self, status: int, held: Any, pgconn: Any) -> None:
        place = int(held.error_column)
        if status == _STOPPED:
            raise StoppedError
        if status == _NO_MEMORY:
            raise MemoryError("there is not enough memory for a block of rows")
        if status == _LOST:
            raise OperationalError(pgconn.error_message.decode(errors="replace").strip() or "the connection is lost")
        if status == _UNFIT:
            found = held.all[place]
            raise UnfitAtError(self._columns[place], int(found.unfit_row), WHAT[found.what])
        row = int(held.first_row + held.rows)
        where = f"column {self._columns[place].name!r}" if place >= 0 else "its fields are not as they should be"
        raise ExportFailedError(f"the stream from the database is damaged in row {row}: {where}")


class _Memory:
    """A block as C has it, and its buffers as Arrow sees them."""

    def __init__(self, decoder: Any, columns: Sequence[Column], *, refuse: bool) -> None:
        self._library = decoder
        specs: list[_Column] = [_Column() for _ in columns]
        for place, column in enumerate(columns):
            _specify(specs, place, column)
        self._all = (_Column * len(specs))(*specs)
        self.block = _Block(columns=len(columns), every=len(specs), refuse=refuse, all=self._all)

    def __del__(self) -> None:
        if hasattr(self, "block"):
            self._library.absurd_free(ctypes.byref(self.block))

    def array(self, column: Column, place: int) -> Any:
        """A column of the block in Arrow, in the memory that C has filled."""
        if not column.is_list:
            return self._values(column.received, place)
        held = self._all[place]
        elements = self._values(column.received, held.child)
        arrow = pa.list_(pa.field("element", column.received))
        buffers = [self._valid(held), self._buffer(held.offsets, 4 * (held.count + 1))]
        return pa.ListArray.from_buffers(arrow, held.count, buffers, held.nulls, children=[elements])

    def _values(self, arrow: Any, place: int) -> Any:
        held = self._all[place]
        if held.form == _INTERVAL:
            parts = [self._values(arrow[part].type, held.child + part) for part in range(arrow.num_fields)]
            return pa.StructArray.from_buffers(arrow, held.count, [self._valid(held)], held.nulls, children=parts)
        if held.form == _BOOL:
            buffers = [self._buffer(held.data, (held.count + 7) // 8)]
        elif held.width:
            buffers = [self._buffer(held.data, held.count * held.width)]
        else:
            buffers = [self._buffer(held.offsets, 4 * (held.count + 1)), self._buffer(held.data, held.size)]
        return pa.Array.from_buffers(arrow, held.count, [self._valid(held), *buffers], held.nulls)

    def _valid(self, held: Any) -> Any:
        return self._buffer(held.valid, (held.count + 7) // 8) if held.nulls else None

    def _buffer(self, address: int | None, size: int) -> Any:
        if address is None:  # nothing was ever put there; offsets are noughts
            return pa.py_buffer(bytes(size))
        return pa.foreign_buffer(address, size, base=self)


def _specify(specs: list[_Column], place: int, column: Column) -> None:
    """Describe a column at its place, and its elements or parts after all that are there."""
    target = place
    if column.is_list:
        specs[place].form, specs[place].child, specs[place].top = _LIST, len(specs), place
        target = len(specs)
        specs.append(_Column())
    spec = specs[target]
    spec.top = place
    if column.form == "decimal":
        arrow = column.element
        spec.form, spec.width, spec.scale = _DECIMAL, arrow.byte_width, arrow.scale
        limit = 10**arrow.precision
        spec.limit = (ctypes.c_uint32 * _LIMBS)(*((limit >> 32 * limb) & 0xFFFFFFFF for limb in range(_LIMBS)))
        return
    spec.form, spec.width = _FORMS[column.form]
    if column.form == "interval":
        spec.child = len(specs)
        specs.extend(_Column(form=_FIXED, width=width, top=place) for width in (4, 4, 8))
