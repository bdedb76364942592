"""A run finds the files of the tasks that it comes after, though these get their names after the commit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from live import completed_unpublished, working

from absurd import AbsurdClient, FilesMissing, RetryPolicy, TaskFailed, TaskState
from absurd.config import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The executors of the tests are found by import."""
    return replace(settings, imports=("demo_executors",))


@pytest.mark.parametrize("how", ["depends_on", "wait_for"])
async def test_a_run_finds_the_files_of_what_it_comes_after(
    settings: Settings, client: AbsurdClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Claimed before they have their names, it waits; as a dependent, and where it waits for tasks by itself."""
    monkeypatch.setattr("absurd.workers.publisher.OVERDUE_SECONDS", 0.05)
    final, mine = tmp_path / "image.txt", tmp_path / ".image.part"
    parent = await client.spawn("demo.write", {})
    completed_unpublished(settings, parent, final, mine)  # which nobody can publish yet
    told = {"path": str(final)} | ({"after": [str(parent)]} if how == "wait_for" else {})
    child = await client.spawn("demo.read", told, depends_on=[parent] if how == "depends_on" else None)

    async with working(settings):
        async with asyncio.timeout(120):
            while (await client.get_task(child)).state is not TaskState.RUNNING:
                await asyncio.sleep(0.01)
        mine.write_text("whole")
        done = await client.wait(child, timeout=120)

    assert (done.result, done.attempts) == ("whole", 1)


async def test_a_run_whose_files_nobody_reaches_fails(
    settings: Settings, client: AbsurdClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, and is tried again as after any failure; it never begins without them."""
    monkeypatch.setattr("absurd.waiting.PUBLICATION_SECONDS", 0.1)
    parent = await client.spawn("demo.write", {})
    completed_unpublished(settings, parent, tmp_path / "image.txt", tmp_path / "gone.part")
    retry = RetryPolicy(max_attempts=2, base=0)
    child = await client.spawn("demo.read", {"path": __file__}, depends_on=[parent], retry=retry)

    async with working(settings):
        with pytest.raises(TaskFailed):
            await client.wait(child, timeout=120)

    runs = (await client.get_task(child)).runs
    assert [(run.state, (run.error or {})["type"]) for run in runs] == [("failed", FilesMissing.__name__)] * 2
