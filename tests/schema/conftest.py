"""A queue by its SQL interface, sessions beside it, and databases that a program of version 1 left."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sessions import Session
from sql_queue import Queue
from version1 import BEFORE, NEXT, Connection, Night, install_version_1

from absurd import schema
from absurd.schema import VERSION


@pytest.fixture
def queue(connection: Connection) -> Queue:
    """The queue `default` of the test's database."""
    return Queue(connection)


@pytest.fixture
def sessions(database_url: str) -> Iterator[Callable[[], Session]]:
    """``sessions()`` opens another one."""
    opened: list[Session] = []

    def open_session() -> Session:
        opened.append(Session(database_url))
        return opened[-1]

    yield open_session
    for session in opened:
        session.connection.close()


@pytest.fixture
def old(empty_database_url: str) -> Iterator[Connection]:
    """A connection to a database whose queue has version 1."""
    with psycopg.connect(empty_database_url, autocommit=True, options="-c search_path=absurd,public") as connection:
        install_version_1(connection)
        yield connection


@pytest.fixture
def night(old: Connection) -> Night:
    """A database of version 1 with tasks in every state."""
    night = Night(old)
    assert night.states() == BEFORE
    return night


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    """A made-up future: the next version exchanges functions and later drops a table, the one after adds a table."""
    shutil.copytree(Path(str(schema.root())) / "sql", tmp_path / "sql")
    (tmp_path / "migrations").mkdir()
    for name, text in {
        f"{VERSION}-{NEXT}_pre.sql": "create table noted (what text); insert into noted values ('pre');",
        f"{VERSION}-{NEXT}_post.sql": "insert into noted values ('post'); drop table progress cascade;",
        f"{NEXT}-{NEXT + 1}_pre.sql": "create table third (id int);",
    }.items():
        (tmp_path / "migrations" / name).write_text(text)
    (tmp_path / "sql" / "95_added.sql").write_text(
        "create or replace function added() returns int language sql security definer as 'select 2';"
    )
    return tmp_path
