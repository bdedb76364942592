"""The pipes behind stdout and stderr of a child process, and whose what comes out of them is."""

from __future__ import annotations

import asyncio
import os
import select
import time
from contextlib import suppress

from absurd.model import Claim
from absurd.workers.log.output import Sink

READ_BYTES = 64 * 1024
"""What a pipe holds on Linux: one read empties it."""
SHOWN_BYTES = 1024 * 1024
"""How much of what runs write is shown at once where the worker logs; it grows again by SHOWN_A_SECOND."""
SHOWN_A_SECOND = 64 * 1024.0
CERTAIN_BYTES = 4096
"""What a pipe that can be written to takes without blocking (PIPE_BUF)."""


class Mirror:
    """Shows on the worker's own stderr what its runs write.  Never blocks: what finds no room is not shown."""

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._budget = float(SHOWN_BYTES)
        self._at = time.monotonic()
        self._hidden = 0

    def write(self, data: bytes) -> None:
        """Show `data`, or say later how much was not shown."""
        now = time.monotonic()
        self._budget = min(SHOWN_BYTES, self._budget + (now - self._at) * SHOWN_A_SECOND)
        self._at = now
        if self._hidden and self._budget > READ_BYTES:
            note = f"[{self._hidden} bytes that runs have written are not shown here; see `absurd task logs`]\n"
            if self._show(note.encode()):
                self._hidden = 0
        if len(data) > self._budget:
            self._hidden += len(data)
            return
        self._budget -= len(data)
        self._hidden += len(data) - self._show(data)

    def _show(self, data: bytes) -> int:
        """Returns how much was taken."""
        done = 0
        poll = select.poll()
        with suppress(OSError):  # closed, or a pipe that nobody reads any more: that must not end the work
            poll.register(self._descriptor, select.POLLOUT)
            while done < len(data) and any(events & select.POLLOUT for _, events in poll.poll(0)):
                done += os.write(self._descriptor, data[done : done + CERTAIN_BYTES])
        return done


class Capture:
    """Reads the two pipes: what comes during a run goes to its log, and all of it is shown where the worker logs.

    A child sends its outcome when all that it has written lies in the pipes, and writes nothing until it gets its
    next run.  So emptying them at both ends of a run tells exactly what belongs to it.
    """

    def __init__(self, sink: Sink | None, mirror: Mirror) -> None:
        self._sink = sink
        self._mirror = mirror
        self._claim: Claim | None = None
        self._loop = asyncio.get_running_loop()
        self._pipes: dict[int, str] = {}
        self._theirs: list[int] = []

    def open(self) -> tuple[int, int]:
        """Make the pipes; gives the ends to write to, which belong to the child."""
        for stream in ("stdout", "stderr"):
            read, write = os.pipe()
            os.set_blocking(read, False)
            self._pipes[read] = stream
            self._theirs.append(write)
        return self._theirs[0], self._theirs[1]

    def start(self) -> None:
        """The child has its ends: close them here, and read."""
        self._close_theirs()
        for pipe in self._pipes:
            self._loop.add_reader(pipe, self._read, pipe)

    def begin(self, claim: Claim) -> None:
        """What comes from now on belongs to the run of `claim`."""
        self._empty()
        self._claim = claim

    def end(self) -> None:
        """The run has sent its outcome: what comes now is nobody's."""
        self._empty()
        self._claim = None

    def close(self) -> None:
        """The child and all it has started are gone: read what they have left."""
        self._close_theirs()
        self._empty(reads=1024)  # a pipe that was made larger, or somebody who has escaped and writes on
        self._claim = None
        for pipe in list(self._pipes):
            self._forget(pipe)

    def _empty(self, reads: int = 16) -> None:
        for pipe in list(self._pipes):
            for _ in range(reads):
                if self._read(pipe) < READ_BYTES:
                    break

    def _read(self, pipe: int) -> int:
        try:
            data = os.read(pipe, READ_BYTES)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if not data:  # all that could write are gone
            self._forget(pipe)
            return 0
        if self._claim is not None and self._sink is not None:
            self._sink.write(self._claim, self._pipes[pipe], data)
        self._mirror.write(data)
        return len(data)

    def _forget(self, pipe: int) -> None:
        self._loop.remove_reader(pipe)
        del self._pipes[pipe]
        os.close(pipe)

    def _close_theirs(self) -> None:
        while self._theirs:
            os.close(self._theirs.pop())
