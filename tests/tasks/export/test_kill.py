"""kill -9 at random points of exports: what has its final name is whole, and the retry ends as if nothing was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
from exporting import TABLES, TOTAL, Gate, exports, fill, total, writer_of
from interrupting import Sessions, Workers, command, described, environment, files, prepare
from proof import amount, seed_of

from absurd import RetryPolicy, SyncAbsurdClient, TaskState

Until = Callable[..., None]

QUERY = "select n, t, md5(n::text) as h from public.large"
ROWS_IN_A_GROUP = 2000
PATIENCE = 120
"""Seconds until something has to have happened, on a machine that does a lot beside."""
SLOWLY = 60
"""MiB in a second: an export takes most of one, in which it can be met anywhere."""
RETRY = RetryPolicy(max_attempts=20, base=0.05, factor=1)


@pytest.fixture(scope="module")
def url(module_database_url: str) -> str:
    """A database with a queue, and a table that is read by two connections."""
    prepare(module_database_url)
    return module_database_url


@pytest.fixture(scope="module")
def whole(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an export gives that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run(fast_export(url), cwd=folder, env=environment(), check=True)
    return folder / "x.parquet"


@pytest.fixture
def sessions(url: str) -> Iterator[Sessions]:
    """What exports do on the server."""
    with Sessions(url) as opened:
        yield opened


# Processes ---------------------------------------------------------------------------------------


def test_a_process(url: str, whole: Path, sessions: Sessions, tmp_path: Path, until: Until) -> None:
    """Killed anywhere between its connection and its end: the file of the run before, or a whole one; then as ever."""
    chance = random.Random(seed_of("fast-export"))
    for turn in range(amount(2, 60)):
        point = Point(chance, whole)
        out = tmp_path / "x.parquet"
        before = out.write_bytes(b"the run before") and out.read_bytes() if turn % 2 else b""
        process = subprocess.Popen(fast_export(url), cwd=tmp_path, env=environment())
        until(partial(is_met, point, sessions, tmp_path, partial(is_over, process)), PATIENCE)
        process.kill()
        process.wait()
        if out.exists() and out.read_bytes() != before:
            assert same(out, whole), point
        until(lambda: sessions.count() == 0, PATIENCE)  # its statement is not left to run either

        subprocess.run(fast_export(url), cwd=tmp_path, env=environment(), check=True, capture_output=True)
        assert same(out, whole), point
        assert files(tmp_path) == described("x.parquet"), point
        out.unlink()


def test_a_list(url: str, whole: Path, sessions: Sessions, tmp_path: Path, until: Until) -> None:
    """Killed in a list of exports: with --resume what is whole stays, and what is missing is made."""
    chance = random.Random(seed_of("fast-export --config"))
    names = [f"{name}.parquet" for name in "abc"]
    listed = ", ".join(f'{{"sql": "{QUERY}", "out": "{name}"}}' for name in names)
    for _ in range(amount(1, 30)):
        (tmp_path / "x.json").write_text(f"[{listed}]")
        words = command(url, "--config", "x.json", "--row-group-size", str(ROWS_IN_A_GROUP), "--resume")
        limit = ("--limit-mib-per-second", str(SLOWLY))
        point, done = Point(chance, whole), chance.randrange(3)
        process = subprocess.Popen([*words, *limit], cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL)
        until(partial(is_met, point, sessions, tmp_path, partial(is_over, process), done), PATIENCE)
        process.kill()
        process.wait()
        there = [name for name in names if (tmp_path / f"{name}.manifest.json").exists()]  # the last that is written
        assert all(same(tmp_path / name, whole) for name in there), point

        ended = subprocess.run(words, cwd=tmp_path, env=environment(), check=True, capture_output=True, text=True)
        assert [line.split(":")[0] for line in ended.stdout.splitlines() if line.endswith("kept")] == there
        assert all(same(tmp_path / name, whole) for name in names), point
        assert files(tmp_path) == [*described(*names), "x.json"], point
        for name in described(*names):
            (tmp_path / name).unlink()


# Tasks -------------------------------------------------------------------------------------------


def test_a_task(url: str, whole: Path, sessions: Sessions, tmp_path: Path, until: Until) -> None:
    """Its process, its worker, or both are killed: the queue tries it again, and nothing of the first try is left."""
    chance = random.Random(seed_of("export.query"))
    out = tmp_path / "x.parquet"
    params = {"sql": QUERY, "out": str(out), "row_group_size": ROWS_IN_A_GROUP, "limit_mib_per_second": SLOWLY}
    victims = ["process", "worker", "both"]
    chance.shuffle(victims)
    with SyncAbsurdClient(url) as client, Workers(url) as workers:
        for turn in range(amount(3, 60)):
            workers.ensure(1, "1")
            point, victim = Point(chance, whole, of_file=True), victims[turn % 3]
            before = b"the run before" if turn % 2 else b""
            if before:
                out.write_bytes(before)
            task = client.spawn("export.query", params, retry=RETRY)
            until(partial(is_met, point, sessions, tmp_path, partial(ended, client, task)), PATIENCE)
            kill(victim, workers, tmp_path)
            if out.exists() and out.read_bytes() != before:
                assert same(out, whole), point
            workers.ensure(1, "1")
            client.wait(task, timeout=PATIENCE)

            until(lambda: files(tmp_path) == described("x.parquet") and sessions.count() == 0, PATIENCE)
            assert same(out, whole), (point, victim)
            out.unlink()


def test_a_batch(url: str, whole: Path, sessions: Sessions, tmp_path: Path, until: Until) -> None:
    """The same with three exports of one snapshot, on two workers: in the end all are there, and the sum is right."""
    chance = random.Random(seed_of("export.batch"))
    fill(url)
    names = sorted(f"{table}.parquet" for table in TABLES)
    listed = exports(tmp_path)
    for each in listed:
        each["sql"] = each["sql"].replace("select n", "select n, '' as t") + " union all select 0, t from public.large"
        each |= {"row_group_size": ROWS_IN_A_GROUP, "limit_mib_per_second": SLOWLY}
    with SyncAbsurdClient(url) as client, Workers(url) as workers:
        for _ in range(amount(1, 30)):
            workers.ensure(2, "2")
            batch = client.spawn("export.batch", {"exports": listed}, retry=RETRY)
            point, count = Point(chance, whole, of_file=True), chance.randrange(3)
            until(partial(is_met, point, sessions, tmp_path, partial(ended, client, batch), count), PATIENCE)
            victim = chance.choice(["process", "worker", "both"])
            kill(victim, workers, tmp_path)
            for name in names:
                if (tmp_path / name).exists():
                    assert pq.read_metadata(tmp_path / name).num_rows == 24_001, (count, point, victim)
            workers.ensure(2, "2")
            done = client.wait(batch, timeout=PATIENCE)

            # a worker may die between a run and its file's name: another one gives it, when it is overdue
            until(lambda: files(tmp_path) == described(*names) and sessions.count() == 0, PATIENCE)
            assert total(tmp_path) == TOTAL, (count, point, victim)
            assert [each["rows"] for each in done.result["exports"]] == [24_001] * 3
            for name in described(*names):
                (tmp_path / name).unlink()


def test_a_batch_whose_exports_run_elsewhere(url: str, sessions: Sessions, tmp_path: Path, until: Until) -> None:
    """The worker of the batch dies, that of its exports lives: they go on, and the batch takes its snapshot from them.

    So the export that had not begun, for want of a slot, sees none of what was written before the batch was taken up.
    """
    fill(url)
    listed = exports(tmp_path)
    with ExitStack() as opened:
        gates = [opened.enter_context(Gate(url, key)) for key in (7, 8, 9)]
        for each, gate in zip(listed, gates, strict=True):
            each["sql"] += gate.clause
        client, workers = opened.enter_context(SyncAbsurdClient(url)), opened.enter_context(Workers(url))
        alive = {workers.start("1").pid, workers.start("2").pid}  # with the three slots of a batch and two exports
        until(lambda: alive <= {each["pid"] for each in client.list_workers()}, PATIENCE)
        batch = client.spawn("export.batch", {"exports": listed}, retry=RETRY)
        until(lambda: sum(gate.waiting() for gate in gates) == 2, PATIENCE)
        (late,) = [number for number, gate in enumerate(gates) if not gate.waiting()]
        gates[late].open()

        workers.kill(runs_on(client, workers, batch))
        until(lambda: sessions.count("state = 'idle in transaction'") == 0, PATIENCE)
        with psycopg.connect(url, autocommit=True) as other:
            for table in TABLES:
                other.execute(f"insert into public.{table} values (1)")
        workers.start("4")
        until((tmp_path / f"{TABLES[late]}.parquet").exists, PATIENCE)
        for gate in gates:
            gate.open()
        done = client.wait(batch, timeout=PATIENCE)
        until(lambda: files(tmp_path) == described(*(f"{table}.parquet" for table in TABLES)), PATIENCE)

    assert total(tmp_path) == TOTAL
    assert done.result["one_snapshot"] and len(done.result["exports"]) == 3


def test_the_server_ends_a_connection(url: str, whole: Path, sessions: Sessions, tmp_path: Path, until: Until) -> None:
    """A crash of the server's process is no fault of the export's: it is tried again, and ends as ever."""
    out = tmp_path / "x.parquet"
    params = {"sql": QUERY, "out": str(out), "row_group_size": ROWS_IN_A_GROUP, "limit_mib_per_second": SLOWLY}
    with SyncAbsurdClient(url) as client, Workers(url) as workers:
        workers.start("1")
        task = client.spawn("export.query", params, retry=RETRY)
        until(lambda: sessions.count("query like 'copy%'") == 2 and files(tmp_path), PATIENCE)
        assert sessions.terminate() == 2
        client.wait(task, timeout=PATIENCE)
        attempts = client.get_task(task).attempts

    assert attempts > 1
    assert same(out, whole)
    assert files(tmp_path) == described("x.parquet")


# Helpers -----------------------------------------------------------------------------------------


class Point:
    """A moment of an export, at random: its connection, its file, or how much of that is written."""

    def __init__(self, chance: random.Random, whole: Path, *, of_file: bool = False) -> None:
        self.phase = chance.choice(["file", "size", "size"] if of_file else ["connection", "file", "size", "size"])
        self.size = chance.randrange(1, whole.stat().st_size)

    def __repr__(self) -> str:
        return f"{self.phase} {self.size}"

    def reached(self, sessions: Sessions, folder: Path) -> bool:
        """Whether an export that writes in a folder is so far."""
        match self.phase:
            case "connection":
                return sessions.count() > 0
            case "file":
                return bool(unfinished(folder))
            case _:
                return any(size >= self.size for size in unfinished(folder))


def unfinished(folder: Path) -> list[int]:
    """Sizes of the files without their final names."""
    sizes = []
    for path in folder.glob(".*"):
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sizes


def is_met(point: Point, sessions: Sessions, folder: Path, over: Callable[[], bool], made: int = 0) -> bool:
    """Whether so many files have their final names and another one is so far, or it is too late for that."""
    there = len(list(folder.glob("[!.]*.parquet")))
    return (there >= made and point.reached(sessions, folder)) or over()


def is_over(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process has ended."""
    return process.poll() is not None


