"""A queue with work in every state."""

from __future__ import annotations

import pytest
from dumps import work


@pytest.fixture
def worked(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database whose queue has work in every state; the executors find it."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
    work(database_url)
    return database_url
