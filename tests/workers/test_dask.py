"""Runs on a Dask cluster of real processes: all that holds elsewhere holds there, and what is lost there is a retry."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import dask_executors
import psycopg
import pytest
from dask_processes import DaskCluster, ancestors, without
from distributed import Client, LocalCluster
from live import soon, working
from memory_port import claim_of

from absurd import AbsurdClient
from absurd.config import Settings
from absurd.errors import TaskFailed
from absurd.executor import executor
from absurd.model import Claim, Task
from absurd.scratch import PREFIX
from absurd.testing import drain
from absurd.workers import AbsurdWorker
from absurd.workers.dask import cluster as dask_cluster
from absurd.workers.dask import runs as dask_runs
from absurd.workers.dask.output import HELD_BYTES, RemoteOutput, pass_on

HERE = Path(__file__).parents[1]


class Observatory(DaskCluster):
    """One cluster for all tests: two workers with two threads each, and a scheduler that knows no absurd.

    One worker finds a scratch folder that a killed one has left, the other one has a dish and no scratch folder yet.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, scheduler_path=without(folder / "bare", "absurd"))
        self.scratch = folder / "scratch"
        (self.scratch / f"{PREFIX}1-left").mkdir(parents=True)
        self.start(workers=0)
        self.add_plain()
        self.dish = self.add_dish()

    def add_plain(self) -> None:
        """Start the one without a dish."""
        self.add_worker(resources="PLAIN=1", environ={"ABSURD_WORKER_SCRATCH": str(self.scratch)})

    def add_dish(self) -> subprocess.Popen[bytes]:
        """Start the one with the dish."""
        environ = {"ABSURD_WORKER_SCRATCH": str(self.scratch / "to" / "come"), "ABSURD_WORKER_MIN_FREE_GIB": "0.001"}
        self.dish = self.add_worker(resources="DISH=1 gpu=1", environ=environ)
        return self.dish


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observatory]:
    """That cluster."""
    made = Observatory(tmp_path_factory.mktemp("dask"))
    yield made
    made.stop()


@pytest.fixture
def settings(settings: Settings, cluster: DaskCluster) -> Settings:
    return replace(settings, worker_dask=cluster.address, imports=(dask_executors.__name__,))


