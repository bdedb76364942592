"""The SQL interface as a worker without Python's `absurd` would use it."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import psycopg

Connection = psycopg.Connection[Any]


class Queue:
    """The SQL interface as a worker without Python's `absurd` would use it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.worker = self.new_worker()
        self.claims = 0

    def call(self, sql: str, *args: Any) -> Any:
        row = self.connection.execute(f"select {sql}", args).fetchone()
        return row[0] if row else None

    def move_clock(self, ahead: str) -> None:
        """Have the database's clock show so much more than it is: '3 days', '-1 hour'."""
        self.connection.execute(
            "create or replace function clock_time() returns timestamptz language sql stable"
            f" as $$ select clock_timestamp() + interval '{ahead}' $$"
        )

    def new_worker(self, lease_seconds: float = 30) -> int:
        worker = self.call("register_worker('test', 'here', 1, array['default'], 1, '{}', '{}', %s)", lease_seconds)
        assert isinstance(worker, int)
        return worker

    def spawn(self, params: Any = None, /, **options: Any) -> UUID:
        row = self.connection.execute(
            "select task_id from spawn_task('default', 'demo.add', %s, %s)",
            (json.dumps(params or {}), json.dumps(options) if options else None),
        ).fetchone()
        assert row is not None
        task: UUID = row[0]
        return task

    def claim(self, wanted: int = 10, worker: int | None = None) -> tuple[int, list[UUID], list[int]]:
        self.claims += 1
        lease = ((worker or self.worker) << 32) + self.claims
        row = self.connection.execute(
            "select task_ids, attempts from"
            " claim_runs(%s, (select id from queue where name = 'default'), %s, '{}', '{}')",
            (lease, wanted),
        ).fetchone()
        assert row is not None
        return lease, row[0] or [], row[1] or []

    def complete(self, lease: int, *tasks: UUID, result: Any = None) -> Any:
        results = [None if result is None else json.dumps(result)] * len(tasks)
        return self.call(
            "complete_runs(%s::bigint[], %s, %s::integer[], %s::text[])",
            [lease] * len(tasks),
            list(tasks),
            [0] * len(tasks),
            results,
        )

    def fail(self, lease: int, task: UUID, delay: float | None) -> Any:
        error = json.dumps({"code": "boom", "type": "Boom", "message": "it broke"})
        return self.call(
            "fail_runs(%s::bigint[], %s, array[0], array[%s], array[%s::double precision])",
            [lease],
            [task],
            error,
            delay,
        )

    def end(self, lease: int, task: UUID, state: str) -> None:
        """Have a claimed task end in `state`."""
        match state:
            case "completed":
                self.complete(lease, task)
            case "failed":
                self.fail(lease, task, None)
            case _:
                self.call("cancel_task(%s)", task)

    def state(self, task: UUID) -> Any:
        return self.call("get_state(%s)", task)

    def document(self, task: UUID) -> dict[str, Any]:
        document = self.call("get_task(%s)", task)
        assert isinstance(document, dict)
        return document

    def counts(self) -> dict[str, int]:
        """The counted states; and they equal a recount of the rows."""
        cursor = self.connection.execute("select * from get_queue_stats('default')")
        names = [column.name for column in cursor.description or ()]
        counted = dict(zip(names, cursor.fetchone() or (), strict=True))
        recount = self.connection.execute(
            """select (select count(*) from blocked), (select count(*) from ready), (select count(*) from timer),
                      (select coalesce(sum(cardinality(task_ids)), 0) from lease),
                      count(*) filter (where state = 'completed'), count(*) filter (where state = 'failed'),
                      count(*) filter (where state = 'cancelled')
               from (select get_state(id) as state from task) t"""
        ).fetchone()
        assert recount is not None
        assert [int(n) for n in recount] == list(counted.values())
        return {name: n for name, n in counted.items() if n}
