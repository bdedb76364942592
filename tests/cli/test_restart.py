"""Stop and restart under load: nothing is lost, no attempt is spent, nothing is left running."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import psycopg
from recount import faults

if TYPE_CHECKING:
    from cli.conftest import Run, Start

Connection = psycopg.Connection[Any]
Until = Callable[[Callable[[], object]], None]

HERE = {"ABSURD_IMPORTS": "restart_executors"}


def spawn(connection: Connection, name: str, params: dict[str, Any], count: int = 1, **options: Any) -> None:
    """So many tasks of the queue."""
    connection.execute(
        "select spawn_task('q', %s, %s::jsonb, %s::jsonb) from generate_series(1, %s)",
        [name, json.dumps(params), json.dumps(options), count],
    )


def worker(start: Start, until: Until, connection: Connection, *words: str) -> subprocess.Popen[str]:
    """A worker that has registered."""
    process = start("absurd-worker", "--queue", "q", "--concurrency", "4", *words, **HERE)
    until(lambda: connection.execute("select from worker where pid = %s", [process.pid]).fetchall())
    return process


def test_a_rolling_restart_costs_nothing(
    start: Start,
    run: Run,
    until: Until,
    connection: Connection,
    database_url: str,
    tmp_path: Path,
) -> None:
    """Three workers under load, by SIGTERM or drained: each task once, in its first attempt, none late by the grace."""
    grace = 3.0
    journal = str(tmp_path / "journal")
    words = ("--grace", str(grace))
    workers = [worker(start, until, connection, *words) for _ in range(3)]
    spawn(connection, "rest.brief", {"journal": journal, "seconds": 2.5}, 6)
    enough = Event()

    def load() -> None:
        with psycopg.connect(database_url, autocommit=True, options="-c search_path=absurd") as mine:
            while not enough.wait(0.02):
                spawn(mine, "rest.brief", {"journal": journal}, 2)

    loading = Thread(target=load)
    loading.start()
    said = []
    try:
        for how, old in zip(("SIGTERM", "drain", "SIGTERM"), list(workers), strict=True):
            if how == "SIGTERM":
                old.send_signal(signal.SIGTERM)
            else:
                (number,) = connection.execute("select id from worker where pid = %s", [old.pid]).fetchall()[0]
                assert run("worker", "drain", str(number), "--wait").code == 0
            said.append(old.communicate(timeout=60)[1])
            workers.append(worker(start, until, connection, *words))
    finally:
        enough.set()
        loading.join()
    until(lambda: connection.execute("select from get_queue_stats('q') where pending + running = 0").fetchall())
    for each in workers[3:]:
        each.send_signal(signal.SIGTERM)
        said.append(each.communicate(timeout=60)[1])

    assert [0] * 6 == [each.returncode for each in workers], said
    ran = Counter(Path(journal).read_text().splitlines())
    (total,) = connection.execute("select count(*) from task").fetchall()[0]
    assert (total, {1}) == (len(ran), set(ran.values()))
    assert all(line.endswith(" 1") for line in ran)
    ends: dict[str, int] = dict(connection.execute("select state::text, count(*) from run group by 1").fetchall())
    assert (total, True) == (ends["completed"], set(ends) <= {"completed", "returned"})  # back, if it took too long
    waits = """
        select max(extract(epoch from r.started_at - coalesce(before.finished_at, t.created_at)))::float8
        from run r join task t on t.id = r.task_id
        left join lateral (select max(b.finished_at) as finished_at from run b
                           where b.task_id = r.task_id and b.finished_at < r.finished_at) before on true
    """
    (late,) = connection.execute(waits).fetchall()[0]
    assert isinstance(late, float)
    assert late < grace
    assert faults(connection) == []


def of(home: str) -> list[str]:
    """The command lines of all processes whose environment names this home."""
    found = []
    for each in Path("/proc").iterdir():
        try:
            if each.name.isdigit() and f"ABSURD_HOME={home}".encode() in (each / "environ").read_bytes().split(b"\0"):
                found.append((each / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has just ended
            continue
    return found


def test_sigterm_in_the_middle_of_everything(
    start: Start,
    program: Run,
    until: Until,
    connection: Connection,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    """Runs of every kind at work: exit 0, no process left, no attempt spent, and the next worker ends all (B56)."""
    release = tmp_path / "release"
    params = {"journal": str(tmp_path / "journal"), "release": str(release), "event": "dawn"}
    kinds = ["loop", "thread", "process", "stubborn", "talker", "spawner", "waiter"]
    for kind in kinds:
        spawn(connection, f"rest.{kind}", params)
    process = start("absurd-worker", "--queue", "q", "--concurrency", "20", "--grace", "0.5", **HERE)
    until(lambda: connection.execute("select from lease having count(*) > 0").fetchall())
    at_work = "select from lease cross join unnest(task_ids) having count(*) = 6"
    until(lambda: connection.execute(at_work).fetchall() and connection.execute("select from timer").fetchall())
    until(lambda: connection.execute("select from progress where message = 'talking'").fetchall())
    until(lambda: sum("sleep 3600" in command for command in of(environment["ABSURD_HOME"])) == 1)
    spawn(connection, "rest.brief", params, 200)

    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)

    assert 0 == process.returncode, said
    assert of(environment["ABSURD_HOME"]) == []
    assert connection.execute("select from lease").fetchall() == []
    assert connection.execute("select distinct attempt from ready").fetchall() == [(1,)]
    assert faults(connection) == []
    release.touch()
    connection.execute("select emit_event('dawn', '{}')")
    again = program("absurd-worker", "--queue", "q", "--drain", **HERE)

    assert 0 == again.code, again.err
    lines = Counter(Path(params["journal"]).read_text().splitlines())
    assert len(kinds) + 200 + 1 == len(lines)
    assert all(line.endswith(" 1") for line in lines)
    states = "select state::text, count(*) from run where state <> 'returned' and state <> 'suspended' group by 1"
    assert dict(connection.execute(states).fetchall()) == {"completed": len(kinds) + 200 + 1}


def test_what_drain_and_burst_wait_for(program: Run, connection: Connection, tmp_path: Path) -> None:
    """Chains are run to their ends; a child of another queue's task keeps nobody, a paused queue no burst."""
    params = {"journal": str(tmp_path / "journal")}
    (first,) = connection.execute(
        "select task_id from spawn_task('q', 'rest.brief', %s)", [json.dumps(params)]
    ).fetchall()
    spawn(connection, "rest.brief", params, depends_on=[str(first[0])])
    (elsewhere,) = connection.execute("select task_id from spawn_task('other', 'rest.brief', '{}')").fetchall()
    spawn(connection, "rest.brief", params, depends_on=[str(elsewhere[0])])

    assert program("absurd-worker", "--queue", "q", "--drain", **HERE).code == 0

    (stats,) = connection.execute("select blocked, completed from get_queue_stats('q')").fetchall()
    assert stats == (1, 2)
    connection.execute("select set_queue_paused('other', true)")
    assert program("absurd-worker", "--queue", "other", "--burst", **HERE).code == 0
    assert connection.execute("select pending from get_queue_stats('other')").fetchall() == [(1,)]
