"""Kill -9: of a worker in the middle of a run, and of PostgreSQL in a burst of spawns."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from ready_server import ReadyServer

from absurd import AbsurdClient, SyncAbsurdClient, TaskSpec, TaskState
from absurd.config import Settings, load_settings
from absurd.embedded import EmbeddedServer
from absurd.errors import DatabaseUnavailableError
from absurd.workers import AbsurdWorker
from absurd.workers import worker as worker_module

Until = Callable[[Callable[[], object]], None]


class Workers:
    """Worker processes of a test; what is left is killed at its end."""

    def __init__(self, settings: Settings) -> None:
        self.environment = os.environ | {
            "ABSURD_DATABASE_URL": settings.database_url or "",
            "ABSURD_WORKER_LEASE": "1.5",
            "ABSURD_WORKER_HEARTBEAT_INTERVAL": "0.3",
            "ABSURD_WORKER_POLL_INTERVAL": "0.1",
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        }
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "absurd.cli.worker", "--import", "demo_executors", *options]
        process = subprocess.Popen(command, env=self.environment, cwd="/")
        self.started.append(process)
        return process

    def kill_all(self) -> None:
        for process in self.started:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()


@pytest.fixture
def workers(settings: Settings) -> Iterator[Workers]:
    made = Workers(settings)
    yield made
    made.kill_all()


def test_a_killed_workers_task_runs_again_and_its_late_word_is_refused(
    settings: Settings, workers: Workers, until: Until, tmp_path: Path
) -> None:
    """Another worker runs it within lease + poll; history shows both runs; the dead one's report is stale (B4, B58)."""
    held = {"started": str(tmp_path / "started"), "release": str(tmp_path / "release")}
    with SyncAbsurdClient(settings=settings) as client:
        task_id = client.spawn("demo.hold", held)
        first = workers.start()
        until(lambda: (tmp_path / "started").exists() and (tmp_path / "started").read_text())
        pid, attempt = (tmp_path / "started").read_text().split()
        assert (int(pid), attempt) == (first.pid, "1")
        with psycopg.connect(settings.database_url or "", autocommit=True) as connection:
            lease = connection.execute("select id from absurd.lease").fetchone()
            assert lease is not None

            os.kill(first.pid, signal.SIGKILL)
            workers.start()
            until(lambda: (tmp_path / "started").read_text().endswith(" 2"))

            # What the killed worker would have said, made to arrive now.
            stale = connection.execute(
                "select absurd.complete_runs(%s::bigint[], %s, '{0}', %s::text[])", ([lease[0]], [task_id], ['"late"'])
            ).fetchone()
            assert stale == ([task_id],)
        (tmp_path / "release").touch()
        done = client.wait(task_id, timeout=120)

    assert done.result == "attempt 2"
    assert [run.state for run in done.runs] == ["lost", "completed"]
    assert done.runs[0].error is not None and done.runs[0].error["code"] == "worker_lost"
    assert done.runs[0].worker != done.runs[1].worker


def test_a_killed_worker_leaves_no_child_process(
    settings: Settings, workers: Workers, until: Until, tmp_path: Path
) -> None:
    """The process of a run dies with its worker, so that two attempts never run at once."""
    with SyncAbsurdClient(settings=settings) as client:
        client.spawn("demo.block", {"started": str(tmp_path / "started")})
        worker = workers.start()
        until(lambda: (tmp_path / "started").exists() and (tmp_path / "started").read_text())
        child = int((tmp_path / "started").read_text())
        assert child != worker.pid

        os.kill(worker.pid, signal.SIGKILL)

        until(lambda: not _alive(child))


@pytest.mark.parametrize("name", ["demo.segfault", "demo.exit"])
def test_a_run_that_kills_its_process_fails_with_the_cause(settings: Settings, workers: Workers, name: str) -> None:
    """A crash in C or an exit in an executor is a failed run that names it; the worker goes on (B39)."""
    with SyncAbsurdClient(settings=settings) as client:
        worker = workers.start("--concurrency", "1")
        task_id = client.spawn(name, {}, max_attempts=1)
        other = client.spawn("demo.crunch", {"n": 3})
        assert client.wait(other, timeout=120).result["value"] == 9
        task = client.get_task(task_id)

    assert task.state is TaskState.FAILED
    assert task.error is not None
    assert task.error["code"] == "child_died"
    assert ("SIGSEGV" if name == "demo.segfault" else "exit code 7") in task.error["message"]
    assert worker.poll() is None


