"""A session that dies between any two statements of a function: nothing is left of the call, and it can be repeated."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import boundaries
import psycopg
import pytest
import recount
import world
from proof import amount, seed_of

from absurd.queue import new_task_id

ALWAYS_WHOLE = frozenset({"claim_runs", "complete_runs", "fail_runs", "spawn_plain", "spawn_tasks", "step"})
"""Calls whose every boundary is tried in each run; of the others some are chosen by chance."""
NOT_REPEATED = frozenset({
    "advance_marks", "create_queue", "ensure_partitions", "record_change", "register_worker", "respawn_task",
    "tell_session", "trigger_schedule",
})  # fmt: skip
"""Calls that by nature do something else when made again."""
REFUSALS = {None, "AB002", "AB004", "AB020", "AB021"}
"""With which a call may be answered that is made again: what it ends is over, what it makes is there."""
SAMPLE = 6


@pytest.fixture(scope="module")
def queue(module_database_url: str) -> Iterator[world.World]:
    """A queue with something to do for every function, whose functions can be stopped and whose clock stands."""
    with connect(module_database_url) as connection:
        recount.freeze(connection)
        made = world.World(connection)
        connection.execute(  # two runs of one call make the same id
            f"create or replace function new_task_id() returns uuid language sql as 'select ''{new_task_id()}''::uuid'"
        )
        boundaries.install(connection)
        boundaries.Stops(connection).arm()
        yield made


def connect(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True, options="-c search_path=absurd,public")


@pytest.mark.parametrize("name", sorted(world.CALLS))
def test_a_crash_at_any_statement_leaves_nothing(module_database_url: str, queue: world.World, name: str) -> None:
    """Killed at a statement boundary a call has changed nothing; repeated it does the same as an undisturbed one."""
    connection = queue.connection
    sql, *args = world.CALLS[name](queue)
    before = recount.dump(connection)
    stops = boundaries.Stops(connection)
    with connection.transaction(force_rollback=True):
        stops.arm()
        connection.execute(f"select {sql}", args)
        last = stops.passed()
        undisturbed = recount.dump(connection)

    for stop in _chosen(name, last):
        with connect(module_database_url) as doomed:
            boundaries.Stops(doomed).arm(stop)
            with pytest.raises(psycopg.errors.AdminShutdown):
                doomed.execute(f"select {sql}", args)
        assert recount.dump(connection) == before, f"{name} killed at {stop} of {last}"

    with connection.transaction(force_rollback=True):
        connection.execute(f"select {sql}", args)
        assert recount.dump(connection) == undisturbed
        assert recount.faults(connection) == []


@pytest.mark.parametrize("name", sorted(world.CALLS.keys() - NOT_REPEATED))
def test_a_call_whose_answer_was_lost_may_be_repeated(queue: world.World, name: str) -> None:
    """Made again after it was committed, a call changes nothing more; at worst it is refused (B116)."""
    connection = queue.connection
    sql, *args = world.CALLS[name](queue)
    with connection.transaction(force_rollback=True):
        connection.execute(f"select {sql}", args)
        once = recount.dump(connection)

        assert _refusal(connection, sql, args) in REFUSALS

        assert recount.dump(connection) == once
        assert recount.faults(connection) == []


def _refusal(connection: psycopg.Connection[Any], sql: str, args: list[Any]) -> str | None:
    """The SQLSTATE with which a call is refused; None when it is answered."""
    try:
        with connection.transaction():
            connection.execute(f"select {sql}", args)
    except psycopg.Error as error:
        return error.sqlstate
    return None


def _chosen(name: str, last: int) -> list[int]:
    stops = list(range(1, last + 1))
    wanted = last if name in ALWAYS_WHOLE else amount(SAMPLE, last)
    return sorted(random.Random(seed_of(name)).sample(stops, min(wanted, last)))
