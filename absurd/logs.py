"""What the runs of a task have written: reading it page by page, and following it while it grows."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import UUID

from absurd.call import Call, Row
from absurd.encoding import decode
from absurd.errors import DatabaseUnavailableError, InvalidOptionError, TaskNotFoundError
from absurd.model import TaskState
from absurd.queue import task_uuid
from absurd.waiting import OUTAGE

T = TypeVar("T")

_SHORTEST = 0.1  # pauses between two looks, in seconds
_LONGEST = 0.4
_LONGEST_WHEN_NOTIFIED = 2.0
_ANNOUNCE_AGAIN = 1800.0  # the database forgets who follows after an hour


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a run has written; without an end if it had none when it was stored, or was too long."""

    attempt: int
    at: datetime
    stream: str
    """``stdout``, ``stderr``; ``log`` of a logger in a loop or thread; ``worker`` what the worker says of the log."""
    text: str
    worker: str | None
    run: str
    """Tells runs of one attempt apart: it may go on after a suspension."""
    dropped_bytes: int = 0
    """Of a line of the stream ``worker``: how much is missing in this place."""
    dropped_lines: int = 0


class Cursor(NamedTuple):
    """A place in a log."""

    attempt: int
    upto: int
    lines: int


class Page(NamedTuple):
    """A piece of a log, and the state of the task when it was read: all that an ended task wrote is there."""

    lines: list[LogLine]
    state: TaskState
    more: bool
    end: Cursor | None


def read_log(
    task_id: UUID | str,
    *,
    attempt: int | None = None,
    after: Cursor | None = None,
    tail: int | None = None,
    announce: bool = False,
) -> Call[Page]:
    """The next page of a task's log, behind `after`; or its last `tail` lines.  Raises TaskNotFoundError.

    With `announce` what is added to it will be notified, for an hour, and the task's end.
    """
    task_id = task_uuid(task_id)
    if tail is not None and tail < 0:
        raise InvalidOptionError(f"tail is {tail}; it must be at least 0", option="tail")

    def read(rows: Sequence[Row]) -> Page:
        if rows[0]["page"] is None:
            raise TaskNotFoundError(f"there is no task {task_id}", id=str(task_id))
        page = decode(rows[0]["page"])
        lines = [line for part in page["parts"] for line in _lines(part)]
        last = page["parts"][-1] if page["parts"] else None
        end = Cursor(last["attempt"], last["upto"], last["lines"]) if last else after
        return Page(lines, TaskState(page["state"]), page["more"], end)

    return Call(
        "select {schema}.get_log($1::uuid, $2::integer, $3::integer, $4::bigint, $5::bigint, $6::bigint)::text as page,"
        " case when $7::boolean then {schema}.await_tasks(array[$1::uuid]) end",
        (task_id, attempt, *(after or (None, None, None)), tail, announce),
        read,
    )


def _lines(part: dict[str, Any]) -> list[LogLine]:
    at = datetime.fromisoformat(part["at"])
    found = []

    def add(moment: datetime, stream: str, text: str, **dropped: int) -> None:
        found.append(LogLine(part["attempt"], moment, stream, text, part["worker"], part["run"], **dropped))

    if part["dropped_bytes"] > 0:
        size, ends = part["dropped_bytes"], part["dropped_lines"]
        first = at - timedelta(milliseconds=part["pieces"][0][1])
        told = f"[{size} bytes in {ends} lines were dropped here]\n"
        add(first, "worker", told, dropped_bytes=size, dropped_lines=ends)
    for stream, age, text in part["pieces"]:
        moment = at - timedelta(milliseconds=age)
        for line in text.split("\n")[:-1]:
            add(moment, stream, line + "\n")
        if rest := text.rpartition("\n")[2]:
            add(moment, stream, rest)
    return found


def last_lines(lines: Sequence[LogLine], tail: int | None) -> list[LogLine]:
    """The last `tail` lines; pieces of one line count as one."""
    if tail is None:
        return list(lines)
    kept: deque[LogLine] = deque()
    ends = 0
    for line in reversed(lines):
        ends += line.text.endswith("\n") or not kept
        if ends > tail:
            break
        kept.appendleft(line)
    return list(kept)


