"""A client, an intake, and folders of small sub-bands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from absurd import SyncAbsurdClient


@pytest.fixture
def client(database_url: str) -> Iterator[SyncAbsurdClient]:
    """A client with an intake of four sub-bands a group."""
    with SyncAbsurdClient(database_url) as opened:
        opened.set_intake("incoming", subbands=4, min_subbands=3, timeout=300)
        yield opened


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    """A folder in which sub-bands arrive."""
    folder = tmp_path / "incoming"
    folder.mkdir()
    return folder


@pytest.fixture
def moved(connection: psycopg.Connection[Any]) -> Callable[[str], None]:
    """``moved("5 min")`` has the database's clock show so much more than it is."""

    def move(ahead: str) -> None:
        connection.execute(
            "create or replace function clock_time() returns timestamptz language sql stable"
            f" as $$ select clock_timestamp() + interval '{ahead}' $$"
        )

    return move
