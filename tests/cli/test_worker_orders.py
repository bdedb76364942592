"""Orders to workers at work: drain, and another number of runs at a time."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from cli.conftest import Run, Start

Connection = psycopg.Connection[tuple[object, ...]]
Until = Callable[[Callable[[], object]], None]
LONG_BEAT = {"ABSURD_WORKER_HEARTBEAT_INTERVAL": "15"}
"""So that what is obeyed at once was heard, and not found with the next beat."""


def spawn(connection: Connection, release: Path, count: int = 1) -> None:
    """Tasks that end when the file is there."""
    sql = "select spawn_task('q', 'cli.hold', %s::jsonb, null) from generate_series(1, %s)"
    connection.execute(sql, [json.dumps({"release": str(release)}), count])


def running(connection: Connection) -> int:
    """How many tasks are at work, by the last word of workers that are asked for the next one."""
    row = connection.execute("select coalesce(sum(cardinality(started)), 0)::int from worker").fetchone()
    assert row is not None
    connection.execute("select _ordered(id) from worker")
    return int(str(row[0]))


@contextmanager
def worker(start: Start, *words: str, **changes: str) -> Iterator[subprocess.Popen[str]]:
    """A worker of the queue; killed if the test left it."""
    with start("absurd-worker", "--queue", "q", *words, **LONG_BEAT | changes) as process:
        try:
            yield process
        finally:
            process.kill()


def busy(connection: Connection, count: int) -> bool:
    """Whether so many runs are claimed."""
    row = connection.execute("select coalesce(sum(cardinality(task_ids)), 0)::int from lease").fetchone()
    return row == (count,)


def test_a_drained_worker_ends_its_runs_and_leaves(
    start: Start, run: Run, until: Until, connection: Connection, tmp_path: Path
) -> None:
    """It is told at once, claims nothing more, ends what it runs whatever its grace, and exits with 0 (B56)."""
    release = tmp_path / "release"
    spawn(connection, release)
    with worker(start, "--grace", "0") as process:
        until(lambda: busy(connection, 1))
        told = run("worker", "drain", "1", "--json")
        assert (0, True) == (told.code, told.document[0]["draining"]), told.err
        until(lambda: connection.execute("select from worker where state = 'stopping'").fetchall())
        assert "draining" in run("worker", "list").out
        spawn(connection, release)
        release.touch()
        left = run("worker", "drain", "--all", "--wait", "--timeout", "30", "--json")
        _, said = process.communicate(timeout=30)

    assert 0 == process.returncode, said
    assert 0 == left.code, left.err
    assert "worker_draining" in said
    assert connection.execute("select attempt, state::text from run").fetchall() == [(1, "completed")]
    assert connection.execute("select attempt from ready").fetchall() == [(1,)]
    assert [("stopped", True)] == [
        (each["state"], each["draining"]) for each in run("worker", "list", "--all", "--json").document
    ]


def test_an_idle_worker_that_is_drained_leaves_at_once(
    start: Start, run: Run, until: Until, connection: Connection
) -> None:
    """By its name or its host as by its number; the command waits for it and tells how it left."""
    with worker(start) as process:
        until(lambda: connection.execute("select from listener").fetchall())
        name, host = connection.execute("select name, host from worker").fetchall()[0]
        left = run("worker", "drain", str(name), "--host", str(host), "--wait", "--json")
        process.communicate(timeout=30)

    assert 0 == process.returncode
    assert [("stopped", 0)] == [(each["state"], each["running"]) for each in left.document]


def test_draining_is_taken_back(start: Start, run: Run, until: Until, connection: Connection, tmp_path: Path) -> None:
    """While it still lets runs end, a worker can be kept: it claims again."""
    release, other = tmp_path / "release", tmp_path / "other"
    spawn(connection, release)
    with worker(start) as process:
        until(lambda: busy(connection, 1))
        assert run("worker", "drain", "--all").code == 0
        until(lambda: connection.execute("select from worker where state = 'stopping'").fetchall())
        assert "goes on" in run("worker", "drain", "--all", "--undo").out
        spawn(connection, other)
        until(lambda: busy(connection, 2))
        release.touch()
        until(lambda: busy(connection, 1))
        assert process.poll() is None
        until(lambda: connection.execute("select from worker where state = 'running' and not draining").fetchall())


def test_concurrency_changes_while_it_works(
    start: Start, run: Run, until: Until, connection: Connection, tmp_path: Path
) -> None:
    """Up: more runs start at once. Down: those at work go on, and none is claimed until there are fewer. Back."""
    first, second = tmp_path / "first", tmp_path / "second"
    spawn(connection, first, 4)
    with worker(start, "--concurrency", "2", "--prefetch", "1") as process:
        until(lambda: busy(connection, 3))
        assert "runs 4 at a time" in run("worker", "concurrency", "1", "4").out
        until(lambda: busy(connection, 4))
        until(lambda: running(connection) == 4)
        (shown,) = run("worker", "list", "--json").document
        assert (4, 4) == (shown["concurrency"], shown["wanted_concurrency"])

        assert run("worker", "concurrency", "1", "1", "--json").document["concurrency"] == 1
        until(lambda: connection.execute("select from worker where concurrency = 1").fetchall())
        assert busy(connection, 4)
        spawn(connection, second, 4)
        first.touch()
        until(lambda: connection.execute("select count(*) from run").fetchall() == [(4,)])
        until(lambda: busy(connection, 2))  # one at work, one ahead
        until(lambda: running(connection) == 1)

        assert "as many as it was started with" in run("worker", "concurrency", "1", "--reset").out
        until(lambda: busy(connection, 3))
        second.touch()
        until(lambda: connection.execute("select count(*) from run").fetchall() == [(8,)])
        process.terminate()
        _, said = process.communicate(timeout=30)

    assert 0 == process.returncode, said
    assert connection.execute("select distinct attempt, state::text from run").fetchall() == [(1, "completed")]


@pytest.mark.parametrize(
    ("code", "part", "words"),
    [
        (2, "name workers", ["drain"]),
        (2, "--undo", ["drain", "--all", "--undo", "--wait"]),
        (3, "'7'", ["drain", "7"]),
        (3, "'elsewhere'", ["drain", "--host", "elsewhere"]),
        (3, "'eve:1'", ["concurrency", "eve:1", "3"]),
        (2, "either", ["concurrency", "1"]),
        (2, "0", ["concurrency", "1", "0"]),
        (1, "", ["check", "--host", "elsewhere"]),
    ],
)
def test_orders_that_cannot_be_given(run: Run, connection: Connection, code: int, part: str, words: list[str]) -> None:
    """What names no worker, or makes no sense, ends with the family's exit code and a sentence; nobody is told."""
    connection.execute("select unregister_worker(register_worker('eve:1', 'eve', 1, '{q}', 4, '{}', '{}', 30))")

    ended = run("worker", *words)

    assert code == ended.code, ended.err
    assert part in ended.err
    assert connection.execute("select from worker where draining").fetchall() == []


