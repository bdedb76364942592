"""The regular round: each part of it stands alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from busy import OLD
from sessions import Session
from sql_queue import Queue
from structlog.testing import capture_logs

from absurd.database import AsyncDatabase
from absurd.maintenance import Round, make_round

Connection = psycopg.Connection[Any]

IN_ONE = ("recover_runs", "cancel_overdue", "promote_timers", "fold_tallies", "_end_waits", "_sweep_holdings")
ALONE = ("sweep_late", "prune_ended", "ensure_partitions", "drop_partition", "advance_marks")


def broken(connection: Connection, part: str) -> None:
    """Have a part of the round fail for good."""
    found = connection.execute(
        "select pg_get_functiondef(oid), prosrc from pg_proc where proname = %s", (part,)
    ).fetchone()
    assert found is not None
    definition, body = found
    at = body.lower().index("begin") + len("begin")
    connection.execute(definition.replace(body, f"{body[:at]} raise 'part % is broken', '{part}'; {body[at:]}"))


def mended(queue: Queue, work: dict[str, Any]) -> set[str]:
    """Which parts of the round have done what there was to do."""
    done = {
        "recover_runs": queue.call("state = 'lost' from worker where id = %s", work["lost"]),
        "cancel_overdue": queue.state(work["overdue"]) == "cancelled",
        "promote_timers": queue.state(work["due"]) != "sleeping",
        "fold_tallies": queue.call("count(*) from tally where id <= %s", work["tally"]) == 0,
        "_end_waits": queue.state(work["waits"]) != "blocked",
        "_sweep_holdings": queue.call("count(*) from holding") == 0,
        "sweep_late": queue.call("count(*) from late where child_id = %s", work["late"]) == 0,
        "prune_ended": queue.call("count(*) from task where id = %s", work["old"]) == 0,
        "ensure_partitions": queue.call("not _lacks_partitions()"),
        "drop_partition": queue.call("not exists (select from _spent_partitions())"),
        "advance_marks": queue.call("noted_seq from horizon") > work["noted"],
    }
    return {part for part, is_done in done.items() if is_done}


def work_for_all(queue: Queue) -> dict[str, Any]:
    """Something to do for each part, some days later."""
    old = queue.spawn()
    queue.call("set_queue_retention('default', 60)")
    lease, _, _ = queue.claim(1)
    queue.complete(lease, old)
    awaited = queue.spawn(delay=86400 * 365)
    waits = queue.spawn()
    lease, _, _ = queue.claim(1)
    queue.call(
        "suspend_runs(array[%s::bigint], array[%s::uuid], '{0}', '{60}', '{wait_for}', '{null}', null, %s)",
        lease, waits, f'[{{"task": "{waits}", "on": ["{awaited}"], "seconds": 60}}]',
    )  # fmt: skip
    due = queue.spawn(delay=60)
    overdue = queue.spawn(delay=86400 * 365, start_within=60)
    lost = queue.new_worker()
    queue.spawn()
    queue.claim(1, lost)
    queue.connection.execute("insert into holding values (1, %s, 'cpu', 1)", [old])
    late = queue.spawn(depends_on=[str(queue.spawn())])
    queue.move_clock("16 days")
    queue.connection.execute("update pulse set at = clock_time()")  # as if somebody had been there all the time
    return {
        "old": old, "waits": waits, "due": due, "overdue": overdue, "lost": lost,
        "late": late, "tally": queue.call("max(id) from tally"),
        "noted": queue.call("noted_seq from horizon"),
    }  # fmt: skip


def problems(queue: Queue) -> list[str]:
    return [each["code"] for each in queue.call("get_status()")["problems"]]


def rounds(url: str, n: int) -> list[Round]:
    async def make() -> list[Round]:
        async with AsyncDatabase(url) as database:
            return [await make_round(database) for _ in range(n)]

    return asyncio.run(make())


def test_a_round_goes_on_while_there_is_more_to_remove(queue: Queue, database_url: str) -> None:
    """What has ended faster than a batch a second leaves all the same; the counts follow."""
    queue.spawn()
    queue.call("set_queue_retention('default', 1800)")
    queue.connection.execute(OLD, {"queue": 1, "n": 2500})

    rounds(database_url, 1)

    assert queue.call("count(*) from run") == 0
    assert queue.counts() == {"pending": 1}


@pytest.mark.parametrize("part", [None, *IN_ONE, *ALONE])
def test_a_part_that_fails_stops_no_other(queue: Queue, database_url: str, part: str | None) -> None:
    """Whatever part of the round fails for good, the others do their work, and the log names the one."""
    work = work_for_all(queue)
    assert mended(queue, work) == set()
    if part is not None:
        broken(queue.connection, part)

    with capture_logs() as logs:
        rounds(database_url, 30)  # retention advances by slices of time

    assert mended(queue, work) == {*IN_ONE, *ALONE} - {part}
    told = [each for each in logs if each["event"] == "maintenance_failed"]
    assert [each["part"] for each in told] == ([] if part is None else [part]), "once in a while, not each second"
    assert all(f"part {part} is broken" in each["error"] for each in told)
    assert ("runs_not_recovered" in problems(queue)) == (part == "recover_runs")
    queue.counts()


def test_a_failure_that_is_worded_anew_each_time_is_told_once(queue: Queue, database_url: str) -> None:
    """As a deadlock is, by the numbers of its processes: it fills neither the log nor the memory."""
    queue.connection.execute(
        "create or replace function promote_timers(p_limit integer default 1000) returns integer language plpgsql"
        " as $$ begin raise 'at %', clock_timestamp() using errcode = 'deadlock_detected'; end $$"
    )

    with capture_logs() as logs:
        rounds(database_url, 3)

    assert [each["code"] for each in logs if each["event"] == "maintenance_failed"] == ["40P01"]


def test_a_worker_that_cannot_be_given_up_keeps_nobody_from_the_others(queue: Queue) -> None:
    """What the others held is taken back; then the one is told, and the status names it."""
    tasks, workers = [queue.spawn() for _ in range(3)], [queue.new_worker() for _ in range(3)]
    for worker in workers:
        queue.claim(1, worker)
    queue.connection.execute(f"alter table run add constraint cursed check (task_id <> '{tasks[1]}')")
    queue.connection.execute("update worker set last_seen = clock_time() - interval '1 hour'")
    queue.connection.execute("update pulse set at = clock_time()")

    assert queue.call("maintain()")["recovered"] == 2
    assert [queue.state(each) for each in tasks] == ["pending", "running", "pending"]

    (failed,) = queue.call("maintain()")["failed"]
    assert failed["part"] == "recover_runs"
    assert "cursed" in failed["error"]
    assert "runs_not_recovered" in problems(queue)
    queue.connection.execute("alter table run drop constraint cursed")
    assert queue.call("maintain()")["recovered"] == 1
    assert queue.counts() == {"pending": 3}


def test_partitions_wait_for_nobody_who_holds_the_tables_for_long(
    queue: Queue, database_url: str, until: Callable[[Callable[[], object]], None]
) -> None:
    """A dump that reads the tables has nobody stand in line behind the round; partitions come after it."""
    queue.move_clock("16 days")
    warnings: list[str] = []
    queue.connection.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
    dump = Session(database_url)
    dump.begin()
    dump.call("count(*) from task")
    old = "xact_start < clock_timestamp() - interval '1 s' from pg_stat_activity where pid = %s"
    until(lambda: queue.call(old, dump.connection.info.backend_pid))

    assert queue.call("ensure_partitions()") == 0
    assert queue.call("maintain()")["partitions"]
    assert not warnings, "it did not even try"

    dump.commit()
    assert queue.call("ensure_partitions()") > 0
    assert not queue.call("maintain()")["partitions"]
    dump.connection.close()
