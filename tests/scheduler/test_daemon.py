"""The scheduler: due work appears, and what lost workers held comes back, without any worker alive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from schedules import reached, running

from absurd.config import Settings
from absurd.errors import DatabaseUnavailableError
from absurd.scheduler.daemon import Scheduler

Connection = psycopg.Connection[tuple[Any, ...]]


async def test_due_sleepers_wake(settings: Settings, connection: Connection) -> None:
    """A delayed task becomes pending when it is due, by whichever of two schedulers, once."""
    connection.execute("""select spawn_task('q', 'x', '{}', '{"delay": 0.3}') from generate_series(1, 10)""")

    async with running(Scheduler(settings), Scheduler(settings)):
        await reached(connection, "select pending = 10 and sleeping = 0 from get_queue_stats('q')")


async def test_runs_of_lost_workers_come_back(settings: Settings, connection: Connection) -> None:
    """When a worker has not answered for a lease, what it held becomes pending again."""
    connection.execute("select spawn_task('q', 'x', '{}', null)")
    connection.execute("select register_worker('w', 'h', 1, '{q}', 1, '{}', '{}', 0.2)")
    lease = "(select id::bigint << 32 | 1 from worker)"
    connection.execute(f"select claim_runs({lease}, (select id from queue where name = 'q'), 10, '{{}}', '{{}}')")
    await reached(connection, "select running = 1 from get_queue_stats('q')")

    async with running(Scheduler(settings)):
        await reached(connection, "select state = 'lost' from worker")
        await reached(connection, "select pending = 1 and running = 0 from get_queue_stats('q')")


async def test_starts_only_where_it_can_work(settings: Settings) -> None:
    """A database that cannot be reached is told at once."""
    with pytest.raises(DatabaseUnavailableError):
        await Scheduler(replace(settings, database_url="postgresql://absurd@127.0.0.1:1/x")).run()


async def test_outlives_the_database(
    settings: Settings, connection: Connection, until: Callable[[Callable[[], object]], None]
) -> None:
    """Its connections may be ended at any time; the next round is made on new ones."""
    connection.execute("""select spawn_task('q', 'x', '{}', '{"delay": 0.5}')""")

    async with running(Scheduler(settings)):
        await reached(connection, "select count(*) >= 2 from pg_stat_activity where application_name = 'absurd'")
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'absurd'")
        await reached(connection, "select pending = 1 from get_queue_stats('q')")