def test_a_host_is_checked(run: Run, connection: Connection) -> None:
    """A worker that was heard of within its lease makes its host healthy; one that is silent does not."""
    connection.execute("select register_worker('ada:1', 'ada', 1, '{q}', 4, '{}', '{}', 30)")
    assert 0 == run("worker", "check", "--host", "ada").code
    connection.execute("update worker set last_seen = last_seen - interval '1 min'")

    ended = run("worker", "check", "--host", "ada", "--json")

    assert (1, 0) == (ended.code, ended.document["alive"])


def test_a_host_is_checked_by_its_worker_s_own_lease(run: Run, connection: Connection) -> None:
    """Whatever the settings of the one who asks; and a worker that is held up is not well, though it is alive."""
    connection.execute("select register_worker('ada:1', 'ada', 1, '{q}', 4, '{}', '{}', 600)")
    connection.execute("update worker set last_seen = last_seen - interval '5 min'")
    assert 0 == run("worker", "check", "--host", "ada").code
    connection.execute("select beat(1, null)")

    ended = run("worker", "check", "--host", "ada", "--json")

    assert (1, 1, 1) == (ended.code, ended.document["alive"], ended.document["held_up"])
    assert "ada:1" in run("worker", "check", "--host", "ada").out


def test_an_order_reaches_one_worker_that_takes_it(run: Run, connection: Connection) -> None:
    """A name that means several is refused with their numbers, and so is a worker that was lost meanwhile."""
    for _ in range(2):
        connection.execute("select register_worker('ada:1', 'ada', 1, '{q}', 4, '{}', '{}', 30)")
    connection.execute("select register_worker('eve:1', 'eve', 1, '{q}', 4, '{}', '{}', 30)")

    several = run("worker", "concurrency", "ada:1", "3")
    connection.execute(
        "create or replace function set_worker_concurrency(p_worker integer, p_concurrency integer default null)"
        " returns text language sql as $$ select 'lost' $$"  # it was there when it was looked for
    )
    lost = run("worker", "concurrency", "eve:1", "3")

    assert (2, True) == (several.code, "1, 2" in several.err), several.err
    assert (3, True) == (lost.code, "is lost" in lost.err), lost.err
    assert connection.execute("select from worker where wanted_concurrency is not null").fetchall() == []


def test_what_a_drained_worker_waits_for_is_told_in_words(run: Run, connection: Connection) -> None:
    """Nothing, one run, or several."""
    connection.execute("select register_worker('ada:1', 'ada', 1, '{q}', 4, '{}', '{}', 30)")
    told = []
    for count in range(3):
        told.append(run("worker", "drain", "ada:1").out)
        connection.execute("select spawn_task('q', 'cli.hold', '{}', null)")
        sql = "select claim_runs((1::bigint << 32) + %s, id, 1, '{}', '{}') from queue where name = 'q'"
        connection.execute(sql, [count + 1])

    assert "leaves now" in told[0]
    assert "1 run it holds has ended" in told[1]
    assert "2 runs it holds have ended" in told[2]
