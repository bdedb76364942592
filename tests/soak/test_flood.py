"""A gigabyte of output: what takes gigabytes of pipes to show.  `make soak` runs it."""

from __future__ import annotations

import resource
from dataclasses import replace

import log_executors
import psycopg
from flood import check, flood
from live import working

from absurd import AbsurdClient
from absurd.config import Settings

GIGABYTE = 1_000_000_000


async def test_a_gigabyte_of_output(settings: Settings, connection: psycopg.Connection[tuple[int]]) -> None:
    """Neither the worker's memory nor the database grows by it, and other runs go on."""
    own = replace(settings, imports=(log_executors.__name__,), worker_concurrency=2)
    async with AbsurdClient(settings=own) as client, working(own):
        await flood(client, 1_000_000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        task, beside = await flood(client, GIGABYTE)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

        check(await client.get_logs(task), GIGABYTE)
    assert beside > 0
    assert grown * 1024 < 64_000_000
    sizes = "select sum(pg_total_relation_size(oid)) from pg_class where relkind = 'r' and relname ~ '^log_'"
    (found,) = connection.execute(sizes).fetchone() or (0,)
    assert found < 20_000_000
