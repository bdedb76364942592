"""Lists with many tasks, workflows and dead letters behind them: what a page costs, and what a bounded look leaves out.

Counted, not timed: the number of buffers of a page is the same on any machine.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from proof import amount
from sql_queue import Queue

Connection = psycopg.Connection[Any]

MANY = amount(10_000, 200_000)
LOOK, PAGE = 1000, 51
BODIES = """
insert into task (id, created_at, queue_id, executor_id, params)
select new_task_id(), clock_time(), q.id, x.id, '{}' from queue q, executor x, generate_series(1, %(n)s)
where q.name = %(queue)s and x.name = %(name)s returning id, queue_id, executor_id
"""
ENDED = f"""
with made as ({BODIES}),
tried as (
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends)
    select id, clock_time(), clock_time(), 1, 'failed', 1, false from made),
ended as (
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends)
    select id, clock_time(), clock_time() + interval '1 s', 1, %(state)s::run_state, 2, true from made)
insert into dead_letter (task_id, died_at, queue_id, executor_id, attempts, fingerprint, error, body, runs)
select id, clock_time(), queue_id, executor_id, 2, executor_id::text, '{{"code": "broken"}}', '{{}}', '[]'
from made where %(state)s = 'failed'
"""
PENDING = f"""
with made as ({BODIES})
insert into ready (task_id, queue_id, level, attempt) select id, queue_id, 0, 1 from made order by id
"""
WORKFLOWS = """
insert into workflow (id, name, created_at, nodes, remaining, state, ended_at)
select new_task_id(), %(name)s, clock_time(), 1, 0, %(state)s, case when %(state)s <> 'running' then clock_time() end
from generate_series(1, %(n)s)
"""


@pytest.fixture
def queue(connection: Connection) -> Queue:
    """Few of each kind first, then many completed, failed, cancelled and, above all, pending ones."""
    found = Queue(connection)
    for name in ("default", "rare"):
        found.call("create_queue(%s)", name)
    connection.execute("insert into executor (name) values ('demo.add'), ('demo.rare') on conflict do nothing")
    for state in ("completed", "failed", "cancelled"):
        connection.execute(ENDED, {"n": 3, "queue": "rare", "name": "demo.rare", "state": state})
        connection.execute(WORKFLOWS, {"n": 3, "name": "rare", "state": state})
    connection.execute(WORKFLOWS, {"n": 3, "name": "rare", "state": "running"})
    connection.execute(PENDING, {"n": 3, "queue": "rare", "name": "demo.rare"})
    for state, many in (("completed", MANY), ("failed", MANY // 4), ("cancelled", MANY // 10)):
        connection.execute(ENDED, {"n": many, "queue": "default", "name": "demo.add", "state": state})
    connection.execute(WORKFLOWS, {"n": MANY, "name": "night", "state": "completed"})
    connection.execute(PENDING, {"n": MANY, "queue": "default", "name": "demo.add"})
    return found


def buffers(queue: Queue, function: str, arguments: str) -> int:
    """Buffers of the second of two calls: the first in a session reads the catalogue too."""
    for _ in range(2):
        row = queue.connection.execute(
            f"explain (analyze, buffers, format json) select * from {function}({arguments})"
        ).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


TASKS = [
    ", ".join(each)
    for state in (None, "completed", "failed", "cancelled", "pending", "running", "sleeping", "blocked")
    for each in (
        [f"p_state => '{state}'"] if state else [],
        [f"p_state => '{state}'", "p_queue => 'rare'"] if state else ["p_queue => 'rare'"],
        [f"p_state => '{state}'", "p_name => 'demo.rare'"] if state else ["p_name => 'demo.rare'"],
    )
]
LISTS = [
    *(("list_tasks", each, 6 * LOOK) for each in TASKS),
    ("list_tasks", "p_tag => 'x'", 6 * LOOK),
    ("list_tasks", """p_params => '{"a": 1}'""", 6 * LOOK),
    *(("list_workflows", f"p_state => '{each}'", LOOK) for each in ("running", "completed", "failed", "cancelled")),
    ("list_workflows", "p_name => 'rare'", 2 * LOOK),
    ("list_workflows", "p_name => 'rare', p_state => 'completed'", 2 * LOOK),
    ("list_dead_letters", "", LOOK),
    *(
        (function, f"""p_filter => '{{"{key}": "{value}"}}'""", 3 * LOOK)
        for function in ("list_dead_letters", "group_dead_letters", "count_dead_letters")
        for key, value in (("queue", "rare"), ("name", "demo.rare"), ("code", "odd"), ("text", "odd"))
    ),
    ("group_dead_letters", "", 3 * LOOK),
    ("count_dead_letters", "", 2 * LOOK),
]


@pytest.mark.parametrize("vacuumed", [False, True])
def test_a_page_costs_the_same_at_any_size(queue: Queue, vacuumed: bool) -> None:
    """No list reads more for a page than it may look through, whatever else there is, with statistics or without."""
    if vacuumed:
        queue.connection.execute("vacuum analyze")
    dear = {}
    for function, given, most in LISTS:
        page = "" if function == "count_dead_letters" else f"p_limit => {PAGE}, "
        spent = buffers(queue, function, f"{given}{', ' if given else ''}{page}p_look => {LOOK}")
        if spent > most:
            dear[function, given] = spent

    assert dear == {}


def test_who_goes_on_finds_what_a_bounded_look_left_out(queue: Queue) -> None:
    """Page after page, short ones among them, what is found is one unbounded list, nothing twice, nothing missing."""
    lists = [
        *((f"list_tasks({each}", MANY // 3) for each in TASKS if "rare" in each),
        ("list_workflows(p_name => 'rare'", MANY // 3),
        ("list_workflows(p_name => 'rare', p_state => 'failed'", 1),
        ("""list_dead_letters('{"queue": "rare"}'""", MANY // 20),
    ]
    found = {}
    for head, look in lists:
        whole = [row["id"] for row in rows(queue, f"{head})")]
        paged: list[str] = []
        after = "null"
        while page := rows(queue, f"{head}, p_limit => 2, p_look => {look}, p_after => {after}::uuid)"):
            paged += [row["id"] for row in page if "id" in row]
            after = f"'{page[-1].get('next') or page[-1]['id']}'"
        assert paged == whole
        found[head] = len(whole)

    print(found)
    assert sum(found.values()) == 2 * (12 + 4 * 3) + 12 + 3 + 3


def rows(queue: Queue, call: str) -> list[dict[str, Any]]:
    """The documents that a call gives."""
    return [row[0] for row in queue.connection.execute(f"select {call}").fetchall()]
