"""Databases to back up, and a look at all that one holds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import demo_executors  # noqa: F401  registers what the work is
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from absurd import SyncAbsurdClient, TaskSpec
from absurd.embedded_binaries import choose
from absurd.testing import drain_sync

BIN = choose(None, Path("none"), None).bin
"""The programs of the server that the tests run on."""


def work(url: str) -> None:
    """Leave tasks of every kind in the queue: completed, failed, blocked, pending and sleeping ones."""
    with SyncAbsurdClient(url) as client:
        client.spawn("demo.add", {"a": 1, "b": 2}, key="one", tags=["night-12"], headers={"é": "ü\n'\"\\"})
        client.spawn("demo.fail", {"until": 99}, max_attempts=1)
        drain_sync("default", client)
        parent = client.spawn("demo.add", {"a": 3, "b": 4}, priority=5)
        client.spawn_many([TaskSpec("demo.add", {"a": n, "b": n}, depends_on=[parent]) for n in range(20)])
        client.spawn("demo.add", {"a": 1, "b": 1}, delay=3600)
        client.emit_event("night-closed", {"n": [1, 2]})


def at(url: str, name: str) -> str:
    """The address of another database of the server."""
    return make_conninfo(url, dbname=name)


@contextmanager
def restored(url: str, dump: str | Path) -> Iterator[str]:
    """What a plain pg_restore makes of a dump, in a database of its own; it must not complain."""
    name = f"restored_{os.getpid()}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"create database {name}".encode())
        try:
            subprocess.run(
                [BIN / "pg_restore", "--exit-on-error", f"--dbname={at(url, name)}", dump], check=True, timeout=60
            )
            yield at(url, name)
        finally:
            connection.execute(f"drop database {name} with (force)".encode())


ALL = """
    select format('%%I.%%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind = %s and n.nspname !~ '^pg_|^information_schema$' order by 1
"""

DEFINITIONS = """
    select 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc'),
           coalesce(p.proacl, acldefault('f', p.proowner))::text
    from pg_proc p where p.pronamespace = to_regnamespace('absurd') and p.prokind in ('f', 'p')
    union all
    select 'index', c.oid::regclass::text, pg_get_indexdef(c.oid), null, null from pg_class c
    where c.relkind in ('i', 'I') and c.relnamespace = to_regnamespace('absurd')
    union all
    select 'constraint', k.conrelid::regclass || k.conname, pg_get_constraintdef(k.oid), null, null
    from pg_constraint k where k.connamespace = to_regnamespace('absurd')
    union all
    select 'table', c.oid::regclass::text,
           concat(pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid), c.reloptions),
           obj_description(c.oid, 'pg_class'), coalesce(c.relacl, acldefault('r', c.relowner))::text
    from pg_class c where c.relnamespace = to_regnamespace('absurd') and c.relkind in ('r', 'p', 'v')
    union all
    select 'column', a.attrelid::regclass || '.' || a.attname,
           concat(format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), a.attnotnull, a.attidentity),
           col_description(a.attrelid, a.attnum), null
    from pg_attribute a join pg_class c on c.oid = a.attrelid and c.relkind in ('r', 'p')
    left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
    where c.relnamespace = to_regnamespace('absurd') and a.attnum > 0 and not a.attisdropped
"""


def everything(url: str) -> dict[str, Any]:
    """All rows of all tables, where each sequence stands, and how the schema of the queue is defined."""
    with psycopg.connect(url, autocommit=True) as connection:

        def rows(sql: str, *args: Any) -> list[Any]:
            return connection.execute(sql.encode(), args or None).fetchall()

        found: dict[str, Any] = {}
        for (table,) in rows(ALL, "r"):
            found[table] = sorted(text for (text,) in rows(f"select (t.*)::text from only {table} t"))
        for (sequence,) in rows(ALL, "S"):
            found[sequence] = rows(f"select last_value, is_called from {sequence}")
        found["definitions"] = sorted(map(str, rows(DEFINITIONS)))
        return found


def scratch_databases(url: str) -> list[str]:
    """The scratch databases on the server that belong to the database at `url`."""
    name = conninfo_to_dict(url)["dbname"]
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(
            "select datname from pg_database where starts_with(datname, 'absurd_scratch_'"
            " || (select oid from pg_database where datname = %s) || '_')",
            (name,),
        ).fetchall()
    return [each for (each,) in found]
