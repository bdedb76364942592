"""Streams that are damaged, for both decoders: a program, since the compiled one runs under a sanitizer here.

``python export_fuzz.py CORPUS SEED ROUNDS [LIBRARY]`` takes streams that a server has sent, damages each in a way drawn
from the seed and the round, and gives it to both.  Either both give the same rows, or both say that the stream is
damaged or that a value does not fit; anything else ends the program with the round it was in.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pyarrow as pa

from absurd.tasks.export import compiled, wire
from absurd.tasks.export.arrow_types import Column
from absurd.tasks.export.copy_stream import CopyStream
from absurd.tasks.export.errors import ExportFailedError
from absurd.tasks.export.meter import Meter
from absurd.tasks.export.unfit import UnfitAtError

EXPECTED = (ExportFailedError, UnfitAtError, psycopg.OperationalError)
_INTERESTING = (0, 1, -1, -2, 2, 3, 6, 7, 127, 255, 9999, 10_000, 2**31 - 1, -(2**31), 2**30, 2**16, -(2**16))


@dataclass(frozen=True, slots=True)
class Sent:
    """A stream of COPY BINARY as a server has sent it, message by message."""

    columns: Sequence[Column]
    messages: list[bytes]


class Libpq:
    """libpq's three functions over messages, each in memory of just its length, so that nobody reads on unseen."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._libc.malloc.restype = ctypes.c_void_p
        self._libc.malloc.argtypes = [ctypes.c_size_t]
        self._libc.free.argtypes = [ctypes.c_void_p]
        self.messages: list[bytes | None] = []
        """What is to come; None: nothing yet, for a moment."""
        self.is_lost = False
        get = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int)
        consume = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
        release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        self._kept = (get(self._get), consume(self._consume), release(self._libc.free))
        self.addresses = tuple(ctypes.cast(each, ctypes.c_void_p).value for each in self._kept)
        self.socket, writable = os.pipe()
        os.write(writable, b"x")

    def _get(self, connection: int, message: Any, asynchronous: int) -> int:
        del connection, asynchronous
        if not self.messages:
            return -1
        text = self.messages[0]
        if text is None:
            return 0
        self.messages.pop(0)
        message[0] = self._libc.malloc(len(text))
        ctypes.memmove(message[0], text, len(text))
        return len(text)

    def _consume(self, connection: int) -> int:
        del connection
        self.messages.pop(0)
        return not self.is_lost


class Replay(CopyStream):
    """The messages as the decoders want them."""

    def __init__(self, libpq: Libpq, messages: Sequence[bytes | None]) -> None:
        libpq.messages = list(messages)
        self._left = [each for each in messages if each is not None]
        self._libpq = libpq
        self.pgconn: Any = SimpleNamespace(pgconn_ptr=1, socket=libpq.socket, error_message=b"lost")

    def finish(self) -> None:
        """The server has nothing more to say."""

    def _receive(self) -> bytes | None:
        return self._left.pop(0) if self._left else None