class Took:
    """A sink."""

    def __init__(self) -> None:
        self.written: list[tuple[str, bytes]] = []

    def write(self, claim: Claim, stream: str, data: bytes) -> None:
        self.written.append((stream, data))


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where executors note that they run."""
    made = tmp_path / "notes"
    made.mkdir()
    return made


def pids(notes: Path, attempt: int = 1) -> list[int]:
    """The processes that noted to run that attempt."""
    return [int(each.name.split("-")[1]) for each in notes.glob(f"{attempt}-*") if each.read_text()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def dask_worker_of(cluster: DaskCluster, pid: int) -> subprocess.Popen[bytes]:
    above = ancestors(pid)
    return next(each for each in cluster.workers if each.pid in above)


async def states(client: AbsurdClient, task_id: UUID) -> list[str]:
    return [str(each.state) for each in (await client.get_task(task_id)).runs]


async def state_is(client: AbsurdClient, task_id: UUID, wanted: Callable[[Task], bool]) -> Task:
    found: list[Task] = []

    async def look() -> bool:
        found[:] = [await client.get_task(task_id)]
        return wanted(found[0])

    deadline = time.monotonic() + 120
    while not await look():
        assert time.monotonic() < deadline, found[0]
        await asyncio.sleep(0.02)
    return found[0]


# What holds there --------------------------------------------------------------------------------


async def test_a_run_has_its_whole_context(client: AbsurdClient, settings: Settings, tmp_path: Path) -> None:
    """Progress, steps, children, tags and files work on a cluster, without a way to the database there."""
    async with working(settings):
        task_id = await client.spawn("dask.facts", {"path": str(tmp_path / "out" / "hello.txt")}, tags=["night"])
        done = await client.wait(task_id, timeout=120)
        child = await client.wait(UUID(done.result["child"]), timeout=120)
        logs = await client.get_logs(task_id)

    assert {"done": 1.0, "total": 2.0, "message": "half"}.items() <= (done.progress or {}).items()
    assert ([], ["night"], 2) == (done.result["database"], done.result["tags"], child.result)
    assert done.result["once"] not in (os.getpid(), 0)
    assert "hello" == (tmp_path / "out" / "hello.txt").read_text()
    assert ["text"] == [each.kind for each in done.artifacts]
    assert ["hello.txt"] == os.listdir(tmp_path / "out")
    assert "printed on Dask\n" in [each.text for each in logs if each.stream == "stdout"]
    assert "told" in "".join(each.text for each in logs if each.stream == "stderr")


async def test_what_a_run_writes_is_seen_while_it_runs(client: AbsurdClient, settings: Settings, notes: Path) -> None:
    """Its log is followed from anywhere, live."""
    async with working(settings):
        task_id = await client.spawn("dask.block", {"notes": str(notes)})
        following = client.follow_logs(task_id)
        first = await anext(following)
        (notes / "go").touch()
        assert [] == [each.text async for each in following]
        await client.wait(task_id, timeout=120)

    assert (1, "stdout", "attempt 1 begins\n") == (first.attempt, first.stream, first.text)


async def test_a_flood_is_bounded_on_its_way() -> None:
    """What is written faster than it is collected is kept up to a bound, and what was dropped is counted."""
    said: list[dict[str, Any]] = []

    def say(message: dict[str, Any]) -> int:
        said.append(message)
        return len(said)

    output = RemoteOutput(say, lambda number: len(said) > 0)
    claim = claim_of("dask.flood")
    output.write(claim, "stdout", "é".encode()[:1])
    output.send()
    for _ in range(100):
        output.write(claim, "stdout", b"\xa9" * 100_000)
    output.send()

    took = Took()
    for message in json.loads(json.dumps(said)):
        pass_on(message, [claim], took)
    assert HELD_BYTES + 1 == sum(len(data) for stream, data in took.written if stream == "stdout")
    assert f"{10_000_000 - HELD_BYTES} bytes" in took.written[-1][1].decode()


async def test_a_run_sleeps_and_waits(client: AbsurdClient, settings: Settings) -> None:
    """A sleep, an event and a child task suspend a run on a cluster; it goes on there, in the same attempt."""
    async with working(settings):
        task_id = await client.spawn("dask.waits", {"event": "dawn"})
        await client.emit_event("dawn", {"sun": -18})
        done = await client.wait(task_id, timeout=120)

    assert ([{"sun": -18}, 2], 1) == (done.result, done.attempts)


async def test_a_run_that_hangs_is_ended_at_its_limit(client: AbsurdClient, settings: Settings, notes: Path) -> None:
    """Deaf to SIGTERM, it is killed on the Dask worker at its limit, and tried again."""
    async with working(settings):
        task_id = await client.spawn("dask.block", {"notes": str(notes), "deaf": True}, timeout=0.5)
        done = await client.wait(task_id, timeout=120)

    assert "attempt 2" == done.result
    assert ("run_timeout", "SIGKILL") == (done.runs[0].error["code"], done.runs[0].error["killed_by"])  # type: ignore[index]
    assert "tcp://" in done.runs[0].error["dask_worker"]  # type: ignore[index]
    assert [False] == [alive(pid) for pid in pids(notes)]


async def test_a_cancelled_run_is_ended(client: AbsurdClient, settings: Settings, notes: Path) -> None:
    """Cancelled, a run on a cluster is ended there, and its place is free again."""
    async with working(settings):
        task_id = await client.spawn("dask.block", {"notes": str(notes)})
        await soon(lambda: pids(notes))
        await client.cancel(task_id)
        await soon(lambda: not alive(pids(notes)[0]))

    assert "cancelled" == (await client.get_task(task_id)).state


async def test_a_worker_that_leaves_takes_its_runs_along(client: AbsurdClient, settings: Settings, notes: Path) -> None:
    """Stopped at once, it hands back what runs on the cluster, and what waits there: ended, and no attempt spent."""
    busy = replace(settings, worker_concurrency=6)
    worker = AbsurdWorker(settings=busy)
    runner = asyncio.create_task(worker.run())
    ids = [await client.spawn("dask.block", {"notes": str(notes), "blocks": 9, "n": n}) for n in range(6)]
    await soon(lambda: len(pids(notes)) == 4)  # as many as the cluster has threads
    await worker.stop(grace=0)
    await runner

    await soon(lambda: not any(map(alive, pids(notes))))
    after = [await client.get_task(each) for each in ids]
    assert [("pending", [(1, "returned")])] * 6 == [(e.state, [(r.attempt, r.state) for r in e.runs]) for e in after]
    assert 4 == len(pids(notes))


@pytest.mark.parametrize("need", ["dask.DISH", "gpu"])
async def test_a_dask_worker_has_what_a_run_needs(
    client: AbsurdClient, settings: Settings, notes: Path, cluster: Observatory, need: str
) -> None:
    """What a task needs as dask.NAME, or of a machine, is a resource of Dask workers: its run goes where that is."""
    async with working(settings, offers={"dask.DISH": 2}):
        ids = [await client.spawn("dask.block", {"notes": str(notes)}, needs={need: 1}) for _ in range(2)]
        await soon(lambda: pids(notes))
        [first] = pids(notes)  # the other one waits for the dish
        where = dask_worker_of(cluster, first)
        (notes / "go").touch()
        done = [await client.wait(each, timeout=120) for each in ids]

    assert ["attempt 1"] * 2 == [each.result for each in done]
    assert cluster.dish is where


async def test_a_run_on_a_cluster_takes_nothing_of_the_machine_that_sends_it(
    client: AbsurdClient, settings: Settings, notes: Path
) -> None:
    """A worker of two cores keeps eight runs of one core each on the cluster, and its own cores for others."""

    @executor("dask.beside_them")
    async def beside(ctx: Any, params: Any) -> str:
        return "done"

    async with working(replace(settings, worker_concurrency=9), offers={"cpu": 2, "memory_gib": 1}) as worker:
        needs = {"cpu": 1, "memory_gib": 1, "scratch_gib": 0.001}
        ids = [await client.spawn("dask.block", {"notes": str(notes), "n": n}, needs=needs) for n in range(8)]
        await soon(lambda: worker.busy[0] == 8)
        assert "done" == (await client.wait(await client.spawn(beside, {}, needs={"cpu": 2}), timeout=120)).result
        (notes / "go").touch()
        assert ["attempt 1"] * 8 == [(await client.wait(each, timeout=120)).result for each in ids]


async def test_a_dask_worker_removes_what_killed_ones_have_left(
    client: AbsurdClient, settings: Settings, cluster: Observatory
) -> None:
    """Scratch folders that nobody holds any more are swept on a host that has Dask workers only."""
    async with working(settings, offers={"dask.PLAIN": 1}):
        await client.wait(await client.spawn("dask.child", {"n": 1}, needs={"dask.PLAIN": 1}), timeout=120)
        await soon(lambda: not (cluster.scratch / f"{PREFIX}1-left").exists())


@pytest.mark.parametrize(
    ("name", "needs", "told"),
    [
        ("dask.die", {}, {"code": "child_died", "signal": "SIGSEGV"}),
        ("dask.eat", {"memory_gib": 0.25}, {"code": "out_of_memory", "memory_limit_gib": 0.25}),
    ],
)
async def test_what_ends_a_process_there_is_told(
    client: AbsurdClient, settings: Settings, name: str, needs: dict[str, float], told: dict[str, Any]
) -> None:
    """A segfault and a broken limit of memory are outcomes of the run, with their causes; the Dask worker lives."""
    async with working(settings):
        task_id = await client.spawn(name, {"gib": 0.5}, needs=needs, max_attempts=1)
        with pytest.raises(TaskFailed):
            await client.wait(task_id, timeout=120)

    error = (await client.get_task(task_id)).runs[0].error or {}
    assert told.items() <= error.items()
    assert error["dask_worker"].startswith("tcp://")


# What is lost ------------------------------------------------------------------------------------


async def test_a_run_that_has_not_started_spends_no_attempt(
    client: AbsurdClient, settings: Settings, notes: Path, cluster: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Dask worker that is lost before a run was told to start there: it goes back, and the attempt counts once."""
    asked = asyncio.Event()

    async def never(*_: Any) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(dask_runs.DaskRuns, "_begin", never)
    async with working(settings, offers={"dask.DISH": 1}):
        task_id = await client.spawn("dask.block", {"notes": str(notes), "blocks": 0}, needs={"dask.DISH": 1})
        await asyncio.wait_for(asked.wait(), 30)
        cluster.dish.kill()
        cluster.dish.wait()
        await state_is(client, task_id, lambda task: bool(task.runs))
        monkeypatch.undo()
        cluster.workers.remove(cluster.dish)
        cluster.add_dish()
        done = await client.wait(task_id, timeout=120)

    assert "attempt 1" == done.result
    assert [(1, "returned"), (1, "completed")] == [(each.attempt, each.state) for each in done.runs]


