"""Sealing as a task: by a worker, once, whatever becomes of the database meanwhile."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from live import soon, working
from session_files import tree_of
from single_run import fail, run

from absurd import AbsurdClient, SyncAbsurdClient
from absurd.config import Settings
from absurd.errors import DatabaseUnavailableError
from absurd.tasks.session import AsyncSessionManager, SessionManager, SessionValueError, sealer


@pytest.fixture
def settings(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The test's database, for clients and workers."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
    return Settings(database_url=database_url)


class Outage:
    """A client whose database is away for as long as the test wants, and what it was asked meanwhile."""

    def __init__(self, client: SyncAbsurdClient) -> None:
        self.client = client
        self.away = threading.Event()
        self.refused = 0

    def spawn(self, name: str, params: Any = None, **options: Any) -> UUID:
        """As the client, or as it would without a database."""
        if self.away.is_set():
            self.refused += 1
            raise DatabaseUnavailableError("the database is away")
        return self.client.spawn(name, params, **options)

    def wait(self, task_id: UUID, timeout: float | None = None) -> Any:
        """As the client, or as it would without a database."""
        if self.away.is_set():
            raise DatabaseUnavailableError("the database is away")
        return self.client.wait(task_id, timeout)

    def tell_session(self, session_id: str, entries: list[dict[str, Any]], missed: int = 0) -> bool:
        """As the client, or as it would without a database."""
        if self.away.is_set():
            raise DatabaseUnavailableError("the database is away")
        return self.client.tell_session(session_id, entries, missed)


async def test_a_worker_seals(settings: Settings, tmp_path: Path) -> None:
    """The end of a session is there when a worker has written its file; each session has one task."""
    async with AbsurdClient(settings=settings) as client:
        async with AsyncSessionManager(tmp_path, client, queue="sessions") as sessions:
            session = await sessions.start_session("observation", target="M31")
            await session.log("INFO", "one")
            async with working(settings, queues=["sessions"]):
                path = await sessions.end_session()
                assert path.exists()
        [task] = await client.list_tasks(name="session.seal")

    assert tree_of(path)["observability"]["logs"][0]["message"] == "one"
    assert (task["state"], task["queue"]) == ("completed", "sessions")


async def test_a_session_without_a_database(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the database away all calls go on, `end_session` gives the path at once, and the task is spawned once the
    database is back, or by the next manager.
    """
    monkeypatch.setattr(sealer, "FIRST_PAUSE", 0.01)
    with SyncAbsurdClient(settings=settings) as client:
        outage = Outage(client)
        outage.away.set()
        sessions = SessionManager(tmp_path, outage)
        sessions.start_session("observation")
        sessions.log("INFO", "one")
        first = await asyncio.to_thread(sessions.end_session)
        assert not first.exists()
        await soon(lambda: outage.refused > 2)
        assert client.list_tasks(name="session.seal") == []

        outage.away.clear()
        await soon(lambda: client.list_tasks(name="session.seal"))
        outage.away.set()
        sessions.start_session("observation")
        second = await asyncio.to_thread(sessions.end_session)
        await asyncio.to_thread(sessions.close)
        assert len(client.list_tasks(name="session.seal")) == 1

        with SessionManager(tmp_path, client):
            await soon(lambda: len(client.list_tasks(name="session.seal")) == 2)
        async with working(settings):
            await soon(lambda: first.exists() and second.exists())
            await soon(lambda: all(each["state"] == "completed" for each in client.list_tasks(name="session.seal")))

    assert tree_of(first)["observability"]["logs"][0]["message"] == "one"


def test_the_executor(tmp_path: Path) -> None:
    """It tells path, checksum and metrics, the same a second time; what is wrong with a session is told."""
    with SessionManager(tmp_path) as sessions:
        session = sessions.start_session("maintenance")
        sessions.log("ERROR", "dew")
        active = session.id
        assert fail("session.seal", {"data_dir": str(tmp_path), "session_id": active})["code"] == "session_state"
        path = sessions.end_session()
    params = {"data_dir": str(tmp_path), "session_id": path.stem}

    result, files = run("session.seal", params)

    assert (result["path"], result["recovered"], files) == (str(path), False, [])
    assert result["metrics"]["errors"] == 1
    assert run("session.seal", params) == (result, [])
    absent = params | {"session_id": "observation_20251214_210000_1f0c33a8"}
    assert fail("session.seal", absent)["code"] == "session_not_found"
    assert fail("session.seal", params | {"data_dir": "data"})["code"] == "invalid_params"


async def test_the_wrong_kind_of_client(settings: Settings, tmp_path: Path) -> None:
    """A client for asyncio is of no use to threads; it is told at once."""
    async with AbsurdClient(settings=settings) as client:
        with pytest.raises(SessionValueError, match="AsyncSessionManager"):
            SessionManager(tmp_path, client)  # type: ignore[arg-type]
