"""The program ``absurd-worker``: options, ends and errors."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from recount import faults

if TYPE_CHECKING:
    from cli.conftest import Run, Start

Connection = psycopg.Connection[tuple[object, ...]]
Until = Callable[[Callable[[], object]], None]


@pytest.mark.parametrize(("option", "state"), [("--burst", "sleeping"), ("--drain", "completed")])
def test_leaves_when_the_work_is_done(program: Run, connection: Connection, option: str, state: str) -> None:
    """--burst leaves when nothing can be claimed now; --drain waits for what sleeps."""
    params = '{"a": 1, "b": 1}'
    connection.execute("select spawn_task('q', 'cli.add', %s, null) from generate_series(1, 20)", [params])
    delay = 3600 if option == "--burst" else 2
    connection.execute("select spawn_task('q', 'cli.add', %s, jsonb_build_object('delay', %s::int))", [params, delay])

    done = program("absurd-worker", "--queue", "q", option)

    assert (0, "") == (done.code, done.out), done.err
    assert [(20 if state == "sleeping" else 21,)] == connection.execute(
        "select completed from get_queue_stats('q')"
    ).fetchall()
    assert [("stopped",)] == connection.execute("select state from worker").fetchall()


@pytest.mark.parametrize("installed", [True, False])
def test_the_faster_loop_is_taken_where_it_is_installed(
    program: Run, connection: Connection, tmp_path: Path, environment: dict[str, str], installed: bool
) -> None:
    """That of uvloop with the extra `fast`, asyncio's own without; the runs notice nothing."""
    if not installed:
        (tmp_path / "uvloop.py").write_text("raise ImportError")
        environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    connection.execute("select spawn_task('q', 'cli.loop', '{}', null)")

    done = program("absurd-worker", "--queue", "q", "--burst")

    assert done.code == 0, done.err
    assert connection.execute("select result from run").fetchall() == [("uvloop" if installed else "asyncio",)]


@pytest.mark.parametrize(
    ("grace", "signals"), [("0.2", [signal.SIGTERM]), ("1h", [signal.SIGTERM, signal.SIGINT])], ids=["grace", "second"]
)
def test_a_signal_hands_back_what_does_not_end(
    start: Start, until: Until, connection: Connection, grace: str, signals: list[signal.Signals]
) -> None:
    """After the grace, or at a second signal, runs go back with their attempt; the exit code is 0 (B56, B59)."""
    connection.execute("select spawn_task('q', 'cli.sleep', '{}', null)")
    with start("absurd-worker", "--queue", "q", "--grace", grace) as worker:
        until(lambda: connection.execute("select from lease").fetchall())
        for number in signals:
            worker.send_signal(number)
        _, said = worker.communicate(timeout=60)

    assert 0 == worker.returncode, said
    assert [("pending",)] == connection.execute("select get_state(id) from task").fetchall()
    assert [(1,)] == connection.execute("select attempt from ready").fetchall()


def test_a_signal_while_it_starts(start: Start) -> None:
    """A worker that is told to stop before it has begun does not begin (B59)."""
    with start("absurd-worker") as worker:
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=60)

    assert worker.returncode in (0, -signal.SIGTERM)


@pytest.mark.parametrize("moment", ["worker", "lease"])
def test_signals_upon_signals_spoil_nothing(
    start: Start, program: Run, until: Until, connection: Connection, tmp_path: Path, moment: str
) -> None:
    """Four signals as it registers, or works: it leaves well, and the next worker ends each task once (B59)."""
    release = tmp_path / "release"
    spawn = "select spawn_task('q', 'cli.hold', %s::jsonb, null) from generate_series(1, 30)"
    connection.execute(spawn, [json.dumps({"release": str(release)})])
    with start("absurd-worker", "--queue", "q", "--grace", "1h") as worker:
        until(lambda: connection.execute(f"select from {moment}").fetchall())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            worker.send_signal(number)
        _, said = worker.communicate(timeout=60)

    assert worker.returncode == 0, said
    assert "Traceback" not in said
    assert faults(connection) == []
    assert connection.execute("select attempt, count(*) from ready group by 1").fetchall() == [(1, 30)]
    release.touch()
    assert program("absurd-worker", "--queue", "q", "--drain").code == 0
    ends = connection.execute("select attempt, count(*) from run where state = 'completed' group by 1").fetchall()
    assert ends == [(1, 30)]


@pytest.mark.parametrize(
    ("code", "part", "words"),
    [
        (2, "no_such_module", ["--import", "no_such_module"]),
        (2, "weight", ["--queue", "q=0"]),
        (2, "no spaces", ["--queue", "no spaces"]),
        (2, "--concurrency is 0", ["--concurrency", "0"]),
        (4, "127.0.0.1:1", ["--database-url", "postgresql://absurd@127.0.0.1:1/x"]),
        (5, "absurd db migrate", ["--schema", "elsewhere"]),
    ],
)
def test_what_is_wrong_is_told(program: Run, code: int, part: str, words: list[str]) -> None:
    """Wrong options and databases end the program with a sentence and the family's exit code."""
    ended = program("absurd-worker", *words)

    assert (code, "") == (ended.code, ended.out)
    assert ended.err.splitlines()[-1].startswith("Error: ")
    assert part in ended.err
    assert "Traceback" not in ended.err
