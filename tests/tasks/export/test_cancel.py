"""An export that is cancelled, at every moment: at once, and nothing of it stays, here or on the server."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
from interrupting import (
    LIMITED,
    MOMENTS,
    Sessions,
    command,
    deaf_server,
    described,
    environment,
    files,
    held_back,
    prepare,
)

from absurd import SyncAbsurdClient, TaskState
from absurd.tasks.export import export_query, statement
from absurd.tasks.export.meter import Meter
from absurd.tasks.export.sink import HashingSink

Until = Callable[[Callable[[], object]], None]


@pytest.fixture(scope="module")
def url(module_database_url: str) -> Iterator[str]:
    """A database with a queue, and what the queries at each moment want."""
    prepare(module_database_url)
    with held_back(module_database_url):
        yield module_database_url


@pytest.fixture
def sessions(url: str) -> Iterator[Sessions]:
    """What exports do there."""
    with Sessions(url) as opened:
        yield opened


# Processes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal(url: str, sessions: Sessions, tmp_path: Path, until: Until, number: signal.Signals) -> None:
    """Ctrl-C, an order to end, and a terminal that goes: the exit code is 128 and the signal's number."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, as it should be
    process = fast_export(url, tmp_path, "first-row")
    signal.signal(signal.SIGHUP, before)
    until(lambda: sessions.at("first-row"))
    process.send_signal(number)

    assert process.wait(20) == 128 + number
    until(lambda: sessions.count() == 0)
    assert files(tmp_path) == []


@pytest.mark.parametrize("moment", [each for each in MOMENTS if each != "first-row"])
def test_a_process_at_each_moment(url: str, sessions: Sessions, tmp_path: Path, until: Until, moment: str) -> None:
    """Whatever it waits for, the server or rows, it ends: the file of the run before is what there is."""
    (tmp_path / "x.parquet").write_bytes(b"the run before")
    with deaf_server() as (server, port):
        process = fast_export(f"host=127.0.0.1 port={port}" if moment == "connected" else url, tmp_path, moment)
        if moment == "connected":
            assert select.select([server], [], [], 30)[0]
        else:
            until(lambda: sessions.at(moment))
        process.send_signal(signal.SIGTERM)

        assert process.wait(20) == 143
    until(lambda: sessions.count() == 0)
    assert files(tmp_path) == ["x.parquet"]
    assert (tmp_path / "x.parquet").read_bytes() == b"the run before"


def test_a_signal_at_any_time(url: str, sessions: Sessions, tmp_path: Path, until: Until) -> None:
    """Signals that come one upon the other while it ends do not cut that short."""
    process = fast_export(url, tmp_path, "rows")
    until(lambda: sessions.at("rows") and files(tmp_path))
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)

    assert process.returncode in (130, 143)
    until(lambda: sessions.count() == 0)
    assert files(tmp_path) == []


