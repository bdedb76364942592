"""Scratch databases: made for one restore, gone afterwards, whatever becomes of who made them.

Each is named after the database it is restored from and the task, and its maker holds a lock in that database for as
long as it lives.  A scratch database whose lock is free was left by a process that was killed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from absurd.tasks.maintenance.contents import Session
from absurd.tasks.maintenance.errors import RestoreDeniedError

Connect = Callable[[str | None], AbstractContextManager[Session]]
"""Opens a session on a database of the server by its name, None for the one to be backed up."""

PREFIX = "absurd_scratch_"

_LOCK = "select pg_try_advisory_xact_lock(hashtextextended($1::text, 0)) as free"


def check_rights(session: Session) -> None:
    """Raise RestoreDeniedError if the role may not create databases."""
    (role,) = session.fetch(
        "select rolname as name, rolcreatedb or rolsuper as may from pg_roles where rolname = current_user"
    )
    if not role["may"]:
        raise RestoreDeniedError(
            f"the role {role['name']} may not create databases, and the restore that verifies a dump needs one: "
            f"`alter role {role['name']} createdb`, or back up with verify=false",
            role=role["name"],
        )


def remove_leftovers(session: Session) -> list[str]:
    """Drop the scratch databases of this database whose makers are gone; gives the names of those that went."""
    removed = []
    for row in session.fetch(
        "select d.datname as name from pg_database d"
        " where starts_with(d.datname, $1::text) and pg_has_role(d.datdba, 'usage') order by 1",
        _prefix(session),
    ):
        session.fetch("begin")
        try:
            (lock,) = session.fetch(_LOCK, row["name"])
        finally:
            session.fetch("rollback")
        if lock["free"]:  # names are random, so nobody will take it now
            _drop(session, row["name"])
            removed.append(row["name"])
    return removed


@contextmanager
def scratch_database(connect: Connect, owner: str) -> Iterator[str]:
    """The name of an empty database like the one that `connect` leads to, dropped when the block ends.

    `owner` becomes a part of the name.  The lock is held in a transaction without a snapshot, which keeps no dead rows.
    """
    with connect(None) as keeper:
        name = f"{_prefix(keeper)}{owner}_{secrets.token_hex(4)}"
        like_this = _like_this(keeper)
        keeper.fetch("begin isolation level read committed")
        keeper.fetch("set local idle_in_transaction_session_timeout = 0")
        keeper.fetch(_LOCK, name)
        try:
            with connect(None) as session:
                session.fetch(f"create database {name} template template0 {like_this}")
            yield name
        finally:
            try:
                _drop_anew(connect, name)
            except (KeyboardInterrupt, SystemExit):
                # A run that learns of its end by a call of its own is told by SIGTERM as well, just about now.
                _drop_anew(connect, name)
                raise


def _drop_anew(connect: Connect, name: str) -> None:
    """Drop it in a new session: who is stopped may leave the others in the midst of a statement."""
    with connect(None) as session:
        _drop(session, name)


def _drop(session: Session, name: str) -> None:
    session.fetch(f"drop database if exists {name} with (force)")


def _prefix(session: Session) -> str:
    (row,) = session.fetch("select oid::text as oid from pg_database where datname = current_database()")
    return f"{PREFIX}{row['oid']}_"


def _like_this(session: Session) -> str:
    """The options that give a new database this one's encoding and locale.

    Bounds of partitions and unique indexes mean something else under another locale.
    """
    (row,) = session.fetch(
        "select to_jsonb(d) || jsonb_build_object('encoding', pg_encoding_to_char(d.encoding)) as options"
        " from pg_database d where d.datname = current_database()"
    )
    found: Mapping[str, Any] = row["options"]
    locale = found.get("datlocale") or found.get("daticulocale")  # the name it had before PostgreSQL 17
    provider = {"c": "libc", "i": "icu", "b": "builtin"}[found["datlocprovider"]]
    options = {
        "encoding": found["encoding"],
        "lc_collate": found["datcollate"],
        "lc_ctype": found["datctype"],
        "locale_provider": provider,
        "icu_locale": locale if provider == "icu" else None,
        "icu_rules": found.get("daticurules"),
        "builtin_locale": locale if provider == "builtin" else None,
    }
    return " ".join(f"{key} {_literal(value)}" for key, value in options.items() if value is not None)


def _literal(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"
