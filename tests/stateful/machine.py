"""What every rule of the model test needs: the queue and its model side by side, and that they agree."""

from __future__ import annotations

import random
from typing import Any, ClassVar
from uuid import UUID

import psycopg
import recount
from stateful.model import SECOND, SHARED, QueueModel, Task
from stateful.play import Machine

LEASE_SECONDS = 30.0
TICK = SECOND // 64
"""Time between two calls: no two ends of a task come at the same time."""

_PLACES = """
select t.id, get_state(t.id), t.max_attempts, d.attempts, d.error ->> 'code', p.attempt, p.suspect, p.level
from task t
left join (select task_id, attempt, suspect, level from ready
           union all select task_id, attempt, suspect, level from timer
           union all select task_id, attempt, suspect, level from blocked
           union all select u.t, u.a, coalesce(u.t = any (suspects), false), null
               from lease cross join lateral unnest(task_ids, attempts) u (t, a)) p on p.task_id = t.id
left join dead_letter d on d.task_id = t.id
"""


class Base(Machine):
    """Calls both, and compares."""

    connection: ClassVar[psycopg.Connection[Any]]
    saved: ClassVar[recount.Saved]

    def __init__(self) -> None:
        super().__init__()
        self.saved.restore()
        self.connection.execute("update _frozen set now = clock_timestamp()")
        self.connection.execute("update pulse set (at, away_from, back_at) = ((select now from _frozen), null, null)")
        row = self.connection.execute("select 1000000 * extract(epoch from now) from _frozen").fetchone()
        assert row is not None
        self.began = int(row[0])
        """By the clock of the database, in microseconds."""
        self.model = QueueModel()
        self.tasks: list[UUID] = []
        self.workflows: list[UUID] = []
        self.claims: list[tuple[int, tuple[UUID, ...]]] = []
        """(lease, tasks), held still or not any more."""
        self.leases = 0
        self.call("create_queue('default')")
        for name, total in SHARED.items():
            self.call("set_resource(%s, %s)", name, total)
        self.queue_id = self.call("id from queue where name = 'default'")
        self.workers: list[int] = []

    def row(self, sql: str, *args: Any) -> tuple[Any, ...]:
        """The only row of a call."""
        return self.rows(sql, *args)[0]

    def rows(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        self.log.append(f"select {sql} -- {', '.join(map(str, args))}")
        return self.connection.execute(f"select {sql}", args).fetchall()

    def call(self, sql: str, *args: Any) -> Any:
        """What a call returns."""
        return self.row(sql, *args)[0]

    def refused(self, sql: str, *args: Any) -> str | None:
        """The SQLSTATE with which a call is refused."""
        try:
            self.call(sql, *args)
        except psycopg.Error as error:
            return error.sqlstate
        return None

    def new_id(self, chance: random.Random) -> UUID:
        """A UUIDv7 that the die decides but for its time."""
        milliseconds = (self.began + self.model.now) // 1000
        return UUID(f"{milliseconds:012x}7{chance.getrandbits(12):03x}8{chance.getrandbits(60):015x}")

    def some_task(self, chance: random.Random) -> UUID | None:
        return chance.choice(self.tasks) if self.tasks else None

    def pass_time(self, microseconds: int) -> None:
        self.model.now += microseconds
        self.connection.execute("update _frozen set now = now + %s * interval '1 microsecond'", [microseconds])

    # What must hold -----------------------------------------------------------------------------

    def check(self) -> None:
        """Each task stands where the model has it, workflows too, and all counts are right."""
        rows = self.connection.execute(_PLACES).fetchall()
        assert {row[0]: row[1:] for row in rows} == {task.id: _place(task) for task in self.model.tasks.values()}
        workflows = self.connection.execute("select id, state, remaining, nodes from workflow").fetchall()
        assert {row[0]: row[1:] for row in workflows} == {
            name: (each.state, each.remaining, len(each.nodes)) for name, each in self.model.workflows.items()
        }
        assert recount.faults(self.connection) == []
        self.pass_time(TICK)


def _place(task: Task) -> tuple[Any, ...]:
    letter = (task.letter.attempts, task.letter.code) if task.letter else (None, None)
    place: tuple[Any, ...] = (None, None, None)
    if task.state not in {"completed", "failed", "cancelled"}:
        place = task.attempt, task.suspect, None if task.state == "running" else task.level
    return task.state, task.max_attempts, *letter, *place
