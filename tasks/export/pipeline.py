"""Readers, each on a connection of its own, and one writer: what they hold between them is bounded.

The parts of a query are handed out to the readers in order, and their rows are written in order, so the file is the
same for any number of readers.  A reader that is ahead waits when enough is held; the one whose rows come next never
does as long as the writer has nothing else to write, so none waits for another in a circle.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self

from absurd.tasks.export.block import Block
from absurd.tasks.export.meter import Meter, StoppedError

DEFAULT_BLOCK_SIZE = 64 << 20
"""Bytes of blocks, beside those that the writer holds, at which readers wait."""


class Failure:
    """An error in the rows of a part, raised when all before it is written."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Reader(Protocol):
    """Reads parts over one connection, one after the other.  Raises StoppedError soon after its meter is halted."""

    def read(self, part: int) -> Iterator[Block]:
        """The rows of a part."""
        ...


class Pipeline(AbstractContextManager["Pipeline"]):
    """Runs readers and a writer in threads of their own.

    `write` takes the blocks and failures from `taken`, and gives whatever `result` is to be.  Leaving the context
    stops all of them, and waits until they have.
    """

    def __init__(
        self,
        parts: int,
        readers: Sequence[Reader],
        meter: Meter,
        write: Callable[[Pipeline], Any],
        block_size: int = DEFAULT_BLOCK_SIZE,
    ) -> None:
        self._parts = parts
        self._most_ahead = block_size
        self._meter = meter
        self._write = write
        self._changed = threading.Condition()
        self._pending: dict[int, deque[Block | Failure]] = {}
        self._ended: set[int] = set()
        self._next_part = 0  # to be handed out
        self.part = 0
        """The one that is being written."""
        self._ahead = 0  # bytes in `_pending`
        self._stopping = False
        self._error: BaseException | None = None
        self._result: Any = None
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._run_writer, name="export-writer"),
            *(threading.Thread(target=self._run_reader, args=(each,), name="export-reader") for each in readers),
        ]

    def __enter__(self) -> Self:
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:  # a signal, or no room for another thread: those that run would run for ever
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def wait(self, seconds: float) -> bool:
        """Whether all is written after at most that time."""
        return self._done.wait(seconds)

    @property
    def result(self) -> Any:
        """What the writer gave; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result

    def taken(self) -> Iterator[Block | Failure]:
        """For the writer: all blocks in order; a failure is the last."""
        while self.part < self._parts:
            with self._changed:
                while not (queue := self._pending.get(self.part)) and self.part not in self._ended:
                    if self._stopping:
                        raise StoppedError
                    self._changed.wait()
                if queue:
                    item = queue.popleft()
                    self._ahead -= item.held if isinstance(item, Block) else 0
                else:
                    self._pending.pop(self.part, None)
                    self.part += 1
                    item = None
                self._changed.notify_all()
            if item is not None:
                yield item

    def _run_writer(self) -> None:
        try:
            self._result = self._write(self)
        except BaseException as error:  # raised again by the thread that asks for the result
            self._error = error
        self._stop()
        self._done.set()

    def _run_reader(self, reader: Reader) -> None:
        try:
            while (part := self._next()) is not None:
                try:
                    for block in reader.read(part):
                        self._put(part, block)
                except StoppedError:
                    raise
                except BaseException as error:  # the writer raises it, in its turn
                    self._end(part, Failure(error))
                    return
                self._end(part, None)
        except StoppedError:
            return

    def _next(self) -> int | None:
        with self._changed:
            if self._stopping or self._next_part >= self._parts:
                return None
            self._next_part += 1
            return self._next_part - 1

    def _put(self, part: int, block: Block) -> None:
        with self._changed:
            while self._ahead >= self._most_ahead and (part != self.part or self._pending.get(part)):
                if self._stopping:
                    raise StoppedError
                self._changed.wait()
            if self._stopping:
                raise StoppedError
            self._pending.setdefault(part, deque()).append(block)
            self._ahead += block.held
            self._changed.notify_all()

    def _end(self, part: int, failure: Failure | None) -> None:
        with self._changed:
            if failure is not None:
                self._pending.setdefault(part, deque()).append(failure)
            self._ended.add(part)
            self._changed.notify_all()

    def _leave(self) -> None:
        self._stop()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _stop(self) -> None:
        self._meter.halt()
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