def same(path: Path, whole: Path) -> bool:
    """Whether two files hold the same pages, byte for byte, and say the same but for when and where they were made."""
    return pages(path) == pages(whole) and said(path) == said(whole)


def pages(path: Path) -> bytes:
    """All before the footer, whose length stands before the last four bytes."""
    content = path.read_bytes()
    assert content[-4:] == b"PAR1"
    return content[: -8 - int.from_bytes(content[-8:-4], "little")]


def said(path: Path) -> dict[bytes, bytes]:
    """The footer's metadata that are of the query and not of the run."""
    held: dict[bytes, bytes] = pq.read_metadata(path).metadata
    return {name: held[name] for name in (b"absurd.query", b"absurd.rows", b"absurd.columns")}


def fast_export(url: str) -> list[str]:
    """``fast-export`` of the large table to x.parquet, slowly."""
    words = ("--sql", QUERY, "--out", "x.parquet", "--row-group-size", str(ROWS_IN_A_GROUP))
    return command(url, *words, "--limit-mib-per-second", str(SLOWLY))


def ended(client: SyncAbsurdClient, task: Any) -> bool:
    """Whether a task has ended."""
    return bool((client.get_states([task])[task] or TaskState.PENDING).ended)


def runs_on(client: SyncAbsurdClient, workers: Workers, task: Any) -> subprocess.Popen[bytes]:
    """The worker that runs a task."""
    name = client.get_task(task).runs[-1].worker
    (pid,) = [each["pid"] for each in client.list_workers() if each["name"] == name]
    return next(each for each in workers.running if each.pid == pid)


def kill(victim: str, workers: Workers, folder: Path) -> None:
    """SIGKILL to the process that writes in a folder, if one still does, to a worker, or to both."""
    if victim != "worker":
        with suppress(AssertionError, ProcessLookupError):
            os.kill(writer_of(folder), signal.SIGKILL)
    if victim != "process":
        workers.kill(workers.running[0])
