"""The place where a benchmark runs: a schema of its own in the database that is used, gone afterwards.

Nothing of existing queues is touched.  What a killed benchmark left behind is found by the next one: a schema
whose lock nobody holds.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple
from uuid import uuid4

from absurd.client import AbsurdClient
from absurd.client_sync import SyncAbsurdClient
from absurd.config import Settings
from absurd.database_sync import SyncDatabase, SyncSession, connect, install
from absurd.errors import ConfigurationError, ExecutionError
from absurd.model import TaskSpec
from absurd.orphans import stop_with_parent
from absurd.resolve import resolve_database

PREFIX = "absurd_bench_"
QUEUE = "bench"
CHUNK = 10_000
"""Tasks of one call of spawn_many."""
PADDING = "x" * 80
STOPPING = 60.0
"""Seconds that a worker gets to stop before it is killed."""
PATIENCE = 600.0
"""Seconds after which a queue that does not drain is given up."""

Needs = Callable[[int], dict[str, float] | None]


class OverdueError(ExecutionError):
    """What a benchmark has waited for did not come."""


class Arena:
    """An installed, empty queue, and worker processes on demand."""

    def __init__(self, settings: Settings, address: str, database: SyncDatabase, client: SyncAbsurdClient) -> None:
        self.settings = settings
        self.address = address
        self.database = database
        self.client = client
        self._processes: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []

    def fetch(self, sql: str, *args: Any) -> Any:
        """The value of an expression or a query of one; ``{schema}`` stands for the arena's."""
        return self.database.fetch(f"select ({sql}) as value", *args)[0]["value"]

    def spawn(self, count: int, name: str = "bench.noop", needs: Needs = lambda i: None) -> float:
        """Spawn tasks with a small payload, `CHUNK` a call, the i-th with `needs` of i; gives tasks per second."""
        return asyncio.run(self._spawn(count, name, needs))

    async def _spawn(self, count: int, name: str, needs: Needs) -> float:
        async with AbsurdClient(settings=self.settings) as client:
            begun = time.perf_counter()
            for first in range(0, count, CHUNK):
                numbers = range(first, min(first + CHUNK, count))
                await client.spawn_many([TaskSpec(name, {"i": i, "pad": PADDING}, needs=needs(i)) for i in numbers])
            return count / (time.perf_counter() - begun)

    @contextmanager
    def workers(self, processes: int, concurrency: int, *words: str) -> Iterator[list[int]]:
        """Numbers of worker processes, registered and waiting for tasks; stopped at the end."""
        command = [sys.executable, "-m", "absurd.cli.worker", "-q", QUEUE, "-c", str(concurrency)]
        command += ["--import", "absurd.bench.executors", *words]
        before = self._alive()
        started = self._processes = []
        try:
            for _ in range(processes):
                log: IO[bytes] = TemporaryFile()  # noqa: SIM115
                # Through the environment: a password on a command line is seen by everybody on the machine.
                env = os.environ | self.settings.environment()
                process = subprocess.Popen(
                    command,
                    env=env,
                    stdout=log,
                    stderr=log,
                    preexec_fn=stop_with_parent,  # noqa: PLW1509 - one system call, and no lock
                )
                started.append((process, log))
            until(lambda: self._alive() >= before + processes, "a worker to register", lambda: _check(started))
            yield [process.pid for process, _ in started]
        finally:
            for process, _ in started:
                process.terminate()
            for process, log in started:
                try:
                    process.wait(STOPPING)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                log.close()
            self._processes = []

    def _alive(self) -> int:
        return sum(each["state"] == "running" for each in self.client.list_workers())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is claimed inside, unless `resume` is called there."""
        self.client.create_queue(QUEUE)
        self.client.pause_queue(QUEUE)
        try:
            yield
        finally:
            self.resume()

    def resume(self) -> None:
        """Let the workers claim."""
        self.client.resume_queue(QUEUE)

    def purge(self) -> None:
        """Take away what waits."""
        self.client.purge_queue(QUEUE)

    def left(self) -> int:
        """How many tasks have not ended."""
        stats = self.client.get_queue_stats(QUEUE)
        return stats.blocked + stats.pending + stats.sleeping + stats.running

    def drained(self, seconds: float = PATIENCE) -> None:
        """Wait until every task has ended.  Raises OverdueError if it takes longer, ExecutionError if a worker ends."""
        until(lambda: self.left() == 0, "the queue to drain", lambda: _check(self._processes), seconds)

    def settle(self) -> None:
        """Do the upkeep that a bulk load leaves to autovacuum, which would do it amid what is measured."""
        for name in [str(row["name"]) for row in self.database.fetch(_TABLES, self.settings.schema)]:
            self.database.fetch(f"vacuum analyze {name}")

    def wal(self) -> int:
        """Bytes of write-ahead log that the whole server has written."""
        return int(self.fetch("(pg_current_wal_lsn() - '0/0')::bigint"))

    def ran(self, since: Any = None) -> Runs:
        """What the history tells of the runs that ended since a time of the database's clock."""
        row = self.database.fetch(_RUNS, since or "-infinity")[0]
        return Runs(row["runs"], row["tasks"], row["seconds"])

    def now(self) -> Any:
        """The database's clock."""
        return self.fetch("{schema}.clock_time()::text")


