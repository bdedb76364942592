"""What packing costs a claim, in buffers: nothing to speak of without needs, and no more for a hundred thousand."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from busy import Busy
from packing import Site
from proof import amount

Connection = psycopg.Connection[Any]
MANY = amount(100_000, 1_000_000)

WAITING = """
with made as (
    insert into task (id, created_at, queue_id, executor_id, params, needs)
    select new_task_id(), clock_time(), q.id, x.id, '{}', %(needs)s from queue q, executor x, generate_series(1, %(n)s)
    where q.name = 'default' and x.name = 'demo.add' returning id, queue_id, needs),
placed as (
    insert into ready (task_id, queue_id, level, attempt, needs) select id, queue_id, 0, 1, needs from made order by id)
insert into tally (queue_id, pending) select queue_id, count(*) from made group by 1
"""


@pytest.fixture
def busy(connection: Connection) -> Busy:
    made = Busy(connection)
    made.work(measured=False)
    return made


def fill(connection: Connection, count: int, needs: dict[str, float]) -> None:
    """Put many tasks there inside the server."""
    connection.execute(WAITING, {"n": count, "needs": json.dumps(needs)})


def test_tasks_without_needs_pay_a_look(busy: Busy, connection: Connection) -> None:
    """A claim without needs reads what it would if there were none, and six pages to see that; a report nothing."""
    row = connection.execute("select pg_get_functiondef('claim_runs'::regproc)").fetchone()
    assert row is not None
    look = row[0][row[0].index("exists (\n") : row[0].index("into v_offers, v_oldest, v_needy")]

    with_needs = busy.measure()
    connection.execute(row[0].replace(look, "false\n        "))
    without = busy.measure()

    print(with_needs, without)
    for name, pages in {"claim_runs": 6, "empty claim": 6, "complete_runs": 0}.items():
        assert with_needs[name] - without[name] <= pages + 1, name


def test_needs_alone_cost_no_call_for_each_task(connection: Connection) -> None:
    """What a claim tells of tasks that have nothing but needs is made in its own statement."""
    site = Site(connection)
    worker = site.add({"cpu": 4})
    tasks = [site.spawn(needs={"cpu": 1}) for _ in range(3)]
    other = site.spawn(needs={"cpu": 1}, tags=["night"])

    with connection.transaction():
        connection.execute("set local track_functions = 'all'")
        lease = (worker << 32) + 1
        row = connection.execute("select task_ids, details from claim_runs(%s, 1, 9, '{}', '{}')", (lease,)).fetchone()
        calls = site.call("pg_stat_get_xact_function_calls('_details'::regproc)")

    assert row is not None
    needs = {"needs": {"cpu": 1}}
    assert row[0] == [*tasks, other]
    assert [json.loads(each) for each in row[1]] == [needs, needs, needs, {**needs, "tags": ["night"]}]
    assert calls <= 1


@pytest.mark.parametrize("needs", [{"cpu": 4}, {"gpu": 9}], ids=["no room now", "never"])
def test_a_long_line_of_misfits_costs_a_bounded_claim(connection: Connection, needs: dict[str, float]) -> None:
    """A hundred thousand that do not fit cost a claim no more than some thousands do, and others get past them."""
    site = Site(connection)
    worker = site.add({"cpu": 4})
    site.spawn(needs={"cpu": 4})
    assert len(site.take(worker)) == 1

    def claim() -> int:
        site.claims += 1
        row = connection.execute(
            "explain (analyze, buffers, format json) select * from claim_runs(%s, 1, 10, '{}', '{}', 10)",
            ((worker << 32) + site.claims,),
        ).fetchone()
        assert row is not None
        return int(row[0][0]["Plan"]["Shared Hit Blocks"] + row[0][0]["Plan"]["Shared Read Blocks"])

    fill(connection, 10_000, needs)
    claim(), claim()
    few = claim()
    fill(connection, MANY, needs)
    many = [claim() for _ in range(4)][-1]

    print({"10,000": few, f"{MANY:,}": many})
    assert many < 1.5 * few + 50
    assert many < 1_000
    plain = [site.spawn() for _ in range(3)]
    assert site.take(worker) == plain
