"""The database neither answers nor hangs up: a worker that is told to stop leaves all the same."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from faults.proxy import Proxy

from absurd.config import Settings
from absurd.workers import AbsurdWorker
from absurd.workers import worker as worker_module


@pytest.mark.parametrize("answer", [60.0, 2.0])
async def test_a_worker_leaves_a_database_that_is_silent(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: float
) -> None:
    """Its rounds, its beats and its farewell wait for answers that never come; none of them holds it up for ever."""
    monkeypatch.setattr(worker_module, "LAST_WORD_SECONDS", 1.0)
    monkeypatch.setattr(worker_module, "ANSWER_SECONDS", answer)
    proxy = Proxy(settings.database_url or "", tmp_path / "proxy")
    try:
        worker = AbsurdWorker(settings=replace(settings, database_url=proxy.url, worker_lease=3.0))
        runner = asyncio.create_task(worker.run())
        async with asyncio.timeout(60):
            while worker._pump is None or not worker._pump.listening:
                await asyncio.sleep(0.01)
            proxy.freeze()
            if answer == 60.0:  # told to stop
                await worker.stop(grace=0)
                await runner
            else:  # given up by itself: it comes back under a new number once the network does
                lost = worker.id
                while not worker._lost:
                    await asyncio.sleep(0.01)
                proxy.resume()
                while worker.id == lost:
                    await asyncio.sleep(0.01)
                await worker.stop(grace=5)
                await runner
    finally:
        proxy.close()
