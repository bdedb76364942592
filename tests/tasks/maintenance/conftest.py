"""A queue with work in every state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from dumps import BIN, at, work

from absurd.config import load_settings
from absurd.database_sync import install
from absurd.embedded import EmbeddedServer
from absurd.embedded_binaries import Installation


@pytest.fixture
def worked(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database whose queue has work in every state; the executors find it."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
    work(database_url)
    return database_url


@pytest.fixture
def plain(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with a small table and no queue, which is quick to restore; the executors find it."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("create table thing as select n, 'thing ' || n as name from generate_series(1, 100) n")
    return empty_database_url


@pytest.fixture(scope="package")
def old_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of another version than the one that the tests run on, with work in its queue."""
    system = [Installation.at(folder) for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    found = [each for each in system if each and each.bin != BIN and (each.bin / "pg_dump").is_file()]
    if not found:
        pytest.skip("needs a second version of PostgreSQL")
    server = EmbeddedServer(load_settings(environ={}, home=tmp_path_factory.mktemp("old"), pg_bin=found[0].bin))
    try:
        url = server.start()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create database worked")
        url = at(url, "worked")
        install(url)
        work(url)
        yield url
    finally:
        server.stop("immediate")
        server.destroy()
