"""The program of a worker's heart; started by `heart`, by the path of this file.

It loads nothing of absurd until it has to beat, so that a worker costs hardly more with it than without.  It ends
with the worker: at once when its end of the channel closes or its process ends, whoever else may hold them.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Any

LATE = 0.5
"""By what share of an interval the worker's own sign of life may be late before the heart gives one."""

_RECORD = struct.Struct("dddd")  # as in `heart`, which is not loaded here
_BEATEN = struct.Struct("d")


class Watch:
    """What the heart knows of its worker."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self._buffer = b""
        while b"\n" not in self._buffer:
            self._receive()
        order, _, self._buffer = self._buffer.partition(b"\n")
        self.order: dict[str, Any] = json.loads(order)
        self.told: float = 0.0
        self.next_by: float = 0.0
        self.interval: float = math.inf
        self.longest: float = 0.0
        channel.setblocking(False)
        self.life = self._open_life()
        self.read()

    def _open_life(self) -> int | None:
        """A file that becomes readable when the worker's process ends: a fork of it may keep the channel open."""
        life = None
        with suppress(OSError):  # an old kernel: the channel and `is_gone` have to do
            life = os.pidfd_open(self.order["pid"])
        if self.is_gone():
            os._exit(0)
        return life

    def _receive(self) -> bool:
        """Take what the worker has sent; ends this process if it will send no more."""
        try:
            data = self.channel.recv(65536)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            os._exit(0)
        self._buffer += data
        return True

    def read(self) -> None:
        """Take what the worker has said."""
        while self._receive():
            pass
        whole = len(self._buffer) // _RECORD.size * _RECORD.size
        if whole:
            last = self._buffer[whole - _RECORD.size : whole]
            self.told, self.next_by, self.interval, self.longest = _RECORD.unpack(last)
            self._buffer = self._buffer[whole:]

    @property
    def due(self) -> float:
        """When the heart has to beat, if it hears nothing before."""
        return self.next_by + LATE * self.interval if self.next_by else math.inf

    def is_gone(self) -> bool:
        """Whether the worker's process has ended."""
        return bool(os.getppid() != self.order["pid"])

    def is_stopped(self) -> bool:
        """Whether the worker is stopped, traced to a halt or a zombie: alive it looks, and works it does not."""
        try:
            with open(f"/proc/{self.order['pid']}/stat", errors="replace") as file:
                return file.read().rpartition(")")[2].split()[0] in "TtZX"
        except (OSError, IndexError):  # cannot be told: better none too many
            return True

    def report(self, begun: float) -> None:
        """Tell the worker of a beat that was answered, for when it finds its own to be overdue."""
        with suppress(OSError):  # it has not read for days, or is gone, which the next look finds
            self.channel.send(_BEATEN.pack(begun))

    def is_past_limit(self) -> bool:
        """Whether all that runs in the worker's process had its time, and a little more.

        Where nothing runs there, what holds it up is none of its runs, or one that was left behind: that gets a lease.
        """
        allowed = self.longest or self.order["lease"]
        return bool(time.monotonic() > self.told + allowed + 2 * self.interval)


def main() -> None:
    """Watch, and beat when that is needed."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the worker, which may still have a lot to do
    watch = Watch(socket.socket(fileno=0))
    poll = select.poll()
    poll.register(watch.channel, select.POLLIN)
    if watch.life is not None:
        poll.register(watch.life, select.POLLIN)
    while True:
        left = watch.due - time.monotonic()
        found = dict(poll.poll(None if left == math.inf else max(0.0, left) * 1000 + 1))
        if watch.life in found or watch.is_gone():
            os._exit(0)
        watch.read()
        if time.monotonic() >= watch.due:
            _stand_in(watch)


def _stand_in(watch: Watch) -> None:
    import site

    site.main()  # which -S has left out
    sys.path[:] = watch.order["path"]
    from absurd.workers.life.standing_in import stand_in

    stand_in(watch)


if __name__ == "__main__":
    main()
