"""Tables to export, made in a database of their own that goes afterwards; the same rows for the same scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple
from uuid import uuid4

from absurd.config import Settings
from absurd.database_sync import SyncSession, connect
from absurd.database_url import with_database
from absurd.errors import ConfigurationError
from absurd.resolve import resolve_database

PREFIX = "absurd_bench_"

Columns = Sequence[tuple[str, str, str]]
"""Name, type, and the value in SQL: of row ``i``; ``{u}`` is a number from 0 to 1 of that row and column."""


def _doubles(*names: str, scale: str = "1000") -> Columns:
    return [(name, "double precision", f"{scale} * {{u}}") for name in names]


_DETECTIONS: Columns = [
    ("source_id", "bigint not null", "1000000000000 + i * 37"),
    ("visit", "bigint not null", "2026000000 + i / 4000"),
    ("object_id", "bigint not null", "(9e15 * {u})::bigint"),
    ("detector", "smallint", "i / 20 % 189"),
    ("flags", "smallint", "(8 * {u})::smallint"),
    ("is_dipole", "boolean", "{u} < 0.1"),
    ("is_negative", "boolean", "{u} < 0.4"),
    ("band", "text", "(array['u', 'g', 'r', 'i', 'z', 'y'])[1 + i / 4000 % 6]"),
    ("seen_at", "timestamptz", "'2026-05-01 00:00+00'::timestamptz + i * interval '7123 us'"),
    *_doubles("ra", scale="360"),
    *_doubles("decl", scale="90"),
    *_doubles("x", "y", scale="4000"),
    *_doubles("ap_flux", "ap_flux_err", "psf_flux", "psf_flux_err", "snr"),
    ("mjd", "double precision", "61000 + i / 4000 * 0.0004::double precision"),
    *_doubles("ra_err", "decl_err", scale="1e-5"),
    *[(name, "real", "50 * {u}") for name in ("ixx", "iyy", "ixy", "chi2", "trail_length", "trail_angle")],
    ("extendedness", "double precision", "case when {u} > 0.3 then {u} end"),
    ("reliability", "real", "case when {u} > 0.3 then {u} end"),
    ("ss_object_id", "bigint", "case when {u} > 0.3 then (9e15 * {u})::bigint end"),
]

_TEXTY: Columns = [
    ("id", "bigint", "i"),
    ("doc", "jsonb", "case when i % 7 > 0 then jsonb_build_object('id', i, 'name', 'object ' || i, 'flux', {u},"
     " 'tags', jsonb_build_array('a\"b', E'c\\nd', null, i % 10), 'big', 123456789012345678901234567890) end"),
    ("note", "text", "(array['', 'plain ' || i, 'with \"quotes\" and, commas', E'two\\nlines\\r\\nand\\ttabs', 'NULL',"
     " '\\N', 'ünïcødé 北京 🚀 ' || i, null, E'back\\\\slash', ' blanks '])[1 + i % 10]"),
    ("key", "uuid", "md5(i::text)::uuid"),
    ("price", "numeric(38,10)", "case when i % 11 > 0 then (1e6 * {u} - 5e5)::numeric(38,10) end"),
    ("free", "numeric", "case when i % 101 = 0 then 'NaN' when i % 19 = 0 then 1e-12 else i / 8.0 end"),
    ("counts", "integer[]", "case when i % 9 = 0 then null when i % 8 = 0 then '{{}}' else array[i, null, 7] end"),
    ("fluxes", "double precision[]", "case when i % 5 > 0 then array[{u}, 'NaN', '-Infinity'] end"),
    ("words", "text[]", "case when i % 6 > 0 then array['x,y', '', null, 'q\"q', E'n\\nl'] end"),
    ("band", "band", "(enum_range(null::band))[1 + i % 6]"),
    ("raw", "bytea", "case when i % 12 > 0 then decode(md5(i::text) || '0000ff0a', 'hex') end"),
    ("span", "interval", "case when i % 10 > 0 then make_interval(months => (i % 30)::int, days => (i % 40)::int - 20,"
     " secs => i % 100000 + 0.000001 * (i % 1000)) end"),
    ("begun_at", "timestamp", "'2020-01-01'::timestamp + i * interval '1000001 us'"),
    ("ended_at", "timestamptz", "'2020-01-01 00:00+00'::timestamptz + i * interval '1000001 us'"),
    ("day", "date", "'2000-01-01'::date + (i % 20000)::int"),
    ("wide", "double precision", "(array['NaN', 'Infinity', '-0', null, 5e-324, 1.797693e308, {u}])[1 + i % 7]"),
    ("narrow", "real", "(array['NaN', '-Infinity', null, 1e-45, {u}])[1 + i % 5]"),
]  # fmt: skip


class Checksum(NamedTuple):
    """Of one column, in whatever order its rows are; the same of a file."""

    rows: int
    nulls: int
    total: int
    """Modulo 2^64: of integers, of the bits of doubles, or of the first 32 bits of the MD5 of texts."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is exported, and the column of it that is compared."""

    name: str
    table: str
    sql: str
    column: str
    kind: Literal["integer", "double", "text"]