async def test_a_lost_dask_worker_is_a_retry(
    client: AbsurdClient, settings: Settings, notes: Path, cluster: Observatory
) -> None:
    """A Dask worker killed in the middle of a run: the outcome names it, no attempt runs twice, nothing is left."""
    async with working(settings):
        task_id = await client.spawn("dask.block", {"notes": str(notes)})
        await soon(lambda: pids(notes))
        [first] = pids(notes)
        killed = dask_worker_of(cluster, first)
        killed.send_signal(signal.SIGKILL)
        done = await client.wait(task_id, timeout=120)

    killed.wait()
    cluster.workers.remove(killed)
    cluster.add_dish() if killed is cluster.dish else cluster.add_plain()
    error = done.runs[0].error
    assert error is not None
    assert ("attempt 2", "dask_worker_lost") == (done.result, error["code"])
    assert error["dask_worker"] in error["message"]
    assert ([first], 1) == (pids(notes), len(pids(notes, 2)))
    await soon(lambda: not alive(first))


@pytest.mark.parametrize("how", ["retired", "SIGTERM"])
async def test_a_dask_worker_that_leaves_hands_its_runs_back(
    client: AbsurdClient, settings: Settings, notes: Path, cluster: DaskCluster, how: str
) -> None:
    """One that is retired, as when a cluster shrinks, or told to end: its runs go to others, no attempt is spent."""
    leaving = cluster.add_worker(nanny=True, resources="BERTH=1")
    async with working(settings, offers={"dask.BERTH": 1}):
        task_id = await client.spawn("dask.block", {"notes": str(notes)}, needs={"dask.BERTH": 1})
        await soon(lambda: pids(notes))
        [first] = pids(notes)
        if how == "SIGTERM":
            leaving.send_signal(signal.SIGTERM)
        else:
            async with Client(cluster.address, asynchronous=True, set_as_default=False) as dask:
                [address] = [where for where, keys in (await dask.processing()).items() if keys]
                await dask.retire_workers(workers=[address])
        task = await state_is(client, task_id, lambda task: len(task.runs) == 2)
        await client.cancel(task_id)

    leaving.terminate()
    leaving.wait()
    cluster.workers.remove(leaving)
    assert [(1, "returned"), (1, "running")] == [(each.attempt, each.state) for each in task.runs]
    await soon(lambda: not alive(first))