_RUNS = """
select count(*) as runs, count(distinct task_id) as tasks,
       coalesce(extract(epoch from max(finished_at) - min(started_at)), 0)::float8 as seconds
from {schema}.run where state = 'completed' and finished_at >= $1::text::timestamptz
"""


_TABLES = "select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname = $1::text"


class Runs(NamedTuple):
    """Completed runs, of how many tasks, and the seconds from the first start to the last end."""

    runs: int
    tasks: int
    seconds: float

    @property
    def rate(self) -> float:
        """Runs per second."""
        return self.runs / self.seconds if self.seconds else 0.0

    def exactly(self, count: int) -> bool:
        """Whether `count` tasks have run, each once."""
        return self.runs == self.tasks == count


@contextmanager
def arena(settings: Settings) -> Iterator[Arena]:
    """Install a queue in a new schema, and remove it at the end.  Raises ConfigurationError without the right to."""
    url = resolve_database(settings)
    schema = f"{PREFIX}{uuid4().hex[:12]}"
    own = replace(settings, schema=schema, queue_name=QUEUE)
    with connect(url) as keeper:
        session = SyncSession(keeper, schema=schema)
        _remove_leftovers(session)
        if not session.fetch("select has_database_privilege(current_database(), 'create') as may")[0]["may"]:
            raise ConfigurationError(
                "a benchmark makes a schema of its own, and this role may make none: use another role"
            )
        session.fetch("select pg_advisory_lock(hashtext($1::text))::text", schema)
        try:
            install(url, schema)
            with SyncDatabase(url, schema=schema) as database, SyncAbsurdClient(settings=own) as client:
                yield Arena(own, url, database, client)
        finally:
            session.fetch(f"drop schema if exists {schema} cascade")


def _remove_leftovers(session: SyncSession) -> None:
    """Remove the schemas of benchmarks that were killed: those whose lock is free."""
    names = session.fetch("select nspname::text as name from pg_namespace where nspname ^@ $1::text", PREFIX)
    for name in [str(row["name"]) for row in names]:
        if session.fetch("select pg_try_advisory_lock(hashtext($1::text)) as free", name)[0]["free"]:
            session.fetch(f"drop schema if exists {name} cascade")
            session.fetch("select pg_advisory_unlock(hashtext($1::text))", name)


def until(
    holds: Callable[[], bool], what: str, check: Callable[[], None] = lambda: None, seconds: float = PATIENCE
) -> None:
    """Wait for a condition; raises OverdueError when it does not come to hold, and what `check` raises meanwhile."""
    deadline = time.monotonic() + seconds
    while not holds():
        check()
        if time.monotonic() > deadline:
            raise OverdueError(f"the benchmark has waited {seconds:.0f} s for {what}, in vain")
        time.sleep(0.02)


def _check(started: list[tuple[subprocess.Popen[bytes], IO[bytes]]]) -> None:
    for process, log in started:
        if process.poll() is not None:
            log.seek(0)
            told = log.read().decode(errors="replace").strip().splitlines()
            raise ExecutionError(
                f"a worker ended with exit code {process.returncode}: {told[-1] if told else 'silent'}"
            )
