"""What a database holds, so that two can be compared: objects by name, tables by rows and checksum, sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from absurd.tasks.maintenance.errors import BackupDiffersError

SHOWN = 5
"""Differences that an error names."""


class Row(Protocol):
    """A row: values by column name."""

    def __getitem__(self, key: str, /) -> Any: ...


class Session(Protocol):
    """A connection to a database; `absurd.database_sync.SyncSession` is one."""

    def fetch(self, sql: str, /, *args: Any) -> Sequence[Row]:
        """All rows of a statement, in which ``$1`` stands for the first argument."""
        ...


@dataclass(frozen=True, slots=True)
class Table:
    """What a table held."""

    rows: int
    checksum: str
    """Sum of a hash of each row's text: the same in whatever order the rows lie."""


Position = tuple[int, bool]
"""Where a sequence stands: its last value, and whether that was given out."""

# Settings that the text of a value depends on.
_PLAIN = """
    select set_config(name, value, true) from (values
        ('search_path', 'pg_catalog'), ('timezone', 'UTC'), ('datestyle', 'ISO'), ('intervalstyle', 'postgres'),
        ('extra_float_digits', '3'), ('bytea_output', 'hex'), ('lc_monetary', 'C'), ('xmloption', 'content'),
        ('row_security', 'off'), ('statement_timeout', '0'), ('idle_in_transaction_session_timeout', '0'),
        ('lock_timeout', '30s'), ('transaction_timeout', '0')) as setting (name, value)
    where exists (select from pg_settings s where s.name = setting.name)
"""

# What is dumped: of one schema, or of all but the system's; what an extension brings is brought by it again.
_DUMPED = """
    (case when $1::text is null then n.nspname !~ '^pg_' and n.nspname <> 'information_schema' else n.nspname = $1 end)
    and not exists (select from pg_depend d
                    where d.classid = '{catalog}'::regclass and d.objid = {oid} and d.deptype = 'e')
"""
_OF_RELATION = _DUMPED.format(catalog="pg_class", oid="c.oid")
_OF_FUNCTION = _DUMPED.format(catalog="pg_proc", oid="p.oid")
_RELATION = "format('%I.%I', n.nspname, c.relname)"
_FUNCTION = "format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))"

_TABLES = f"""
    select {_RELATION} as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind = $2::"char" and c.relpersistence <> 't' and {_OF_RELATION} order by 1
"""

_OBJECTS = f"""
    select case c.relkind when 'r' then 'table ' when 'S' then 'sequence ' else 'relation ' end || {_RELATION} as object
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind <> 't' and c.relpersistence <> 't' and n.nspname <> 'pg_toast' and {_OF_RELATION}
    union all
    select 'constraint ' || quote_ident(k.conname) || ' of ' || {_RELATION}
    from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
    where k.contype in ('p', 'u', 'f', 'c', 'x') and k.conparentid = 0 and {_OF_RELATION}
    union all
    select 'trigger ' || quote_ident(t.tgname) || ' of ' || {_RELATION}
    from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
    where not t.tgisinternal and {_OF_RELATION}
    union all
    select 'function ' || {_FUNCTION}
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace where {_OF_FUNCTION}
    union all
    select 'comment on ' || {_RELATION} || ' ' || s.objsubid || ' ' || md5(s.description)
    from pg_description s join pg_class c on s.classoid = 'pg_class'::regclass and s.objoid = c.oid
    join pg_namespace n on n.oid = c.relnamespace where c.relpersistence <> 't' and {_OF_RELATION}
    union all
    select 'comment on ' || {_FUNCTION} || ' ' || md5(s.description)
    from pg_description s join pg_proc p on s.classoid = 'pg_proc'::regclass and s.objoid = p.oid
    join pg_namespace n on n.oid = p.pronamespace where {_OF_FUNCTION}
"""


def begin(session: Session) -> None:
    """Begin a transaction that sees one snapshot, in which values have the same text on every server."""
    session.fetch("begin isolation level repeatable read")
    session.fetch(_PLAIN)


def tables_of(session: Session, schema: str | None) -> list[str]:
    """The tables with rows of their own, by their quoted names.  None means those of all schemas."""
    return [row["name"] for row in session.fetch(_TABLES, schema, "r")]


def lock(session: Session, tables: Sequence[str]) -> None:
    """Keep tables from being dropped until the transaction ends."""
    if tables:
        session.fetch(f"lock table {', '.join(f'only {each}' for each in tables)} in access share mode")


def sequences_of(session: Session, schema: str | None) -> dict[str, Position]:
    """Where each sequence stands at this moment: sequences know of no snapshots."""
    found = {}
    for row in session.fetch(_TABLES, schema, "S"):
        (position,) = session.fetch(f"select last_value, is_called from {row['name']}")
        found[row["name"]] = (position["last_value"], position["is_called"])
    return found


def objects_of(session: Session, schema: str | None) -> set[str]:
    """What there is: relations, constraints, triggers, functions, and the comments on relations and functions."""
    return {row["object"] for row in session.fetch(_OBJECTS, schema)}


def count(session: Session, tables: Sequence[str], told: Callable[[str], None]) -> dict[str, Table]:
    """Rows and checksum of each table; `told` is called with its name before it is read, whole."""
    return dict(_counted(session, tables, told))


def _counted(session: Session, tables: Sequence[str], told: Callable[[str], None]) -> Iterator[tuple[str, Table]]:
    for name in tables:
        told(name)
        # `t.*`, for a column may be called t; numeric, for the sum would leave bigint.
        (row,) = session.fetch(
            'select count(*) as rows, coalesce(sum(hashtextextended((t.*)::text collate "C", 0)::numeric), 0)::text'
            f" as checksum from only {name} t"
        )
        yield name, Table(row["rows"], row["checksum"])


def check_objects(original: set[str], restored: set[str]) -> None:
    """Raise BackupDiffersError that names what is missing or was added."""
    differences = [f"{each} is missing" for each in sorted(original - restored)]
    differences += [f"{each} was not there" for each in sorted(restored - original)]
    _refuse(differences)


def check_tables(original: Mapping[str, Table], restored: Mapping[str, Table]) -> None:
    """Raise BackupDiffersError that names tables with other rows."""
    _refuse(
        [
            f"{name} has {restored[name].rows} rows"
            + (f" for {table.rows}" if table.rows != restored[name].rows else " with other values")
            for name, table in original.items()
            if restored[name] != table
        ]
    )


def check_sequences(
    before: Mapping[str, Position], after: Mapping[str, Position], restored: Mapping[str, Position]
) -> None:
    """Raise BackupDiffersError for sequences that stand outside of where they were before and after the dump."""
    _refuse(
        [
            f"the sequence {name} stands at {restored[name][0]}, and stood at {before[name][0]} to {after[name][0]}"
            for name in before.keys() & after.keys()
            if not min(before[name], after[name]) <= restored[name] <= max(before[name], after[name])
        ]
    )


def _refuse(differences: Sequence[str]) -> None:
    if differences:
        more = f" (and {len(differences) - SHOWN} more)" if len(differences) > SHOWN else ""
        raise BackupDiffersError(
            f"the dump does not restore to what was dumped: {'; '.join(differences[:SHOWN])}{more}"
        )