TABLES: dict[str, tuple[int, Columns]] = {
    "detections": (5_000_000, _DETECTIONS),
    "wide": (1_000_000, _doubles(*(f"c{n:03}" for n in range(120)))),
    "texty": (2_000_000, _TEXTY),
}
"""Rows at scale 1, and columns."""

_AS_TEXT = ("doc", "price", "free", "span", "begun_at", "ended_at")
"""Columns of `texty` that hardly any other exporter carries as they are."""

QUERIES = (
    Query("detections", "detections", "select * from detections", "source_id", "integer"),
    Query("wide", "wide", "select * from wide", "c000", "double"),
    Query("texty", "texty", "select * from texty", "note", "text"),
    Query(
        "texty_cast",
        "texty",
        f"select {', '.join(f'{n}::text as {n}' if n in _AS_TEXT else n for n, _, _ in _TEXTY)} from texty",
        "note",
        "text",
    ),
)

_TERMS = {
    "integer": "{column}::numeric",
    "double": "('x' || encode(float8send({column}), 'hex'))::bit(64)::bigint::numeric",
    "text": "('x' || left(md5({column}), 8))::bit(32)::bigint",
}

_UNIT = """
create function unit(i bigint, k bigint) returns double precision language sql immutable strict parallel safe as
'select (hashint8extended(i, k) & 9007199254740991) / 9007199254740992.0::double precision'
"""
"""From 0 to 1, 53 bits of a hash: random() gives others with each version of the server."""


@contextmanager
def scratch_database(settings: Settings) -> Iterator[tuple[str, SyncSession]]:
    """The URL of a new database on the server of the queue, and a session in it; removed at the end.

    Databases of benchmarks that were killed are removed before: those whose lock is free.  Raises
    ConfigurationError without the right to make one.
    """
    url = resolve_database(settings)
    name = f"{PREFIX}{uuid4().hex[:12]}"
    with connect(url) as connection:
        keeper = SyncSession(connection, schema=settings.schema)
        for left in keeper.fetch("select datname::text as name from pg_database where datname ^@ $1::text", PREFIX):
            if keeper.fetch("select pg_try_advisory_lock(hashtext($1::text)) as free", left["name"])[0]["free"]:
                keeper.fetch(f"drop database if exists {left['name']} with (force)")
        may = "select rolcreatedb or rolsuper as may from pg_roles where rolname = current_user"
        if not keeper.fetch(may)[0]["may"]:
            raise ConfigurationError(
                "this benchmark makes a database of its own, and this role may make none: use another role"
            )
        keeper.fetch("select pg_advisory_lock(hashtext($1::text))::text", name)
        try:
            keeper.fetch(f"create database {name} template template0 encoding 'UTF8' lc_collate 'C' lc_ctype 'C'")
            inside = with_database(url, name)
            with connect(inside) as own:
                yield inside, SyncSession(own, schema="public")
        finally:
            keeper.fetch(f"drop database if exists {name} with (force)")


def fill(session: SyncSession, name: str, scale: float) -> int:
    """Make a table with its rows; how many.  Nothing is left to do for vacuum."""
    most, columns = TABLES[name]
    rows = max(1, round(most * scale))
    if not session.fetch("select to_regtype('band') as found")[0]["found"]:
        session.fetch("create type band as enum ('u', 'g', 'r', 'i', 'z', 'y')")
        session.fetch(_UNIT)
    described = ", ".join(f"{column} {kind}" for column, kind, _ in columns)
    values = ", ".join(value.format(u=f"unit(i, {n})") for n, (_, _, value) in enumerate(columns))
    session.fetch(f"create unlogged table {name} ({described})")
    session.fetch(f"insert into {name} select {values} from generate_series(1::bigint, {rows}) as i")
    session.fetch(f"vacuum (freeze, analyze) {name}")
    return rows


def checksum(session: SyncSession, query: Query) -> Checksum:
    """What a file with the rows of a query must have."""
    term = _TERMS[query.kind].format(column=query.column)
    row = session.fetch(
        f"select count(*) as rows, count(*) - count({query.column}) as nulls, sum({term})::text as total"
        f" from {query.table}"
    )[0]
    return Checksum(row["rows"], row["nulls"], int(row["total"] or 0) % 2**64)
