"""``absurd spawn``: with a worker of its own process, with none, and with this process as the worker."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from cli.conftest import Run, Start

Connection = psycopg.Connection[tuple[object, ...]]
Until = Callable[[Callable[[], object]], None]

NOBODY = "No worker serves the queue default: the task waits until one does (`absurd-worker --queue default`).\n"


def test_spawn_prints_the_id(run: Run) -> None:
    """The id alone on stdout, and at once on stderr that nobody will run it; as JSON with `created`."""
    ended = run("spawn", "cli.add", "a=1", "b=2")
    as_json = run("spawn", "cli.add", "a=1", "b=2", "--json").document

    assert (0, NOBODY) == (ended.code, ended.err)
    assert {"id", "created"} == as_json.keys()
    assert as_json["created"] is True
    assert as_json["id"] > ended.out.strip()


def test_options_arrive(run: Run) -> None:
    """Each option is found again in the task."""
    parent = run("spawn", "cli.fail").out.strip()
    words = ["--queue", "q", "--priority", "7", "--delay", "1h", "--key", "k", "--tag", "x", "--tag", "y"]
    words += ["--max-attempts", "3", "--timeout", "90s", "--header", "who=ada", "--header", "n=1", "--after", parent]

    task_id = run("spawn", "cli.add", "--params", '{"a": 1, "b": 2, "c": 3}', *words).out.strip()

    task = run("task", "show", task_id, "--json").document
    expected = {
        "queue": "q", "priority": 7, "key": "k", "tags": ["x", "y"], "depends_on": [parent], "max_attempts": 3,
        "timeout": 90, "headers": {"who": "ada", "n": 1}, "params": {"a": 1, "b": 2, "c": 3}, "state": "blocked",
    }  # fmt: skip
    assert expected == {key: task[key] for key in expected}
    assert task["run_at"] is not None


def test_options_of_lanes_keys_and_conditions_arrive(run: Run, connection: Connection) -> None:
    """Each is found again where the database keeps it."""
    parent = run("spawn", "cli.fail").out.strip()
    words = ["--lane", "tile-7", "--need", "cpu=2", "--need", "gpu=1", "--key", "k", "--key-period", "1h"]
    words += ["--key-scope", "unfinished", "--after", parent, "--when", "all_done"]

    task_id = run("spawn", "cli.fail", *words, "--start-within", "10m", "--finish-within", "2h").out.strip()

    assert connection.execute("select condition, lane, needs from blocked").fetchall() == [
        ("all_done", "tile-7", {"cpu": 2, "gpu": 1})
    ]
    assert connection.execute(
        "select expires_at - clock_timestamp() between '59 min' and '60 min', until_ended from task_key"
    ).fetchall() == [(True, True)]
    assert connection.execute(
        "select kind from deadline where task_id = %s order by due_at", (task_id,)
    ).fetchall() == [
        ("start",),
        ("finish",),
    ]


def test_a_key_spawns_once(run: Run) -> None:
    """The second spawn with a key gives the first one's id and says so."""
    first = run("spawn", "cli.fail", "--key", "k", "--json").document
    second = run("spawn", "cli.fail", "--key", "k", "--json")

    assert {"id": first["id"], "created": False} == second.document
    assert "The key is taken" in second.err


def test_executors_that_workers_registered_are_known(run: Run, connection: Connection) -> None:
    """What cannot be imported here may be known to a worker elsewhere, with its queue."""
    described = [{"name": "far.away", "queue": "remote", "runs_in": "process", "description": "Far."}]
    connection.execute("select register_executors(%s)", [json.dumps(described)])

    task_id = run("spawn", "far.away", "x=1").out.strip()

    assert "remote" == run("task", "show", task_id, "--json").document["queue"]
    assert 2 == run("spawn", "far.awa").code
    assert "did you mean far.away?" in run("spawn", "far.awa").err


def test_wait_with_a_worker_process(
    start: Start, program: Run, until: Until, connection: Connection, tmp_path: Path
) -> None:
    """--wait prints result and files and exits by the task's fate; SIGTERM ends the worker with exit code 0."""
    worker = start("absurd-worker", "--queue", "default=2", "--queue", "other", "--concurrency", "2")
    until(lambda: connection.execute("select from worker where state = 'running'").fetchall())
    try:
        done = program("absurd", "spawn", "cli.add", "a=1", "b=2", "--wait")
        assert (0, "Completed in ") == (done.code, done.out[:13]), done
        assert "sum  3" in done.out
        assert done.err.startswith("Task ")
        assert "No worker" not in done.err

        wrote = program("absurd", "spawn", "cli.write", f"out={tmp_path / 'x.txt'}", "--wait", "--json")
        assert (0, "completed", "written") == (wrote.code, wrote.document["state"], wrote.document["result"])
        assert [str(tmp_path / "x.txt")] == [each["path"] for each in wrote.document["artifacts"]]
        assert "written" == (tmp_path / "x.txt").read_text()

        failed = program("absurd", "spawn", "cli.fail", "--wait")
        assert (1, "") == (failed.code, failed.out)
        assert "there is no band 'x'" in failed.err.splitlines()[-1]
        assert "Traceback" not in failed.err
    finally:
        worker.send_signal(signal.SIGTERM)
        _, said = worker.communicate(timeout=60)
    assert 0 == worker.returncode, said
    assert [("stopped",)] == connection.execute("select state from worker").fetchall()


def test_here_runs_a_task_to_its_end(program: Run, connection: Connection, tmp_path: Path) -> None:
    """Without any worker the task runs in this process, and no other task of the database does."""
    connection.execute("""select spawn_task('default', 'cli.add', '{"a": 1, "b": 1}', null)""")

    done = program("absurd", "spawn", "cli.write", f"out={tmp_path / 'x.txt'}", "--here", "--json")

    assert (0, "completed") == (done.code, done.document["state"]), done
    assert "here" == done.document["queue"]
    assert "written" == (tmp_path / "x.txt").read_text()
    assert [(1,)] == connection.execute("select pending from get_queue_stats('default')").fetchall()
    assert ["default"] == [each["name"] for each in program("absurd", "queue", "list", "--json").document]
    assert [("default",), ("here",)] == connection.execute("select name from list_queues() order by 1").fetchall()


def test_here_tells_a_failure(program: Run) -> None:
    """A task that fails here has its retries here, and ends with exit code 1 and one sentence."""
    failed = program("absurd", "spawn", "cli.fail", "--here")

    assert (1, "") == (failed.code, failed.out)
    assert "there is no band 'x'" in failed.err.splitlines()[-1]
    assert "attempt 2 was the last" in failed.err


def test_here_interrupted_cancels_the_task(start: Start, until: Until, connection: Connection) -> None:
    """Ctrl-C leaves nothing behind that nobody would run."""
    process = start("absurd", "spawn", "cli.sleep", "--here")
    until(lambda: connection.execute("select from lease").fetchall())

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert (130, "") == (process.returncode, out), err
    assert "Traceback" not in err
    assert [("cancelled",)] == connection.execute("select get_state(id) from task").fetchall()
    assert [("here", 1)] == connection.execute("select name, cancelled from list_queues()").fetchall()
    assert [] == connection.execute("select from worker where state <> 'stopped'").fetchall()
