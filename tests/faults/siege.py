"""A queue under attack: clients and workers in processes of their own, and a nemesis that does to them what happens."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import recount
from faults import pooler
from faults.proxy import Proxy
from outage import children_of

from absurd.config import load_settings
from absurd.database_sync import install
from absurd.embedded import EmbeddedServer

HERE = Path(__file__).resolve().parent
LEASE = 2.0
Connection = psycopg.Connection[Any]

# The clock of the database can be set; a table, so that it stays set when the server is restarted.
CLOCK = (
    "create table _clock as select interval '0' as ahead",
    (
        "create or replace function clock_time() returns timestamptz language sql stable set search_path from current"
        " as 'select clock_timestamp() + ahead from _clock'"
    ),
)


@dataclass
class Findings:
    """What the history says, by the total-queue rule."""

    lost: set[str] = field(default_factory=set)
    """Acknowledged, and never executed."""
    unexpected: set[str] = field(default_factory=set)
    """Executed, and never attempted to be spawned."""
    recovered: set[str] = field(default_factory=set)
    """Executed although the spawn was never acknowledged: it had happened."""
    duplicated: dict[str, int] = field(default_factory=dict)
    """Executed more often than once: allowed, that is what attempts are."""
    problems: list[str] = field(default_factory=list)
    """What does not add up."""


class Siege:
    """Everything below one folder."""

    def __init__(
        self, folder: Path, seed: int, *, spawners: int, workers: int, tasks: int, pause: float = 0.0,
        ask_again: bool = True,
    ) -> None:  # fmt: skip
        self.folder, self.seed, self.ask_again = folder, seed, ask_again
        self.spawner_count, self.worker_count, self.tasks, self.pause = spawners, workers, tasks, pause
        self.server = EmbeddedServer(load_settings(environ={}, home=folder / "home"))
        self.url = self.server.start()
        install(self.url)
        with self.connect() as connection:
            for statement in CLOCK:
                connection.execute(statement)
        self.proxy = Proxy(self.url, folder / "proxy")
        self._stack = ExitStack()
        self.routes = [(self.url, True), (self.proxy.url, True)]
        """Addresses that clients and workers use in turn, and whether statements stay prepared there."""
        if pooler.program():
            self.routes.append((self._stack.enter_context(pooler.pooler_before(self.url)), False))
        self.journal = folder / "journal"
        self.journal.touch()
        self.spawners: dict[int, subprocess.Popen[bytes]] = {}
        self.workers: dict[int, subprocess.Popen[bytes]] = {}
        self.done: Counter[str] = Counter()
        """What the nemesis has done."""

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with psycopg.connect(self.url, autocommit=True, options="-c search_path=absurd,public") as connection:
            yield connection

    # Processes ----------------------------------------------------------------------------------

    def keep_alive(self) -> None:
        """Start what is to run and does not: workers, and spawners that have not finished."""
        for n in range(self.worker_count):
            if n not in self.workers or self.workers[n].poll() is not None:
                self.workers[n] = self._start_worker(n)
        for n in range(self.spawner_count):
            if n not in self.spawners or self.spawners[n].poll() not in {None, 0}:
                self.spawners[n] = self._start_spawner(n)

    def _start_worker(self, n: int) -> subprocess.Popen[bytes]:
        url, prepared = self.routes[n % len(self.routes)]
        environment = os.environ | {
            "ABSURD_DATABASE_URL": url,
            "ABSURD_PREPARED_STATEMENTS": str(prepared),
            "ABSURD_HOME": str(self.folder / f"worker-home-{n}"),
            "ABSURD_WORKER_LEASE": str(LEASE),
            "ABSURD_WORKER_HEARTBEAT_INTERVAL": str(LEASE / 5),
            "ABSURD_WORKER_POLL_INTERVAL": "0.2",
            "PYTHONPATH": str(HERE),
        }
        command = [sys.executable, "-m", "absurd.cli.worker", "--import", "journal_executors", "--concurrency", "3"]
        return self._start(command, environment, f"worker-{n}.log")

    def _start_spawner(self, n: int) -> subprocess.Popen[bytes]:
        url, prepared = self.routes[(n + 1) % len(self.routes)]
        environment = os.environ | {
            "SPAWN_PAUSE": str(self.pause),
            "SPAWN_ASK_AGAIN": str(int(self.ask_again)),
            "ABSURD_PREPARED_STATEMENTS": str(prepared),
        }
        arguments = (
            url,
            self.folder / f"history-{n}",
            self.journal,
            f"c{n}",
            self.seed * 100 + n,
            self.tasks,
        )
        command = [sys.executable, str(HERE / "spawner.py"), *map(str, arguments)]
        return self._start(command, environment, f"spawner-{n}.log")

    def _start(self, command: list[str], environment: dict[str, str], log: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("ab") as file:
            return subprocess.Popen(command, env=environment, cwd="/", stdout=file, stderr=file)

    @property
    def spawning(self) -> bool:
        return any(each.poll() != 0 for each in self.spawners.values())

    def end(self) -> None:
        for process in [*self.workers.values(), *self.spawners.values()]:
            for number in (signal.SIGCONT, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    process.send_signal(number)
            process.wait()
        self._stack.close()
        self.proxy.close()
        self.server.destroy()

    # The nemesis --------------------------------------------------------------------------------

    def attack(self, chance: random.Random) -> None:
        """Do one thing, and mend it."""
        deeds: list[Callable[[random.Random], None]] = [
            self.kill_worker, self.stop_worker, self.kill_child, self.kill_spawner, self.restart, self.cut, self.freeze,
            self.end_sessions, self.set_clock,
        ]  # fmt: skip
        deed = chance.choice(deeds)
        self.done[deed.__name__] += 1
        deed(chance)

    def kill_worker(self, chance: random.Random) -> None:
        self._kill(chance.choice(list(self.workers.values())).pid)

    def stop_worker(self, chance: random.Random) -> None:
        """Stopped for longer than its lease, or shorter."""
        process = chance.choice(list(self.workers.values()))
        process.send_signal(signal.SIGSTOP)
        time.sleep(chance.choice((0.3, LEASE + 1)))
        process.send_signal(signal.SIGCONT)

    def kill_child(self, chance: random.Random) -> None:
        """A run's process, or the guard before it."""
        children = [child for each in self.workers.values() for child in children_of(each.pid)]
        children += [child for each in children for child in children_of(each)]
        if children:
            self._kill(chance.choice(children))

    def kill_spawner(self, chance: random.Random) -> None:
        running = [each for each in self.spawners.values() if each.poll() is None]
        if running:
            self._kill(chance.choice(running).pid)

    def restart(self, chance: random.Random) -> None:
        self.server.stop(chance.choice(("fast", "immediate")))
        time.sleep(chance.choice((0.0, 0.5)))
        self.server.start()

    def cut(self, chance: random.Random) -> None:
        self.proxy.cut()

    def freeze(self, chance: random.Random) -> None:
        """Half-open: nobody answers, for longer than a lease or shorter; then all is cut, or goes on as before."""
        self.proxy.freeze()
        time.sleep(chance.choice((0.3, LEASE + 1)))
        self.proxy.resume(cut=chance.random() < 0.7)

    def end_sessions(self, chance: random.Random) -> None:
        """Those that listen, or any."""
        query = "query like 'LISTEN%'" if chance.random() < 0.6 else "random() < 0.5"
        with suppress(psycopg.OperationalError), self.connect() as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                f" where pid <> pg_backend_pid() and backend_type = 'client backend' and {query}"
            )

    def set_clock(self, chance: random.Random) -> None:
        with self.connect() as connection:
            connection.execute(
                "update _clock set ahead = make_interval(secs => %s)", [chance.choice((-20.0, -1.0, 0.0, 1.0, 20.0))]
            )

    def _kill(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    # The end ------------------------------------------------------------------------------------

    def drain(self, seconds: float) -> None:
        """Wait until nothing is left; only then does the history say anything."""
        deadline = time.monotonic() + seconds
        with self.connect() as connection:
            connection.execute("update _clock set ahead = interval '0'")
            while True:
                self.keep_alive()
                left = connection.execute(
                    "select blocked + pending + sleeping + running from get_queue_stats('default')"
                ).fetchone()
                if not self.spawning and left == (0,):
                    return
                assert time.monotonic() < deadline, f"not drained after {seconds} s: {self.report(connection)}"
                time.sleep(0.1)

    def report(self, connection: Connection) -> str:
        return str(connection.execute("select get_status()").fetchone()) + str(dict(self.done))

    def judge(self) -> Findings:
        """Hold the history of the clients and the journal of the executors against one another and the queue."""
        attempted, acknowledged = {}, {}
        for n in range(self.spawner_count):
            for line in (self.folder / f"history-{n}").read_text().splitlines():
                event = json.loads(line)
                if event["event"] == "attempted":
                    attempted[event["key"]] = event["kind"]
                else:
                    acknowledged[event["key"]] = event["task"]
        executions = [line.split() for line in self.journal.read_text().splitlines()]
        executed = Counter(key for key, _, _ in executions)
        found = Findings(
            lost=acknowledged.keys() - executed.keys(),
            unexpected=executed.keys() - attempted.keys(),
            recovered=(executed.keys() & attempted.keys()) - acknowledged.keys(),
            duplicated={key: n for key, n in executed.items() if n > 1},
        )
        with self.connect() as connection:
            found.problems = recount.faults(connection)
            rows = connection.execute(
                "select t.key, t.id::text, get_state(t.id),"
                " count(*) filter (where r.state = 'completed'), count(*) filter (where r.ends),"
                " max(r.attempt), count(*) filter (where r.state = 'failed')"
                " from task t left join run r on r.task_id = t.id group by t.key, t.id"
            ).fetchall()
        tasks = {key: rest for key, *rest in rows}
        if len(rows) != len(tasks):
            found.problems.append("a key names two tasks")
        for key, task, attempt in executions:
            if key in tasks and (task != tasks[key][0] or int(attempt) > tasks[key][4]):
                found.problems.append(f"{key} was executed as {task}, attempt {attempt}; it is {tasks[key]}")
        for key, (task, state, completed, ends, attempts, failed) in tasks.items():
            hopeless = attempted[key] == "hopeless"
            if acknowledged.get(key, task) != task:
                found.problems.append(f"{key} is {task} and was acknowledged as {acknowledged[key]}")
            if (state, completed, ends) != (("failed", 0, 1) if hopeless else ("completed", 1, 1)):
                found.problems.append(f"{key} is {state}, completed {completed} times, ended {ends} times")
            if hopeless and (attempts > 3 or failed > 3):
                found.problems.append(f"{key} was tried {attempts} times of 3")
        return found
