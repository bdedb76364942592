"""Moments of an export at which it can be interrupted, and what must be left of it: nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psycopg

MOMENTS = {
    "described": "select n from public.locked",
    "planned": "select public.slow_to_plan()",
    "first-row": "select pg_sleep(60)::text as s, 1 as n",
    "gate": "select n from public.little, (select pg_advisory_lock_shared(7) offset 0) as gate",
    "rows": "select n, case when n = 300000 then pg_sleep(60)::text end as s from generate_series(1, 900000) n",
    "side-by-side": "select n, t from public.large",
    "connected": "select 1 as n",
}
"""Queries that stay where their names tell, once `prepare` is done: the last at a server that never answers."""
LIMITED = ("side-by-side",)
"""Those that only go on for long if they are read slowly."""


def prepare(url: str) -> None:
    """Make what the queries read: the large table is read by two connections."""
    with psycopg.connect(url) as connection:
        connection.execute("create table public.locked (n int)")
        connection.execute("create table public.little as select 1 as n")
        connection.execute(
            "create function public.slow_to_plan() returns int language plpgsql immutable as "
            "$$begin perform pg_sleep(60); return 1; end$$"
        )
        connection.execute("create table public.large (n int8, t text)")
        connection.execute("alter table public.large alter t set storage plain")
        connection.execute(
            "insert into public.large select n, string_agg(md5((n * 31 + k)::text), '') "
            "from generate_series(1, 24000) n, generate_series(1, 30) k group by n order by n"
        )


@contextmanager
def held_back(url: str) -> Iterator[None]:
    """While this lasts, nobody gets the locks that the queries want."""
    with psycopg.connect(url) as connection:
        connection.execute("lock table public.locked in access exclusive mode")
        connection.execute("select pg_advisory_xact_lock(7)")
        yield


@contextmanager
def deaf_server() -> Iterator[tuple[socket.socket, int]]:
    """A server that takes connections and says nothing: its socket, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server, server.getsockname()[1]


class Sessions:
    """What exports do on a server, as somebody else sees it."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def count(self, active: str = "true") -> int:
        """Connections of exports to this database, and of these those for which a condition holds."""
        found = self._connection.execute(
            "select count(*) from pg_stat_activity where application_name = 'absurd export' "
            f"and datname = current_database() and {active}"
        ).fetchone()
        assert found is not None
        return int(found[0])

    def knows(self, table: str) -> bool:
        """Whether there is such a table."""
        return self._connection.execute("select to_regclass(%s) is not null", (table,)).fetchone() == (True,)

    def terminate(self) -> int:
        """End them, as a crash of their processes in the server would; how many there were."""
        return len(
            self._connection.execute(
                "select pg_terminate_backend(pid) from (select pid from pg_stat_activity "
                "where application_name = 'absurd export' and datname = current_database() offset 0) as found"
            ).fetchall()
        )

    def at(self, moment: str) -> bool:
        """Whether an export has come to a moment."""
        match moment:
            case "described":
                return self.count("wait_event_type = 'Lock' and wait_event = 'relation'") == 1
            case "gate":
                return self.count("wait_event_type = 'Lock' and wait_event = 'advisory'") == 1
            case "planned":
                return self.count("wait_event = 'PgSleep' and query like 'explain%'") == 1
            case "first-row" | "rows":
                return self.count("wait_event = 'PgSleep' and query like 'copy%'") == 1
            case _:
                return self.count("query like 'copy%'") == 2


def described(*names: str) -> list[str]:
    """The files of exports, each with its manifest."""
    return sorted([*names, *(f"{name}.manifest.json" for name in names)])


def files(folder: Path) -> list[str]:
    """All that lies in a folder and below, hidden or not."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


class Workers:
    """Workers as processes of their own, whose leases end `lease` seconds after they die."""

    def __init__(self, url: str, lease: float = 1.5) -> None:
        self._environment = os.environ | {
            "ABSURD_DATABASE_URL": url,
            "ABSURD_WORKER_LEASE": str(lease),
            "ABSURD_WORKER_HEARTBEAT_INTERVAL": str(lease / 5),
            "ABSURD_WORKER_POLL_INTERVAL": "0.1",
            "ABSURD_LOG_LEVEL": "error",
        }
        self.running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in list(self.running):
            self.kill(each)

    def start(self, concurrency: str) -> subprocess.Popen[bytes]:
        """One more."""
        words = [sys.executable, "-m", "absurd.cli.worker", "--concurrency", concurrency]
        self.running.append(subprocess.Popen(words, env=self._environment))
        return self.running[-1]

    def ensure(self, count: int, concurrency: str) -> None:
        """As many as that."""
        while len(self.running) < count:
            self.start(concurrency)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL."""
        self.running.remove(process)
        process.kill()
        process.wait()


def environment() -> dict[str, str]:
    """The environment without a database in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def command(url: str, *words: str) -> list[str]:
    """``fast-export`` from a database."""
    return [sys.executable, "-m", "absurd.cli.export", "--dsn", url, *words]
