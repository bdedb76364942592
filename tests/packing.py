"""A queue on which workers with offers claim, by the SQL interface, and a clock that stands until it is moved."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import psycopg
from sql_queue import Queue

Connection = psycopg.Connection[Any]


class Site(Queue):
    """The queue `default`, workers with offers, and a clock that stands until it is moved."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.call("create_queue('default')")
        self.slots: int | None = None
        self.now = 0.0
        self.start = self.call("clock_timestamp()")

    def add(self, offers: dict[str, float], *, host: str = "here", reserve_after: float = 30) -> int:
        """Register a worker."""
        worker: int = self.call(
            "register_worker('test', %s, 1, '{default,other}', 4, '{}', %s, 1e6, p_reserve_after => %s)",
            host, json.dumps(offers), reserve_after,
        )  # fmt: skip
        return worker

    def pass_time(self, seconds: float) -> None:
        """Stop the clock so much later than it stood."""
        self.now += seconds
        self.connection.execute(
            "create or replace function clock_time() returns timestamptz language sql stable as"
            f" $$ select timestamptz '{self.start}' + interval '{self.now} seconds' $$"
        )

    def take(self, worker: int, wanted: int = 10, slots: int | None = None, queue: str = "default") -> list[UUID]:
        """What a claim brings; `lease` is its number, `waits` whether more waits for slots."""
        self.claims += 1
        self.lease = (worker << 32) + self.claims
        row = self.connection.execute(
            "select task_ids, waits from claim_runs(%s, (select id from queue where name = %s), %s, '{}', '{}', %s)",
            (self.lease, queue, wanted, slots),
        ).fetchone()
        assert row is not None
        self.waits = row[1]
        return row[0] or []

    def holdings(self) -> dict[str, float]:
        """What is held in all, by name."""
        rows = self.connection.execute(
            "select resource, sum(amount)::float8 from holding h where _is_held(h) group by 1"
        )
        return dict(rows.fetchall())
