"""``absurd-worker --reload``: changed code is run without a hand, and broken code ends nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from cli.conftest import Run, Start

Connection = psycopg.Connection[tuple[object, ...]]
Until = Callable[[Callable[[], object]], None]

CODE = """
from absurd import executor

@executor("dev.say", runs_in="{runs_in}")
def say(ctx, params):
    return "{word}"
"""


class Said:
    """What a process writes, as it does."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.text = ""
        self._stream = process.stderr
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._stream is not None
        for line in self._stream:
            self.text += line


@contextmanager
def developing(start: Start, *words: str, **changes: str) -> Iterator[tuple[subprocess.Popen[str], Said]]:
    """A worker that reloads."""
    with start("absurd-worker", "--queue", "q", "--reload", *words, **changes) as process:
        try:
            yield process, Said(process)
        finally:
            process.kill()


def result(connection: Connection, until: Until) -> object:
    """What a task of the code under change returns now."""
    (task,) = connection.execute("select task_id from spawn_task('q', 'dev.say', '{}', null)").fetchone() or (None,)
    found: list[tuple[object, ...]] = []

    def ended() -> bool:
        found[:] = connection.execute("select result from run where task_id = %s", [task]).fetchall()
        return bool(found)

    until(ended)
    return found[0][0]


def test_changed_code_is_run(start: Start, until: Until, connection: Connection, tmp_path: Path) -> None:
    """The same process, with the new code, under a new number; what is no Python is told of, and the old code stays."""
    code = tmp_path / "dev.py"
    code.write_text(CODE.format(runs_in="process", word="first"))
    with developing(start, "--import", "dev") as (process, said):
        assert "first" == result(connection, until)
        code.write_text("def say(:\n")
        until(lambda: "reload_waits" in said.text)
        assert "first" == result(connection, until)
        code.write_text(CODE.format(runs_in="process", word="other"))
        until(lambda: connection.execute("select from worker where id = 2 and state = 'running'").fetchall())
        assert "other" == result(connection, until)
        assert connection.execute("select pid, state from worker order by id").fetchall() == [
            (process.pid, "stopped"),
            (process.pid, "running"),
        ]
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(30), said.text

    assert "Traceback" not in said.text


def test_code_that_cannot_be_imported_is_waited_for(
    start: Start, until: Until, connection: Connection, tmp_path: Path
) -> None:
    """From the start or after a change, a worker that cannot import says why and waits for the next change."""
    helper, code = tmp_path / "devhelp.py", tmp_path / "dev.py"
    code.write_text("import devhelp\n" + CODE.format(runs_in="thread", word="good"))
    helper.write_text("raise RuntimeError('half written')\n")
    with developing(start, "--import", "dev") as (process, said):
        until(lambda: "half written" in said.text)
        helper.write_text("")
        assert "good" == result(connection, until)
        helper.write_text("1 / 0\n")
        until(lambda: "ZeroDivisionError" in said.text)
        assert process.poll() is None
        process.terminate()
        assert 0 == process.wait(30), said.text


def test_runs_are_handed_back_for_new_code(start: Start, until: Until, connection: Connection, tmp_path: Path) -> None:
    """What does not end within the grace goes on with the new code, in the same attempt."""
    code = tmp_path / "dev.py"
    old = "import asyncio\nfrom absurd import executor\n@executor('dev.say')\nasync def say(ctx, params):\n"
    code.write_text(old + "    await asyncio.sleep(3600)\n")
    connection.execute("select spawn_task('q', 'dev.say', '{}', null)")
    with developing(start, "--import", "dev", "--grace", "0") as (process, said):
        until(lambda: connection.execute("select from lease").fetchall())
        code.write_text(old + "    return 'new'\n")
        until(lambda: connection.execute("select from run where state = 'completed'").fetchall())
        process.terminate()
        assert 0 == process.wait(30), said.text

    runs = connection.execute("select attempt, state::text, result from run order by finished_at").fetchall()
    assert [(1, "returned", None), (1, "completed", "new")] == runs


def test_code_that_changes_again_while_runs_end(
    start: Start, until: Until, connection: Connection, tmp_path: Path
) -> None:
    """A second change within the grace neither cuts runs short nor ends the worker: it begins anew with the latest."""
    code, release = tmp_path / "dev.py", tmp_path / "release"
    code.write_text(CODE.format(runs_in="thread", word="first"))
    hold = json.dumps({"release": str(release)})
    connection.execute("select spawn_task('q', 'cli.hold', %s, null)", [hold])
    with developing(start, "--import", "dev", "--import", "cli_executors", "--grace", "1h") as (process, said):
        until(lambda: connection.execute("select from lease").fetchall())
        for number, word in enumerate(("second change", "third change, the latest")):
            code.write_text(CODE.format(runs_in="thread", word=word))
            until(lambda number=number: said.text.count("worker_reloading") > number)  # type: ignore[misc]
        assert connection.execute("select from lease").fetchall()
        release.touch()
        assert "third change, the latest" == result(connection, until)
        process.terminate()
        assert 0 == process.wait(30), said.text

    assert [("completed", 2)] == connection.execute("select state::text, count(*) from run group by 1").fetchall()


def test_up_reloads_too(start: Start, program: Run, until: Until, connection: Connection, tmp_path: Path) -> None:
    """The worker of ``absurd up`` begins anew by itself; it counts as one, and all leave on Ctrl-C."""
    code = tmp_path / "dev.py"
    code.write_text(CODE.format(runs_in="thread", word="first"))
    with start("absurd", "up", "--queue", "q", "--import", "dev", "--reload") as process:
        said = Said(process)
        assert "first" == result(connection, until)
        code.write_text(CODE.format(runs_in="thread", word="other"))
        until(lambda: connection.execute("select from worker where id = 2 and state = 'running'").fetchall())
        assert "other" == result(connection, until)
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(60), said.text
    pids = {pid for (pid,) in connection.execute("select pid from worker").fetchall()}

    assert 1 == len(pids)
    assert "started again" not in said.text
    with pytest.raises(ProcessLookupError):
        os.kill(int(str(pids.pop())), 0)


def test_reload_is_for_workers_that_stay(program: Run) -> None:
    """With --burst or --drain it makes no sense, and that is said."""
    ended = program("absurd-worker", "--reload", "--drain")

    assert 2 == ended.code
    assert "--drain" in ended.err
