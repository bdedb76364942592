"""The health check: what the queue says and the machine shows, and failing on what is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from house import files
from single_run import fail, run
from sql_queue import Queue

from absurd.errors import InvalidParamsError
from absurd.executor import registry
from absurd.tasks.maintenance import examine
from absurd.tasks.maintenance.health import CODES

Connection = psycopg.Connection[Any]
WELL: dict[str, Any] = {"queues": [], "problems": [], "dead_letters": 0}
LIMITS: dict[str, Any] = {"min_free": 0, "max_pending": 60, "skew": 0.0, "max_skew": 2.0}


@pytest.fixture
def queue(connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """A queue that the executor finds."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
    return Queue(connection)


def test_all_is_well(queue: Queue, tmp_path: Path) -> None:
    """No problem, and the free room of each folder."""
    result, _ = run("maintenance.health", {"folders": [str(tmp_path)], "min_free_gib": 0, "fail_on": ["any"]})

    assert result["problems"] == []
    assert (result["dead_letters"], result["oldest_pending_seconds"]) == (0, 0)
    assert result["free_bytes"][str(tmp_path)] > 0


def test_what_is_wrong_is_told(queue: Queue) -> None:
    """Problems of the status, old pending tasks, clocks apart, full disks, each with its action; none fails it."""
    queue.call("spawn_task('lonely', 'demo.add', '{}')")
    queue.move_clock("2 hours")

    result, _ = run("maintenance.health", {"min_free_gib": 1e9, "folders": ["/", "/absent folder"], "max_skew": 1e-9})

    found = {each["code"]: each for each in result["problems"]}
    assert set(found) == {"queue_unserved", "pending_old", "disk_low", "folder_missing", "clock_skewed"}
    assert "queue lonely" in found["pending_old"]["message"]
    assert "/absent folder" in found["folder_missing"]["message"]
    assert all(each["message"] and each["action"] for each in result["problems"])
    assert result["oldest_pending_seconds"] >= 7200


def test_it_fails_on_what_is_named(queue: Queue) -> None:
    """One of the codes is there: the task fails at its first attempt, with all of their sentences."""
    queue.call("spawn_task('lonely', 'demo.add', '{}')")
    retry = registry.require("maintenance.health").retry

    run("maintenance.health", {"min_free_gib": 0, "fail_on": ["dead_letters", "disk_low"]})
    for codes in (["queue_unserved"], ["any"]):
        error = fail("maintenance.health", {"min_free_gib": 0, "fail_on": codes})
        assert error["code"] == "unhealthy"
        assert "queue lonely pending and no worker serves it (queue_unserved)" in error["message"]
    assert retry is not None
    assert retry.max_attempts == 1


def test_paused_queues_may_wait() -> None:
    """Tasks of a paused queue are pending on purpose; without a limit all may."""
    queues: list[dict[str, Any]] = [{"name": n, "paused": n == "b", "oldest_pending_seconds": 90.0} for n in ("a", "b")]
    queues.append({"name": "c", "paused": False, "oldest_pending_seconds": None})

    found = examine(WELL | {"queues": queues}, [], **LIMITS)
    assert [each["message"] for each in found.problems] == [
        "a task of queue a has been pending for 90 s, more than 60 s"
    ]
    assert examine(WELL | {"queues": queues}, [], **LIMITS | {"max_pending": None}).problems == []


def test_clocks() -> None:
    """A clock that is ahead, and one that is behind, by more than the limit."""
    told = {
        skew: [each["message"] for each in examine(WELL, [], **LIMITS | {"skew": skew}).problems]
        for skew in (-3.0, -2.0, 1.9, 2.1)
    }

    assert told[-3.0] == ["the clock of this machine is 3.0 s behind the database's"]
    assert told[2.1] == ["the clock of this machine is 2.1 s ahead of the database's"]
    assert told[-2.0] == told[1.9] == []


def test_codes_are_those_of_the_status() -> None:
    """Each code that ``get_status`` gives can be failed on, and a code that there is not is refused at the spawn."""
    (path,) = files("schema/sql/91_status.sql")
    body = path.read_text(encoding="utf-8").partition("function get_status()")[2].partition("jsonb_build_object")[0]
    codes = set(re.findall(r"select '(\w+)'(?: as code)?,", body))

    assert codes
    assert codes <= CODES
    with pytest.raises(InvalidParamsError, match=r"disc_low is no code of a problem; there are .*disk_low"):
        registry.require("maintenance.health").load_params({"fail_on": ["disc_low"]})
