"""The functions of the schema against a model in plain Python, in whatever order hypothesis thinks of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import hypothesis.strategies as st
import psycopg
import pytest
import recount
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)  # fmt: skip
from proof import amount, seed_of
from stateful.queue_model import QueueModel, Task

from absurd.queue import new_task_id

LEASE_SECONDS = 30.0
CONDITIONS = ("all_success", "all_done", "any_success", "any_failed", "quorum(1)", "quorum(2)")
DELAYS = st.sampled_from([0.0, 10.0, 50.0])
TICK = 1 / 64
"""Seconds between two calls; exact as a float and in microseconds."""


class Machine(RuleBasedStateMachine):
    """Calls both, and compares."""

    connection: psycopg.Connection[Any]
    saved: recount.Saved

    tasks = Bundle("tasks")
    claims = Bundle("claims")
    """(lease, tasks), held still or not any more."""

    def __init__(self) -> None:
        super().__init__()
        self.saved.restore()
        self.connection.execute("update _frozen set now = clock_timestamp()")
        self.model = QueueModel()
        self.number = 0

    def call(self, sql: str, *args: Any) -> Any:
        row = self.connection.execute(f"select {sql}", args).fetchone()
        return row[0] if row else None

    def refused(self, sql: str, *args: Any) -> str | None:
        """The SQLSTATE with which a call is refused."""
        try:
            self.call(sql, *args)
        except psycopg.Error as error:
            return error.sqlstate
        return None

    @initialize()
    def begin(self) -> None:
        self.call("create_queue('default')")
        self.queue_id = self.call("id from queue where name = 'default'")
        self.workers = [self._new_worker() for _ in range(2)]

    def _new_worker(self) -> int:
        sql = "register_worker('t', 'h', 1, '{default}', 1, '{}', '{}', %s)"
        worker: int = self.call(sql, LEASE_SECONDS)
        self.model.seen[worker] = self.model.now
        return worker

    # Spawning -----------------------------------------------------------------------------------

    @rule(
        target=tasks, parents=st.lists(tasks, max_size=3, unique=True), condition=st.sampled_from(CONDITIONS),
        priority=st.sampled_from([-1, 0, 0, 7]), delay=st.sampled_from([None, None, 10.0]),
        key=st.sampled_from([None, None, None, "a", "b"]), most=st.sampled_from([None, None, 1, 2]),
    )  # fmt: skip
    def spawn(
        self, parents: list[UUID], condition: str, priority: int, delay: float | None, key: str | None, most: int | None
    ) -> UUID:
        task = new_task_id()
        options: dict[str, Any] = {"priority": priority, "delay": delay, "key": key, "max_attempts": most}
        if not parents or (condition == "quorum(2)" and len(parents) < 2):
            condition = "all_success"
        if parents:
            options |= {"depends_on": [str(each) for each in parents], "when": condition}
        got = self.call(
            "task_id from spawn_tasks(array[%s::uuid], '{default}', '{x}', '{null}', array[%s]::jsonb[])",
            task, json.dumps({name: value for name, value in options.items() if value is not None}),
        )  # fmt: skip
        run_at = self.model.now + delay if delay else None
        made = Task(task, priority, tuple(sorted(parents)), condition, most, run_at)
        assert got == self.model.spawn(made, key)
        assert isinstance(got, UUID)
        return got

    # The worker's side --------------------------------------------------------------------------

    @rule(target=claims, which=st.integers(0, 1), wanted=st.integers(1, 4))
    def claim(self, which: int, wanted: int) -> Any:
        self.number += 1
        if self.workers[which] not in self.model.seen:  # given up: it gets nothing, and comes back
            lost = (self.workers[which] << 32) + self.number
            assert self.call("task_ids from claim_runs(%s, %s, %s, '{}', '{}')", lost, self.queue_id, wanted) is None
            self.workers[which] = self._new_worker()
        lease = (self.workers[which] << 32) + self.number
        claimed = self.call("task_ids from claim_runs(%s, %s, %s, '{}', '{}')", lease, self.queue_id, wanted) or []
        self.model.claim(lease, wanted, claimed)
        return (lease, tuple(claimed)) if claimed else multiple()

    def _report(self, claim: tuple[int, tuple[UUID, ...]], part: int) -> tuple[int, list[UUID], int]:
        lease, tasks = claim
        chosen = [each for n, each in enumerate(tasks) if part >> n & 1] or list(tasks)
        return lease, chosen, len(chosen)

    @rule(claim=claims, part=st.integers(0, 15))
    def complete(self, claim: Any, part: int) -> None:
        lease, tasks, n = self._report(claim, part)
        stale = self.call(
            "complete_runs(%s::bigint[], %s, %s::int[], %s::text[])", [lease] * n, tasks, [0] * n, ["1"] * n
        )
        assert set(stale or []) == self.model.complete(lease, tasks)

    @rule(claim=claims, part=st.integers(0, 15), delay=st.sampled_from([None, 0.0, 10.0]))
    def fail(self, claim: Any, part: int, delay: float | None) -> None:
        lease, tasks, n = self._report(claim, part)
        stale = self.call(
            "fail_runs(%s::bigint[], %s, %s::int[], %s::text[], %s::float8[])",
            [lease] * n, tasks, [0] * n, ["{}"] * n, [delay] * n,
        )  # fmt: skip
        assert set(stale or []) == self.model.fail(lease, tasks, delay)

    @rule(claim=claims, part=st.integers(0, 15), delay=st.sampled_from([None, 10.0]), event=st.sampled_from("xyz"))
    def suspend(self, claim: Any, part: int, delay: float | None, event: str | None) -> None:
        lease, tasks, n = self._report(claim, part)
        if event == "y" and delay is not None:
            event = None
        stale = self.call(
            "suspend_runs(%s::bigint[], %s, %s::int[], %s::float8[], %s::text[], %s::text[])",
            [lease] * n, tasks, [0] * n, [delay] * n, ["sleep"] * n, [event] * n,
        )  # fmt: skip
        assert set(stale or []) == self.model.suspend(lease, tasks, delay, event)

    @rule(claim=claims, part=st.integers(0, 15))
    def give_back(self, claim: Any, part: int) -> None:
        lease, tasks, n = self._report(claim, part)
        stale = self.call("return_runs(%s::bigint[], %s, %s::int[])", [lease] * n, tasks, [5] * n)
        assert set(stale or []) == self.model.give_back(lease, tasks)

    @rule(claim=claims, part=st.integers(0, 15))
    def cancel_runs(self, claim: Any, part: int) -> None:
        lease, tasks, n = self._report(claim, part)
        stale = self.call(
            "cancel_runs(%s::bigint[], %s, %s::int[], %s::text[])", [lease] * n, tasks, [0] * n, [None] * n
        )
        assert set(stale or []) == self.model.cancel_runs(lease, tasks)

    @rule(claim=claims)
    def save(self, claim: Any) -> None:
        lease, tasks = claim
        held = self.model.tasks[tasks[0]].lease == lease
        assert self.refused("set_checkpoint(%s, %s, 's', '1')", lease, tasks[0]) == (None if held else "AB002")

    @rule(which=st.integers(0, 1), known=st.lists(claims, max_size=3))
    def beat(self, which: int, known: list[Any]) -> None:
        leases = [lease for lease, _ in known]
        expected = self.model.beat(self.workers[which], leases, LEASE_SECONDS)
        if expected is None:
            assert self.refused("beat(%s, %s::bigint[])", self.workers[which], leases) == "AB002"
            return
        rows = self.connection.execute("select * from beat(%s, %s::bigint[])", (self.workers[which], leases)).fetchall()
        mine = {task: lease for task, lease in expected.items() if lease >> 32 == self.workers[which]}
        assert {task: lease for lease, task in rows} == mine

    # Time and upkeep ----------------------------------------------------------------------------

    @rule(seconds=DELAYS)
    def wait(self, seconds: float) -> None:
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        self.model.now += seconds
        self.connection.execute("update _frozen set now = now + make_interval(secs => %s)", [seconds])

    @rule()
    def promote(self) -> None:
        self.call("promote_timers()")
        self.model.promote()

    @rule()
    def recover(self) -> None:
        self.connection.execute("delete from pulse")  # no outage: what that means is shown elsewhere
        self.call("recover_runs()")
        self.model.recover(LEASE_SECONDS)

    @rule()
    def sweep(self) -> None:
        self.call("sweep_late()")
        self.call("fold_tallies()")
        self.call("advance_marks()")
        self.model.sweep()

    # The spawner's side -------------------------------------------------------------------------

    @rule(task=tasks, subtree=st.booleans())
    def cancel(self, task: UUID, subtree: bool) -> None:
        state = self.call("cancel_task(%s, 'no', %s)", task, subtree)
        self.model.cancel(task, subtree=subtree)
        assert state == self.model.tasks[task].state

    @rule(task=tasks)
    def retry(self, task: UUID) -> None:
        may = self.model.may_retry(task)
        assert self.refused("retry_task(%s)", task) == (None if may else "AB004")
        if may:
            self.model.retry(task)

    @rule(task=tasks)
    def rerun(self, task: UUID) -> None:
        if self.model.may_rerun(task):
            assert self.call("rerun_task(%s)", task) == self.model.rerun(task)
        else:
            assert self.refused("rerun_task(%s)", task) == "AB004"

    @rule(event=st.sampled_from("xyz"))
    def emit(self, event: str) -> None:
        assert self.call("emit_event(%s)", event) == self.model.emit(event)

    @rule()
    def pause(self) -> None:
        self.call("set_queue_paused('default', true)")
        self.number += 1
        lease = (self.workers[0] << 32) + self.number
        assert self.call("task_ids from claim_runs(%s, %s, 5, '{}', '{}')", lease, self.queue_id) is None
        self.call("set_queue_paused('default', false)")

    # What must hold -----------------------------------------------------------------------------

    @invariant()
    def agree(self) -> None:
        tasks = list(self.model.tasks.values())
        rows = self.connection.execute(
            "select t, get_state(t), (select attempt from (select task_id, attempt from ready"
            " union all select task_id, attempt from timer union all select task_id, attempt from blocked"
            " union all select u.t, u.a from lease cross join lateral unnest(task_ids, attempts) u (t, a)) p"
            " where task_id = t) from unnest(%s::uuid[]) t", [[task.id for task in tasks]],
        ).fetchall()  # fmt: skip
        ended = {"completed", "failed", "cancelled"}
        assert {row[0]: row[1:] for row in rows} == {
            task.id: (task.state, None if task.state in ended else task.attempt) for task in tasks
        }
        assert recount.faults(self.connection) == []
        self.pass_time(TICK)  # no two ends of a task at the same time


@pytest.fixture
def prepared(connection: psycopg.Connection[Any]) -> Iterator[None]:
    recount.freeze(connection)
    Machine.connection = connection
    Machine.saved = recount.Saved(connection)
    yield
    del Machine.connection, Machine.saved


@pytest.mark.usefixtures("prepared")
def test_the_functions_do_what_the_model_does() -> None:
    """States, attempts, stale reports, order of claims, parents, keys and counts are the model's after every call."""
    seed(seed_of("model"))(Machine)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=amount(40, 2000), stateful_step_count=60, deadline=None, database=None,
            suppress_health_check=list(HealthCheck), print_blob=False,
        ),
    )  # fmt: skip