def test_a_run_past_its_limit_is_killed_even_if_it_ignores_sigterm(
    settings: Settings, workers: Workers, until: Until, tmp_path: Path
) -> None:
    """A time limit ends the process group of the run, whatever it does with SIGTERM (B41)."""
    with SyncAbsurdClient(settings=settings) as client:
        workers.start()
        params = {"started": str(tmp_path / "started"), "stubborn": True}
        task_id = client.spawn("demo.block", params, timeout=0.5, max_attempts=1)
        until(lambda: client.get_task(task_id).state.ended)
        task = client.get_task(task_id)

    assert task.error is not None and task.error["code"] == "run_timeout"
    until(lambda: not _alive(int((tmp_path / "started").read_text())))


def test_sigterm_ends_a_worker_with_nothing_running(
    settings: Settings, workers: Workers, until: Until, tmp_path: Path
) -> None:
    """The first signal waits for the grace time, then hands back: exit 0, attempt unspent (B55, B56, B57)."""
    held = {"started": str(tmp_path / "started"), "release": str(tmp_path / "never")}
    with SyncAbsurdClient(settings=settings) as client:
        task_id = client.spawn("demo.hold", held)
        worker = workers.start("--grace", "0.2")
        until((tmp_path / "started").exists)
        worker.terminate()
        assert worker.wait(timeout=30) == 0
        task = client.get_task(task_id)

    assert task.state is TaskState.PENDING
    assert [run.state for run in task.runs] == ["returned"]


def test_a_poison_task_in_a_full_batch_costs_its_neighbours_nothing(settings: Settings, workers: Workers) -> None:
    """It takes one worker down; then it dies apart and ends as poison, and 199 innocents complete (B39, B58)."""
    with SyncAbsurdClient(settings=settings) as client:
        specs = [TaskSpec("demo.where.async", {"n": n}, max_attempts=2) for n in range(199)]
        specs.insert(100, TaskSpec("demo.poison", {}, max_attempts=99, retry={"base": 0.01}))
        ids = client.spawn_many(specs)
        poison = ids.pop(100)
        for _ in range(5):
            worker = workers.start("--concurrency", "4", "--drain")
            if worker.wait(timeout=120) == 0:
                break
        tasks = [client.get_task(task_id) for task_id in ids]
        died = client.get_task(poison)

    assert {task.state for task in tasks} == {TaskState.COMPLETED}
    assert [task.result["value"] for task in tasks] == [n**2 for n in range(199)]
    # Those that were at work, by the worker's last word, had certainly started.
    assert sum(task.runs[-1].attempt > 1 for task in tasks) <= 4
    assert len(workers.started) == 2, "one worker was taken down, and no more"
    assert died.error is not None
    assert (died.state, died.error["code"]) == (TaskState.FAILED, "poison")
    assert died.error["deaths"] == ["SIGKILL"] * 3


def test_a_worker_that_slept_through_its_lease_stops_its_work_by_itself(
    settings: Settings, workers: Workers, until: Until, tmp_path: Path
) -> None:
    """Awake again, it kills the run's process at once; its successor's run is untouched (B5, B48)."""
    started = tmp_path / "started"
    with SyncAbsurdClient(settings=settings) as client:
        client.spawn("demo.block", {"started": str(started), "stubborn": True})
        first = workers.start()
        until(lambda: started.exists() and started.read_text())
        old = int(started.read_text())

        os.kill(first.pid, signal.SIGSTOP)
        workers.start()
        until(lambda: started.read_text() not in ("", str(old)))
        new = int(started.read_text())
        assert _alive(old), "a stopped worker cannot stop its work"
        os.kill(first.pid, signal.SIGCONT)

        until(lambda: not _alive(old))
        assert _alive(new)
        assert first.poll() is None


