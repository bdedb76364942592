"""A week of nights under attack: whatever happens, each recording is worked on once.  `make soak` runs it."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
import recount
from faults.siege import CLOCK
from proof import seed_of

from absurd import SyncAbsurdClient
from absurd.config import load_settings
from absurd.demo.night import Night, Observing, all_tasks
from absurd.demo.plan import CATALOGUES, SIZES, Plan
from absurd.demo.platform import LEASE_S, Platform
from absurd.demo.telescope import point, write_catalogue
from absurd.model import TaskState
from absurd.resolve import resolve_database
from absurd.tasks.calibration.gain_table import read_gains
from absurd.tasks.session import SessionManager, build_catalog

NIGHTS = int(os.environ.get("ABSURD_TEST_NIGHTS", "7"))
PATIENCE_S = 3600
SCHEDULES = ("ingest", "blocks", "export")


class Quiet:
    """Nobody watches."""

    def say(self, text: str) -> None:
        """Print it, for the report of a failure."""
        print(text)

    def paint(self, text: str) -> None:
        """No terminal."""


class Besieged(Platform):
    """The demo's platform, and a nemesis that does to it what happens."""

    def __init__(self, out: Path, plan: Plan, disk: Path | None) -> None:
        super().__init__(load_settings(environ={}), out, plan, keep=False)
        self._environ |= {"ABSURD_MAX_RETRIES": "30"}
        self.disk = disk
        self.done: Counter[str] = Counter()

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection[Any]]:
        """Asking the database past all clients."""
        url = resolve_database(self.settings)
        with psycopg.connect(url, autocommit=True, options="-c search_path=absurd,public") as connection:
            yield connection

    def attack(self, chance: random.Random) -> None:
        """Do one thing, and mend it."""
        deeds: list[Callable[[random.Random], None]] = [
            self.kill_worker, self.stop_worker, self.kill_scheduler, self.restart, self.set_clock, self.fill_disk,
        ]  # fmt: skip
        deed = chance.choice(deeds)
        deed(chance)
        self.done[deed.__name__] += 1

    def kill_worker(self, chance: random.Random) -> None:
        """Kill one, and start another."""
        assert self.kill(chance.choice(self._workers()))
        self.add_worker()

    def stop_worker(self, chance: random.Random) -> None:
        """Stop one for longer than its lease, or shorter."""
        pid = chance.choice(self._workers())
        os.kill(pid, signal.SIGSTOP)
        time.sleep(chance.choice((1.0, LEASE_S + 2)))
        os.kill(pid, signal.SIGCONT)

    def kill_scheduler(self, chance: random.Random) -> None:
        """Kill it, and start another."""
        assert self.kill(self._processes["scheduler"].pid)
        self._start("scheduler", "absurd.cli.scheduler")

    def restart(self, chance: random.Random) -> None:
        """Restart the database, in good order or not."""
        self._server.stop(chance.choice(("fast", "immediate")))
        time.sleep(chance.choice((0.0, 2.0)))
        self._server.start()

    def set_clock(self, chance: random.Random) -> None:
        """Step the clock of the database."""
        with self.connect() as connection:
            connection.execute(
                "update _clock set ahead = make_interval(secs => %s)", [chance.choice((-20.0, -1.0, 0.0, 1.0, 20.0))]
            )

    def fill_disk(self, chance: random.Random) -> None:
        """Leave no room for images, for some seconds."""
        if self.disk is not None:
            ballast = self.disk / "ballast"
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(1_000_000))
            time.sleep(chance.uniform(1, 5))
            ballast.unlink()

    def _workers(self) -> list[int]:
        return [each.pid for name, each in self._processes.items() if "worker" in name and each.poll() is None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path | None]:
    """A disk of its own for images, where one can be mounted."""
    folder = tmp_path / "week" / "data" / "images"
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        print("no disk can be mounted here: none becomes full")
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_week_of_nights_under_attack(tmp_path: Path, disk: Path | None) -> None:
    """Workers and the scheduler are killed and stopped, the database is restarted, its clock steps and the disk becomes
    full, while the nights of a week arrive.  After a full drain nothing is lost or done twice (B111-B115): each
    recording has one Measurement Set, one image and its measurements, each task one effective completion; every file
    has the checksum that was told of it, and a catalogue made of the sessions' files is the one that was kept.
    """
    chance = random.Random(seed_of("week"))
    plan = Plan(SIZES["tiny"], seed=12)
    with Besieged(tmp_path / "week", plan, disk) as platform:
        with platform.connect() as connection:
            for statement in CLOCK:
                connection.execute(statement)
        nights = [observe(platform, replace(plan, day=day), chance) for day in range(NIGHTS)]
        with SyncAbsurdClient(settings=platform.settings) as client, platform.connect() as connection:
            connection.execute("update _clock set ahead = interval '0'")
            drain(platform, client)
            print(dict(platform.done))

            assert recount.faults(connection) == []
            assert not_done_once(connection) == []
            check_products(client, nights)
            check_files(client)
            check_catalogue(client, platform.out / "sessions")


