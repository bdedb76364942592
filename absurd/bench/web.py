"""How soon the web interface answers with many tasks behind it, and what those who watch cost the queue."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Self
from urllib.parse import urlsplit

from absurd.bench.arena import QUEUE, STOPPING, Arena, until
from absurd.bench.backlog import fill, make_history
from absurd.bench.figures import Figure, percentile
from absurd.bench.queue import drain
from absurd.bench.spent import spent_by
from absurd.errors import ExecutionError
from absurd.model import TaskState
from absurd.orphans import stop_with_parent

API = "/api/v1"
WAITING, FAILED = 0.05, 0.01
"""Parts of the tasks that wait, and that have failed for good; the others are completed."""
PAGES = (
    "/",
    "/queues",
    f"/queues/{QUEUE}",
    "/tasks",
    "/tasks?state=completed",
    "/tasks?tag=none-has-it",
    "/workflows",
    "/schedules",
    "/dead-letters",
    "/dead-letters?text=none-has-it",
    "/workers",
    "/sessions",
)
LISTS = (
    "/status",
    "/queues",
    f"/queues/{QUEUE}/stats",
    "/workflows",
    "/workflows?state=failed",
    "/schedules",
    "/dead-letters",
    "/dead-letters?code=none-has-it",
    "/dead-letters/groups",
    "/workers",
    "/jobs?state=completed",
    "/images",
    "/sources",
    "/sessions",
)
FILTERS = (
    "limit=50",
    *(f"state={each}" for each in TaskState),
    f"queue={QUEUE}",
    f"queue={QUEUE}&state=completed",
    "name=bench.noop",
    "name=bench.noop&state=completed",
    "tag=none-has-it",
    "tag=none-has-it&state=completed",
)


def measure(
    arena: Arena, *, rows: int, requests: int, followers: int, tasks: int, concurrency: int, told: Callable[[str], None]
) -> list[Figure]:
    """Drain tasks alone and before the eyes of `followers`; then ask each page `requests` times with `rows` tasks."""
    drain(arena, max(100, tasks // 10), 1, concurrency)  # for caches and plans
    with served(arena) as (url, process):
        alone = drain(arena, tasks, 1, concurrency).drained
        with Followers(url, followers) as watching:
            before = spent_by(process)
            watched = drain(arena, tasks, 1, concurrency).drained
            spent = spent_by(process) - before
        if watching.events == 0:
            raise ExecutionError("those who watched were told nothing: this should never be")
    told(f"{followers} followers were sent {watching.received / 1e6:.1f} MB")
    waiting, failed = int(rows * WAITING), int(rows * FAILED)
    make_history(arena, rows - waiting - failed)
    make_history(arena, failed, fail=True)
    with arena.paused():
        fill(arena, waiting)
        arena.settle()
        with served(arena) as (url, _):
            answers = list(_answers(arena, url, requests))
    return [
        Figure("drained, nobody watches", alone, "tasks/s"),
        Figure(f"drained, {followers} watch", watched, "tasks/s"),
        Figure("part of the rate that is kept", watched / alone, ""),
        Figure(
            "processor time of the interface for an event and follower",
            1e6 * spent / watching.events,
            "µs",
            higher=False,
        ),
        *answers,
    ]


@contextmanager
def served(arena: Arena) -> Iterator[tuple[str, int]]:
    """The URL of an interface to the arena, in a process of its own, without a limit of requests, and its number."""
    command = [sys.executable, "-m", "absurd", "serve", "--port", "0", "--json"]
    env = os.environ | arena.settings.environment() | {"ABSURD_WEB_RATE": "0"}
    with (
        TemporaryDirectory(prefix="absurd-") as folder,
        subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=stop_with_parent,  # noqa: PLW1509 - one system call, and no lock
        ) as process,
    ):
        try:
            assert process.stdout is not None
            told = "".join(process.stdout.readline() for _ in range(3))
            if '"url"' not in told:
                raise ExecutionError(f"`absurd serve` did not begin: {told.strip()}")
            yield str(json.loads(told)["url"]), process.pid
        finally:
            process.terminate()
            try:
                process.wait(STOPPING)
            except subprocess.TimeoutExpired:
                process.kill()


class Followers:
    """So many readers of live events, in a thread of this process; entered once all are told them."""

    def __init__(self, url: str, count: int) -> None:
        self._address = urlsplit(url)
        self._count = count
        self._greeted = 0
        self._ended = threading.Event()
        self.received = self.events = 0
        """Bytes and events that they were sent after they were greeted."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._read_all()))

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self._greeted == self._count, "those who watch to be let in", self._check)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _check(self) -> None:
        if not self._thread.is_alive():
            raise ExecutionError("not all who watch were let in")

    async def _read_all(self) -> None:
        readers = [asyncio.create_task(self._read()) for _ in range(self._count)]
        try:
            while not self._ended.is_set():
                if any(each.done() for each in readers):
                    raise ExecutionError("one who watched was sent away")
                await asyncio.sleep(0.1)
        finally:
            for each in readers:
                each.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def _read(self) -> None:
        reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        try:
            writer.write(f"GET {API}/events HTTP/1.1\r\nHost: {self._address.netloc}\r\n\r\n".encode())
            await reader.readuntil(b"event: hello")
            self._greeted += 1
            while piece := await reader.read(65_536):
                self.received += len(piece)
                self.events += piece.count(b"event: ")
        finally:
            writer.close()


def _answers(arena: Arena, url: str, requests: int) -> Iterator[Figure]:
    """The time within which 95 % of the requests of each path are answered, on one connection."""
    middle = arena.fetch("(select percentile_disc(0.5) within group (order by id)::text from {schema}.task)")
    places = [
        *PAGES,
        *(API + each for each in LISTS),
        *(f"{API}/tasks?{each}" for each in (*FILTERS, f"after={middle}", f"after={middle}&state=completed")),
        *(f"{each}{middle}" for each in ("/tasks/", f"{API}/tasks/")),
        f"{API}/tasks/{middle}/logs",
    ]
    slowest = []
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)
    for place in places:
        spent = []
        for n in range(-3, requests):  # the first are for plans and caches
            begun = time.perf_counter()
            connection.request("GET", place)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise ExecutionError(f"{place} was answered with {answer.status}")
            if n >= 0:
                spent.append(1000 * (time.perf_counter() - begun))
        slowest.append(percentile(spent, 0.95))
        yield Figure(f"{place.replace(str(middle), 'MIDDLE')}, 95 %", slowest[-1], "ms", higher=False)
    connection.close()
    yield Figure("slowest of these", max(slowest), "ms", higher=False)