@pytest.mark.parametrize("compression", ["gzip", "brotli"])
def test_slow_codecs_are_asked_often(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    """No more is compressed than a quarter of a MiB, some text beyond it, before it is asked whether to stop."""
    sizes: list[int] = []
    write = HashingSink.write

    def watched(sink: HashingSink, data: Any) -> int:
        sizes.append(len(data))
        return write(sink, data)

    monkeypatch.setattr(HashingSink, "write", watched)
    query = "select string_agg(md5((n * m)::text), '') as t from generate_series(1, 999) n, generate_series(1, 99) m"
    export_query(url, f"{query} group by n", tmp_path / "x.parquet", compression=compression)

    assert len(sizes) > 10
    assert max(sizes) < 1 << 18


@pytest.mark.parametrize("moment", ["first-row", "gate", "rows", "side-by-side"])
def test_the_server_is_told_at_once(
    url: str, sessions: Sessions, tmp_path: Path, until: Until, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Whoever waits for the server looks every tenth of a second whether to stop; after that he waits once at most.

    Then he has the server cancel what it does, each on the connection that he reads.
    """
    halt, cancel = Meter.halt, psycopg.Connection.cancel_safe
    halted, told = threading.Event(), list[int]()
    lengths, after = list[int](), Counter[int]()

    class Poll:
        def __init__(self) -> None:
            self._poll = select.poll()
            self.register = self._poll.register

        def poll(self, milliseconds: int) -> Any:
            begun_late = halted.is_set() and threading.get_ident() not in told
            lengths.append(milliseconds)
            found = self._poll.poll(milliseconds)
            if begun_late and not found:
                after[threading.get_ident()] += 1
            return found

    def halting(meter: Meter) -> None:
        halt(meter)
        halted.set()

    def cancelling(connection: psycopg.Connection[Any], **options: Any) -> None:
        told.append(threading.get_ident())
        cancel(connection, **options)

    def stop(rows: int, size: int) -> None:
        del rows, size
        if sessions.at(moment):
            raise KeyboardInterrupt

    monkeypatch.setattr(Meter, "halt", halting)
    monkeypatch.setattr(psycopg.Connection, "cancel_safe", cancelling)
    stand_in = SimpleNamespace(poll=Poll, POLLIN=select.POLLIN, POLLOUT=select.POLLOUT)
    monkeypatch.setattr(statement, "select", stand_in)
    limit = 0.2 if moment in LIMITED else None
    with pytest.raises(KeyboardInterrupt):
        export_query(
            url, MOMENTS[moment], tmp_path / "x.parquet", progress=stop, decoder="numpy", limit_mib_per_second=limit
        )

    assert max(lengths) <= 100
    assert max(after.values(), default=0) <= 1
    assert len(told) == len(set(told)) == (2 if moment in LIMITED else 1)
    until(lambda: sessions.count() == 0)


def test_a_list_that_is_interrupted(url: str, sessions: Sessions, tmp_path: Path, until: Until) -> None:
    """What was made stays; the snapshot is held no longer, no other export is begun, and --resume makes the rest."""
    (tmp_path / "x.json").write_text(
        '[{"sql": "select 1 as n", "out": "a.parquet"}, {"sql": "select pg_sleep(60)::text as s", "out": "b.parquet"},'
        ' {"sql": "select 3 as n", "out": "c.parquet"}]'
    )
    process = subprocess.Popen(command(url, "--config", "x.json"), cwd=tmp_path, env=environment())
    until(lambda: sessions.at("first-row"))
    process.send_signal(signal.SIGINT)

    assert process.wait(20) == 130
    until(lambda: sessions.count() == 0)
    assert files(tmp_path) == [*described("a.parquet"), "x.json"]
    listed = (tmp_path / "x.json").read_text().replace("pg_sleep(60)", "pg_sleep(0)")
    (tmp_path / "x.json").write_text(listed)
    done = subprocess.run(
        command(url, "--config", "x.json", "--resume"),
        cwd=tmp_path, env=environment(), check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.startswith("a.parquet: kept\nb.parquet: 1 row")
    assert [pq.read_metadata(tmp_path / f"{name}.parquet").num_rows for name in "abc"] == [1, 1, 1]


# Tasks -------------------------------------------------------------------------------------------


class Worker:
    """A worker with one slot, as a process of its own, and what it has written.

    It beats every 400 seconds: what becomes of its runs it has to hear at once, or no test here ends in time.
    """

    def __init__(self, url: str, folder: Path, port: int) -> None:
        services = folder / "services.conf"
        services.write_text(f"[deaf]\nhost=127.0.0.1\nport={port}\n")
        self.log = folder / "log"
        given = {
            "ABSURD_DATABASE_URL": url,
            "ABSURD_WORKER_POLL_INTERVAL": "0.1",
            "ABSURD_WORKER_HEARTBEAT_INTERVAL": "400",
            "ABSURD_WORKER_LEASE": "1200",
            "ABSURD_LOG_LEVEL": "info",
            "PGSERVICEFILE": str(services),
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "absurd.cli.worker", "--concurrency", "1"],
                env=os.environ | given, stdout=log, stderr=log,
            )  # fmt: skip


@pytest.fixture(scope="module")
def deaf() -> Iterator[tuple[Any, int]]:
    """A server that never answers, for the worker of the module."""
    with deaf_server() as opened:
        yield opened


@pytest.fixture(scope="module")
def worker(url: str, deaf: tuple[Any, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """The worker of the module."""
    started = Worker(url, tmp_path_factory.mktemp("worker"), deaf[1])
    yield started
    started.process.terminate()
    started.process.wait()


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_task_at_each_moment(
    url: str, sessions: Sessions, tmp_path: Path, until: Until, worker: Worker, deaf: tuple[Any, int], moment: str
) -> None:
    """A cancelled task ends when its process is asked to, before it is killed; then the slot is free for the next."""
    out = tmp_path / "x.parquet"
    out.write_bytes(b"the run before")
    params = {"sql": MOMENTS[moment], "out": str(out)} | ({"limit_mib_per_second": 0.2} if moment in LIMITED else {})
    with SyncAbsurdClient(url) as client:
        task = client.spawn("export.query", params | ({"database": "deaf"} if moment == "connected" else {}))
        if moment == "connected":
            assert select.select([deaf[0]], [], [], 30)[0]
            deaf[0].accept()[0].close()
        until(lambda: moment == "connected" or sessions.at(moment))
        client.cancel(task)
        until(lambda: sessions.count() == 0 and files(tmp_path) == ["x.parquet"])
        assert out.read_bytes() == b"the run before"
        done = client.wait(client.spawn("export.query", {"sql": "select 1 as n", "out": str(out)}), timeout=120)

        assert client.get_states([task])[task] == TaskState.CANCELLED
    assert done.result["rows"] == 1
    assert "child_killed" not in worker.log.read_text()


def test_a_task_that_compresses(url: str, tmp_path: Path, until: Until, worker: Worker) -> None:
    """A codec that takes many seconds for a row group is not waited for, and what is half written is not kept."""
    texts = " || ".join(f"md5((n * {factor})::text)" for factor in (1, 7, 13))
    params = {"sql": f"select n, {texts} as t from generate_series(1, 500000) n", "compression": "brotli"}
    with SyncAbsurdClient(url) as client:
        task = client.spawn("export.query", params | {"out": str(tmp_path / "x.parquet"), "keep_temp": True})
        until(lambda: any(path.stat().st_size for path in tmp_path.iterdir()))
        client.cancel(task)
        until(lambda: files(tmp_path) == [])
        after = client.spawn("export.query", {"sql": "select 1 as n", "out": str(tmp_path / "y.parquet")})
        client.wait(after, timeout=120)
    assert "child_killed" not in worker.log.read_text()


def test_a_batch_of_tasks(url: str, sessions: Sessions, tmp_path: Path, until: Until, worker: Worker) -> None:
    """A batch that makes its exports itself is cancelled in the middle of one: its snapshot is given back as well."""
    listed = [{"sql": MOMENTS["first-row"], "out": str(tmp_path / "x.parquet")}]
    with SyncAbsurdClient(url) as client:
        batch = client.spawn("export.batch", {"exports": listed})
        until(lambda: sessions.at("first-row"))
        client.cancel(batch)
        until(lambda: sessions.count() == 0 and files(tmp_path) == [])
    assert "child_killed" not in worker.log.read_text()


# Helpers -----------------------------------------------------------------------------------------


def fast_export(url: str, folder: Path, moment: str) -> subprocess.Popen[bytes]:
    """``fast-export`` of the query of a moment to x.parquet."""
    limit = ("--limit-mib-per-second", "0.2") if moment in LIMITED else ()
    words = command(url, "--sql", MOMENTS[moment], "--out", "x.parquet", *limit)
    return subprocess.Popen(words, cwd=folder, env=environment())