def damaged(messages: Sequence[bytes], rng: random.Random) -> list[bytes]:
    """The messages with some damage; a message is one byte at least."""
    out = list(messages)
    for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 3))):
        place = rng.randrange(len(out))
        message = bytearray(out[place])
        at = rng.randrange(len(message))
        kind = rng.randrange(9)
        if kind == 0:
            message[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            message[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            message[at : at + 4] = rng.choice(_INTERESTING).to_bytes(4, "big", signed=True)
        elif kind == 3:
            del message[at:]
        elif kind == 4:
            del message[at : at + rng.randrange(1, 9)]
        elif kind == 5:
            message[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 6:
            other = rng.choice(messages)
            message[at:] = other[rng.randrange(len(other)) :]
        elif kind == 7:
            out.insert(place, rng.choice((b"\xff\xff", b"\0", bytes(message), b"\0\0")))
        elif len(out) > 1:
            del out[place]
            continue
        out[place] = bytes(message) or b"\0"
    return out


def outcome(read: Callable[[], Iterator[Any]], columns: Sequence[Column]) -> Any:
    """The rows, as plain values, and what did not fit; or the error that is expected of damage."""
    rows: list[list[Any]] = [[] for _ in columns]
    nulled: dict[int, int] = {}
    before: Any = None
    try:
        for block in read():
            block.batch.validate()
            for place, array in enumerate(block.batch.columns):
                rows[place] += bare(array)
            for place, found in block.unfit.items():
                nulled[place] = nulled.get(place, 0) + found.count
            if before is not None:  # two are in use, so that the second is made like the first
                before.recycle()
            before = block
    except EXPECTED as error:
        return type(error)
    return rows, nulled


def bare(array: Any) -> list[Any]:
    """Values without a meaning: floats by their bits, text by its bytes, times by their numbers."""
    kind = array.type
    if pa.types.is_string(kind):
        return list(array.view(pa.binary()).to_pylist())
    if pa.types.is_list(kind):
        values = bare(array.values)
        starts = array.offsets.to_pylist()
        nulls = array.is_null().to_pylist()
        return [None if null else values[starts[n] : starts[n + 1]] for n, null in enumerate(nulls)]
    if pa.types.is_struct(kind):
        parts = [bare(array.field(place)) for place in range(kind.num_fields)]
        nulls = array.is_null().to_pylist()
        return [None if null else list(each) for null, *each in zip(nulls, *parts, strict=True)]
    if pa.types.is_floating(kind) or pa.types.is_temporal(kind):
        return list(array.view(pa.int64() if kind.bit_width == 64 else pa.int32()).to_pylist())
    return list(array.to_pylist())


def check(sent: Sent, libpq: Libpq, rng: random.Random) -> bool:
    """Give damage to both decoders; whether they took it for an error.  Raises AssertionError if they differ."""
    messages = damaged(sent.messages, rng)
    options: dict[str, Any] = {
        "refuse": rng.random() < 0.3,
        "check_text": rng.random() < 0.3,
        "block_bytes": rng.choice((1, 100, 1000, 1 << 20)),
    }
    paused: list[bytes | None] = list(messages)
    for _ in range(rng.choice((0, 0, 3))):
        paused.insert(rng.randrange(len(paused) + 1), None)
    libpq.is_lost = False
    streams = Replay(libpq, paused), Replay(libpq, paused)
    libpq.messages = list(paused)
    one = outcome(lambda: compiled.CompiledDecoder(sent.columns, **options).read(streams[0], Meter()), sent.columns)
    other = outcome(lambda: wire.NumpyDecoder(sent.columns, **options).read(streams[1], Meter()), sent.columns)
    is_error = isinstance(one, type)
    assert is_error == isinstance(other, type) and (is_error or one == other), (
        [each.postgres_type for each in sent.columns],
        options,
        str(one)[:2000],
        str(other)[:2000],
    )
    if paused != messages:
        libpq.is_lost, libpq.messages = True, list(paused)
        assert isinstance(
            outcome(lambda: compiled.CompiledDecoder(sent.columns, **options).read(streams[0], Meter()), sent.columns),
            type,
        )
    return is_error


def main(corpus: str, seed: str, rounds: str, library: str = "") -> None:
    """Damage the streams of a corpus, all in turn."""
    streams: list[Sent] = pickle.loads(Path(corpus).read_bytes())  # noqa: S301 - the test has written it
    libpq = Libpq()
    loaded = ctypes.CDLL(library) if library else compiled.library()
    loaded.absurd_reset.restype = loaded.absurd_free.restype = None
    compiled.libpq_functions = lambda: libpq.addresses  # type: ignore[assignment]
    compiled.library = lambda: loaded  # type: ignore[assignment]
    errors = 0
    for number in range(int(rounds)):
        try:
            errors += check(streams[number % len(streams)], libpq, random.Random(f"{seed} {number}"))
        except BaseException:
            print(f"seed {seed}, round {number} of stream {number % len(streams)}", file=sys.stderr)
            raise
    print(f"{errors} errors in {rounds} rounds")


if __name__ == "__main__":
    main(*sys.argv[1:])
