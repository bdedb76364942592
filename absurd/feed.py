"""The SQL functions of the feed of changes, each as a `Call`: what happens, for those who watch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from absurd.call import Call, Row, one_value
from absurd.encoding import decode
from absurd.errors import DatabaseUnavailableError

KEPT = 600.0
"""For how many seconds the feed is written and kept after the last `watch_feed`."""
WATCH_SECONDS = 60.0
"""After how many seconds the feed is asked for again by who reads it."""


class Piece(NamedTuple):
    """What has happened since a snapshot."""

    snapshot: str
    """What to go on from."""
    lost: bool
    """Whether there is no telling: some of it is gone, or it is too much."""
    events: list[dict[str, Any]]
    """``n`` (a number that no other has), ``topic``, ``state``, ``at``, and what it is about."""


def watch_feed(seconds: float = KEPT) -> Call[bool]:
    """Have the feed written for so long; False where another session is just at it."""
    return Call("select {schema}.watch_feed($1::double precision) as done", (seconds,), one_value("done"))


def read_feed(snapshot: str | None) -> Call[Piece]:
    """What was committed since a snapshot; None: nothing, only the snapshot of now."""

    def read(rows: Sequence[Row]) -> Piece:
        found = decode(rows[0]["piece"])
        return Piece(found["snapshot"], found["lost"], found["events"])

    return Call("select {schema}.read_feed($1::text)::text as piece", (snapshot,), read)


class Heard(NamedTuple):
    """What was told to a session."""

    session_id: str
    entries: list[dict[str, Any]]
    """``number``, ``time``, ``kind`` and ``value`` of each."""
    missed: int
    """How many entries before these are left out."""


def follow_sessions(run: Callable[[Call[Any]], Any], wait: Callable[[], bool]) -> Iterator[Heard | None]:
    """What is told to sessions from now on, on whichever machine; None where some of it is lost.

    `run` makes a call, as `SyncAbsurdClient.run`.  `wait` is called between two looks, and ends it by False.  An outage
    of the database is waited out.  Raises what the first call raises.
    """
    snapshot: str | None = None
    watched = -math.inf
    known: dict[str, int] = {}
    while True:
        try:
            if time.monotonic() - watched > WATCH_SECONDS:
                run(watch_feed())
                watched = time.monotonic()
            found: Piece = run(read_feed(snapshot))
        except DatabaseUnavailableError:
            if snapshot is None:
                raise
        else:
            snapshot = found.snapshot
            if found.lost:
                yield None
            for each in found.events:
                if (each["topic"], each["state"]) == ("session", "told"):
                    yield _heard(each, known)
        if not wait():
            return


def _heard(told: dict[str, Any], known: dict[str, int]) -> Heard:
    """Without entries that are told again because an answer was lost; `known` has the last number of each session."""
    entries = [each for each in told["entries"] if each["number"] > known.get(told["id"], 0)]
    if entries:
        known[told["id"]] = entries[-1]["number"]
    return Heard(told["id"], entries, told["missed"])
