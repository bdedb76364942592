"""A database of version 1, with tasks in every state, is upgraded: same schema as a fresh one, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from absurd.database_sync import install
from absurd.schema import VERSION
from absurd.schema.migrate import Migration

Connection = psycopg.Connection[Any]

CATALOG = """
select 'relation', c.relname, null, concat_ws(' ', c.relkind, c.relpersistence, c.reloptions, c.relacl::text,
       pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid), obj_description(c.oid, 'pg_class'))
from pg_class c where c.relnamespace = 'absurd'::regnamespace
union all
select 'column', c.relname, a.attname, concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
       a.attgenerated, pg_get_expr(d.adbin, d.adrelid), a.attacl::text, col_description(c.oid, a.attnum))
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where c.relnamespace = 'absurd'::regnamespace and c.relkind in ('r', 'p', 'c', 'S')
union all
select 'constraint', conrelid::regclass::text, conname, concat_ws(' ', pg_get_constraintdef(oid), convalidated)
from pg_constraint where connamespace = 'absurd'::regnamespace
union all
select 'index', indrelid::regclass::text, indexrelid::regclass::text,
       concat_ws(' ', pg_get_indexdef(indexrelid), indisvalid)
from pg_index i join pg_class c on c.oid = i.indrelid where c.relnamespace = 'absurd'::regnamespace
union all
select 'function', p.oid::regprocedure::text, null, concat_ws(' ', pg_get_functiondef(p.oid), p.proacl::text,
       obj_description(p.oid, 'pg_proc'))
from pg_proc p where p.pronamespace = 'absurd'::regnamespace
union all
select 'type', t.typname, null, concat_ws(' ', t.typtype, array(
           select enumlabel from pg_enum where enumtypid = t.oid order by enumsortorder),
       obj_description(t.oid, 'pg_type'))
from pg_type t where t.typnamespace = 'absurd'::regnamespace
union all
select 'schema', nspname, null, nspacl::text from pg_namespace where nspname = 'absurd'
order by 1, 2, 3, 4
"""


def catalog(connection: Connection) -> dict[tuple[str, str, str | None], str]:
    """What the schema is, by kind and name: columns by name, because those of an upgrade stand in another order."""
    with connection.transaction():
        connection.execute("set local search_path = absurd")
        rows = connection.execute(CATALOG).fetchall()
    return {(kind, name, part): text for kind, name, part, text in rows}


@pytest.fixture
def old(empty_database_url: str) -> Iterator[Connection]:
    """A connection to a database whose queue has version 1."""
    with psycopg.connect(empty_database_url, autocommit=True, options="-c search_path=absurd,public") as connection:
        script = Path(__file__).with_name("version1.sql").read_text(encoding="utf-8")
        connection.execute(script.replace("\\set ON_ERROR_STOP on", ""))
        yield connection


def test_upgraded_equals_fresh(old: Connection, empty_database_url: str, connection: Connection) -> None:
    """After an upgrade the schema is the one that a fresh install makes, down to bodies, comments and rights."""
    assert Migration(1, VERSION) == install(empty_database_url)

    upgraded, fresh = catalog(old), catalog(connection)
    assert {} == {key: text for key, text in fresh.items() if upgraded.get(key) != text}
    assert set(fresh) == set(upgraded)