def observe(platform: Besieged, plan: Plan, chance: random.Random) -> Night:
    """Have the files of a night arrive, and attack what works on them."""
    night = Night(plan, platform.out, tuple(point(plan, number) for number in range(len(plan.size.fields))))
    platform.night = plan
    write_catalogue(night.pointings, platform.out / CATALOGUES)
    platform.schedule()
    with SyncAbsurdClient(settings=platform.settings) as client:
        observing = Observing(night, platform.incoming, client, Quiet())
        observing.start()
        while observing.is_alive():
            time.sleep(chance.uniform(1, 5))
            platform.attack(chance)
        observing.join()
    for _ in range(chance.randint(4, 12)):  # files are written in no time; what works on them takes longer
        time.sleep(chance.uniform(2, 15))
        platform.attack(chance)
    if observing.error is not None:
        raise observing.error
    return night


def drain(platform: Besieged, client: SyncAbsurdClient) -> None:
    """Wait until all blocks are reported whole; then nothing new comes, and the queue runs empty.

    What has failed is tried again, as whoever is on duty would: a task may have been killed too often.
    """
    deadline = time.monotonic() + PATIENCE_S

    def wait(ended: Callable[[], bool]) -> None:
        while not ended():
            assert time.monotonic() < deadline, client.get_status()
            for failed in client.list_tasks(state=TaskState.FAILED, limit=1000):
                client.retry(failed["id"])
                platform.done["retry"] += 1
            time.sleep(1)

    def whole() -> bool:
        reports = client.list_tasks(name="pipeline.report", state=TaskState.COMPLETED, limit=1000)
        told = [client.get_task(each["id"]).params for each in reports]
        return len({each["block"] for each in told if each["missing"] == 0}) >= NIGHTS

    def empty() -> bool:
        stats = client.get_queue_stats("default")
        return stats.blocked + stats.pending + stats.sleeping + stats.running + stats.failed == 0

    wait(whole)
    for name in SCHEDULES:
        platform._command("pause", "schedule", "pause", name)
    with SessionManager(platform.out / "sessions", client) as sessions:  # seals what an outage had left to the next one
        wait(empty)
        sessions.rebuild_catalog(timeout=600)


def not_done_once(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """Tasks that did not complete, or completed or ended more often than once."""
    return connection.execute(
        "select * from (select t.id, get_state(t.id)::text as state,"
        " count(*) filter (where r.state = 'completed') as completed, count(*) filter (where r.ends) as ends"
        " from task t left join run r on r.task_id = t.id group by t.id) s"
        " where (state, completed, ends) is distinct from ('completed', 1, 1)"
    ).fetchall()


def check_products(client: SyncAbsurdClient, nights: list[Night]) -> None:
    """Each recording was converted and imaged, once, and each night has its mosaic."""
    recordings = sum(each.plan.size.recordings for each in nights)
    [intake] = client.list_intakes()
    groups = client.list_subband_groups(intake["name"], limit=1000)
    products = client.list_products(limit=1000)
    images = [each for each in products if each["kind"] == "image" and each["state"] != "superseded"]

    assert Counter(each["state"] for each in groups) == {"converted": recordings}
    assert len({each["task_id"] for each in groups}) == recordings
    assert len({each["observed_from"] for each in images}) == recordings
    assert sum(each["kind"] == "mosaic" and each["state"] != "superseded" for each in products) == len(nights)


def check_files(client: SyncAbsurdClient) -> None:
    """Every file has the checksum that the last task told of it, and gain sets those that were registered."""
    told: dict[str, str] = {}
    for task in all_tasks(client):
        told |= {each.path: each.sha256 for each in task.artifacts if each.sha256 and Path(each.path).is_file()}
    wrong = [path for path, sha256 in told.items() if hashlib.sha256(Path(path).read_bytes()).hexdigest() != sha256]

    assert told
    assert wrong == []
    for each in client.list_gain_sets(limit=1000):
        read_gains(each["path"], checksum=each["checksum"])


def check_catalogue(client: SyncAbsurdClient, folder: Path) -> None:
    """Made of the files alone it is what was kept, in the folder and in the database."""
    made = build_catalog(folder)
    known = {each["session_id"] for each in client.list_sessions(str(folder), limit=1000)}

    assert made.num_rows >= NIGHTS
    assert pq.read_table(folder / "catalog" / "catalog.parquet").equals(made)
    assert known == set(made.column("session_id").to_pylist())
