"""A worker that is no process: claims and completes by the functions that workers call, and times the claims."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from typing import Self

from absurd import claims
from absurd.bench.arena import QUEUE, Arena


class Probe:
    """Registered while it is entered."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._worker = 0
        self._lease = 0
        self._queue_id = 0
        self._beaten = 0.0
        self.spent: list[float] = []
        """Seconds of each claim."""

    def __enter__(self) -> Self:
        self._arena.client.create_queue(QUEUE)
        registration = claims.register_worker(
            "probe", "bench", 1, [QUEUE], 1, versions={}, offers={}, lease_seconds=60.0
        )
        self._worker = self._arena.database.run(registration)
        self._lease = self._worker << 32
        self._queue_id = int(self._arena.fetch("select id from {schema}.queue where name = $1::text", QUEUE))
        return self

    def __exit__(self, *_: object) -> None:
        self._arena.database.run(claims.unregister_worker(self._worker))

    def claim(self, wanted: int) -> tuple[int, Sequence[str]]:
        """Claim, timed; the lease and the tasks.  Gives a sign of life now and then."""
        now = time.monotonic()
        if now > self._beaten + 10:
            self._arena.database.run(claims.beat(self._worker, ()))
            self._beaten = now
        self._lease += 1
        begun = time.perf_counter()
        row = self._arena.database.fetch(_CLAIM, self._lease, self._queue_id, wanted)[0]
        self.spent.append(time.perf_counter() - begun)
        return self._lease, row["tasks"] or []

    def work(self, wanted: int, *, fail: bool = False) -> int:
        """Claim and complete, or fail for good; how many."""
        lease, tasks = self.claim(wanted)
        if tasks:
            self._arena.database.fetch(_FAIL if fail else _COMPLETE, lease, json.dumps([str(each) for each in tasks]))
        return len(tasks)

    def empty_claim(self, times: int = 101) -> float:
        """Median seconds of a claim that finds nothing."""
        self.spent.clear()
        for _ in range(times):
            self.claim(1)
        return statistics.median(self.spent)


_CLAIM = """
select task_ids::text[] as tasks from {schema}.claim_runs($1::bigint, $2::integer, $3::integer, '{}', '{}')
"""
_GIVEN = """
from (select array_agg(t::uuid order by o) as tasks, count(*)::integer as n
      from jsonb_array_elements_text($2::text::jsonb) with ordinality as u (t, o)) given
"""
_COMPLETE = f"""
select {{schema}}.complete_runs(
    array_fill($1::bigint, array[n]), tasks, array_fill(0, array[n]), array_fill(null::text, array[n])) {_GIVEN}
"""
_FAIL = f"""
select {{schema}}.fail_runs(
    array_fill($1::bigint, array[n]), tasks, array_fill(0, array[n]),
    array_fill('{{"code": "task_failed", "type": "ValueError", "message": "no data"}}'::text, array[n]),
    array_fill(null::double precision, array[n])) {_GIVEN}
"""
