"""What happens, as it happens: one reader of the feed for all who watch through this process.

The feed is asked ten times a second, and only while somebody watches: a notification from each statement that starts
or ends tasks would cost the workers more than these questions cost the server, and would not come through every pooler.
A message's id is the snapshot of the database up to which all was told; whoever comes again with it misses nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

import structlog

from absurd import inspection
from absurd.database import AsyncDatabase
from absurd.errors import AbsurdError, DatabaseUnavailableError, RateLimitedError
from absurd.feed import WATCH_SECONDS, read_feed, watch_feed
from absurd.telemetry import Event

log = structlog.get_logger("absurd.web")

PAUSE = 0.1
"""Seconds between two looks."""
BUSY, BUSY_PAUSE = 50, 0.5
"""After a look that found so many rows the next comes later, and what happens meanwhile is told together."""
AWAY_PAUSE = 1.0
"""As `PAUSE`, while the database is away."""
COUNT_SECONDS, ALIVE_SECONDS = 1.0, 15.0
"""How often queues are counted, and a sign of life is sent where nothing happens."""
WATCHERS = 500
"""How many may watch through this process at once."""
BEHIND = 100
"""How many pieces may wait for a reader; one that is further behind is dropped, and comes again with its last id."""
NAMED = 1000
"""Of more tasks in one message their ids are not told, only their number."""

Row = Mapping[str, Any]


class Topic(StrEnum):
    """What can be watched."""

    TASK = "task"
    """Tasks that have begun to run or have ended."""
    WORKFLOW = "workflow"
    """Workflows that run or have ended."""
    WORKER = "worker"
    """Workers that came, drain, left or were lost."""
    QUEUE = "queue"
    """Counts of queues that have changed, and pauses."""
    SESSION = "session"
    """What is told to sessions, and files of sessions that were sealed, written anew, retired, or found damaged."""
    PRODUCT = "product"
    """Products that were stored, accepted, superseded or quarantined."""


class Message(NamedTuple):
    """Something to send; with an id where all before it was told."""

    id: str | None
    topic: str
    data: str


class Batch:
    """Messages that are sent together; what is sent is made once for all who are told the same."""

    def __init__(self, *messages: Message) -> None:
        self.messages = messages

    @cached_property
    def stream(self) -> bytes:
        """As server-sent events: one piece, for each that is written costs every connection anew."""
        return "".join(map(_event, self.messages)).encode()

    @cached_property
    def texts(self) -> list[str]:
        """As JSON objects with `id`, `topic` and `data`."""
        return [
            json.dumps(each._asdict() | {"data": json.loads(each.data)}, ensure_ascii=False) for each in self.messages
        ]


class Wish(NamedTuple):
    """What one who watches wants to know."""

    topics: frozenset[Topic]
    queue: str | None = None

    def covers(self, row: Row) -> bool:
        """Whether a row of the feed is wanted."""
        topic = row["topic"]
        if self.queue is not None and self.queue != (row.get("id") if topic == Topic.QUEUE else row.get("queue")):
            return False
        return topic in self.topics


class _Piece:
    """What one look has found; made into messages once for all who wish the same."""

    def __init__(self, snapshot: str, rows: Iterable[Row], *, lost: bool = False) -> None:
        self._snapshot = snapshot
        self._rows = list(rows)
        self._lost = lost
        self._told: dict[Wish, Batch] = {}
        self.numbers = frozenset(row["n"] for row in self._rows if "n" in row)

    def told(self, wish: Wish, known: frozenset[int]) -> Batch:
        """Its messages, but for rows that are known."""
        if known & self.numbers:
            return self._batch([row for row in self._rows if row.get("n") not in known], wish)
        if wish not in self._told:
            lost = Batch(Message(self._snapshot, "reset", "{}"))
            self._told[wish] = lost if self._lost else self._batch(self._rows, wish)
        return self._told[wish]

    def _batch(self, rows: Iterable[Row], wish: Wish) -> Batch:
        found = _merged(row for row in rows if wish.covers(row))
        last = len(found) - 1
        return Batch(
            *(
                Message((self._snapshot or None) if place == last else None, row["topic"], _json(row))
                for place, row in enumerate(found)
            )
        )


class _Watcher:
    """One who watches: pieces wait for it here; None is the end."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[_Piece | None] = asyncio.Queue()

    def offer(self, piece: _Piece | None) -> None:
        """Have it told of `piece`; who is too far behind, or is told of None, is told of nothing more."""
        if piece is None or self.pieces.qsize() >= BEHIND:
            while not self.pieces.empty():
                self.pieces.get_nowait()
            piece = None
        self.pieces.put_nowait(piece)