class Following:
    """One reader of a log, without any IO: look, take what is there, pause or be notified, until the task has ended."""

    def __init__(self, task_id: UUID | str, *, attempt: int | None = None, tail: int | None = None) -> None:
        self.id = task_uuid(task_id)
        self._attempt = attempt
        self._tail = tail
        self._after: Cursor | None = None
        self._announced: float | None = None
        self._away_since: float | None = None
        self._pause = 0.0
        self.over = False
        """Whether the task has ended, and all of its log was taken."""

    def look(self) -> Call[Page]:
        """The call to make now."""
        now = time.monotonic()
        announce = self._announced is None or now - self._announced > _ANNOUNCE_AGAIN
        if announce:
            self._announced = now
        return read_log(self.id, attempt=self._attempt, after=self._after, tail=self._tail, announce=announce)

    def take(self, page: Page) -> list[LogLine]:
        """The lines that are new."""
        lines = last_lines(page.lines, self._tail)
        self._tail = None
        self._after = page.end
        self._away_since = None
        self.over = page.state.ended and not page.more
        self._pause = 0.0 if page.more else _SHORTEST if lines else max(_SHORTEST, 2 * self._pause)
        return lines

    def pause(self, *, notified: bool) -> float:
        """Seconds until the next look, if nothing is notified before."""
        self._pause = min(self._pause, _LONGEST_WHEN_NOTIFIED if notified else _LONGEST)
        return self._pause

    def endure(self, error: DatabaseUnavailableError) -> None:
        """Raise `error` if the database has been away for too long."""
        now = time.monotonic()
        self._away_since = self._away_since or now
        self._announced = None
        self._pause = _LONGEST
        if now - self._away_since > OUTAGE:
            raise error


class News(Protocol):
    """Notifications about a task."""

    def clear(self) -> None:
        """Forget those that have come."""

    async def wait(self, seconds: float) -> None:
        """Wait for one, so long at most."""

    def arrive(self) -> bool:
        """Whether notifications arrive at all."""


class LogMethods(ABC):
    """Of the client for asyncio; `SyncLogMethods` has the twins."""

    @abstractmethod
    async def run(self, call: Call[T]) -> T:
        """Make a call."""

    @abstractmethod
    def _news_of(self, task_id: UUID, *topics: str) -> AbstractAsyncContextManager[News]:
        """What waits for notifications about a task."""

    async def get_logs(
        self, task_id: UUID | str, *, attempt: int | None = None, tail: int | None = None
    ) -> list[LogLine]:
        """What the runs of a task have written, of all attempts or one; the last `tail` lines.

        Raises TaskNotFoundError.
        """
        page = await self.run(read_log(task_id, attempt=attempt, tail=tail))
        lines = last_lines(page.lines, tail)
        while page.more:
            page = await self.run(read_log(task_id, attempt=attempt, after=page.end))
            lines += page.lines
        return lines

    async def follow_logs(
        self, task_id: UUID | str, *, attempt: int | None = None, tail: int | None = None
    ) -> AsyncIterator[LogLine]:
        """As `get_logs`, line by line, and what is written from now on, until the task has ended."""
        following = Following(task_id, attempt=attempt, tail=tail)
        async with self._news_of(following.id, "log", "ended") as news:
            while True:
                news.clear()
                try:
                    page = await self.run(following.look())
                except DatabaseUnavailableError as error:
                    following.endure(error)
                else:
                    for line in following.take(page):
                        yield line
                    if following.over:
                        return
                await news.wait(following.pause(notified=news.arrive()))


class SyncLogMethods(ABC):
    """Of the client for scripts and notebooks."""

    @abstractmethod
    def run(self, call: Call[T]) -> T:
        """Make a call."""

    @abstractmethod
    def _news_of(self, task_id: UUID, *topics: str) -> AbstractContextManager[Callable[[float], bool]]:
        """A function that waits for a notification about a task, for so many seconds at most."""

    def get_logs(self, task_id: UUID | str, *, attempt: int | None = None, tail: int | None = None) -> list[LogLine]:
        """What the runs of a task have written, of all attempts or one; the last `tail` lines.

        Raises TaskNotFoundError.
        """
        page = self.run(read_log(task_id, attempt=attempt, tail=tail))
        lines = last_lines(page.lines, tail)
        while page.more:
            page = self.run(read_log(task_id, attempt=attempt, after=page.end))
            lines += page.lines
        return lines

    def follow_logs(
        self, task_id: UUID | str, *, attempt: int | None = None, tail: int | None = None
    ) -> Iterator[LogLine]:
        """As `get_logs`, line by line, and what is written from now on, until the task has ended."""
        following = Following(task_id, attempt=attempt, tail=tail)
        arrive = False  # until one has
        with self._news_of(following.id, "log", "ended") as await_news:
            while True:
                try:
                    page = self.run(following.look())
                except DatabaseUnavailableError as error:
                    following.endure(error)
                else:
                    yield from following.take(page)
                    if following.over:
                        return
                if await_news(following.pause(notified=arrive)):
                    arrive = True
