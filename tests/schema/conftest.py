"""Databases that a program of version 1 left."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from version1 import BEFORE, Connection, Night, install_version_1


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