async def test_no_acknowledged_spawn_is_lost_when_postgresql_is_killed(
    tmp_path_factory: pytest.TempPathFactory, ready_server: ReadyServer
) -> None:
    """SIGKILL of the server in a burst of spawns: every id that was returned is there afterwards."""
    settings = load_settings(environ={}, home=ready_server.lay(tmp_path_factory.mktemp("killed-home")))
    server = EmbeddedServer(settings)
    server.start()
    try:
        acknowledged: list[UUID] = []
        async with AbsurdClient(settings=settings) as client:

            async def burst(n: int) -> None:
                while len(acknowledged) < 4_000:
                    try:
                        acknowledged.append(await client.spawn("demo.add", {"a": n, "b": len(acknowledged)}))
                    except DatabaseUnavailableError:
                        return

            bursts = [asyncio.create_task(burst(n)) for n in range(4)]
            while len(acknowledged) < 300:
                await asyncio.sleep(0.001)
            pid = server.status().pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await asyncio.gather(*bursts)
        assert 300 <= len(acknowledged) < 4_000, "the kill did not fall into the burst"

        await asyncio.to_thread(server.start)
        async with AbsurdClient(settings=settings) as client:
            states = await client.get_states(acknowledged)
            stats = await client.get_queue_stats("default")
    finally:
        server.destroy()

    assert set(states.values()) == {TaskState.PENDING}
    assert stats.pending >= len(acknowledged)


async def test_a_worker_outlives_a_killed_server(
    tmp_path_factory: pytest.TempPathFactory, ready_server: ReadyServer, tmp_path: Path
) -> None:
    """A run that ends while the database is away is recorded when it is back: attempt 1, no second run."""
    settings = load_settings(
        environ={},
        home=ready_server.lay(tmp_path_factory.mktemp("restarted-home")),
        imports=("demo_executors",),
        worker_poll_interval=0.1,
    )
    server = EmbeddedServer(settings)
    server.start()
    worker = AbsurdWorker(settings=settings)
    try:
        async with AbsurdClient(settings=settings) as client:
            held = {"started": str(tmp_path / "started"), "release": str(tmp_path / "release")}
            task_id = await client.spawn("demo.hold", held)
            runner = asyncio.create_task(worker.run())
            async with asyncio.timeout(30):
                while not (tmp_path / "started").exists():
                    await asyncio.sleep(0.01)
            pid = server.status().pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            (tmp_path / "release").touch()  # it ends now, with nobody to tell

            await asyncio.to_thread(server.start)
            done = await client.wait(task_id, timeout=120)
            later = await client.wait(await client.spawn("demo.add", {"a": 1, "b": 1}), timeout=120)
            await worker.stop(grace=5)
            await runner
    finally:
        server.destroy()

    assert [(run.attempt, run.state) for run in done.runs] == [(1, "completed")]
    assert later.result == {"sum": 2}


async def test_a_worker_can_be_stopped_while_the_database_is_away(
    tmp_path_factory: pytest.TempPathFactory,
    ready_server: ReadyServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With nobody to hand back to it leaves all the same, without an error; its leases end by themselves."""
    monkeypatch.setattr(worker_module, "LAST_WORD_SECONDS", 0.2)
    settings = load_settings(
        environ={}, home=ready_server.lay(tmp_path_factory.mktemp("away-home")), imports=("demo_executors",)
    )
    server = EmbeddedServer(settings)
    server.start()
    try:
        async with AbsurdClient(settings=settings) as client:
            held = {"started": str(tmp_path / "started"), "release": str(tmp_path / "never")}
            await client.spawn("demo.hold", held)
        worker = AbsurdWorker(settings=settings)
        runner = asyncio.create_task(worker.run())
        async with asyncio.timeout(30):
            while not (tmp_path / "started").exists():
                await asyncio.sleep(0.01)
        server.stop("immediate")

        async with asyncio.timeout(30):
            await worker.stop(grace=0)
            await runner
    finally:
        server.destroy()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
