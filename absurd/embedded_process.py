"""The processes of an embedded server: is it answering, which are they, and how they are ended.

Whether a server runs is decided by asking it.  Process numbers only serve to end what no longer answers: a number
may have been given to another process since, or belong to one that is dead and not yet cleared away.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from absurd.embedded_place import Record


class Answer(Enum):
    """What a server says to a client."""

    READY = "ready"
    BUSY = "busy"
    """Something is there, and does not let clients in: it starts, recovers or stops."""
    NONE = "none"


def ask(record: Record, patience: float = 5.0) -> Answer:
    """Knock at the server as a client does, without a driver; wait at most `patience` seconds for its answer."""
    parameters = b"user\0absurd\0database\0absurd\0\0"
    protocol = (3 << 16).to_bytes(4, "big")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(patience)
        try:
            connection.connect(os.fsencode(record.socket))
            connection.sendall((8 + len(parameters)).to_bytes(4, "big") + protocol + parameters)
            with connection.makefile("rb") as stream:
                for kind, body in _messages(stream):
                    if kind == b"E":
                        # 57P03: cannot connect now.  Any other refusal comes from a server that works.
                        return Answer.BUSY if b"C57P03\0" in body else Answer.READY
                    if kind == b"Z":
                        connection.sendall(b"X\0\0\0\4")
                        return Answer.READY
        except TimeoutError:
            return Answer.BUSY
        except (ConnectionResetError, BrokenPipeError):
            return Answer.BUSY
        except OSError:  # nobody listens, or there is no such socket
            return Answer.NONE
    return Answer.BUSY


def _messages(stream: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    while len(head := stream.read(5)) == 5:
        yield head[:1], stream.read(int.from_bytes(head[1:], "big") - 4)


def alive(pid: int) -> bool:
    """Whether the process runs; one that is dead and not yet cleared away by its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):  # the latter: it was cleared away between opening and reading
        return not Path("/proc/self/stat").exists()
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def recorded_pid(data: Path) -> int | None:
    """The number in the data folder's ``postmaster.pid``, whosever it is by now."""
    try:
        return abs(int((data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").split("\n")[0]))
    except (FileNotFoundError, ValueError):
        return None


def postmaster(data: Path) -> int | None:
    """The number of the live main process of the server of `data`."""
    pid = recorded_pid(data)
    if pid is None or not alive(pid):
        return None
    words = _command_line(pid)
    return pid if words is None or str(data) in words else None


def end_orphans(data: Path, cluster: str) -> None:
    """Kill the server processes that outlived their main process.

    They hold the shared memory, and no new server starts on `data` before the last of them is gone; one in a long
    statement would take its time.  Nothing is lost: what they had not committed is not in the log that is replayed.
    """
    owner = data.stat().st_uid
    orphans = [pid for pid in _processes(owner) if (_command_line(pid) or [""])[0].startswith(f"postgres: {cluster}: ")]
    for pid in orphans:
        end(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(alive, orphans)), 10.0)


def end(pid: int, how: signal.Signals) -> None:
    """Send the signal `how`, unless the process is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, how)


def wait_until(condition: Callable[[], bool], patience: float) -> bool:
    """Wait at most `patience` seconds for `condition`; returns whether it holds."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _processes(owner: int) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.stat().st_uid == owner:
                yield int(folder.name)
        except FileNotFoundError:
            continue


def _command_line(pid: int) -> list[str] | None:
    """The words the process was started with; None where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
