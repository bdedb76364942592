"""Five schedulers, real processes, killed and started again at random while the clock runs through a month."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from proof import amount, seed_of
from schedules import demo_schedule, fired

from absurd.config import Settings
from absurd.scheduler.schedules import due_times
from absurd.testing import FakeClock

Connection = psycopg.Connection[tuple[Any, ...]]

START = datetime(2026, 3, 2, 11, 30, 17, tzinfo=UTC)
DAYS = amount(31, 366)
SCHEDULERS = 5
ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu")


def trigger(chance: random.Random) -> str:
    """From hourly to weekly."""
    minute, hour = chance.randrange(60), chance.randrange(24)
    kinds = (
        f"{minute} * * * *", f"{minute} */{chance.choice((2, 3, 4, 6))} * * *", f"{minute} {hour} * * *",
        f"{minute} {hour} * * {chance.randrange(7)}", f"every {chance.randrange(60, 2000)}m",
    )  # fmt: skip
    return chance.choice(kinds)


@contextmanager
def besieged(url: str, chance: random.Random) -> Iterator[Any]:
    """The schedulers; calling what it gives kills some and starts others."""
    environ = os.environ | {"ABSURD_DATABASE_URL": url, "ABSURD_WORKER_POLL_INTERVAL": "5"}
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        command = [sys.executable, "-m", "absurd.cli.scheduler"]
        quiet = subprocess.DEVNULL
        processes.append(subprocess.Popen(command, env=environ, stdout=quiet, stderr=quiet))

    def attack() -> None:
        victim = processes.pop(chance.randrange(len(processes)))
        victim.send_signal(chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
        victim.wait(30)
        start()

    try:
        for _ in range(SCHEDULERS):
            start()
        yield attack
    finally:
        for each in processes:
            each.kill()
            each.wait()


def test_each_time_due_comes_once(settings: Settings, connection: Connection, database_url: str) -> None:
    """Fifty schedules over a month: every time due is fired once, none twice, none missed but by its policy."""
    chance = random.Random(seed_of("siege"))
    connection.execute("delete from schedule")
    with FakeClock(settings) as clock:
        clock.freeze(START)
        for number in range(50):
            demo_schedule(
                connection,
                f"s{number}",
                trigger(chance),
                misfire="all",
                look_back=30 * 86400,
                zone=chance.choice(ZONES),
            )
        with besieged(database_url, chance) as attack:
            ended = START + timedelta(days=DAYS)
            while (now := clock.now()) < ended:
                now = clock.set(min(ended, now + timedelta(hours=chance.uniform(0.2, 40))))
                if chance.random() < 0.3:
                    attack()
                settled(connection)
        missed = []
        for number in range(50):
            (document,) = connection.execute("select get_schedule(%s)", [f"s{number}"]).fetchone() or ({},)
            expected = []
            for due in due_times(document, START):
                if due > ended:
                    break
                expected.append(due)
            if (found := fired(connection, f"s{number}")) != expected:
                missed.append((number, document["trigger"], document["zone"], len(found), len(expected)))
        assert missed == []
    spawned = connection.execute("select count(*), count(distinct task_id) from tick").fetchone()
    assert spawned == connection.execute("select count(*), count(*) from task").fetchone()


def settled(connection: Connection) -> None:
    """Wait until nothing is due."""
    deadline = time.monotonic() + 60
    due = "select exists (select from schedule where next_due is null or next_due <= clock_time())"
    while connection.execute(due).fetchone() == (True,):
        assert time.monotonic() < deadline, "what was due a minute ago is not fired"
        time.sleep(0.01)
