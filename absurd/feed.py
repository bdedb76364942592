"""The SQL functions of the feed of changes, each as a `Call`: what happens, for those who watch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from absurd.call import Call, Row, one_value
from absurd.encoding import decode

KEPT = 600.0
"""For how many seconds the feed is written and kept after the last `watch_feed`."""


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
