"""What is told to sessions, as it is told: from the journal of the one that is active, then of the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from absurd.tasks.session import journal
from absurd.tasks.session.errors import SessionDamagedError
from absurd.tasks.session.place import Place, unsealed
from absurd.tasks.session.values import moment

KINDS = {
    journal.START: "start",
    journal.END: "end",
    journal.LEFT: "left",
    journal.LOG: "log",
    journal.EVENT: "event",
    journal.TELEMETRY: "telemetry",
    journal.CALIBRATION: "calibration",
    journal.CAMERA: "camera",
    journal.FRAME: "frame",
}


@dataclass(frozen=True, slots=True)
class Told:
    """One entry of a journal."""

    session_id: str
    kind: str
    """start, log, event, telemetry, calibration, camera, frame, left (to the next manager) or end."""
    number: int
    time: str
    value: dict[str, Any]


def follow(data_dir: Path, *, last: int, wait: Callable[[], bool] | None) -> Iterator[Told]:
    """The last entries of the newest session that is not sealed, and then what is told to it and those after it.

    `wait` is called when there is nothing new, and ends it by False; without it only what is there is given.
    Raises OSError.
    """
    after = 0
    while True:
        begun, place = min(_begun_after(data_dir, after), default=(0, None)) if after else _newest(data_dir)
        if place is not None:
            after = begun
            yield from _of(place, last, wait)
            last = -1  # of those that come later all
            if wait is not None:
                continue
        if wait is None or not wait():
            return


def _of(place: Place, last: int, wait: Callable[[], bool] | None) -> Iterator[Told]:
    """The entries of one session, until it has ended; all of them if `last` is below 0."""
    try:
        file = place.journal.open("rb")
    except FileNotFoundError:  # sealed meanwhile
        return
    with file:
        file.seek(len(journal.MAGIC))
        given = deque(_new(place, file), maxlen=None if last < 0 else last)
        yield from given
        ended = bool(given) and given[-1].kind == "end"
        while not ended and wait is not None and wait():
            ended = not place.journal.exists()  # before it is read on: nothing comes to it behind that
            for each in _new(place, file):
                yield each
                ended = ended or each.kind == "end"


def _new(place: Place, file: BinaryIO) -> Iterator[Told]:
    for each in journal.read_on(file):
        yield Told(place.id, KINDS.get(each.kind, each.kind), each.number, moment(each.time_ns), each.value)


def _newest(data_dir: Path) -> tuple[int, Place | None]:
    return max(_begun_after(data_dir, 0), default=(0, None))


def _begun_after(data_dir: Path, time_ns: int) -> list[tuple[int, Place]]:
    """The sessions that are not sealed, with when they began."""
    found = []
    for each in unsealed(data_dir):
        try:
            first = next(journal.read(each.journal), None)
        except (OSError, SessionDamagedError):  # sealed meanwhile, or just being made
            continue
        if first is not None and first.time_ns > time_ns:
            found.append((first.time_ns, each))
    return found
