"""Slots without a worker and a database around them, for tests of what runs do to their processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hostile_executors
import slot_executors
from memory_port import MemoryPort, claim_of

from absurd.config import load_settings
from absurd.executor import registry
from absurd.outcome import Completed, Failed, Outcome
from absurd.scratch import ScratchSpace
from absurd.workers.slots import Slots


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Place:
    """Slots of their own, and what they are asked."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.port = MemoryPort()
        self.port.scratch = ScratchSpace(folder / "scratch")
        self.slots = Slots(
            concurrency=4,
            settings=load_settings(environ={}, home=folder, **settings),
            modules=[slot_executors.__name__, hostile_executors.__name__],
            port=self.port,
        )

    async def run(self, name: str, params: Any = None, **claim: Any) -> Outcome | None:
        return await self.slots.run(claim_of(name, params, **claim), registry.require(name))

    async def failed(self, name: str, params: Any = None, **claim: Any) -> dict[str, Any]:
        outcome = await self.run(name, params, **claim)
        assert isinstance(outcome, Failed), outcome
        return outcome.error

    async def value(self, name: str, params: Any = None, **claim: Any) -> Any:
        outcome = await self.run(name, params, **claim)
        assert isinstance(outcome, Completed), outcome
        return json.loads(outcome.result or "null")