async def test_a_local_cluster_loses_a_worker(client: AbsurdClient, settings: Settings, notes: Path) -> None:
    """With nannies, which start a Dask worker that was killed again, it is the same: another attempt, and only one."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50) as local:
        async with working(replace(settings, worker_dask=local.scheduler_address)):
            task_id = await client.spawn("dask.block", {"notes": str(notes)})
            await soon(lambda: pids(notes))
            [first] = pids(notes)
            os.kill(ancestors(first)[1], signal.SIGKILL)  # above its guard
            done = await client.wait(task_id, timeout=120)

    assert ("attempt 2", "dask_worker_lost") == (done.result, (done.runs[0].error or {})["code"])
    assert (1, 1, False) == (len(pids(notes)), len(pids(notes, 2)), alive(first))


async def test_runs_of_a_worker_that_dies_end_by_themselves(
    client: AbsurdClient, settings: Settings, notes: Path
) -> None:
    """A worker killed with runs on the cluster: they end there, and another worker does the work."""
    environ = os.environ | {
        "ABSURD_DATABASE_URL": settings.database_url or "",
        "ABSURD_HOME": str(settings.home),
        "PYTHONPATH": str(HERE),
    }
    command = [sys.executable, "-m", "absurd.cli.worker", "--dask", str(settings.worker_dask)]
    command += ["--import", dask_executors.__name__]
    program = await asyncio.create_subprocess_exec(*command, env=environ, stderr=subprocess.DEVNULL)
    try:
        task_id = await client.spawn("dask.block", {"notes": str(notes)})
        await soon(lambda: pids(notes))
    finally:
        program.kill()
        await program.wait()

    await soon(lambda: not alive(pids(notes)[0]))
    async with working(settings):
        done = await client.wait(task_id, timeout=120)
    assert ("attempt 2", ["lost", "completed"]) == (done.result, [str(each.state) for each in done.runs])


async def test_a_cluster_may_come_and_go(
    client: AbsurdClient, settings: Settings, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its cluster a worker runs the rest, and spends no attempt; what ran there when it went is tried again."""
    monkeypatch.setattr(dask_cluster, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(dask_cluster, "LONGEST_PAUSE", 0.5)
    monkeypatch.setattr(dask_runs, "AWAY_SECONDS", 5.0)
    other = DaskCluster(tmp_path)
    settings = replace(settings, worker_dask=other.address, worker_concurrency=3)

    @executor("dask.beside")
    async def beside(ctx: Any, params: Any) -> str:
        return "done"

    try:
        async with working(settings):
            aside = await client.spawn("dask.child", {"n": 1})
            await state_is(client, aside, lambda task: task.state == "sleeping")
            assert "done" == (await client.wait(await client.spawn(beside, {}), timeout=120)).result
            problems = {each["code"]: each for each in (await client.get_status())["problems"]}

            monkeypatch.undo()  # a machine that is busy takes its time to connect
            monkeypatch.setattr(dask_runs, "AWAY_SECONDS", 5.0)
            monkeypatch.setattr(dask_cluster, "LONGEST_PAUSE", 0.5)
            other.start(workers=1, threads=1)
            assert 2 == (await client.wait(aside, timeout=120)).result

            runs, waits = [await client.spawn("dask.block", {"notes": str(notes), "n": n}) for n in range(2)]
            await soon(lambda: pids(notes))
            if "0" not in next(notes.iterdir()).read_text():
                runs, waits = waits, runs
            other.stop()
            lost = await state_is(client, runs, lambda task: bool(task.runs) and task.runs[0].error is not None)
            kept = await state_is(client, waits, lambda task: task.state == "sleeping")
            (notes / "go").touch()
            other.start(workers=1, threads=2)
            ends = [await client.wait(each, timeout=120) for each in (runs, waits)]
    finally:
        other.stop()

    assert "--dask" in problems["cluster_missing"]["action"]
    assert "cluster_lost" == lost.runs[0].error["code"]  # type: ignore[index]
    assert [(1, "suspended")] == [(each.attempt, each.state) for each in kept.runs]
    assert ["attempt 2", "attempt 1"] == [each.result for each in ends]


# What cannot run there ---------------------------------------------------------------------------


async def test_without_a_cluster_nothing_is_claimed(
    client: AbsurdClient, settings: Settings, connection: psycopg.Connection[Any]
) -> None:
    """A worker without a cluster leaves such a task to others, or puts it aside, and it is said what to start."""
    told = connection.execute("select task_id from spawn_task('default', 'dask.child', '{\"n\": 2}')").fetchone()
    async with working(replace(settings, worker_dask=None)):
        task_id = await client.spawn("dask.child", {"n": 1})
        assert told is not None
        aside = await state_is(client, UUID(str(told[0])), lambda task: task.state == "sleeping")
        whys = [await client.task_why(each) for each in (task_id, aside.id)]
        problems = {each["code"]: each for each in (await client.get_status())["problems"]}
        assert "pending" == (await client.get_task(task_id)).state
    async with working(settings):  # it wakes what was put aside
        assert [2, 3] == [(await client.wait(each, timeout=120)).result for each in (task_id, aside.id)]

    assert all("--dask tcp://" in each for each in whys), whys
    assert "dask.child" in problems["cluster_missing"]["message"]


async def test_a_cluster_that_cannot_be_connected_to_holds_nothing(client: AbsurdClient, settings: Settings) -> None:
    """An address that Dask cannot serve, as TLS without certificates, is a cluster that is away: tasks go aside."""
    async with working(replace(settings, worker_dask="tls://127.0.0.1:9")):
        task_id = await client.spawn("dask.child", {"n": 1})
        await state_is(client, task_id, lambda task: task.state == "sleeping")


def test_without_the_extra_it_is_said_what_to_install(tmp_path: Path) -> None:
    """A worker that is told of a cluster, and lacks the package, ends at once with the command that installs it."""
    environ = os.environ | {"PYTHONPATH": without(tmp_path, "distributed"), "ABSURD_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "absurd.cli.worker", "--dask", "tcp://127.0.0.1:8786"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    assert (2, True) == (done.returncode, "pip install 'absurd[dask]'" in done.stderr), done.stderr


@pytest.mark.skipif(subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0, reason="needs unshare -m")
async def test_a_file_that_cannot_be_seen_is_a_clear_error(
    client: AbsurdClient, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file on a file system that the worker does not share fails the run, which names it; nothing is published."""
    monkeypatch.setattr(dask_runs, "UNSEEN_SECONDS", 0.1)
    (tmp_path / "logs").mkdir()
    (tmp_path / "own").mkdir()
    other = DaskCluster(tmp_path / "logs")
    mount = f'mount -t tmpfs tmpfs "{tmp_path / "own"}" && exec "$@"'
    try:
        other.start(workers=0)
        other.add_worker(before=["unshare", "-m", "sh", "-c", mount, "sh"])
        async with working(replace(settings, worker_dask=other.address)):
            task_id = await client.spawn("dask.file", {"path": str(tmp_path / "own" / "out.txt")}, max_attempts=1)
            with pytest.raises(TaskFailed, match="must lie on a file system that both share"):
                await client.wait(task_id, timeout=120)
    finally:
        other.stop()

    error = (await client.get_task(task_id)).runs[0].error
    assert error is not None
    assert ("file_unseen", str(tmp_path / "own" / "out.txt")) == (error["code"], error["path"])


async def test_an_executor_that_is_not_there_is_a_clear_error(
    client: AbsurdClient, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that the Dask workers cannot import fails the run, with its name and theirs."""
    (tmp_path / "only_here.py").write_text(
        "from absurd import RetryPolicy, executor\n"
        "@executor('dask.only_here', runs_in='dask', retry=RetryPolicy(max_attempts=1))\n"
        "def only_here(ctx, params): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("only_here")
    (tmp_path / "only_here.py").unlink()
    async with working(replace(settings, imports=("only_here",))):
        with pytest.raises(TaskFailed, match="only_here"):
            await client.wait(await client.spawn("dask.only_here"), timeout=120)


async def test_a_worker_may_stand_in_for_a_cluster(client: AbsurdClient, settings: Settings) -> None:
    """One that offers dask without having a cluster runs such tasks in processes of its own; so does `drain`."""
    alone = replace(settings, worker_dask=None)
    first = await client.spawn("dask.child", {"n": 1})
    async with working(alone, offers={"dask": 1}):
        assert 2 == (await client.wait(first, timeout=120)).result
    await client.spawn("dask.child", {"n": 2})

    assert [3] == [each.result for each in await drain(source=alone)]