class Feed:
    """Reads the feed for all who watch through this process."""

    def __init__(self, database: AsyncDatabase) -> None:
        self._database = database
        self._watchers: set[_Watcher] = set()
        self._starting = asyncio.Lock()
        self._runner: asyncio.Task[None] | None = None
        self._snapshot = ""
        self._counts: dict[str, Row] = {}
        self._closed = False

    async def follow(self, wish: Wish, after: str | None = None, *, once: bool = False) -> AsyncGenerator[Batch]:
        """Messages from now on, or from `after`, the id of one before; first comes a ``hello``.

        It ends when the feed is closed, for a reader that is too slow, and with `once` when all is told.  ``reset``
        says that there is no telling what has happened since `after`, ``alive`` comes where nothing happens.  Before
        the first message it raises RateLimitedError where too many watch already, and what the database raises.
        """
        if len(self._watchers) >= WATCHERS:
            raise RateLimitedError(f"{WATCHERS} others watch already; wait a little", retry_after=5.0)
        watcher = _Watcher()
        self._watchers.add(watcher)
        try:
            await self._start()
            known: frozenset[int] = frozenset()
            missed = Batch()
            here = self._snapshot
            if after is not None:
                found = await self._database.run(read_feed(after))
                since = _Piece(found.snapshot, found.events, lost=found.lost)
                here, known, missed = found.snapshot, since.numbers, since.told(wish, known)
            yield Batch(Message(None if missed.messages else here, "hello", "{}"))
            counts = _Piece("", self._counts.values()).told(wish, known)
            if first := (*missed.messages, *counts.messages):
                yield Batch(*first)
            alive = time.monotonic() + ALIVE_SECONDS
            while not (self._closed or once):
                # What is not wanted puts nothing off: who waits for something rare hears a sign of life all the same.
                try:
                    async with asyncio.timeout(alive - time.monotonic()):
                        piece = await watcher.pieces.get()
                        if piece is None:
                            return
                        batch = piece.told(wish, known)
                except TimeoutError:
                    told_all = watcher.pieces.empty()  # else a piece came in the very moment
                    batch = Batch(Message(self._snapshot if told_all else None, "alive", "{}"))
                if batch.messages:
                    alive = time.monotonic() + ALIVE_SECONDS
                    yield batch
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """Nothing more is told."""
        self._closed = True
        for each in self._watchers:
            each.offer(None)

    async def _start(self) -> None:
        async with self._starting:
            if self._runner is None:
                await self._database.run(watch_feed())
                self._snapshot = (await self._database.run(read_feed(None))).snapshot
                self._counts = {}
                self._runner = asyncio.create_task(self._run(), name="absurd-feed")

    async def _run(self) -> None:
        """Read until nobody watches any more."""
        watched = time.monotonic()
        counted = 0.0
        away = False
        try:
            while self._watchers and not self._closed:
                pause = PAUSE
                now = time.monotonic()
                try:
                    if now - watched > WATCH_SECONDS:
                        await self._database.run(watch_feed())
                        watched = now
                    found = await self._database.run(read_feed(self._snapshot))
                    rows: list[Row] = list(found.events)
                    if now - counted > COUNT_SECONDS:
                        rows += await self._count()
                        counted = now
                    if rows or found.lost:
                        piece = _Piece(found.snapshot, rows, lost=found.lost)
                        for each in self._watchers:
                            each.offer(piece)
                    self._snapshot = found.snapshot
                    pause = BUSY_PAUSE if len(found.events) > BUSY else PAUSE
                    if away:
                        log.info(Event.DATABASE_BACK)
                    away = False
                except DatabaseUnavailableError:
                    if not away:
                        log.warning(Event.DATABASE_AWAY)
                    away, pause = True, AWAY_PAUSE
                await asyncio.sleep(pause)
        except AbsurdError as error:
            log.error(Event.LOOP_FAILED, loop="feed", error=error.code, message=error.message)
            for each in self._watchers:
                each.offer(None)
        finally:
            self._runner = None

    async def _count(self) -> list[Row]:
        """Counts of the queues in which something has changed."""
        changed: list[Row] = []
        for each in await self._database.run(inspection.list_queues()):
            counts = {key: value for key, value in each.items() if type(value) is int}
            row = {"topic": "queue", "id": each["name"], "state": "paused" if each["paused"] else "open", **counts}
            if row != self._counts.get(each["name"]):
                self._counts[each["name"]] = row
                changed.append(row)
        return changed


def _event(message: Message) -> str:
    number = f"id: {message.id}\n" if message.id else ""
    if message.topic == "alive":
        return f"{number}: alive\n\n"
    return f"{number}event: {message.topic}\ndata: {message.data}\n\n"


def _json(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False)


def _merged(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows without their numbers; those of tasks of one queue that did the same are one."""
    found: list[dict[str, Any]] = []
    places: dict[tuple[str, str | None], dict[str, Any]] = {}
    for row in rows:
        told = {key: value for key, value in row.items() if key != "n"}
        if told["topic"] != Topic.TASK:
            found.append(told)
            continue
        first = places.setdefault((told["state"], told.get("queue")), told)
        if first is told:
            found.append(told)
            continue
        first["count"] += told["count"]
        first["at"] = told["at"]
        for key in ("ids", "names", "workflows"):
            _join(first, told, key)
    return found


def _join(first: dict[str, Any], other: Row, key: str) -> None:
    """What both name; nothing where one of them names none, or it is too much."""
    if key == "workflows":
        both = sorted({*first.get(key, ()), *other.get(key, ())})
    elif key in first and key in other:
        both = sorted({*first[key], *other[key]}) if key == "names" else first[key] + other[key]
    else:
        both = []
    if 0 < len(both) <= NAMED:
        first[key] = both
    else:
        first.pop(key, None)
