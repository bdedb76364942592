"""``absurd status``, ``absurd worker`` and ``absurd doctor``: how everything stands."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from absurd.model import Claim
from absurd.outcome import Completed
from absurd.workers.pump.receipts import Spool
from absurd.workers.pump.reports import Report

if TYPE_CHECKING:
    from cli.conftest import Run, Start

Connection = psycopg.Connection[tuple[object, ...]]

QUEUE = {
    "name", "paused", "blocked", "pending", "sleeping", "running", "completed", "failed", "cancelled",
    "oldest_pending_seconds", "limits",
}  # fmt: skip
WORKER = {"id", "host", "state", "queues", "running", "concurrency", "last_seen"}


def test_status_document(run: Run, connection: Connection) -> None:
    """The document has the promised keys, and tells what is wrong and what to do."""
    connection.execute("select spawn_task('q', 'x', '{}', null)")
    connection.execute("select register_worker('w', 'h', 1, '{other}', 4, '{}', '{}', 60)")

    status = run("status", "--json").document

    assert status.keys() >= {"queues", "workers", "schedules", "problems"}
    assert [QUEUE, QUEUE] == [each.keys() for each in status["queues"]]
    assert [(1, "running", ["other"])] == [(each["id"], each["state"], each["queues"]) for each in status["workers"]]
    assert all(each.keys() >= WORKER for each in status["workers"])
    (problem,) = status["problems"]
    assert ("queue_unserved", "absurd-worker --queue q") == (problem["code"], problem["action"])


def test_status_for_people(run: Run, connection: Connection) -> None:
    """One screen: a headline, queues, workers, problems with the way out."""
    assert "Nothing is wrong." in run("status").out
    connection.execute("select spawn_task('q', 'x', '{}', null)")

    shown = run("status").out

    for part in (
        "0 tasks running, 1 pending, 0 workers alive",
        "Queues",
        "Workers",
        "Problems",
        "absurd-worker --queue q",
    ):
        assert part in shown


def test_watch_goes_on_until_interrupted(start: Start) -> None:
    """--watch looks again and again; Ctrl-C is the way to leave, not a failure."""
    with start("absurd", "status", "--watch", "--every", "0.1") as process:
        assert process.stdout is not None
        looks = 0
        while looks < 3:
            looks += "workers alive" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(timeout=60)


def test_workers_are_listed(run: Run, connection: Connection) -> None:
    """The living by default, with --all those that ended, too."""
    assert "No worker is alive" in run("worker", "list").out
    connection.execute("select register_worker('ada:1', 'ada', 1, '{a,b}', 4, '{}', '{}', 60)")
    connection.execute("select unregister_worker(register_worker('eve:2', 'eve', 2, '{a}', 4, '{}', '{}', 60))")

    assert ["ada:1"] == [each["name"] for each in run("worker", "list", "--json").document]
    assert ["ada:1", "eve:2"] == [each["name"] for each in run("worker", "list", "--all", "--json").document]
    shown = run("worker", "list").out
    assert "a b" in shown
    assert "0/4" in shown


def test_workers_tell_of_themselves(run: Run, connection: Connection) -> None:
    """The list shows how busy each is, and one that is held up; status says what to do about that."""
    connection.execute(
        "select register_worker('ada:1', 'ada', 17, '{a}', 4, '{\"absurd\": \"9.8.7\"}', '{}', 60);"
        ' select beat(1, \'{}\', p_load => \'{"load_average": 1.5, "rss_bytes": 123000000, "concurrency": 4}\');'
        " select beat(1, null)"
    )

    shown = run("worker", "list").out
    problems = run("status", "--json").document["problems"]

    for part in ("ada:1", "held up", "1.50", "123 MB", "9.8.7"):
        assert part in shown
    assert [("worker_held_up", True)] == [(each["code"], "kill -9 17" in each["action"]) for each in problems]


def test_a_lost_worker_is_told_with_what_to_do(run: Run, connection: Connection) -> None:
    """Where to look, and that its runs are taken care of."""
    connection.execute("select give_up_worker(register_worker('ada:1', 'ada', 17, '{a}', 4, '{}', '{}', 60))")

    (problem,) = run("status", "--json").document["problems"]

    assert problem["code"] == "worker_lost"
    assert "on host ada" in problem["message"]
    assert "gone to others" in problem["message"]
    assert "start absurd-worker there" in problem["action"]


def test_doctor_finds_all_well(run: Run, connection: Connection) -> None:
    """Each check is a line; a warning is no failure."""
    connection.execute("select register_worker('ada:1', 'ada', 1, '{a,b}', 4, '{}', '{}', 60)")

    ended = run("doctor", "--json")

    assert 0 == ended.code, ended.out
    found = {each["name"]: each for each in ended.document}
    assert {"python", "executors", "programs", "disk", "database", "schema", "clock", "workers"} == found.keys()
    assert ["ok"] * 4 == [found[name]["level"] for name in ("database", "schema", "clock", "workers")]
    assert "PostgreSQL" in run("doctor").out


def test_doctor_says_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not work is a failure with the way out, and exit code 1; the other checks are made all the same."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", "postgresql://absurd@127.0.0.1:1/x")
    monkeypatch.setenv("ABSURD_WORKER_POL_INTERVAL", "1")

    ended = run("doctor", "--json")

    assert 1 == ended.code
    levels = {each["name"]: each["level"] for each in ended.document}
    assert ("ok", "warn", "fail") == (levels["python"], levels["settings"], levels["database"])
    text = run("doctor")
    assert (1, True) == (text.code, "1 check failed" in text.out)


def test_outcomes_that_wait_on_this_machine_are_told(run: Run, connection: Connection, tmp_path: Path) -> None:
    """Receipts of this queue that were not delivered are a problem in status and a warning of doctor."""
    row = connection.execute("select get_identity()").fetchone()
    assert row is not None
    spool = Spool(tmp_path / "home", str(row[0]))
    claim = Claim((3 << 32) + 1, uuid4(), 1, "x", "default", None)
    spool.write(3, [Report(claim, None, Completed()), Report(claim, None, Completed())])
    Spool(tmp_path / "home", "another queue").write(3, [Report(claim, None, Completed())])

    (problem,) = run("status", "--json").document["problems"]
    assert problem["code"] == "receipts_waiting"
    assert problem["message"].startswith("2 outcomes of finished runs")
    assert f"ABSURD_HOME={tmp_path / 'home'}" in problem["action"]
    assert "2 outcomes" in run("status").out
    assert [("receipts", "warn")] == [
        (each["name"], each["level"]) for each in run("doctor", "--json").document if each["name"] == "receipts"
    ]

    for file in spool.path.glob("*/*.jsonl"):
        spool.drop(file, "stale")
    assert run("status", "--json").document["problems"] == []
    assert "1 file of outcomes that came too late" in run("doctor").out
    spool.close()


def test_doctor_misses_the_schema(run: Run, empty_database_url: str) -> None:
    """A database without the queue is a failure with the command to run."""
    ended = run("--database-url", empty_database_url, "doctor", "--json")

    assert 1 == ended.code
    assert [("schema", "absurd db migrate")] == [
        (each["name"], each["action"]) for each in ended.document if each["level"] == "fail"
    ]
