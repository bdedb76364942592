"""A client of the worker's database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from absurd import AbsurdClient
from absurd.config import Settings


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[AbsurdClient]:
    """With the module's own settings, where it has any."""
    async with AbsurdClient(settings=settings) as opened:
        yield opened
