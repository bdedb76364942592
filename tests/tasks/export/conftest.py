"""One database for all tests of exports, emptied before each: they need no queue in it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo


@pytest.fixture(scope="package")
def export_database(server_url: str) -> Iterator[str]:
    """A database of their own."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("create database export_tests")
        yield make_conninfo(server_url, dbname="export_tests")
        connection.execute("drop database export_tests with (force)")


@pytest.fixture
def database_url(export_database: str) -> str:
    """The database without tables."""
    with psycopg.connect(export_database, autocommit=True) as connection:
        connection.execute("drop schema public cascade")
        connection.execute("create schema public")
    return export_database


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A connection to it, in autocommit mode."""
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened
