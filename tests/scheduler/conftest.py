"""The clock that tests of schedules go by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from schedules import START

from absurd.config import Settings
from absurd.testing import FakeClock


@pytest.fixture
def clock(settings: Settings, connection: psycopg.Connection[tuple[Any, ...]]) -> Iterator[FakeClock]:
    """The database's clock, standing at `START`, and no schedule."""
    connection.execute("delete from schedule")
    with FakeClock(settings) as made:
        made.freeze(START)
        yield made
