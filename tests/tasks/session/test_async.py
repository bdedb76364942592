"""The manager for asyncio: the same files, and thousands of calls that go to the disk together."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from session_files import tree_of

from absurd.tasks.session import AsyncSessionManager, SessionStateError, SessionValueError


async def test_the_same_files(tmp_path: Path) -> None:
    """All calls of the manager for threads are there, and tell the same."""
    async with AsyncSessionManager(tmp_path, location={"lat": 45.5}) as sessions:
        await sessions.log("INFO", "idle")
        session = await sessions.start_session("observation", target="M31")
        await session.log("INFO", "begun", source="test", n=1)
        await session.add_camera("main", info={"model": "A"})
        await session.add_frame("main", np.ones((2, 3)), exposure_us=5)
        await session.add_telemetry("temperature", -3.5, sensor="ccd")
        await session.add_event("tracking_lost", by=2)
        await session.add_calibration("plate_solve", {"ra": 1})
        assert sessions.active.id == session.id
        path = await session.close()
        assert path == session.path
        with pytest.raises(SessionStateError):
            await session.log("INFO", "too late")
        with pytest.raises(SessionValueError):
            await sessions.log("INFO", "x", big=np.zeros((100, 100)))

    tree = tree_of(path)
    assert tree["observability"]["logs"][0]["source"] == "test"
    assert tree["cameras"]["main"]["frames"][0]["sum"] == 6
    assert tree["telemetry"]["temperature"][0]["sensor"] == "ccd"
    assert tree["meta"]["location"] == {"lat": 45.5}


async def test_many_calls_at_once_of_which_some_are_given_up(tmp_path: Path) -> None:
    """Each call that returned is in the file; one that is cancelled takes no other with it."""
    async with AsyncSessionManager(tmp_path) as sessions:
        session = await sessions.start_session("experiment")
        calls = [asyncio.create_task(session.log("INFO", str(number))) for number in range(2000)]
        await asyncio.sleep(0)
        for each in calls[::10]:
            each.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        path = await sessions.end_session()

    told = [str(number) for number, result in enumerate(results) if result is None]
    assert len(told) >= 1800
    found = [each["message"] for each in tree_of(path)["observability"]["logs"]]
    assert set(told) <= set(found)
    assert found == sorted(found, key=int)
